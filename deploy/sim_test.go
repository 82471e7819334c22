package deploy_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/sim"
)

// seeds returns the first and the last seed to run: SEEDS from BASE, or SEED alone.
func seeds(t *testing.T, n int) (first, last uint64) {
	t.Helper()
	if v := os.Getenv("SEED"); v != "" {
		s, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("SEED=%s: %v", v, err)
		}
		return s, s
	}
	base := uint64(1)
	if v := os.Getenv("BASE"); v != "" {
		b, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("BASE=%s: %v", v, err)
		}
		base = b
	}
	if v := os.Getenv("SEEDS"); v != "" {
		m, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("SEEDS=%s: %v", v, err)
		}
		n = m
	}
	return base, base + uint64(n) - 1
}

// TestSimulation runs random fleets, configs and faults and checks every
// invariant after every entry. A failing seed prints its repro.
func TestSimulation(t *testing.T) {
	first, last := seeds(t, 200)
	if first == last {
		traceHook = func(at deploy.Time, line string) {
			t.Logf("%s %s",
				time.Duration(at).Round(time.Millisecond), line)
		}
	}
	var total tally
	results := make(chan result)
	var next atomic.Uint64
	next.Store(first)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for {
				seed := next.Add(1) - 1
				if seed > last {
					return
				}
				results <- result{seed, run(seed)}
			}
		}()
	}
	for range last - first + 1 {
		r := <-results
		total.add(r.tally)
		if r.err != nil {
			t.Errorf("seed %d: %v\n  repro: SEED=%d go test ./deploy -run TestSimulation", r.seed, r.err, r.seed)
		}
	}
	t.Logf("%d seeds from %d, %.0f simulated hours, %d facts, %d violations; deployments ended %v; done %v; evaluated %v",
		last-first+1, first, total.hours, total.events, total.broken, total.ends, total.done, total.proofs)
	if first != last {
		for _, s := range []deploy.DeploymentStatus{
			deploy.DeploymentStatusSucceeded, deploy.DeploymentStatusRolledBack,
			deploy.DeploymentStatusStopped, deploy.DeploymentStatusTakenOver, deploy.DeploymentStatusSuperseded, deploy.DeploymentStatusCancelled,
		} {
			if total.ends[s] == 0 {
				t.Errorf("no seed ended %s: the simulation is vacuous", s)
			}
		}
		for _, what := range []string{
			"rollback", "rollback --to", "turnover", "selector", "promote", "retry", "pause",
			"cordon", "drain", "back with another disk",
		} {
			if total.done[what] == 0 {
				t.Errorf("nobody did %s: the simulation is vacuous", what)
			}
		}
	}
}

type result struct {
	seed uint64
	tally
}

type tally struct {
	hours  float64
	events int
	broken int
	ends   map[deploy.DeploymentStatus]int
	done   map[string]int // requests and faults
	proofs map[string]int // invariants of the history, evaluated
	err    error
}

func (a *tally) add(b tally) {
	if a.ends == nil {
		a.ends, a.done, a.proofs = map[deploy.DeploymentStatus]int{}, map[string]int{}, map[string]int{}
	}
	for what, n := range b.done {
		a.done[what] += n
	}
	for what, n := range b.proofs {
		a.proofs[what] += n
	}
	a.hours += b.hours
	a.events += b.events
	if b.err != nil {
		a.broken++
	}
	for s, n := range b.ends {
		a.ends[s] += n
	}
}

func pick[T any](r *rand.Rand, items ...T) T { return items[r.IntN(len(items))] }

// traceHook prints every fact of a seed when set.
var traceHook func(deploy.Time, string)

// eachHook is called after every entry of a seed when set.
var eachHook func(*sim.World)

