package task_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/agent/task"
)

// line is a step as the traces below write it.
func line(s task.Step) string {
	parts := []string{s.Kind.String()}
	if s.Kind == task.KindHook {
		parts = []string{s.Event}
	}
	if s.Revision != "" {
		parts = append(parts, s.Revision)
	}
	if s.Kind == task.KindReport {
		parts = append(parts, s.Result.String())
	}
	if s.Rollback && s.Kind == task.KindHook {
		parts = append(parts, "back")
	}
	return strings.Join(parts, " ")
}

// target drives Next with scripted outcomes.
type target struct {
	t       *testing.T
	records []task.Record
	fail    map[string]int // line -> how many times it fails
	trace   []string
}

func runs(t *testing.T, running string) *target {
	t.Helper()
	return &target{
		t: t, records: []task.Record{{Base: &task.Base{Running: running, Generation: 10}}},
		fail: map[string]int{},
	}
}

func (g *target) assign(a task.Assignment) *target {
	a.App = "www"
	if err := a.Validate(); err != nil {
		g.t.Fatal(err)
	}
	g.records = append(g.records, task.Record{Assigned: &a})
	return g
}

// step does one step and reports whether there was one.
func (g *target) step() bool {
	s := task.Next(g.records)
	if s.Kind == task.KindWait {
		return false
	}
	g.trace = append(g.trace, line(s))
	g.records = append(g.records, task.Record{Begin: &s}, task.Record{End: g.outcome(s)})
	return true
}

func (g *target) outcome(s task.Step) *task.End {
	if l := line(s); g.fail[l] > 0 {
		g.fail[l]--
		return &task.End{Outcome: task.OutcomeFailed, Detail: "scripted"}
	}
	return &task.End{Outcome: task.OutcomeOK}
}

func (g *target) finish() string {
	for range 200 {
		if !g.step() {
			return strings.Join(g.trace, "; ")
		}
	}
	g.t.Fatalf("does not end: %s", strings.Join(g.trace, "; "))
	return ""
}

