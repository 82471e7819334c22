package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// ParseConfig reads the arguments of a group command.
func ParseConfig(args Args) (deploy.Config, error) {
	base := args["config"]
	if base == "" {
		base = "hands-off"
	}
	c, ok := deploy.Builtin(base)
	if !ok {
		return c, fmt.Errorf("no config %s", base)
	}
	p := &parser{args: args}
	if text := args["waves"]; text != "" {
		c.Waves = p.waves(text)
	}
	p.share("min", &c.Capacity.MinHealthy)
	p.share("concurrent", &c.Capacity.MaxConcurrent)
	p.share("rollback", &c.Rollback.MaxConcurrent)
	p.duration("task", &c.Timeouts.Task)
	p.duration("stage", &c.Timeouts.Stage)
	p.duration("lost", &c.Timeouts.LostAfter)
	if args["min-zone"] != "" {
		c.Capacity.MinHealthyPerZone = new(deploy.Share)
		p.share("min-zone", c.Capacity.MinHealthyPerZone)
	}
	if args["total"] != "" {
		c.FailureBudgetTotal = new(deploy.Share)
		p.share("total", c.FailureBudgetTotal)
	}
	if v := args["zones"]; v != "" {
		c.Capacity.MaxZones = p.number(v)
	}
	if v := args["small"]; v != "" {
		c.Capacity.SmallFleet = v
	}
	p.policy(&c)
	p.gates(&c)
	if p.err == nil {
		if path, err := c.Validate(); err != nil {
			p.err = fmt.Errorf("%s: %w", path, err)
		}
	}
	return c, p.err
}

// policy reads what follows a failure, and how deployments follow each other.
func (p *parser) policy(c *deploy.Config) {
	args := p.args
	if v := args["onfail"]; v != "" {
		a := action(v)
		c.OnFailure = deploy.FailureAction{Wave: a, Gate: a}
	}
	for key, out := range map[string]*deploy.Action{
		"onhost": &c.OnFailure.Host, "ongate": &c.OnFailure.Gate,
		"onbake": &c.OnFailure.Bake,
	} {
		if v := args[key]; v != "" {
			*out = action(v)
		}
	}
	if args["decision"] != "" {
		p.duration("decision", &c.Decision.Timeout)
		c.Decision.Then = deploy.ThenAll
	}
	if v := args["inconclusive"]; v != "" {
		c.OnInconclusive = v
	}
	if v := args["prefetch"]; v != "" {
		c.Stage.Prefetch = v
	}
	if v := args["barrier"]; v != "" {
		c.Stage.Barrier = v
	}
	if v := args["quorum-group"]; v != "" {
		c.Capacity.QuorumGroup = &deploy.QuorumGroup{Label: v, MaxDown: 1}
	}
	if v := args["taste"]; v != "" {
		c.Stage.Taste = &deploy.StageScript{Script: v}
	}
	p.share("quorum", &c.Stage.Quorum)
	p.duration("forget", &c.Timeouts.ForgetAfter)
	p.duration("timeout", &c.Timeouts.Deployment)
	p.duration("watch", &c.WatchAfter)
	if v := args["queue"]; v != "" {
		c.InFlight.Queue = v
	}
	c.InFlight.Serial = args["inflight"] == "serial"
	c.PreGates = args.list("pre")
}