// run simulates several deployments on one random fleet, some of them in flight
// together, with people, gates and hosts that do what they like.
func run(seed uint64) tally {
	r := rand.New(rand.NewPCG(seed, 7))
	p := func(max float64) float64 {
		if r.IntN(2) == 0 {
			return 0
		}
		return r.Float64() * max
	}
	f := sim.Faults{
		Fail: p(0.1), Break: p(0.3), Hang: p(0.05), Crash: p(0.1), Lose: p(0.3), Repeat: p(0.3),
		Sick: p(0.05), Away: p(0.1), Stage: p(0.05), Leader: p(0.1),
	}
	w := sim.New(seed, sim.Faults{})
	w.Deep, w.Trace = true, traceHook
	if eachHook != nil {
		w.Each = func() { eachHook(w) }
	}
	n := pick(r, 1, 2, 3, 5, 12, 12, 40, 40, 100)
	if r.IntN(100) == 0 {
		n = 300
	}
	zones := 1 + r.IntN(4)
	for i := range n {
		w.AddHost(fmt.Sprintf("h%d", i+1), fmt.Sprintf("z%d", i%zones), shard(i))
	}
	c := randomConfig(r)
	if w.State.Rules >= 4 && r.IntN(3) == 0 {
		c.Stage.Taste = &deploy.StageScript{Script: "taste.sh"}
	}
	if w.State.Rules >= 4 && r.IntN(4) == 0 {
		c.Capacity.QuorumGroup = &deploy.QuorumGroup{Label: "shard", MaxDown: 1 + r.IntN(2)}
	}
	w.Define("www", "prod", c)
	out := tally{ends: map[deploy.DeploymentStatus]int{}}
	if err := w.Deploy("www", "prod", "d0", "v0"); err != nil {
		return out // a config that cannot be kept on this fleet is refused
	}
	out.err = conclude(w, r)
	w.SetFaults(f)
	moody := p(0.1)
	w.Gate = func(q deploy.Question) deploy.Observation {
		o := deploy.Observation{Answer: deploy.VerdictPass, Samples: 50, Final: q.Gate.Compare != nil}
		if r.Float64() < moody {
			o.Answer, o.Final = pick(r, deploy.VerdictFail, deploy.VerdictInconclusive), false
		}
		return o
	}
	s := &workload{w: w, r: r, config: c, zones: zones, hosts: n, done: map[string]int{}}
	for i := 0; i < 20 && out.err == nil; i++ {
		s.step()
		out.err = w.Run(time.Duration(r.IntN(pick(r, 3, 30, 120, 300, 900)))*time.Second, nil)
	}
	w.SetFaults(sim.Faults{})
	w.Gate = nil
	w.Select("www", "prod", sim.SelectAll)
	if out.err == nil {
		out.err = conclude(w, r)
	}
	if out.err == nil {
		out.err = converged(w)
	}
	for _, d := range w.State.Deployments {
		out.ends[d.Status]++
	}
	out.done, out.proofs = s.done, w.Checked
	out.hours, out.events = time.Duration(w.Now).Hours(), w.Events
	if out.err == nil {
		out.err = reload(w.State)
	}
	return out
}

// workload does at random what people and machines do during deployments.
type workload struct {
	w             *sim.World
	r             *rand.Rand
	config        deploy.Config
	zones, hosts  int
	deploys, asks int
	done          map[string]int
}

// begin and done count what was asked or done to the fleet, and was accepted.
func (s *workload) did(what string, err error) {
	if err == nil {
		s.done[what]++
	}
}

