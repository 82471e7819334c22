package gates

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"

	"github.com/prometheus/common/model"

	"github.com/groundswell/groundswell/deploy"
)

// mostHosts bounds the hosts of one side of a comparison: what more would add to
// the evidence is little, and the query would grow with the fleet.
const mostHosts = 400

// compare asks for the evidence of both sides since the start and compares it.
func (s *sources) compare(ctx context.Context, q *deploy.Question, out *deploy.Observation) error {
	g := q.Gate.Compare
	out.Question = "compare " + g.Metric + " by " + g.Test
	if s.prometheus == nil {
		return errNoPrometheus
	}
	mine, theirs := spread(q.Candidates, mostHosts), spread(q.Baseline, mostHosts)
	switch {
	case len(mine) == 0:
		return errors.New("no host runs the new revision")
	case len(theirs) == 0:
		return errors.New("no host is left that runs another revision")
	}
	over := spanOf(q, out)
	out.Question += fmt.Sprintf(": %d hosts against %d", len(mine), len(theirs))
	effect := g.Effect
	if effect == 0 {
		effect = deploy.DefaultEffect(g.Test)
	}
	test := s.compareErrors
	if g.Test == deploy.TestMannWhitney {
		test = s.compareLatency
	}
	result, p, err := test(ctx, q, sides{mine, theirs, over, effect})
	if err != nil {
		return err
	}
	out.Value, out.Threshold, out.Samples = result.Value, result.Threshold, result.Samples
	switch {
	case len(p.missing) > 0 && result.Verdict != deploy.VerdictFail:
		return errors.New(p.text())
	case out.Samples < q.Gate.MinSamples:
		out.Few = len(p.missing) == 0
		return fmt.Errorf("%d samples since the start, %d are needed", out.Samples, q.Gate.MinSamples)
	}
	out.Answer, out.Final, out.Detail = result.Verdict, result.Final, result.Detail
	if out.Few = result.Verdict == deploy.VerdictInconclusive; len(p.missing) > 0 {
		out.Detail += "; " + p.text()
	}
	return nil
}

// sides are whom a comparison asks about.
type sides struct {
	mine, theirs []string
	over         span
	effect       int64
}

// compareErrors compares the shares of requests that fail.
func (s *sources) compareErrors(ctx context.Context, q *deploy.Question, of sides) (deploy.Comparison, present, error) {
	a, there, err1 := s.counts(ctx, q, of.mine, of.over)
	b, _, err2 := s.counts(ctx, q, of.theirs, of.over)
	if err := errors.Join(err1, err2); err != nil {
		return deploy.Comparison{}, present{}, err
	}
	return deploy.CompareErrors(a, b, of.effect, q.Comparisons), presentIn(q.Metric.Total, of.mine, there), nil
}

// compareLatency compares values.
func (s *sources) compareLatency(ctx context.Context, q *deploy.Question,
	of sides,
) (deploy.Comparison, present, error) {
	a, there, err1 := s.values(ctx, q, q.Metric.Samples, of.mine, of.over)
	b, _, err2 := s.values(ctx, q, q.Metric.Samples, of.theirs, of.over)
	if err := errors.Join(err1, err2); err != nil {
		return deploy.Comparison{}, present{}, err
	}
	return deploy.CompareLatency(a, b, of.effect, q.Comparisons), presentIn(q.Metric.Samples, of.mine, there), nil
}

// hostMatcher finds the label by which a query of a metric selects hosts.
var hostMatcher = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*=~\s*["']\{\{\s*\.?Hosts\s*\}\}`)

// presentIn finds out which hosts have no series in the answer to a query of a
// metric. A query that aggregates cannot say.
func presentIn(query string, hosts []string, there model.Matrix) present {
	p := present{label: defaultHostLabel, of: len(hosts)}
	if m := hostMatcher.FindStringSubmatch(query); m != nil {
		p.label = model.LabelName(m[1])
	}
	var answer []model.Metric
	for _, one := range there {
		answer = append(answer, one.Metric)
	}
	if slices.ContainsFunc(answer, p.carries) {
		p.missing = absent(hosts, answer, p.label)
	}
	return p
}

// spread takes at most n of the names, evenly over their order.
func spread(names []string, n int) []string {
	if len(names) <= n {
		return names
	}
	names = slices.Sorted(slices.Values(names))
	out := make([]string, 0, n)
	for i := range n {
		out = append(out, names[i*len(names)/n])
	}
	return out
}

// counts returns requests and errors of one side in steps since the start, and
// the series that count requests.
func (s *sources) counts(
	ctx context.Context, q *deploy.Question, hosts []string, over span,
) ([]deploy.Counts, model.Matrix, error) {
	total, there, err := s.increases(ctx, q, q.Metric.Total, hosts, over)
	if err != nil {
		return nil, nil, fmt.Errorf("metrics.%s.total: %w", q.Metric.Name, err)
	}
	bad, _, err := s.increases(ctx, q, q.Metric.Bad, hosts, over)
	if err != nil {
		return nil, nil, fmt.Errorf("metrics.%s.bad: %w", q.Metric.Name, err)
	}
	out := make([]deploy.Counts, len(total))
	for i := range out {
		out[i] = deploy.Counts{Requests: int64(math.Round(total[i])), Errors: int64(math.Round(bad[i]))}
	}
	return out, there, nil
}

// increases sums up how much the counters of a query grew in each step. A
// counter that falls was reset and counts from 0, as does one that appears after
// the start.
func (s *sources) increases(
	ctx context.Context, q *deploy.Question, query string, hosts []string, over span,
) ([]float64, model.Matrix, error) {
	step := over.step(errorStep)
	out := make([]float64, over.to.Sub(over.from)/step)
	text, err := expand(query, q, hosts)
	if err != nil {
		return nil, nil, err
	}
	series, err := s.steps(ctx, text, over, step)
	if err != nil {
		return nil, nil, err
	}
	for _, one := range series {
		last := 0.0
		for _, p := range one.Values {
			at, v := int(p.Timestamp.Time().Sub(over.from)/step), float64(p.Value)
			if math.IsNaN(v) || at > len(out) {
				continue
			}
			if at > 0 {
				out[at-1] += growth(last, v)
			}
			last = v
		}
	}
	return out, series, nil
}

func growth(last, v float64) float64 {
	if v < last {
		return v
	}
	return v - last
}

// values returns what a query of values says of one side, and the series that say
// it: each scrape of a plain series, else one value a step.
func (s *sources) values(
	ctx context.Context, q *deploy.Question, query string, hosts []string, over span,
) ([]deploy.Sample, model.Matrix, error) {
	series, err := s.scrapes(ctx, q, query, hosts, over)
	if err != nil {
		return nil, nil, fmt.Errorf("metrics.%s.samples: %w", q.Metric.Name, err)
	}
	var out []deploy.Sample
	for _, one := range series {
		for _, p := range one.Values {
			if at := p.Timestamp.Time(); at.After(over.from) { // what holds at the start was scraped before
				out = append(out, deploy.Sample{At: at.UnixMilli(), Value: float64(p.Value)})
			}
		}
	}
	return out, series, nil
}

func (s *sources) scrapes(
	ctx context.Context, q *deploy.Question, query string, hosts []string, over span,
) (model.Matrix, error) {
	text, err := expand(query, q, hosts)
	if err != nil {
		return nil, err
	}
	if !selector.MatchString(text) || over.to.Sub(over.from) > rawRange {
		return s.steps(ctx, text, over, over.step(valueStep))
	}
	return matrix(s.instant(ctx, text+"["+over.text()+"]", over.to))
}
