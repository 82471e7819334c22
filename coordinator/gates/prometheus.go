package gates

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
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

// instant returns the value of an expression at a moment.
func (s *sources) instant(ctx context.Context, text string, at time.Time) (model.Value, error) {
	v, warnings, err := s.prometheus.Query(ctx, text, at)
	return v, whole(warnings, err)
}

// steps returns the values of an expression in steps.
func (s *sources) steps(ctx context.Context, text string, over span, step time.Duration) (model.Matrix, error) {
	v, warnings, err := s.prometheus.QueryRange(ctx, text, prometheus.Range{Start: over.from, End: over.to, Step: step})
	return matrix(v, whole(warnings, err))
}

// whole refuses an answer that Prometheus warns about: a part of the data did
// not answer, or what did is not what the query takes it for. Servers before 2.53
// send hints about names among the warnings; those say nothing about the data.
func whole(warnings prometheus.Warnings, err error) error {
	if err != nil {
		return fmt.Errorf("query: %w", reason(err))
	}
	hint := func(text string) bool { return strings.HasPrefix(text, "PromQL info:") }
	if told := slices.DeleteFunc(slices.Clone(warnings), hint); len(told) > 0 {
		return fmt.Errorf("perhaps half an answer, Prometheus warns: %s", strings.Join(told, "; "))
	}
	return nil
}

func matrix(v model.Value, err error) (model.Matrix, error) {
	if err != nil {
		return nil, err
	}
	m, ok := v.(model.Matrix)
	if !ok {
		return nil, fmt.Errorf("the query gives a %s; a comparison needs series", v.Type())
	}
	return m, nil
}