func (s *workload) step() {
	w, r := s.w, s.r
	id := ""
	if open := w.State.Open(); len(open) > 0 {
		id = pick(r, open...).ID
	}
	host := ""
	if all := w.Hosts(); len(all) > 0 {
		host = pick(r, all...)
	}
	zone := fmt.Sprintf("z%d", r.IntN(s.zones))
	req := func() deploy.Request { s.asks++; return deploy.Request{ID: fmt.Sprint("x", s.asks), Actor: "ann"} }
	rev := func() string { return fmt.Sprintf("v%d", r.IntN(8)) }
	ask := func(e deploy.RequestMade) { e.Deployment = id; s.did(string(e.Verb), w.Ask(e)) }
	did := func(what string, e deploy.Event) { s.did(what, w.Propose(e)[0]) }
	what := r.IntN(22)
	if d := w.State.Deployments[id]; d != nil && r.IntN(3) > 0 { // what is in flight is what people act on
		what = pick(r, 6, 7, 7, 8, 9, 10, 11, 16, 17)
		if d.Status == deploy.DeploymentStatusPaused {
			what = pick(r, 6, 6, 7, 8, 10, 10, 16)
		}
	}
	switch what {
	case 0, 1, 2, 3:
		s.deploys++
		s.did("deploy", w.Deploy("www", "prod", fmt.Sprintf("d%d", s.deploys), rev(),
			func(e *deploy.DeploymentCreated) {
				e.Config = s.config
				e.Config.InFlight = deploy.InFlight{
					Serial: r.IntN(3) == 0,
					Queue:  pick(r, "", deploy.QueueAll, deploy.QueueLatest),
				}
				e.Force, e.Redeploy = r.IntN(3) == 0, r.IntN(6) == 0
				if id != "" && r.IntN(3) == 0 {
					e.Fixes = []deploy.Digest{w.State.Deployments[id].Revision}
				}
				e.Preempt = r.IntN(4) == 0
				if e.Emergency = w.State.Rules >= 4 && r.IntN(8) == 0; e.Emergency {
					e.Request.Reason = "fire"
				}
				if host != "" && r.IntN(3) == 0 {
					e.Skip = []deploy.Skip{{Host: host, Cause: "offline", Intend: r.IntN(2) == 0}}
				}
			}))
	case 4:
		s.deploys++
		s.did("rollback", w.Rollback("www", "prod", fmt.Sprintf("d%d", s.deploys), "", "any"))
	case 5:
		s.deploys++
		s.did("rollback --to", w.Rollback("www", "prod", fmt.Sprintf("d%d", s.deploys), rev(), "none"))
	case 6:
		ask(deploy.RequestMade{Verb: pick(r, deploy.VerbPause, deploy.VerbResume, deploy.VerbRetry)})
	case 7:
		wave := ""
		if d := w.State.Deployments[id]; d != nil && len(d.Waves) > 0 && r.IntN(2) == 0 {
			wave = pick(r, d.Waves...).Name
		}
		ask(deploy.RequestMade{Verb: deploy.VerbPromote, Wave: wave})
		if r.IntN(8) == 0 {
			ask(deploy.RequestMade{Request: deploy.Request{Actor: "ann", Reason: "fire"}, Verb: deploy.VerbEmergency})
		}
	case 8:
		ask(deploy.RequestMade{Verb: pick(r, deploy.VerbAbortLeave, deploy.VerbAbortRollback, deploy.VerbTakeOver)})
	case 9:
		ask(deploy.RequestMade{
			Request: deploy.Request{Actor: pick(r, "ann", "bob", "sim")}, Verb: pick(r, deploy.VerbApprove,
				deploy.VerbApprove, deploy.VerbReject),
		})
	case 10:
		ask(deploy.RequestMade{Verb: pick(r, deploy.VerbSkipZone, deploy.VerbRollback), Zone: zone})
	case 11:
		ask(deploy.RequestMade{Verb: deploy.VerbSkipHosts, Hosts: []string{host}})
	case 12:
		did("freeze", deploy.FreezeSet{Request: req(), For: time.Duration(r.IntN(3)) * 5 * time.Minute})
		if r.IntN(2) == 0 {
			_ = w.Run(time.Duration(r.IntN(600))*time.Second, nil)
			did("unfreeze", deploy.FreezeLifted{Request: req()})
		}
	case 13:
		did("unfreeze", deploy.FreezeLifted{Request: req()})
	case 14:
		if r.IntN(2) == 0 {
			drained := w.State.Hosts[host] != nil && w.State.Hosts[host].Drain != nil
			did("drain", deploy.HostDrainSet{Request: req(), Host: host, Undo: drained})
			return
		}
		did("cordon", deploy.HostsQuarantined{Request: req(), Hosts: []string{host}})
		if r.IntN(2) == 0 {
			_ = w.Run(time.Duration(r.IntN(600))*time.Second, nil)
			did("uncordon", deploy.HostsReleased{Request: req(), Hosts: []string{host}})
		}
	case 15:
		did("uncordon", deploy.HostsReleased{Request: req(), Hosts: []string{host}})
	case 16, 17:
		s.join(zone)
	case 18:
		if len(w.Hosts()) > 1 {
			s.did("leave", w.Leave(host))
		}
	case 19:
		s.did("changed by hand", w.Change(host, deploy.Digest(rev())))
	case 20:
		if r.IntN(3) == 0 {
			s.turnover()
		} else if host != "" {
			w.Swap(host, deploy.Digest(rev()), time.Duration(r.IntN(1200))*time.Second)
			s.did("back with another disk", nil)
		}
	case 21:
		w.Select("www", "prod", pick(r, sim.SelectHalf, sim.SelectNone, sim.SelectAll, sim.SelectAll))
		s.did("selector", nil)
		if r.IntN(2) == 0 { // a typo, corrected a few seconds later
			_ = w.Run(time.Duration(r.IntN(30))*time.Second, nil)
			w.Select("www", "prod", sim.SelectAll)
		}
	}
}

