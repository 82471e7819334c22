package gates

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/groundswell/groundswell/deploy"
)

var errNoPrometheus = errors.New("no Prometheus to ask; set gates.prometheus in the configuration of every coordinator")

// selector is a query that is nothing but a series' name and labels: its samples
// in a range can be counted, and read as they were scraped.
var selector = regexp.MustCompile(`^\s*[a-zA-Z_:][a-zA-Z0-9_:]*\s*(\{[^{}]*\})?\s*$`)

// Steps of expressions, whose values exist at any moment. Values of an
// expression are taken a minute apart, because most look back for that long.
const (
	countStep = 15 * time.Second
	errorStep = time.Second
	valueStep = time.Minute
	rawRange  = time.Hour // samples are read as they are scraped for so long, then by steps
	mostSteps = 720       // of one question; longer ranges take longer steps
)

// span is the range of a question.
type span struct{ from, to time.Time }

// spanOf is what an answer may speak of: nothing from before q.Since, and the
// last five minutes where nothing has begun.
func spanOf(q *deploy.Question, out *deploy.Observation) span {
	s := span{time.UnixMilli(q.Since), time.UnixMilli(out.To)}
	if q.Since <= 0 {
		s.from = s.to.Add(-5 * time.Minute)
	}
	if s.from.After(s.to) {
		s.from = s.to
	}
	out.From = s.from.UnixMilli()
	return s
}

// text is the range as PromQL writes it.
func (s span) text() string { return fmt.Sprintf("%dms", max(1, s.to.Sub(s.from).Milliseconds())) }

// step is that step, or a longer one where the range is long.
func (s span) step(least time.Duration) time.Duration {
	return max(least, s.to.Sub(s.from)/mostSteps).Truncate(time.Second)
}

func fieldsOf(q *deploy.Question, hosts []string) deploy.Fields {
	return deploy.Fields{
		App: q.App, Group: q.Group, Wave: q.WaveName, Zone: q.Zone, Host: q.Host,
		Revision: q.Revision, Base: q.Base, Hosts: hosts,
	}
}

// query asks for the value of an expression now, and counts what it rests on
// since the start: scrapes of a plain series, else steps of 15 seconds at which
// the expression had a value. Every value must be within the bounds.
func (s *sources) query(ctx context.Context, q *deploy.Question, out *deploy.Observation) error {
	g := q.Gate.Query
	out.Question, out.Threshold = g.Query, bounds(g)
	text, err := expand(g.Query, q, q.Candidates)
	if err != nil {
		return err
	}
	out.Question = text
	if s.prometheus == nil {
		return errNoPrometheus
	}
	over := spanOf(q, out)
	if out.Samples, err = s.count(ctx, text, over); err != nil {
		return err
	}
	value, _, err := s.prometheus.Query(ctx, text, over.to)
	if err != nil {
		return fmt.Errorf("query: %w", reason(err))
	}
	values, err := numbers(value)
	if err != nil {
		return err
	}
	least := max(1, q.Gate.MinSamples)
	switch {
	case len(values) == 0:
		return errors.New("no data")
	case out.Samples < least:
		out.Value = worst(values, g)
		return fmt.Errorf("%d samples since the start, %d are needed", out.Samples, least)
	}
	out.Value = worst(values, g)
	out.Answer = judge(values, g)
	if out.Answer == deploy.VerdictInconclusive {
		out.Detail = "a value is no number"
	}
	return nil
}

// expand fills a query in. A query that names hosts needs some.
func expand(query string, q *deploy.Question, hosts []string) (string, error) {
	names, err := deploy.TemplateFields(query)
	if err != nil {
		return "", err
	}
	if len(hosts) == 0 && slices.Contains(names, "Hosts") {
		return "", errors.New("no host to ask about")
	}
	return deploy.Expand(query, fieldsOf(q, hosts))
}

func (s *sources) count(ctx context.Context, text string, over span) (int, error) {
	counted := fmt.Sprintf("max(count_over_time((%s)[%s:%s]))", text, over.text(), over.step(countStep))
	if selector.MatchString(text) {
		counted = fmt.Sprintf("max(count_over_time(%s[%s]))", text, over.text())
	}
	value, _, err := s.prometheus.Query(ctx, counted, over.to)
	if err != nil {
		return 0, fmt.Errorf("count samples: %w", reason(err))
	}
	values, err := numbers(value)
	if err != nil || len(values) == 0 {
		return 0, err
	}
	return int(values[0]), nil
}

// numbers returns the values of a vector or scalar.
func numbers(v model.Value) ([]float64, error) {
	switch v := v.(type) {
	case model.Vector:
		var out []float64
		for _, s := range v {
			if s.Histogram != nil {
				return nil, errors.New("the query gives histograms; take a quantile of them")
			}
			out = append(out, float64(s.Value))
		}
		return out, nil
	case *model.Scalar:
		return []float64{float64(v.Value)}, nil
	}
	return nil, fmt.Errorf("the query gives a %s; a gate needs numbers", v.Type())
}

// limits returns the bounds of a gate, which the config has checked.
func limits(g *deploy.QueryGate) (least, most float64) {
	least, most = math.Inf(-1), math.Inf(1)
	if f, err := strconv.ParseFloat(g.Min, 64); err == nil {
		least = f
	}
	if f, err := strconv.ParseFloat(g.Max, 64); err == nil {
		most = f
	}
	return least, most
}

func bounds(g *deploy.QueryGate) string {
	var parts []string
	if g.Min != "" {
		parts = append(parts, "min "+g.Min)
	}
	if g.Max != "" {
		parts = append(parts, "max "+g.Max)
	}
	return strings.Join(parts, ", ")
}

