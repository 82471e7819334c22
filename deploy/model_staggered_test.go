package deploy_test

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// Two revisions in flight: v2 and v3 over v1, three waves, four hosts. Agents do
// at once what they are told; a host of each wave fails, and one of the first or last turns unhealthy, at any point, people
// decide anything, and from wherever that leads the fleet can come to rest on
// one revision (I9).

// staggered is one configuration of the model; its states are those of the core.
type staggered struct {
	*core
	floor int
	fixes bool
	fails []deploy.Digest // revisions of which a host may fail
	ends  []deploy.Digest // revisions that it may come to rest on
	wait  time.Duration   // that passes at a time: a bake, or more than a task may take
}

var staggeredWaves = [][]string{{"h1"}, {"h2"}, {"h3", "h4"}}

// start is a fleet on v1, with v2 and v3 submitted.
func (g *staggered) start(t *testing.T) uint32 {
	t.Helper()
	ids := []string{"h1", "h2", "h3", "h4"}
	f := newFleet(t, "all-at-once", ids...)
	c := f.Groups["www/prod"].Config
	c.Capacity.MinHealthy = deploy.Count(g.floor)
	c.Timeouts.ForgetAfter = 0
	c.InFlight.Queue = deploy.QueueAll
	back := deploy.Action{Do: deploy.ActionRollback, Scope: deploy.ScopeWave, Then: deploy.ThenPause}
	c.OnFailure.Wave, c.OnFailure.Gate = back, back
	c.Waves = nil
	var waves []deploy.Wave
	for i, hosts := range staggeredWaves {
		name, kind := fmt.Sprint("w", i), "count"
		if i == len(staggeredWaves)-1 {
			kind = "remainder"
		}
		bake := deploy.BakeSpec{BakeMin: time.Minute}
		c.Waves = append(c.Waves, deploy.WaveSpec{Name: name, Kind: kind, Size: deploy.Count(1), BakeSpec: bake})
		waves = append(waves, deploy.Wave{Name: name, Spec: i, Batch: i, Hosts: hosts, BakeSpec: bake})
	}
	f.must(deploy.RevisionRegistered{App: "www", Name: "v3", Digest: "v3"})
	f.must(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c})
	create := func(id, rev string, layout uint64, fixes ...deploy.Digest) {
		f.must(deploy.DeploymentCreated{
			ID: id, App: "www", Group: "prod", Revision: deploy.Digest(rev), RevName: rev, Config: c, Waves: slices.Clone(waves), Layout: layout, Fixes: fixes,
		})
	}
	create("d1", "v1", 0)
	for at := epoch; len(f.Open()) > 0; at = at.Add(time.Hour) {
		for _, e := range deploy.Decide(f.State, deploy.Fleet{}, at) {
			f.ApplyEntry(f.Index+1, deploy.Entry{At: at, Events: []deploy.Event{e}})
		}
		for _, id := range ids {
			f.counter++
			f.ApplyEntry(f.Index+1, deploy.Entry{At: at, Events: []deploy.Event{agrees(f.State, id, f.counter)}})
		}
	}
	layout := f.Groups["www/prod"].Layout.Version
	delete(f.Deployments, "d1")
	f.Rebuild()
	create("d2", "v2", layout)
	if g.fixes {
		create("d3", "v3", layout, "v2")
	} else {
		create("d3", "v3", layout)
	}
	return g.intern(g.forget(clone(f.State)))
}

// agrees is the report of a host that did what it was told.
func agrees(s *deploy.State, host string, counter uint64) deploy.TargetsReported {
	t := s.Target(host, "www")
	r := deploy.Report{
		Host: host, App: "www", Counter: counter, Gen: t.Gen, Running: t.Running, Health: t.Health,
		Staged: revisions[1:],
	}
	if t.Permit != deploy.PermitNone {
		r.Result, r.Running, r.Health = deploy.ResultDone, t.Desired, deploy.HealthHealthy
	}
	return deploy.TargetsReported{Items: []deploy.Report{r}}
}

