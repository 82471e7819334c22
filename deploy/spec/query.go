package spec

import (
	"cmp"
	"slices"
	"strings"
	"time"

	promql "github.com/prometheus/prometheus/promql/parser"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/config"
)

// defaultHostLabel is the label by which coordinators know hosts where a gate
// names none.
const defaultHostLabel = "instance"

// query reads a gate that asks Prometheus; path is the gate's.
func (p *parser) query(path string, f *gateFile) *deploy.QueryGate {
	q := &deploy.QueryGate{Query: f.Prometheus, Max: f.Max, Min: f.Min, HostLabel: f.HostLabel, Presence: f.Presence}
	p.filled(path+".prometheus", f.Prometheus, `errors:rate1m{host="{{.Host}}"}`)
	asks := p.promQL(path+".prometheus", f.Prometheus, "a gate needs numbers", promql.ValueTypeScalar,
		promql.ValueTypeVector)
	if p.doc.Has(path + ".presence") {
		p.filled(path+".presence", f.Presence, `up{host=~"{{.Hosts}}"} == 1`)
	}
	names, at := asks, ".prometheus" // the query whose series name the hosts
	if f.Presence != "" {
		at = ".presence"
		names = p.promQL(path+at, f.Presence, "presence needs series that name hosts", promql.ValueTypeVector)
	}
	if asks == nil || names == nil {
		return q
	}
	if q.Window = lookBack(asks); p.doc.Has(path + ".window") {
		q.Window = p.lookBackKey(path+".window", f.Window)
	}
	if label := hostLabelOf(names); f.HostLabel == "" && carries(names, label) {
		q.HostLabel = label
	}
	if label := cmp.Or(q.HostLabel, defaultHostLabel); (f.HostLabel != "" || f.Presence != "") &&
		!carries(names, label) {
		p.doc.Errorf(path+at, "gives no series with the label %s, by which hosts are known; keep it, as in by (%s), "+
			"or name another hostLabel", label, label)
	}
	return q
}

// lookBackKey reads the window of a query; with a gate that is a window the key
// means something else.
func (p *parser) lookBackKey(path, text string) time.Duration {
	d, err := config.ParseDuration(text)
	if err != nil {
		p.doc.Errorf(path, "of a query is how far it looks back: %v; times of the day are a gate of their own", err)
	}
	return d
}

// promQL parses a query; nil if there is none, or it is told why not.
func (p *parser) promQL(path, text, needs string, legal ...promql.ValueType) promql.Expr {
	if strings.TrimSpace(text) == "" || !p.doc.Clean(path) {
		return nil
	}
	expr, err := readQuery(text)
	switch {
	case err != nil:
		p.doc.Errorf(path, "%v", err)
		return nil
	case expr != nil && !slices.Contains(legal, expr.Type()):
		p.doc.Errorf(path, "gives a %s; %s", promql.DocumentedType(expr.Type()), needs)
		return nil
	}
	return expr
}

// doubtQuery reports what a query gate cannot notice. A gate that waves bake on
// must know how far it looks back.
func (p *parser) doubtQuery(path string, g *deploy.Gate, baked bool, warn func(path, format string, args ...any)) {
	q := g.Query
	fields, _ := deploy.TemplateFields(q.Query)
	for _, one := range []struct{ scope, field string }{{deploy.ScopeHost, "Host"}, {deploy.ScopeZone, "Zone"}} {
		if g.Scope == one.scope && !slices.Contains(fields, one.field) && !slices.Contains(fields, "Hosts") {
			warn(path+".prometheus", "asks the same for every %s; name it, as in {%s=\"{{.%s}}\"}", one.scope,
				one.scope, one.field)
		}
	}
	expr, err := readQuery(q.Query)
	if err != nil || expr == nil {
		return
	}
	if back := lookBack(expr); q.Window < back {
		warn(path+".window", "is shorter than the %s that the query looks back, so it judges what was before the wave",
			config.FormatDuration(back))
	}
	if name := unknownRange(expr); name != "" && baked && !p.doc.Has(path+".window") {
		warn(path+".prometheus",
			"reads %s, whose name does not say how far it looks back; write window: 5m, or 0s if it does not", name)
	}
	ofOne := g.Scope == deploy.ScopeHost && slices.Contains(fields, "Host")
	if label := cmp.Or(q.HostLabel, defaultHostLabel); q.Presence == "" && !ofOne && !carries(expr, label) {
		warn(path+".prometheus", "is an aggregate, which passes though hosts are missing in it; keep their label, as "+
			"in by (host), or add presence, as in up{host=~\"{{.Hosts}}\"} == 1")
	}
}
