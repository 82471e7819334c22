package gates

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/groundswell/groundswell/deploy"
)

// series is one value of an answer and what it rests on.
type series struct {
	labels  model.Metric
	value   float64
	samples int // since the start; 0: the value is from before
}

// query asks for the value of an expression now, and counts what it rests on
// since the start: scrapes of a plain series, else steps of 15 seconds at which
// the expression had a value. Every host that the question is about must be in
// the answer with enough samples, and every value within the bounds. A value
// that speaks of one host and is out of bounds fails whoever else is missing.
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
	if err := oldEnough(q, over); err != nil {
		return err
	}
	answer, err := s.series(ctx, text, over)
	if err != nil {
		return err
	}
	if len(answer) == 0 {
		return errors.New("no data")
	}
	present, err := s.presence(ctx, q, answer, over.to)
	if err != nil {
		return err
	}
	return conclude(q, answer, present, out)
}

// clockSlack is how much the clocks of two leaders may differ before an answer
// is held back.
const clockSlack = time.Second

// oldEnough refuses to ask while the query would look at what was before the
// wave. The core waits for that by its own time, which the clock on the wall need
// not agree with.
func oldEnough(q *deploy.Question, over span) error {
	window, age := q.Gate.Query.Window, over.to.Sub(over.from)
	if q.Since > 0 && len(q.Candidates) > 0 && age+clockSlack < window {
		return fmt.Errorf("the query looks back %s, and the evidence begins %s ago", window, age)
	}
	return nil
}

// series returns the values of an expression now, each with the samples that it
// has had since the start.
func (s *sources) series(ctx context.Context, text string, over span) ([]series, error) {
	value, err := s.instant(ctx, text, over.to)
	if err != nil {
		return nil, err
	}
	if value.Type() == model.ValScalar {
		text = "vector(" + text + ")"
	}
	out, err := numbers(value)
	if err != nil {
		return nil, err
	}
	samples, err := s.count(ctx, text, over)
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].samples = samples[named(out[i].labels)]
	}
	return out, nil
}

// count returns how many samples each series of an expression has.
func (s *sources) count(ctx context.Context, text string, over span) (map[model.Fingerprint]int, error) {
	counted := fmt.Sprintf("count_over_time((%s)[%s:%s])", text, over.text(), over.step(countStep))
	if selector.MatchString(text) {
		counted = fmt.Sprintf("count_over_time(%s[%s])", text, over.text())
	}
	value, err := s.instant(ctx, counted, over.to)
	if err != nil {
		return nil, fmt.Errorf("count samples: %w", err)
	}
	counts, err := numbers(value)
	if err != nil {
		return nil, err
	}
	out := map[model.Fingerprint]int{}
	for _, one := range counts {
		out[named(one.labels)] = int(one.value)
	}
	return out, nil
}

// named is who a series is apart from its metric's name, which functions drop.
func named(labels model.Metric) model.Fingerprint {
	labels = labels.Clone()
	delete(labels, model.MetricNameLabel)
	return labels.Fingerprint()
}

// numbers returns the values of a vector or scalar.
func numbers(v model.Value) ([]series, error) {
	switch v := v.(type) {
	case model.Vector:
		var out []series
		for _, s := range v {
			if s.Histogram != nil {
				return nil, errors.New("the query gives histograms; take a quantile of them")
			}
			out = append(out, series{labels: s.Metric, value: float64(s.Value)})
		}
		return out, nil
	case *model.Scalar:
		return []series{{value: float64(v.Value)}}, nil
	}
	return nil, fmt.Errorf("the query gives a %s; a gate needs numbers", v.Type())
}

// conclude judges an answer.
func conclude(q *deploy.Question, answer []series, p present, out *deploy.Observation) error {
	g, need := q.Gate.Query, max(1, q.Gate.MinSamples)
	var samples map[string]int
	samples, out.Samples = p.samples(answer)
	var all, enough, single []float64 // single: of one host each, so that others make no difference
	for _, one := range answer {
		all = append(all, one.value)
		if one.samples == 0 || samples[p.key(one.labels)] < need {
			continue
		}
		enough = append(enough, one.value)
		if p.carries(one.labels) || len(p.missing) == 0 {
			single = append(single, one.value)
		}
	}
	out.Value = worst(all, g)
	switch {
	case judge(single, g) == deploy.VerdictFail:
		out.Answer, out.Value, out.Detail = deploy.VerdictFail, worst(single, g), p.text()
	case len(p.missing) > 0:
		return errors.New(p.text())
	case out.Samples < need:
		out.Few = true
		return fmt.Errorf("%d samples since the start, %d are needed", out.Samples, need)
	case judge(enough, g) == deploy.VerdictInconclusive:
		return errors.New("a value is no number")
	default:
		out.Answer, out.Value, out.Detail = deploy.VerdictPass, worst(enough, g), p.text()
	}
	return nil
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
