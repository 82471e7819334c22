package spec

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // dctl runs where no time zones are installed

	promql "github.com/prometheus/prometheus/promql/parser"

	"github.com/groundswell/groundswell/deploy"
)

func (p *parser) gates(path string, gates map[string]*gateFile) []deploy.Gate {
	var out []deploy.Gate
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		at, g := path+"."+name, gates[name]
		if !nameForm.MatchString(name) {
			p.doc.Errorf(at, "%q is no name of a gate; %s", name, nameRule)
		}
		if g != nil && p.doc.Clean(at) {
			out = append(out, p.gate(at, name, g))
		}
	}
	return out
}

// gateKeys are the questions of which a gate asks exactly one.
var gateKeys = []string{"probe", "prometheus", "compare", "webhook", "window", "approval"}

func (p *parser) gate(path, name string, f *gateFile) deploy.Gate {
	out := deploy.Gate{
		Name: name, Scope: f.Scope, Webhook: f.Webhook,
		MinSamples: f.MinSamples, FailLimit: f.FailLimit, Interval: f.Interval,
	}
	asked := p.asked(path)
	if len(asked) != 1 {
		p.doc.Errorf(path, "asks %d questions; give exactly one of %s", len(asked), strings.Join(gateKeys, ", "))
		return out
	}
	for _, one := range []struct{ key, does string }{
		{"max", "bounds the value of a query"},
		{"min", "bounds the value of a query"},
		{"hostLabel", "names hosts in the answer to a query"},
		{"presence", "names hosts in the answer to a query"},
	} {
		if p.doc.Has(path+"."+one.key) && asked[0] != "prometheus" {
			p.doc.Errorf(path+"."+one.key, "%s, and a %s has none; remove it", one.does, asked[0])
		}
	}
	if p.doc.Has(path+".interval") && f.Interval == 0 {
		p.doc.Errorf(path+".interval", "asks without a pause; use at least 1s")
	}
	p.question(path, asked[0], &out, f)
	return out
}

// asked lists the questions of a gate. The window of a query is none.
func (p *parser) asked(path string) []string {
	query := p.doc.Has(path + ".prometheus")
	return slices.DeleteFunc(slices.Clone(gateKeys), func(key string) bool {
		return !p.doc.Has(path+"."+key) || key == "window" && query
	})
}

// question reads the part of a gate that says what it asks.
func (p *parser) question(path, key string, out *deploy.Gate, f *gateFile) {
	at := path + "." + key
	switch key {
	case "probe":
		out.Probe = p.probe(at, f.Probe)
	case "prometheus":
		out.Query = p.query(path, f)
	case "compare":
		out.Compare = &deploy.CompareGate{
			Metric: f.Compare.Metric, Test: f.Compare.Test,
			Effect: int64(f.Compare.Effect),
		}
		if out.Compare.Effect == 0 {
			out.Compare.Effect = deploy.DefaultEffect(f.Compare.Test)
		}
	case "webhook":
		p.webhook(at, f.Webhook)
	case "window":
		out.Window = f.Window
		p.window(at, f.Window)
	case "approval":
		out.Approval = &deploy.ApprovalGate{
			Group: f.Approval.Group, Count: f.Approval.Count,
			Timeout: f.Approval.Timeout,
		}
		p.longEnough(at+".timeout", f.Approval.Timeout)
	}
}

func (p *parser) filled(path, text, example string) {
	if strings.TrimSpace(text) == "" {
		p.doc.Errorf(path, "asks nothing; write for instance %s", example)
	}
}

func (p *parser) webhook(path, text string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		p.doc.Errorf(path, "%q is no URL; write for instance https://ci.example/groundswell", text)
	case u.User != nil:
		p.doc.Errorf(path, "holds credentials, which everybody could read here; coordinators sign with the secret of their own configuration")
	}
}

// window checks the form and the time zones; when it is open is asked later.
func (p *parser) window(path, text string) {
	parts, err := deploy.ParseWindow(text)
	if err != nil {
		p.doc.Errorf(path, "%v", err)
		return
	}
	for _, one := range parts {
		if _, err := time.LoadLocation(one.Zone); err != nil || one.Zone == "Local" {
			p.doc.Errorf(path, "%q is no time zone that every coordinator knows; write for instance Europe/Rome or UTC",
				one.Zone)
			return
		}
	}
}

func (p *parser) metrics(path string, metrics map[string]*metricFile) []deploy.Metric {
	var out []deploy.Metric
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		at, m := path+"."+name, metrics[name]
		if !nameForm.MatchString(name) {
			p.doc.Errorf(at, "%q is no name of a metric; %s", name, nameRule)
		}
		if m == nil || !p.doc.Clean(at) {
			continue
		}
		for _, one := range []struct{ key, query string }{{"total", m.Total}, {"bad", m.Bad}, {"samples", m.Samples}} {
			p.promQL(at+"."+one.key, one.query, "a comparison needs series", promql.ValueTypeVector)
		}
		out = append(out, deploy.Metric{Name: name, Total: m.Total, Bad: m.Bad, Samples: m.Samples})
	}
	return out
}