func (s *workload) join(zone string) {
	s.hosts++
	s.w.AddHost(fmt.Sprintf("h%d", s.hosts), zone, shard(s.hosts))
	s.did("join", nil)
}

// turnover replaces every host of a small fleet: new ones join, the old ones go.
func (s *workload) turnover() {
	old := s.w.Hosts()
	if len(old) > 12 {
		return
	}
	for i := range old {
		s.join(fmt.Sprintf("z%d", i%s.zones))
	}
	_ = s.w.Run(time.Duration(s.r.IntN(300))*time.Second, nil)
	for _, h := range old {
		s.did("leave", s.w.Leave(h))
	}
	s.did("turnover", nil)
}

// deadline bounds how long a deployment can take once the fleet behaves and
// every answer is given at once: each wave stages, works on its hosts one by
// one, forward and back, and bakes; before it, others of the group may do so.
func deadline(d *deploy.Deployment) time.Duration {
	limits, sum := d.Config.Timeouts, time.Duration(0)
	for i := range d.Waves {
		w := &d.Waves[i]
		sum += limits.Stage + limits.LostAfter + w.Max() + time.Duration(2*len(w.Hosts)+1)*limits.Task
	}
	return sum + d.Config.Decision.Timeout
}

// conclude gives every answer that somebody waits for, and runs until no
// deployment is open. One that does not end is a liveness bug (S5, I9).
func conclude(w *sim.World, r *rand.Rand) error {
	began, bound := w.Now, time.Duration(0)
	for _, d := range w.State.Open() {
		bound += deadline(d)
	}
	for i := range 60 {
		w.Propose(deploy.FreezeLifted{Request: deploy.Request{ID: fmt.Sprint("lift", w.Now, i), Actor: "ann"}})
		for _, h := range w.Hosts() {
			if w.State.Hosts[h].Drain != nil {
				w.Propose(deploy.HostDrainSet{Request: deploy.Request{
					ID: fmt.Sprint("undrain", w.Now, i, h), Actor: "ann",
				}, Host: h, Undo: true})
			}
			if w.State.Hosts[h].Quarantine != "" {
				w.Propose(deploy.HostsReleased{Request: deploy.Request{
					ID:    fmt.Sprint("release", w.Now, i, h),
					Actor: "ann",
				}, Hosts: []string{h}})
			}
		}
		for _, d := range slices.Clone(w.State.Open()) {
			_ = w.Ask(deploy.RequestMade{
				Request: deploy.Request{Actor: "ann"}, Deployment: d.ID,
				Verb: deploy.VerbApprove,
			})
			_ = w.Ask(deploy.RequestMade{
				Request: deploy.Request{Actor: "bob"}, Deployment: d.ID,
				Verb: deploy.VerbApprove,
			})
			switch {
			case d.Held:
				_ = w.Act(d.ID, deploy.VerbResume)
			case d.Status != deploy.DeploymentStatusPaused || d.ScopeRevert != nil:
			case i > 6:
				_ = w.Act(d.ID, pick(r, deploy.VerbAbortRollback, deploy.VerbAbortLeave))
			default:
				_ = w.Act(d.ID, pick(r, deploy.VerbResume, deploy.VerbRetry, deploy.VerbRetry, deploy.VerbAbortRollback,
					deploy.VerbAbortLeave))
			}
		}
		quiet := func() bool {
			for _, d := range w.State.Open() {
				if d.Status != deploy.DeploymentStatusPaused || d.ScopeRevert != nil {
					return false
				}
			}
			return true
		}
		err := w.Run(3*time.Hour, quiet)
		if err == nil && w.Now.Sub(began) > time.Duration(i+1)*bound+3*time.Hour && len(w.State.Open()) > 0 &&
			!floorHeld(w) {
			err = fmt.Errorf("S5: %s after the last answer deployments are open, their deadline was %s",
				w.Now.Sub(began), time.Duration(i+1)*bound)
		}
		if err != nil || len(w.State.Open()) == 0 {
			return err
		}
	}
	if floorHeld(w) {
		return nil
	}
	d := w.State.Open()[0]
	return fmt.Errorf("S5: deployment %s is %s after every answer; holds %v", d.ID, d.Status,
		deploy.Holds(w.State, d, w.Now))
}