// forget makes states alike that differ in nothing that is to come: of
// generations it keeps whether a task had one, and whether it is the target's
// last; of what has ended, how.
func (g *staggered) forget(s *deploy.State) *deploy.State {
	const last = 9
	for id, h := range s.Hosts {
		t := h.Targets["www"]
		for _, d := range s.Deployments {
			task := d.Tasks[id]
			switch task.Gen {
			case 0:
			case t.Gen:
				task.Gen = last
			default:
				task.Gen = 1
			}
			task.Refused = 0
			if d.Status.Terminal() {
				*task = deploy.Task{Wave: task.Wave, Status: deploy.TaskCancelled, Since: epoch}
			}
		}
		t.Gen, t.Tries = last, 0
		t.Seals = slices.Compact(t.Seals)
		if t.Permit == deploy.PermitNone {
			t.Desired, t.Deployment = t.Running, ""
		}
	}
	group := s.Groups["www/prod"]
	group.History = slices.Compact(group.History)
	for _, d := range s.Deployments {
		d.StartedAt, d.LimitFrom, d.GateFail = epoch, epoch, ""
		for i := range d.Waves {
			w := &d.Waves[i]
			w.Holds, w.HeldAt, w.StartedAt, w.EndedAt, w.Released = nil, epoch, epoch, 0, true
		}
		if d.Status.Terminal() {
			d.Failures, d.EndedAt, d.PausedAt, d.TakenBy, d.ScopeRevert = 0, epoch, 0, "", nil
		}
	}
	s.Rebuild()
	return s
}

// act makes a step by facts.
func (g *staggered) act(m move, events func(*deploy.State) (deploy.Time, []deploy.Event)) uint32 {
	return g.take(m, func(s *deploy.State) error {
		at, list := events(s)
		err := g.facts(s, at, list...)
		settle(s)
		g.forget(s)
		return err
	})
}

func (g *staggered) next(id uint32, emit func(string, uint32)) error {
	s := g.states[id]
	step := func(what string, m move, events func(*deploy.State) (deploy.Time, []deploy.Event)) {
		m.from = id
		if to := g.act(m, events); to != id {
			emit(what, to)
		}
	}
	for k, wait := range []time.Duration{0, g.wait} {
		at := epoch.Add(wait)
		step([]string{"decide", "time passes"}[k], move{kind: byDecision, level: uint8(k)},
			func(s *deploy.State) (deploy.Time, []deploy.Event) {
				return at, deploy.Decide(s, deploy.Fleet{}, at)
			})
	}
	for i := range g.core.hosts {
		h, t := hostID(i), s.Target(hostID(i), "www")
		say := func(what string, k uint8, change func(*deploy.Report)) {
			step(h+" "+what, move{kind: byReport, at: uint8(i), level: k},
				func(s *deploy.State) (deploy.Time, []deploy.Event) {
					e := agrees(s, h, 1)
					change(&e.Items[0])
					return epoch, []deploy.Event{e}
				})
		}
		switch {
		case t.Permit != deploy.PermitNone:
			say("is done", 1, func(*deploy.Report) {})
			if slices.Contains(g.fails, t.Desired) && h != "h4" {
				say("fails", 2, func(r *deploy.Report) { r.Result, r.Running = deploy.ResultFailed, t.Running })
			}
		case i%2 == 0 && slices.Contains(g.fails, t.Running) && t.Health == deploy.HealthHealthy && len(s.Open()) > 0:
			say("turns unhealthy", 3, func(r *deploy.Report) { r.Health = deploy.HealthUnhealthy })
		}
	}
	for k, d := range s.Open() {
		if d.Status != deploy.DeploymentStatusPaused {
			continue
		}
		for v, verb := range []deploy.Verb{deploy.VerbRetry, deploy.VerbAbortRollback, deploy.VerbTakeOver} {
			step(d.ID+" "+string(verb), move{kind: byRequest, at: uint8(k), level: uint8(v)},
				func(*deploy.State) (deploy.Time, []deploy.Event) {
					return epoch, []deploy.Event{deploy.RequestMade{Deployment: d.ID, Verb: verb}}
				})
		}
	}
	return g.err
}

// check tests I1, I4 and I5 by themselves.
func (g *staggered) check(id uint32) error {
	s := g.states[id]
	group := s.Groups["www/prod"]
	down := 0
	for w, hosts := range staggeredWaves {
		for _, h := range hosts {
			t := s.Target(h, "www")
			if t.Permit == deploy.PermitNormal {
				down++
			}
			if err := g.confined(s, w, t); err != nil {
				return err
			}
		}
		seals := sealsOf(group, w)
		if !slices.IsSortedFunc(seals, func(a,
			b deploy.Seal,
		) int {
			return strings.Compare(a.Deployment, b.Deployment)
		}) {
			return fmt.Errorf("I4: wave %d was sealed out of order: %v", w, seals)
		}
	}
	if g.core.hosts-down < g.floor {
		return fmt.Errorf("I1: %d hosts are disrupted, the floor is %d", down, g.floor)
	}
	return nil
}