// gates reads "query=errors:zone", "compare=latency:wave", "webhook=tests",
// "window=hours" and "approval=go:2:1h".
func (p *parser) gates(c *deploy.Config) {
	add := func(kind string, make func(g *deploy.Gate)) {
		for _, text := range p.args.list(kind) {
			g := deploy.Gate{Interval: time.Minute}
			g.Name, g.Scope, _ = strings.Cut(text, ":")
			make(&g)
			c.Gates = append(c.Gates, g)
		}
	}
	add("query", func(g *deploy.Gate) {
		g.Query = &deploy.QueryGate{Query: g.Name, Max: "1"}
		p.duration("range", &g.Query.Window)
	})
	add("compare", func(g *deploy.Gate) {
		g.Compare = &deploy.CompareGate{Metric: g.Name, Test: deploy.TestSPRT}
		c.Metrics = append(c.Metrics, deploy.Metric{
			Name: g.Name, Total: `total{host=~"{{.Hosts}}"}`,
			Bad: `bad{host=~"{{.Hosts}}"}`,
		})
	})
	add("webhook", func(g *deploy.Gate) { g.Webhook = "https://" + g.Name })
	add("window", func(g *deploy.Gate) { g.Window = "Mon-Thu 09:00-16:00 Europe/Rome" })
	add("approval", func(g *deploy.Gate) {
		need, wait, _ := strings.Cut(g.Scope, ":")
		g.Scope, g.Interval, g.Approval = "", 0, &deploy.ApprovalGate{Count: 1}
		if need != "" {
			g.Approval.Count = p.number(need)
		}
		if wait != "" {
			g.Approval.Timeout = p.time(wait)
		}
	})
}

// action reads "rollback:zone:pause"; without a scope it means all.
func action(text string) deploy.Action {
	do, rest, _ := strings.Cut(text, ":")
	scope, then, _ := strings.Cut(rest, ":")
	if scope == "" {
		scope = deploy.ScopeAll
	}
	return deploy.Action{Do: do, Scope: scope, Then: then}
}

type parser struct {
	args Args
	err  error
}

func (p *parser) number(v string) int {
	n, err := strconv.Atoi(v)
	if err != nil {
		p.err = err
	}
	return n
}

func (p *parser) shareOf(v string) deploy.Share {
	if rest, ok := strings.CutSuffix(v, "%"); ok {
		return deploy.Percent(p.number(rest))
	}
	return deploy.Count(p.number(v))
}

func (p *parser) share(key string, out *deploy.Share) {
	if v := p.args[key]; v != "" {
		*out = p.shareOf(v)
	}
}

func (p *parser) duration(key string, out *time.Duration) {
	if v := p.args[key]; v != "" {
		*out = p.time(v)
	}
}

func (p *parser) time(v string) time.Duration {
	d, err := time.ParseDuration(v)
	if err != nil {
		p.err = err
	}
	return d
}

// waves reads "one-box:count=1,bake=1m canary:percent=10%,balance rest:remainder,zone".
func (p *parser) waves(text string) []deploy.WaveSpec {
	var out []deploy.WaveSpec
	for _, part := range strings.Fields(text) {
		name, opts, _ := strings.Cut(part, ":")
		w := deploy.WaveSpec{Name: name}
		for _, o := range strings.Split(opts, ",") {
			key, v, _ := strings.Cut(o, "=")
			p.waveOption(&w, key, v)
		}
		out = append(out, w)
	}
	return out
}

func (p *parser) waveOption(w *deploy.WaveSpec, key, v string) {
	switch key {
	case "count", "percent":
		w.Kind, w.Size = key, p.shareOf(v)
	case "remainder":
		w.Kind = key
	case "zone":
		w.ForEachZone = v == ""
		w.Zone = v
	case "balance":
		w.Balance = true
	case "onebox":
		w.OneBox = true
	case "prefer":
		w.Prefer = v + "=yes"
	case "budget":
		w.FailureBudget = p.shareOf(v)
	case "bake":
		w.BakeMin = p.time(v)
	case "max":
		w.BakeMax = p.time(v)
	case "early":
		w.Early = true
	case "samples":
		w.Samples = p.number(v)
	case "rehearse":
		w.Rehearse = true
	case "gates":
		w.Gates = strings.Split(v, "/")
	case "pre":
		w.PreGates = strings.Split(v, "/")
	case "parallel":
		for _, n := range strings.Split(v, "/") {
			w.Parallel = append(w.Parallel, p.number(n))
		}
	default:
		p.err = fmt.Errorf("unknown wave option %q", key)
	}
}
