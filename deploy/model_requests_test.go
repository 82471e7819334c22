package deploy_test

import (
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/sim"
)

// What people ask for, and what befalls a fleet, at any moment of a deployment
// and two at a time: v1 is sealed everywhere, v2 is in flight, v3 may come. Agents
// are of one step: a granted host is done, or fails, at once. Each request of a
// configuration is made at most once; what waits for a person's answer gets one.

// requested is one state of the model: the coordinator's, and which requests of
// its configuration have been made.
type requested struct {
	id   uint32
	made uint32
}

// requests is one configuration of the model. Beside the coordinator's state
// it knows what hosts run that are members no more, and what was written into
// history, by a model of its own (I11).
type requests struct {
	*core
	members int             // at the start; one more may be born
	back    string          // scope that a failure takes back
	allowed []string        // requests that may be made, each once
	took    map[string]bool // requests that were accepted in some state
	beside  []*beside
	current *beside // of the state that is being numbered
}

// beside is what a state holds beside the coordinator's.
type beside struct {
	said *sim.Outcomes
	ran  [4]deploy.Digest // of hosts that are no members now
}

// befalls are all requests and events that a configuration is made of.
var befalls = []string{
	"deploy", "rollback", "rollback to", "abort-leave", "abort-rollback", "pause", "resume", "retry", "promote",
	"freeze", "birth", "departure", "cordon", "selector", "gate fails", "falls ill", "host fails", "late answer",
	"away", "rollback of a wave", "skip-hosts", "skip-zone", "take-over",
}

const (
	modelBake = 2 * time.Minute
	// modelWait is longer than a bake, so that answers cover it.
	modelWait = 3 * time.Minute
	// modelPart is within a bake, and after the next question to a gate.
	modelPart = 90 * time.Second
)

func modelConfig(back string) deploy.Config {
	c, _ := deploy.Builtin("all-at-once")
	c.Capacity.MinHealthy, c.Capacity.MaxConcurrent, c.Capacity.SmallFleet = deploy.Percent(33), deploy.Count(1), "relax"
	c.Rollback.MaxConcurrent = deploy.Count(1)
	if back == deploy.ScopeWave {
		c.Capacity.MaxConcurrent = deploy.Count(2)
	}
	c.Timeouts.ForgetAfter, c.Timeouts.LostAfter = 0, modelBake
	c.InFlight.Queue = deploy.QueueAll
	c.OnInconclusive = "hold"
	c.Gates = []deploy.Gate{{
		Name: "errors", Query: &deploy.QueryGate{Query: "errors", Max: "1"},
		Interval: time.Minute,
	}}
	action := deploy.Action{Do: deploy.ActionRollback, Scope: back, Then: deploy.ThenPause}
	c.OnFailure.Wave, c.OnFailure.Gate, c.OnFailure.Bake = action, action, deploy.Action{}
	bake, gates := deploy.BakeSpec{BakeMin: modelBake}, []string{"errors"}
	c.Waves = []deploy.WaveSpec{
		{Name: "one", Kind: "count", Size: deploy.Count(1), BakeSpec: bake, Gates: gates},
		{Name: "rest", Kind: "remainder", BakeSpec: bake, Gates: gates},
	}
	return c
}

// start is a fleet on v1, sealed, with v2 submitted.
func (r *requests) start(t *testing.T) requested {
	t.Helper()
	var ids []string
	for i := range r.members {
		ids = append(ids, hostID(i))
	}
	f := newFleet(t, "all-at-once", ids...)
	f.must(deploy.RevisionRegistered{App: "www", Name: "v3", Digest: "v3"})
	f.must(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: modelConfig(r.back)})
	b := &beside{said: &sim.Outcomes{}}
	x := &stepping{requests: r, s: f.State, beside: b, at: epoch}
	x.apply(x.deployment("d1", "v1"))
	for range 20 {
		x.pass()
		x.apply(deploy.Decide(f.State, deploy.Fleet{}, x.at)...)
		for _, id := range ids {
			x.report(id, nil)
		}
		x.at = x.at.Add(modelWait)
	}
	x.apply(x.deployment("d2", "v2"))
	if runs := f.Commonest(f.Groups["www/prod"]); x.err != nil || len(f.Open()) != 1 || runs != "v1" {
		t.Fatalf("the fleet does not run v1 with v2 submitted: %v, open %d, %s", x.err, len(f.Open()), runs)
	}
	r.more = func() string { return fmt.Sprint(r.current.ran, r.current.said) }
	r.current = b
	s := clone(f.State)
	r.forget(s)
	return requested{id: r.number(s)}
}