// judge fails on one value out of bounds; without one, a value that is no number
// leaves the answer open.
func judge(values []float64, g *deploy.QueryGate) deploy.Verdict {
	least, most := limits(g)
	out := deploy.VerdictPass
	for _, v := range values {
		switch {
		case v < least || v > most:
			return deploy.VerdictFail
		case math.IsNaN(v):
			out = deploy.VerdictInconclusive
		}
	}
	return out
}

// worst is the value that decides, as text: the one farthest out, else the one
// nearest to a bound.
func worst(values []float64, g *deploy.QueryGate) string {
	least, most := limits(g)
	value := slices.MaxFunc(values, func(a, b float64) int {
		over := func(v float64) float64 { return max(v-most, least-v) }
		switch x, y := over(a), over(b); {
		case math.IsNaN(x) || x < y:
			return -1
		case math.IsNaN(y) || x > y:
			return 1
		}
		return 0
	})
	text := strconv.FormatFloat(value, 'g', 6, 64)
	if len(values) > 1 {
		text += fmt.Sprintf(", the worst of %d", len(values))
	}
	return text
}

// mostHosts bounds the hosts of one side of a comparison: what more would add to
// the evidence is little, and the query would grow with the fleet.
const mostHosts = 400

// compare asks for the evidence of both sides since the start and compares it.
func (s *sources) compare(ctx context.Context, q *deploy.Question, out *deploy.Observation) error {
	g, m := q.Gate.Compare, q.Metric
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
	var result deploy.Comparison
	if g.Test == deploy.TestMannWhitney {
		a, err1 := s.values(ctx, q, m.Samples, mine, over)
		b, err2 := s.values(ctx, q, m.Samples, theirs, over)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		result = deploy.CompareLatency(a, b, effect)
	} else {
		a, err1 := s.counts(ctx, q, mine, over)
		b, err2 := s.counts(ctx, q, theirs, over)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		result = deploy.CompareErrors(a, b, effect)
	}
	out.Answer, out.Final = result.Verdict, result.Final
	out.Value, out.Threshold, out.Detail, out.Samples = result.Value, result.Threshold, result.Detail, result.Samples
	if out.Samples < q.Gate.MinSamples {
		return fmt.Errorf("%d samples since the start, %d are needed", out.Samples, q.Gate.MinSamples)
	}
	return nil
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

// counts returns requests and errors of one side in steps since the start.
func (s *sources) counts(ctx context.Context, q *deploy.Question, hosts []string, over span) ([]deploy.Counts, error) {
	total, err := s.increases(ctx, q, q.Metric.Total, hosts, over)
	if err != nil {
		return nil, fmt.Errorf("metrics.%s.total: %w", q.Metric.Name, err)
	}
	bad, err := s.increases(ctx, q, q.Metric.Bad, hosts, over)
	if err != nil {
		return nil, fmt.Errorf("metrics.%s.bad: %w", q.Metric.Name, err)
	}
	out := make([]deploy.Counts, len(total))
	for i := range out {
		out[i] = deploy.Counts{Requests: int64(math.Round(total[i])), Errors: int64(math.Round(bad[i]))}
	}
	return out, nil
}

// increases sums up how much the counters of a query grew in each step. A
// counter that falls was reset and counts from 0, as does one that appears after
// the start.
func (s *sources) increases(ctx context.Context, q *deploy.Question, query string, hosts []string, over span) ([]float64, error) {
	step := over.step(errorStep)
	out := make([]float64, over.to.Sub(over.from)/step)
	text, err := expand(query, q, hosts)
	if err != nil {
		return nil, err
	}
	series, err := s.steps(ctx, text, over, step)
	if err != nil {
		return nil, err
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
	return out, nil
}

func growth(last, v float64) float64 {
	if v < last {
		return v
	}
	return v - last
}

// values returns what a query of values says of one side: each scrape of a plain
// series, else one value a step.
func (s *sources) values(ctx context.Context, q *deploy.Question, query string, hosts []string, over span) ([]deploy.Sample, error) {
	series, err := s.scrapes(ctx, q, query, hosts, over)
	if err != nil {
		return nil, fmt.Errorf("metrics.%s.samples: %w", q.Metric.Name, err)
	}
	var out []deploy.Sample
	for _, one := range series {
		for _, p := range one.Values {
			if at := p.Timestamp.Time(); at.After(over.from) { // what holds at the start was scraped before
				out = append(out, deploy.Sample{At: at.UnixMilli(), Value: float64(p.Value)})
			}
		}
	}
	return out, nil
}

func (s *sources) scrapes(ctx context.Context, q *deploy.Question, query string, hosts []string, over span) (model.Matrix, error) {
	text, err := expand(query, q, hosts)
	if err != nil {
		return nil, err
	}
	if !selector.MatchString(text) || over.to.Sub(over.from) > rawRange {
		return s.steps(ctx, text, over, over.step(valueStep))
	}
	v, _, err := s.prometheus.Query(ctx, text+"["+over.text()+"]", over.to)
	return matrix(v, err)
}

func (s *sources) steps(ctx context.Context, text string, over span, step time.Duration) (model.Matrix, error) {
	v, _, err := s.prometheus.QueryRange(ctx, text, prometheus.Range{Start: over.from, End: over.to, Step: step})
	return matrix(v, err)
}

func matrix(v model.Value, err error) (model.Matrix, error) {
	if err != nil {
		return nil, fmt.Errorf("query: %w", reason(err))
	}
	m, ok := v.(model.Matrix)
	if !ok {
		return nil, fmt.Errorf("the query gives a %s; a comparison needs series", v.Type())
	}
	return m, nil
}