// confined is I5: a revision that is not sealed in a wave is there only while
// its deployment has the wave, or has been told to give it back.
func (g *staggered) confined(s *deploy.State, w int, t *deploy.Target) error {
	group := s.Groups["www/prod"]
	is := func(seal deploy.Seal) bool { return seal.Revision == t.Desired }
	if t.Desired == "v1" || group.Bad[t.Desired] != "" || slices.ContainsFunc(sealsOf(group, w), is) ||
		slices.ContainsFunc(t.Seals, is) {
		return nil
	}
	for _, d := range s.Deployments {
		st := d.Waves[w].Status
		// given before a retry, or left
		if d.Revision == t.Desired && (st != deploy.WaveStatusPending && st != deploy.WaveStatusHeld ||
			d.Tasks[t.Host].Gen > 0 || d.Status.Terminal()) {
			return nil
		}
	}
	return fmt.Errorf("I5: %s is to run %s, which wave %d has not been given", t.Host, t.Desired, w)
}

// rest reports whether everything has ended with one revision everywhere.
func (g *staggered) rest(id uint32) bool {
	s := g.states[id]
	first := s.Target("h1", "www").Running
	for i := range g.core.hosts {
		if t := s.Target(hostID(i), "www"); t.Running != first || t.Open {
			return false
		}
	}
	return len(s.Open()) == 0
}

func (g *staggered) show(id uint32) string {
	s := g.states[id]
	out := ""
	for _, d := range []string{"d2", "d3"} {
		out += d + " " + s.Deployments[d].Status.String()
		for i := range s.Deployments[d].Waves {
			out += " " + s.Deployments[d].Waves[i].Status.String()
		}
		out += "; "
	}
	for i := range g.core.hosts {
		t := s.Target(hostID(i), "www")
		out += fmt.Sprintf(" %s %s>%s %s %s %s/%s |", t.Host, t.Running, t.Desired, t.Permit, t.Health,
			s.Deployments["d2"].Tasks[t.Host].Status, s.Deployments["d3"].Tasks[t.Host].Status)
	}
	return out
}

func (g *staggered) walk(t *testing.T, limit int, budget time.Duration) {
	t.Helper()
	began := time.Now()
	name := fmt.Sprintf("staggered: v2 and v3, 3 waves, 4 hosts, fails %v, fixes %v", g.fails, g.fixes)
	x := explore(g.start(t), limit, began.Add(budget), true, g.next, g.check)
	x.report(t, name, g.core, began, g.show)
	if x.err != nil || !x.whole {
		return
	}
	if i := x.stuck(g.rest); i >= 0 {
		t.Errorf("%s: I9: nothing leads to a uniform fleet from\n%s", name, x.trace(i, g.show))
	}
	finals := map[deploy.Digest]int{}
	for _, id := range x.states {
		if g.rest(id) {
			finals[g.states[id].Target("h1", "www").Running]++
		}
	}
	t.Logf("  ends on %v", finals)
	for _, r := range g.ends {
		if finals[r] == 0 {
			t.Errorf("%s: never ends on %s: the model is vacuous", name, r)
		}
	}
}

// TestModelStaggered walks two revisions in flight.
func TestModelStaggered(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	v1, v2, v3 := revisions[1], revisions[2], revisions[3]
	list := func(r ...deploy.Digest) []deploy.Digest { return r }
	for i, g := range []*staggered{
		{fails: list(v3), ends: list(v2, v3)},
		{fails: list(v2), ends: list(v1, v3)},
		{fails: list(v2), ends: list(v3), fixes: true},
		{fails: list(v2, v3), ends: list(v1, v2, v3)},
		{fails: list(v2, v3), ends: list(v1, v2, v3), fixes: true},
	} {
		limit, budget := 1_000_000, 15*time.Second
		if !large() {
			limit = 2000
		}
		g.core, g.floor, g.wait = newCore(4), 2, 2*time.Minute
		g.checkEach = i == 0 && !large()
		g.walk(t, limit, budget)
		if t.Failed() || i == 1 && !large() {
			return
		}
	}
}

// sealsOf returns what the group's history has of one wave.
func sealsOf(g *deploy.Group, wave int) []deploy.Seal {
	return slices.DeleteFunc(slices.Clone(g.History),
		func(s deploy.Seal) bool { return s.Wave != g.Layout.Waves[wave].Name })
}