// number numbers a state with what is beside it.
func (r *requests) number(s *deploy.State) uint32 {
	id := r.intern(s)
	if int(id) == len(r.beside) {
		r.beside = append(r.beside, r.current)
	}
	return id
}

// forget makes states alike that differ in nothing that is to come: of
// generations it keeps whether a task had one and whether it is its target's
// last; of what has ended, how.
func (r *requests) forget(s *deploy.State) {
	const last = 9
	for _, d := range s.Deployments {
		d.From, d.FromName = "", ""
		if d.Status.Terminal() {
			d.Pruned, d.Tasks, d.Failures, d.TakenBy, d.GateFail = true, nil, 0, "", ""
			d.StartedAt, d.LimitFrom, d.EndedAt, d.PausedAt, d.AskAgain = epoch, epoch, epoch, 0, 0
			d.RevertSet, d.Promoted = false, nil
			d.Asked = ""
			for i := range d.Waves {
				d.Waves[i] = deploy.Wave{Name: d.Waves[i].Name, Status: deploy.WaveStatusSealed}
			}
		}
		for host, task := range d.Tasks {
			t := s.Target(host, "www")
			switch {
			case task.Gen == 0:
			case t != nil && task.Gen == t.Gen:
				task.Gen = last
			default:
				task.Gen = 1
			}
			task.Refused = 0
		}
	}
	for _, h := range s.Hosts {
		for _, t := range h.Targets {
			t.Gen = last
			if t.Permit == deploy.PermitNone && !t.Open {
				t.Desired, t.Deployment = t.Running, ""
			}
		}
	}
	s.Groups["www/prod"].Layout.Version = 1
	s.Rebuild()
}

// check is I11 in every state, and what none of them may hold.
func (r *requests) check(at requested) error {
	s := r.states[at.id]
	return r.beside[at.id].said.Check(s, s.Groups["www/prod"])
}

// rest reports whether nothing is in flight and every member that can be reached
// runs what its wave asks, or is listed with the reason why not.
func (r *requests) rest(at requested) bool {
	s := r.states[at.id]
	return len(s.Open()) == 0 && unlisted(s) == ""
}

// unlisted names a target that neither runs what it should nor is listed with a
// reason, or "".
func unlisted(s *deploy.State) string {
	g := s.Groups["www/prod"]
	listed := map[string]string{}
	for _, x := range s.Drift(g) {
		listed[x.Host] = x.Why
	}
	for _, host := range g.Hosts() {
		t := s.Target(host, "www")
		want := s.Wants(t).Revision
		moves := t.Permit != deploy.PermitNone || want != "" && want != t.Running
		if moves && !t.Away && !t.Declared && listed[host] == "" {
			return fmt.Sprintf("%s runs %s and should run %s", host, t.Running, want)
		}
	}
	return ""
}

// quiet tests a state in which nothing happens by itself: what is open names
// whom it waits for (I15), and without anything open nothing is left undone.
func (r *requests) quiet(s *deploy.State) error {
	for _, d := range s.Open() {
		holds := deploy.Holds(s, d, s.Now)
		nameless := func(h string) bool { return strings.HasSuffix(h, "bake is over") }
		if len(holds) == 0 || slices.ContainsFunc(holds, nameless) {
			return fmt.Errorf("I15: %s is %s, nothing happens, and it waits for %q", d.ID, d.Status, holds)
		}
	}
	if text := unlisted(s); len(s.Open()) == 0 && text != "" {
		return fmt.Errorf("I11: nothing is in flight, nothing happens, and %s", text)
	}
	return nil
}