// floorHeld reports whether the oldest deployment, or the one that it names as in
// its way, has a hold that names whom it waits for: hosts that do not serve, by
// causes of their own.
func floorHeld(w *sim.World) bool {
	d := w.State.Open()[0]
	for range w.State.Open() {
		if strings.Contains(fmt.Sprint(deploy.Holds(w.State, d, w.Now)), "the floor is") {
			return true
		}
		for _, wave := range d.Waves {
			for _, h := range wave.Holds {
				if h.Kind == "order" && w.State.Deployments[h.Name] != nil {
					d = w.State.Deployments[h.Name]
				}
			}
		}
	}
	return false
}

// converged proves S6 and section 7 once nobody disturbs: who can be reached
// runs what its wave asks, or is listed with the reason why not.
func converged(w *sim.World) error {
	if len(w.State.Open()) > 0 {
		return nil
	}
	if err := w.Run(2*time.Hour, nil); err != nil {
		return err
	}
	g := w.State.Groups["www/prod"]
	for _, x := range w.State.Drift(g) {
		use := g.Usage("")
		if x.Why == "" && use.Serving == use.Registered {
			return fmt.Errorf("S6: %s runs %s, its wave %s, and nothing is done about it", x.Host, x.Runs, x.Wants)
		}
	}
	return nil
}

// shard puts hosts into pairs, and every fifth into none.
func shard(i int) map[string]string {
	if i%5 == 4 {
		return nil
	}
	return map[string]string{"shard": fmt.Sprint(i / 2)}
}

