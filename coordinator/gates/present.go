package gates

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/groundswell/groundswell/deploy"
)

// defaultHostLabel holds a host's name, as a rule with a port, where nothing else
// is said.
const defaultHostLabel = "instance"

// present is who an answer speaks of.
type present struct {
	label   model.LabelName // that holds hosts' names
	missing []string        // hosts that the question is about and the answer is not, in order
	of      int             // how many it is about
	unknown bool            // an aggregate, of several hosts, that cannot say
}

// presence finds out which hosts are missing in an answer: in its own series,
// where those name hosts or should, and in those of the gate's presence query.
func (s *sources) presence(ctx context.Context, q *deploy.Question, answer []series, at time.Time) (present, error) {
	g := q.Gate.Query
	p := present{label: model.LabelName(cmp.Or(g.HostLabel, defaultHostLabel)), of: len(q.Candidates)}
	own := metricsOf(answer)
	carried := slices.ContainsFunc(own, p.carries)
	if carried || g.HostLabel != "" && g.Presence == "" {
		p.missing = absent(q.Candidates, own, p.label)
	}
	if g.Presence == "" {
		p.unknown = !carried && g.HostLabel == "" && p.of > 1
		return p, nil
	}
	text, err := expand(g.Presence, q, q.Candidates)
	if err != nil {
		return p, fmt.Errorf("presence: %w", err)
	}
	value, err := s.instant(ctx, text, at)
	if err != nil {
		return p, fmt.Errorf("presence: %w", err)
	}
	there, err := numbers(value)
	if err != nil {
		return p, fmt.Errorf("presence: %w", err)
	}
	p.missing = append(p.missing, absent(q.Candidates, metricsOf(there), p.label)...)
	slices.Sort(p.missing)
	p.missing = slices.Compact(p.missing)
	return p, nil
}

func metricsOf(answer []series) []model.Metric {
	var out []model.Metric
	for _, one := range answer {
		out = append(out, one.labels)
	}
	return out
}

// carries reports whether a series names its host.
func (p present) carries(labels model.Metric) bool { return labels[p.label] != "" }

// key is the host of a series, or the series itself where it names none.
func (p present) key(labels model.Metric) string {
	if p.carries(labels) {
		return string(labels[p.label])
	}
	return labels.String()
}

// samples counts, by key, how often a host was sampled since the start: the most
// of its series, because one may be new. The least over all keys is what a gate's
// minSamples means.
func (p present) samples(answer []series) (by map[string]int, least int) {
	by, least = map[string]int{}, math.MaxInt
	for _, one := range answer {
		key := p.key(one.labels)
		by[key] = max(by[key], one.samples)
	}
	for _, n := range by {
		least = min(least, n)
	}
	return by, least
}

// absent lists the hosts, in order, that no series names: by the value of its
// label, with or without a port.
func absent(hosts []string, answer []model.Metric, label model.LabelName) []string {
	there := map[string]bool{}
	for _, labels := range answer {
		value := string(labels[label])
		there[value] = true
		if host, _, err := net.SplitHostPort(value); err == nil {
			there[host] = true
		}
	}
	var out []string
	for _, host := range hosts {
		if !there[host] {
			out = append(out, host)
		}
	}
	slices.Sort(out)
	return out
}

// mostNamed bounds the missing hosts that evidence names.
const mostNamed = 5

// text says who is missing, or that nobody knows; "" is that everybody is there.
func (p present) text() string {
	if p.unknown {
		return "an aggregate does not say which hosts are in it"
	}
	n := len(p.missing)
	if n == 0 {
		return ""
	}
	names := strings.Join(p.missing[:min(n, mostNamed)], ", ")
	if n > mostNamed {
		names += fmt.Sprintf(" and %d more", n-mostNamed)
	}
	return fmt.Sprintf("%d of %d hosts are not in the answer by their label %s: %s", n, p.of, p.label, names)
}
