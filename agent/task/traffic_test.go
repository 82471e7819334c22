package task_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/groundswell/groundswell/agent/task"
)

// In every history of a group with traffic nothing is stopped, replaced or undone
// unless the pools were blocked and none was let in since; and a target that is
// closed with something running that is not broken has its traffic back.
func TestNothingIsStoppedUnderTraffic(t *testing.T) {
	stopped, readmitted := 0, 0
	for seed := range uint64(6000) {
		r := rand.New(rand.NewPCG(seed, 2))
		g := runs(t, []string{"", "v1"}[r.IntN(2)])
		gen := uint64(10)
		next := func() {
			gen++
			g.assign(task.Assignment{
				Generation: gen, Permit: task.Permit(1 + r.IntN(2)), Goal: []string{"v1", "v2", "v3"}[r.IntN(3)],
				Traffic: true, Pools: []string{
					"",
					"p",
				}[r.IntN(2)], StopFails: r.IntN(2) == 0, Revert: r.IntN(3) == 0, SkipProbe: r.IntN(2) == 0,
			})
		}
		next()
		shut, of := false, ""
		for n := 0; n < 600; n++ {
			s := task.Next(g.records)
			if s.Kind == task.KindWait {
				break
			}
			g.trace = append(g.trace, line(s))
			stops := s.Event == "ApplicationStop" || s.Kind == task.KindInstall || s.Kind == task.KindUndo
			if stops && (!shut || of != g.state().Assignment.Pools) {
				t.Fatalf("seed %d: %s under traffic: %v", seed, line(s), g.trace)
			}
			if stops {
				stopped++
			}
			g.records = append(g.records, task.Record{Begin: &s})
			if s.Event == "AllowTraffic" {
				shut = false
			}
			if gen < 14 && r.IntN(12) == 0 {
				next()
			}
			out := task.OutcomeOK
			if r.IntN(6) == 0 {
				out = task.OutcomeFailed
			}
			if s.Event == "BlockTraffic" && out.OK() {
				shut, of = true, g.state().Assignment.Pools
			}
			g.records = append(g.records, task.Record{End: &task.End{Outcome: out}})
		}
		s := g.state()
		if s.Open || s.Disturbed || s.Installed == "" { // what is broken is listed
			continue
		}
		if shut {
			t.Fatalf("seed %d: closed as %s, and left out of its pools: %v", seed, s.Base.Result, g.trace)
		}
		if slices.Contains(g.trace, "AllowTraffic "+s.Installed) {
			readmitted++
		}
	}
	if stopped < 1000 || readmitted < 500 {
		t.Errorf("%d stops and %d ways back: nothing was shown", stopped, readmitted)
	}
}