func randomConfig(r *rand.Rand) deploy.Config {
	c, _ := deploy.Builtin(pick(r, deploy.BuiltinNames()...))
	c.Capacity.MinHealthy = deploy.Percent(pick(r, 0, 50, 66, 90, 100))
	c.Capacity.MaxConcurrent = pick(r, deploy.Count(1), deploy.Percent(10), deploy.Percent(50), deploy.Percent(100))
	c.Capacity.MaxZones = r.IntN(3)
	if r.IntN(3) == 0 {
		z := deploy.Percent(pick(r, 33, 50))
		c.Capacity.MinHealthyPerZone = &z
	}
	c.Stage = pick(r, deploy.Stage{}, deploy.Stage{Prefetch: "wave", Barrier: "wave", Quorum: deploy.Percent(80)},
		deploy.Stage{
			Prefetch: "fleet", Barrier: "deployment",
			Quorum: deploy.Percent(50),
		}, deploy.Stage{Prefetch: "none"})
	c.Waves = []deploy.WaveSpec{{
		Name: "rest", Kind: "remainder", ForEachZone: r.IntN(2) == 0, OneBox: r.IntN(2) == 0,
		Parallel: pick(r, nil, []int{1, 2}),
	}}
	if r.IntN(2) == 0 {
		c.Waves = append([]deploy.WaveSpec{{
			Name: "part", Kind: "percent", Size: deploy.Percent(20),
			Balance: r.IntN(2) == 0,
		}}, c.Waves...)
	}
	if r.IntN(2) == 0 {
		c.Waves = append([]deploy.WaveSpec{{
			Name: "one-box", Kind: "count", Size: deploy.Count(1), Zone: "lightest",
			Rehearse: r.IntN(2) == 0,
		}}, c.Waves...)
	}
	c.Gates = []deploy.Gate{
		{Name: "go", Approval: &deploy.ApprovalGate{Count: 1 + r.IntN(2), Timeout: pick(r, 0, 2*time.Hour)}},
		{Name: "hours", Window: "Mon-Fri 09:00-16:00 Europe/Rome"},
		{Name: "errors", Scope: pick(r, "", deploy.ScopeHost, deploy.ScopeZone, deploy.ScopeWave,
			deploy.ScopeDeployment), Query: &deploy.QueryGate{Query: "errors", Max: "1"}, FailLimit: r.IntN(3)},
		{Name: "compare", Scope: deploy.ScopeWave, Compare: &deploy.CompareGate{Metric: "errors", Test: "sprt"}},
	}
	for i := range c.Gates {
		c.Gates[i].Interval = time.Duration(1+r.IntN(4)) * time.Minute
	}
	c.OnInconclusive = pick(r, "pass", "fail", "fail")
	if r.IntN(3) == 0 {
		c.PreGates = pick(r, []string{"go"}, []string{"hours"}, []string{"go", "hours"})
	}
	for i := range c.Waves {
		c.Waves[i].BakeMin = time.Duration(r.IntN(4)) * time.Minute
		c.Waves[i].BakeMax = pick(r, 0, 10*time.Minute)
		c.Waves[i].FailureBudget = deploy.Percent(pick(r, 0, 10, 30))
		if r.IntN(3) == 0 {
			c.Waves[i].Gates = pick(r, []string{"errors"}, []string{"compare"}, []string{"errors", "compare"})
			c.Waves[i].Early, c.Waves[i].Samples = r.IntN(2) == 0, r.IntN(2)*10
		}
		if r.IntN(6) == 0 {
			c.Waves[i].PreGates = []string{"go"}
		}
	}
	action := func(scopes ...string) deploy.Action {
		return deploy.Action{
			Do: pick(r, "rollback", "rollback", "pause"), Scope: pick(r, scopes...),
			Then: pick(r, "pause", "rollback-all"),
		}
	}
	c.OnFailure = deploy.FailureAction{
		Host: pick(r, c.OnFailure.Host, action(deploy.ScopeHost, deploy.ScopeZone)),
		Wave: action(deploy.ScopeAll, deploy.ScopeZone, deploy.ScopeWave), Gate: action(deploy.ScopeAll,
			deploy.ScopeGate, deploy.ScopeZone, deploy.ScopeHost),
		Bake: action(deploy.ScopeAll, deploy.ScopeWave),
	}
	c.Decision = pick(r, deploy.Decision{}, deploy.Decision{Timeout: time.Hour, Then: deploy.ThenAll})
	if r.IntN(3) == 0 {
		total := deploy.Percent(20)
		c.FailureBudgetTotal = &total
	}
	if r.IntN(8) == 0 {
		c.Timeouts.Deployment = 2 * time.Hour
	}
	c.WatchAfter = pick(r, 0, 24*time.Hour)
	return c
}

// reload proves that the encoded state is the whole state: a replica restored
// from a snapshot decides the same.
func reload(s *deploy.State) error {
	a, err := json.Marshal(s)
	if err != nil {
		return err
	}
	var back deploy.State
	if err := json.Unmarshal(a, &back); err != nil {
		return err
	}
	back.Rebuild()
	b, err := json.Marshal(&back)
	if err != nil {
		return err
	}
	if string(a) != string(b) {
		return fmt.Errorf("S9: a restored snapshot differs")
	}
	if err := deploy.Check(&back); err != nil {
		return fmt.Errorf("after restore: %w", err)
	}
	x, y := deploy.Decide(s, deploy.Fleet{}, s.Now), deploy.Decide(&back, deploy.Fleet{}, s.Now)
	if fmt.Sprint(x) != fmt.Sprint(y) {
		return fmt.Errorf("S9: a restored replica decides %v, not %v", y, x)
	}
	return nil
}
