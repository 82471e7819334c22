package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// Args are the key=value arguments of one command of a scenario.
type Args map[string]string

// Session runs the commands of a scenario on one world and returns the trace
// of each.
type Session struct {
	World *World
	trace strings.Builder
	// Reports includes TargetsReported facts in the trace.
	Reports bool
}

// NewSession returns a session on a new world without random faults.
func NewSession(seed uint64) *Session {
	s := &Session{World: New(seed, Faults{})}
	s.World.Deep = true
	s.World.Trace = func(at deploy.Time, line string) {
		if !s.Reports && (strings.HasPrefix(line, "TargetsReported") || strings.HasPrefix(line, "HostEnrolled")) {
			return
		}
		d := time.Duration(at).Truncate(time.Second)
		fmt.Fprintf(&s.trace, "%02d:%02d %s\n", int(d.Minutes()), int(d.Seconds())%60, line)
	}
	return s
}

// Do runs one command and returns what it printed.
//
//	hosts n=6 zones=a,b,c          enrol hosts h1..h6, zones in turn
//	group waves="one-box:count=1 rest:remainder" min=66% concurrent=1 bake=1m ...
//	deploy rev=v1 [id=d1]          create a deployment and let the leader decide
//	script host=h1 rev=v2 how=fail
//	sight host=h1 up=false
//	act id=d1 verb=pause
//	run [for=1h]                   until the deployment in flight ends or halts
//	status                         deployments, waves, what every host runs
func (s *Session) Do(cmd string, args Args) string {
	s.trace.Reset()
	if err := s.run(cmd, args); err != nil {
		fmt.Fprintf(&s.trace, "error: %s\n", err)
	}
	if err := s.World.Err(); err != nil {
		fmt.Fprintf(&s.trace, "INVARIANT BROKEN: %s\n", err)
	}
	return s.trace.String()
}

func (s *Session) run(cmd string, args Args) error {
	switch cmd {
	case "hosts":
		return s.hosts(args)
	case "group":
		c, err := ParseConfig(args)
		if err != nil {
			return err
		}
		s.World.Define("www", "prod", c)
		return s.World.Run(time.Second, nil)
	case "deploy":
		return s.World.Deploy("www", "prod", args["id"], args["rev"])
	case "script":
		return s.World.Script(args["host"], deploy.Digest(args["rev"]), args["how"])
	case "sight":
		s.World.Sight(args["host"], args["up"] == "true")
		return nil
	case "act":
		return s.World.Act(args["id"], deploy.Verb(args["verb"]))
	case "run":
		return s.runFor(args)
	case "status":
		s.status()
		return nil
	}
	return fmt.Errorf("unknown command %q", cmd)
}

func (s *Session) hosts(args Args) error {
	n, err := strconv.Atoi(args["n"])
	if err != nil {
		return fmt.Errorf("n: %w", err)
	}
	zones := strings.Split(args["zones"], ",")
	for i := range n {
		labels := map[string]string{}
		if args["canary"] == fmt.Sprintf("h%d", i+1) {
			labels["canary"] = "yes"
		}
		s.World.AddHost(fmt.Sprintf("h%d", i+1), zones[i%len(zones)], labels)
	}
	return nil
}

func (s *Session) runFor(args Args) error {
	limit := 24 * time.Hour
	if args["for"] != "" {
		d, err := time.ParseDuration(args["for"])
		if err != nil {
			return err
		}
		return s.World.Run(d, nil)
	}
	return s.World.Run(limit, func() bool {
		d := s.World.State.Newest("www", "prod")
		return d == nil || d.Decision
	})
}

func (s *Session) status() {
	st := s.World.State
	for _, id := range sortedByseq(st) {
		d := st.Deployments[id]
		fmt.Fprintf(&s.trace, "%s %s %s", d.ID, d.RevName, d.Status)
		if d.Cause != "" {
			fmt.Fprintf(&s.trace, " (%s)", d.Cause)
		}
		fmt.Fprintln(&s.trace)
		for i := range d.Waves {
			p := d.Progress(i)
			fmt.Fprintf(&s.trace, "  %s %s %d/%d", d.Waves[i].Name, d.Waves[i].Status, p.Settled, p.Total)
			if p.Failed > 0 {
				fmt.Fprintf(&s.trace, " failed=%d", p.Failed)
			}
			fmt.Fprintln(&s.trace)
		}
		for _, hold := range deploy.Holds(st, d, s.World.Now) {
			fmt.Fprintf(&s.trace, "  hold: %s\n", hold)
		}
	}
	running := s.World.Running()
	var revs []string
	for r, n := range running {
		revs = append(revs, fmt.Sprintf("%s:%d", orNothing(r), n))
	}
	slices.Sort(revs)
	fmt.Fprintf(&s.trace, "hosts run %s, %d serve\n", strings.Join(revs, " "), s.World.Serving())
}

func orNothing(d deploy.Digest) string {
	if d == "" {
		return "nothing"
	}
	return string(d)
}

func sortedByseq(s *deploy.State) []string {
	var ids []string
	for id := range s.Deployments {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return int(s.Deployments[a].Seq) - int(s.Deployments[b].Seq) })
	return ids
}

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
	if v := args["onfail"]; v != "" {
		c.OnFailure = deploy.FailureAction{Wave: deploy.Action{Do: v, Scope: deploy.ScopeAll}, Gate: deploy.Action{Do: v, Scope: deploy.ScopeAll}}
	}
	if p.err == nil {
		if path, err := c.Validate(); err != nil {
			p.err = fmt.Errorf("%s: %w", path, err)
		}
	}
	return c, p.err
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
		d, err := time.ParseDuration(v)
		if err != nil {
			p.err = err
		}
		*out = d
	}
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
		d, err := time.ParseDuration(v)
		if err != nil {
			p.err = err
		}
		w.BakeMin = d
	case "parallel":
		for _, n := range strings.Split(v, "/") {
			w.Parallel = append(w.Parallel, p.number(n))
		}
	default:
		p.err = fmt.Errorf("unknown wave option %q", key)
	}
}