func (r *requests) show(at requested) string {
	s := r.states[at.id]
	out := ""
	for _, d := range s.Open() {
		out += d.ID + " " + d.Status.String()
		for i := range d.Waves {
			out += fmt.Sprintf(" %s%v", d.Waves[i].Status, d.Waves[i].Hosts)
		}
		out += "; "
	}
	for i := range r.hosts {
		if t := s.Target(hostID(i), "www"); t != nil {
			out += fmt.Sprintf(" %s %s>%s %s %s", t.Host, t.Running, t.Desired, t.Permit, t.Health)
			for _, d := range s.Open() {
				if task := d.Tasks[t.Host]; task != nil {
					out += "/" + task.Status.String()
				}
			}
			out += " |"
		}
	}
	return out
}

// walk walks one configuration and proves that it comes to rest.
func (r *requests) walk(t *testing.T, until time.Time, quietly bool) *explored[requested] {
	t.Helper()
	began := time.Now()
	name := fmt.Sprintf("requests: %d hosts, back %s, %s", r.members, r.back, strings.Join(r.allowed, " + "))
	x := explore(r.start(t), 200_000, until, true, r.next, r.check)
	if x.err != nil || !quietly {
		x.report(t, name, r.core, began, r.show)
	}
	if x.whole {
		if i := x.stuck(r.rest); i >= 0 {
			t.Errorf("%s: I9: nothing leads to rest from\n%s", name, x.trace(i, r.show))
		}
	}
	return x
}

// asking walks configurations and sums them up.
type asking struct {
	t                       *testing.T
	until                   time.Time
	walked, states, bounded int
	took                    map[string]bool // requests that were accepted
	ends                    map[deploy.Digest]bool
}

func (a *asking) walk(members int, back string, quietly bool, allowed ...string) {
	if a.t.Failed() {
		return
	}
	a.t.Helper()
	r := &requests{core: newCore(members + 1), members: members, back: back, allowed: allowed, took: a.took}
	r.checkEach = !large()
	x := r.walk(a.t, a.until, quietly)
	a.walked, a.states = a.walked+1, a.states+len(x.states)
	if !x.whole {
		a.bounded++
	}
	for _, at := range x.states {
		if r.rest(at) {
			s := r.states[at.id]
			a.ends[s.Commonest(s.Groups["www/prod"])] = true
		}
	}
}

// vacuous names what no state of any configuration did or came to; "" nothing.
func (a *asking) vacuous() (out []string) {
	for _, what := range befalls {
		if !a.took[what] && what != "late answer" { // which is refused by every state
			out = append(out, "nobody did "+what)
		}
	}
	for _, rev := range revisions[1:] {
		if !a.ends[rev] {
			out = append(out, "nothing ends on "+string(rev))
		}
	}
	return out
}

// TestModelRequests walks every request alone beside a birth and every two of
// them, for both scopes of what a failure takes back; and every two beside a birth,
// on two hosts, which MODEL=pairs leaves out.
func TestModelRequests(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	began := time.Now()
	a := &asking{t: t, until: began.Add(280 * time.Second), took: map[string]bool{}, ends: map[deploy.Digest]bool{}}
	for _, back := range []string{deploy.ScopeAll, deploy.ScopeWave} {
		for i, one := range befalls {
			if large() || i%6 == 0 && back == deploy.ScopeWave {
				a.walk(2, back, false, "birth", one)
			}
		}
		for i, one := range befalls {
			for _, two := range befalls[i+1:] {
				if large() {
					a.walk(3, back, false, one, two)
				}
			}
		}
	}
	for i, one := range befalls {
		if !large() || os.Getenv("MODEL") == "pairs" {
			break
		}
		before, was := time.Now(), *a
		for _, two := range befalls[i+1:] {
			if one != "birth" && two != "birth" {
				a.walk(2, deploy.ScopeWave, true, "birth", one, two)
			}
		}
		t.Logf("requests: 2 hosts, a birth, %-18s and every other: %5d configurations, %8d states (%.1fs)", one,
			a.walked-was.walked, a.states-was.states, time.Since(before).Seconds())
	}
	if large() && len(a.vacuous()) > 0 && !t.Failed() {
		t.Errorf("the model is vacuous: %v", a.vacuous())
	}
	t.Logf("requests: %d configurations, %d states, %d of the configurations bounded (%.0fs)",
		a.walked, a.states, a.bounded, time.Since(began).Seconds())
}