func (g *target) state() task.State {
	s, err := task.Replay(g.records)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

const (
	in   = "BeforeInstall v2; install v2; AfterInstall v2; ApplicationStart v2; ValidateService v2; probe v2"
	back = "ApplicationStop v2 back; undo v1; ApplicationStart v1 back; ValidateService v1 back; probe v1"
)

func TestPrograms(t *testing.T) {
	v2 := task.Assignment{Generation: 11, Permit: task.PermitNormal, Goal: "v2"}
	with := func(change func(*task.Assignment)) task.Assignment {
		a := v2
		change(&a)
		return a
	}
	for _, c := range []struct {
		name    string
		running string
		assign  task.Assignment
		fail    map[string]int
		want    string
	}{
		{"update", "v1", v2, nil, "stage v2; accept; ApplicationStop v1; " + in + "; settle v2; report v2 done"},
		{"first", "", v2, nil, "stage v2; accept; " + in + "; settle v2; report v2 done"},
		{
			"F01 traffic", "v1", with(func(a *task.Assignment) { a.Traffic = true }), nil,
			"stage v2; accept; BeforeBlockTraffic v1; BlockTraffic v1; AfterBlockTraffic v1; ApplicationStop v1; " + in +
				"; BeforeAllowTraffic v2; AllowTraffic v2; AfterAllowTraffic v2; settle v2; report v2 done",
		},
		{
			"no permit", "v1", with(func(a *task.Assignment) { a.Permit = task.PermitNone }), nil,
			"stage v2; accept; report v1 idle",
		},
		{
			"conditional", "v1", with(func(a *task.Assignment) { a.Permit = task.PermitConditional }), nil,
			"stage v2; accept; check-idle; ApplicationStop v1; " + in + "; settle v2; report v2 done",
		},
		{
			"refused", "v1", with(func(a *task.Assignment) { a.Permit = task.PermitConditional }),
			map[string]int{"check-idle": 1},
			"stage v2; accept; check-idle; report v1 refused",
		},
		{
			"stage retried", "v1", v2,
			map[string]int{"stage v2": 2},
			"stage v2; stage v2; stage v2; accept; ApplicationStop v1; " + in + "; settle v2; report v2 done",
		},
		{
			"stage fails", "v1", v2,
			map[string]int{"stage v2": 3},
			"stage v2; stage v2; stage v2; accept; report v1 failed",
		},
		{
			"F06 stop continues", "v1", v2,
			map[string]int{"ApplicationStop v1": 1},
			"stage v2; accept; ApplicationStop v1; " + in + "; settle v2; report v2 done",
		},
		{
			"stop fails", "v1", with(func(a *task.Assignment) { a.StopFails = true }),
			map[string]int{"ApplicationStop v1": 1},
			"stage v2; accept; ApplicationStop v1; ApplicationStart v1 back; ValidateService v1 back; probe v1; settle v1; report v1 failed",
		},
		{
			"fails before switch", "v1", v2,
			map[string]int{"BeforeInstall v2": 1},
			"stage v2; accept; ApplicationStop v1; BeforeInstall v2; ApplicationStart v1 back; ValidateService v1 back; probe v1; settle v1; report v1 failed",
		},
		{
			"block fails", "v1", with(func(a *task.Assignment) { a.Traffic, a.StopFails = true, true }),
			map[string]int{"BeforeBlockTraffic v1": 1},
			"stage v2; accept; BeforeBlockTraffic v1; BeforeAllowTraffic v1 back; AllowTraffic v1 back; AfterAllowTraffic v1 back; settle v1; report v1 failed",
		},
		{
			"install fails", "v1", v2,
			map[string]int{"install v2": 1},
			"stage v2; accept; ApplicationStop v1; BeforeInstall v2; install v2; undo v1; ApplicationStart v1 back; ValidateService v1 back; probe v1; settle v1; report v1 failed",
		},
		{
			"F10 revert", "v1", v2,
			map[string]int{"ValidateService v2": 1, "ApplicationStop v2 back": 1},
			"stage v2; accept; ApplicationStop v1; BeforeInstall v2; install v2; AfterInstall v2; ApplicationStart v2; ValidateService v2; " + back + "; settle v1; report v1 failed",
		},
		{
			"probe fails", "v1", v2,
			map[string]int{"probe v2": 1},
			"stage v2; accept; ApplicationStop v1; " + in + "; " + back + "; settle v1; report v1 failed",
		},
		{
			"first fails", "", v2,
			map[string]int{"ApplicationStart v2": 1},
			"stage v2; accept; BeforeInstall v2; install v2; AfterInstall v2; ApplicationStart v2; ApplicationStop v2 back; undo; settle; report failed",
		},
		{
			"broken", "v1", v2,
			map[string]int{"AfterInstall v2": 1, "ApplicationStart v1 back": 9},
			"stage v2; accept; ApplicationStop v1; BeforeInstall v2; install v2; AfterInstall v2; ApplicationStop v2 back; undo v1; ApplicationStart v1 back" +
				"; ApplicationStop v1 back; ApplicationStart v1 back; ApplicationStop v1 back; ApplicationStart v1 back; report v1 broken",
		},
		{
			"F10 leave", "v1", with(func(a *task.Assignment) { a.OnFailure = task.OnFailureLeave }),
			map[string]int{"ValidateService v2": 1},
			"stage v2; accept; ApplicationStop v1; BeforeInstall v2; install v2; AfterInstall v2; ApplicationStart v2; ValidateService v2; settle v2; report v2 failed",
		},
		{
			"leave, install fails", "v1", with(func(a *task.Assignment) { a.OnFailure = task.OnFailureLeave }),
			map[string]int{"install v2": 1},
			"stage v2; accept; ApplicationStop v1; BeforeInstall v2; install v2; undo v1; settle v1; report v1 failed",
		},
		{
			"a revert that fails", "v1", with(func(a *task.Assignment) { a.Revert = true }),
			map[string]int{"ApplicationStart v2 back": 3},
			"stage v2; accept; ApplicationStop v1 back" + strings.Repeat("; BeforeInstall v2 back; install v2; AfterInstall v2 back; ApplicationStart v2 back; ApplicationStop v2 back", 2) +
				"; BeforeInstall v2 back; install v2; AfterInstall v2 back; ApplicationStart v2 back; report v2 broken",
		},
		{
			"nothing to run", "v1", with(func(a *task.Assignment) { a.Goal = "" }), nil,
			"accept; ApplicationStop v1; install; settle; report done",
		},
		{
			"repair, nothing to do", "v2", with(func(a *task.Assignment) { a.Verify = true }), nil,
			"stage v2; accept; verify v2; report v2 done",
		},
		{
			"repair", "v2", with(func(a *task.Assignment) { a.Verify = true }),
			map[string]int{"verify v2": 1},
			"stage v2; accept; verify v2; ApplicationStop v2; " + in + "; settle v2; report v2 done",
		},
		{
			"repair of another revision", "v1", with(func(a *task.Assignment) { a.Verify = true }), nil,
			"stage v2; accept; ApplicationStop v1; " + in + "; settle v2; report v2 done",
		},
		{"redeploy", "v2", v2, nil, "stage v2; accept; ApplicationStop v2; " + in + "; settle v2; report v2 done"},
		{"fence", "v1", with(func(a *task.Assignment) { a.Generation = 10 }), nil, ""},
	} {
		g := runs(t, c.running).assign(c.assign)
		for k, n := range c.fail {
			g.fail[k] = n
		}
		if got := g.finish(); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}

// A higher generation in the middle keeps the permit: before the switch the
// application is only let back in, after it everything is reversed.
func TestRetarget(t *testing.T) {
	for _, c := range []struct {
		name  string
		after string // the step behind which the new generation arrives
		goal  string
		want  string // what follows
	}{
		{"before anything", "accept", "v1", "accept; ApplicationStop v1; BeforeInstall v1; install v1; AfterInstall v1; ApplicationStart v1; ValidateService v1; probe v1; settle v1; report v1 done"},
		{
			"stopped", "ApplicationStop v1", "v1",
			"accept; ApplicationStart v1 back; ValidateService v1 back; probe v1; settle v1; report v1 done",
		},
		{"installed", "install v2", "v1", "accept; " + back + "; settle v1; report v1 done"},
		{"started", "ApplicationStart v2", "v1", "accept; " + back + "; settle v1; report v1 done"},
		{
			"stopped, other goal", "ApplicationStop v1", "v3",
			"stage v3; accept; " + strings.ReplaceAll(in, "v2", "v3") + "; settle v3; report v3 done",
		},
		{
			"installed, other goal", "install v2", "v3",
			"stage v3; accept; ApplicationStop v2; undo v1; " + strings.ReplaceAll(in, "v2",
				"v3") + "; settle v3; report v3 done",
		},
	} {
		g := runs(t, "v1").assign(task.Assignment{Generation: 11, Permit: task.PermitNormal, Goal: "v2"})
		for g.step() && g.trace[len(g.trace)-1] != c.after {
		}
		g.assign(task.Assignment{Generation: 12, Permit: task.PermitNormal, Goal: c.goal})
		g.trace = nil
		if got := g.finish(); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}

// A generation that arrives while a step runs counts from the step's end, and
// a revert in progress gives way to it.
func TestRetargetWhileAStepRuns(t *testing.T) {
	g := runs(t, "v1").assign(task.Assignment{Generation: 11, Permit: task.PermitNormal, Goal: "v2"})
	for g.step() && g.trace[len(g.trace)-1] != "BeforeInstall v2" {
	}
	s := task.Next(g.records)
	g.records = append(g.records, task.Record{Begin: &s})
	g.assign(task.Assignment{Generation: 12, Permit: task.PermitNormal, Goal: "v1"})
	again := task.Next(g.records)
	if !again.Resume || again.ID() != s.ID() {
		t.Fatalf("got %+v, want the begun step", again)
	}
	g.records = append(g.records, task.Record{End: &task.End{Outcome: task.OutcomeFailed}})
	g.trace = nil
	if got := g.finish(); got != "accept; undo v1; ApplicationStart v1 back; ValidateService v1 back; probe v1; settle v1; report v1 done" {
		t.Errorf("got %s", got)
	}
}

// A broken target is taken up again from where it was left, under a
// conditional permit only if the application is not serving.
func TestBrokenIsTakenUp(t *testing.T) {
	g := runs(t, "v1").assign(task.Assignment{Generation: 11, Permit: task.PermitNormal, Goal: "v2"})
	g.fail["AfterInstall v2"], g.fail["undo v1"] = 1, 3
	g.finish()
	s := g.state()
	if s.Base.Result != task.ResultBroken || s.Base.World == nil || !s.Base.World.Undoable || s.Installed != "v2" {
		t.Fatalf("got %+v", s)
	}
	g.records = []task.Record{{Base: &s.Base}} // as compaction leaves it
	g.trace = nil
	g.assign(task.Assignment{Generation: 12, Permit: task.PermitConditional, Goal: "v1"})
	if got := g.finish(); got != "stage v1; accept; check-idle; "+back+"; settle v1; report v1 done" {
		t.Errorf("got %s", got)
	}
}

// Random worlds: every history ends, and what it ends in is true.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 1))
		g := runs(t, []string{"", "v1"}[r.IntN(2)])
		gen := uint64(10)
		next := func() {
			gen++
			g.assign(task.Assignment{
				Generation: gen, Permit: task.Permit(r.IntN(3)), Goal: []string{"v1", "v2", "v3"}[r.IntN(3)],
				Traffic: r.IntN(2) == 0, StopFails: r.IntN(2) == 0, Revert: r.IntN(3) == 0, SkipProbe: r.IntN(2) == 0,
			})
		}
		next()
		ids := map[string]bool{}
		for n := 0; ; n++ {
			s := task.Next(g.records)
			if s.Kind == task.KindWait {
				break
			}
			if n > 600 {
				t.Fatalf("seed %d does not end: %v", seed, g.trace)
			}
			g.check(seed, s, ids)
			g.trace = append(g.trace, line(s))
			g.records = append(g.records, task.Record{Begin: &s})
			if gen < 14 && r.IntN(12) == 0 {
				next()
			}
			if got := task.Next(g.records); !got.Resume || got.ID() != s.ID() {
				t.Fatalf("seed %d: a crash in %s asks for %s", seed, s.ID(), got.ID())
			}
			out := task.OutcomeOK
			if r.IntN(6) == 0 {
				out = task.OutcomeFailed
			}
			g.records = append(g.records, task.Record{End: &task.End{Outcome: out}})
		}
		g.checkEnd(seed)
	}
}

func (g *target) check(seed uint64, s task.Step, ids map[string]bool) {
	state := g.state()
	if ids[s.ID()] {
		g.t.Fatalf("seed %d: id %s comes twice", seed, s.ID())
	}
	ids[s.ID()] = true
	disturbs := slices.Contains([]task.Kind{task.KindHook, task.KindInstall, task.KindUndo}, s.Kind)
	if disturbs && state.Assignment.Permit == task.PermitNone {
		g.t.Fatalf("seed %d: %s without a permit", seed, line(s))
	}
	if disturbs && state.Base.Generation != s.Generation {
		g.t.Fatalf("seed %d: %s before generation %d was accepted", seed, line(s), s.Generation)
	}
}

func (g *target) checkEnd(seed uint64) {
	s := g.state()
	if s.Open || s.Base.Generation != s.Assignment.Generation {
		g.t.Fatalf("seed %d: ended open: %+v", seed, s)
	}
	bad := ""
	switch s.Base.Result {
	case task.ResultDone:
		if s.Installed != s.Assignment.Goal || s.Disturbed {
			bad = "done, but not running its goal"
		}
	case task.ResultFailed:
		if s.Disturbed {
			bad = "failed, but disturbed"
		}
	case task.ResultBroken, task.ResultRefused, task.ResultIdle:
	case task.ResultNone:
		bad = "closed without a result"
	}
	if bad != "" || s.Base.Running != s.Installed {
		g.t.Fatalf("seed %d: %s (%+v): %v", seed, bad, s, g.trace)
	}
	if again := task.Next([]task.Record{{Base: &s.Base}}); again.Kind != task.KindWait {
		g.t.Fatalf("seed %d: a compacted target asks for %s", seed, line(again))
	}
}

func TestNonsenseWaits(t *testing.T) {
	for _, records := range [][]task.Record{nil, {{}}, {{End: &task.End{}}}} {
		if s := task.Next(records); s.Kind != task.KindWait {
			t.Errorf("%v: %v", records, s)
		}
	}
	// Another version's program: what it began is followed.
	s := task.Step{Kind: task.KindHook, Event: "Novel", Generation: 11, Number: 1}
	g := runs(t, "v1").assign(task.Assignment{Generation: 11, Permit: task.PermitNormal, Goal: "v2"})
	g.records = append(g.records, task.Record{Begin: &s}, task.Record{End: &task.End{Outcome: task.OutcomeOK}})
	if next := task.Next(g.records); line(next) != "stage v2" || next.Number != 2 {
		t.Errorf("got %+v", next)
	}
	if fmt.Sprint(task.Kind(99), task.Outcome(99), task.Result(99), task.Permit(99)) == "" {
		t.Error("unknown numbers have no name")
	}
}

// A target that is broken tries its way back again, after compaction too, with
// steps that were never numbered before, and without a permit to hand on.
func TestRetryOfABrokenTarget(t *testing.T) {
	for _, c := range []struct {
		assign         task.Assignment
		fail, then     string
		result         task.Result
		running, trace string
	}{
		{
			task.Assignment{Generation: 11, Permit: task.PermitNormal, Goal: "v2"},
			"ApplicationStart v1 back", "", task.ResultFailed, "v1",
			"ApplicationStop v1 back; ApplicationStart v1 back; ValidateService v1 back; probe v1; settle v1; report v1 failed",
		},
		{
			task.Assignment{Generation: 11, Permit: task.PermitNormal, Goal: "v2", Revert: true},
			"install v2", "", task.ResultDone, "v2",
			strings.ReplaceAll(in, " v2;", " v2 back;"),
		},
	} {
		g := runs(t, "v1").assign(c.assign)
		g.fail[c.fail], g.fail["AfterInstall v2"] = 3, 1
		g.finish()
		s := g.state()
		if s.Base.Result != task.ResultBroken || s.Base.Assigned == nil {
			t.Fatalf("not broken: %+v", s.Base)
		}
		g.records, g.trace = []task.Record{{Base: &s.Base}, {Retried: &task.Retry{Number: 1000}}}, nil
		if s := g.state(); s.Next.Number != 1001 || s.Assignment.Permit != task.PermitNone ||
			s.Base.Result != task.ResultBroken {
			t.Errorf("retried: %+v", s)
		}
		got := g.finish()
		if s := g.state(); s.Base.Result != c.result || s.Base.Running != c.running || s.Base.World != nil {
			t.Errorf("%s: %+v", got, s.Base)
		}
		if c.result == task.ResultFailed && got != c.trace {
			t.Errorf("%s\nwant\n%s", got, c.trace)
		}
		g.records = append(g.records, task.Record{Retried: &task.Retry{Number: 2000}})
		if s := g.state(); s.Next.Kind != task.KindWait {
			t.Errorf("a target that is not broken was retried: %+v", s.Next)
		}
	}
}
