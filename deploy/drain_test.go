package deploy_test

import (
	"testing"

	"github.com/groundswell/groundswell/deploy"
)

// TestAnOldAnswerEndsNoDrain: a host counts again once it says so of the very word that
// called it back; what it said before may still be under way.
func TestAnOldAnswerEndsNoDrain(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1", "h2")
	f.Rules = deploy.RulesKnown
	d := f.create("d1", "v1", "h1", "h2")
	f.settle(d, "h1")
	f.settle(d, "h2")
	f.finish(d)
	set := func(id string, undo bool) {
		f.must(deploy.HostDrainSet{Request: deploy.Request{ID: id, Actor: "ann"}, Host: "h1", Undo: undo})
	}
	target := func() *deploy.Target { return f.Target("h1", "www") }
	says := func(out deploy.Out, key uint64) {
		r := deploy.Report{
			Host: "h1", App: "www", Counter: target().Counter + 1, Gen: target().Gen, Result: deploy.ResultNone,
			Running: target().Running, Health: deploy.HealthHealthy, Out: out, OutKey: key,
		}
		f.must(deploy.TargetsReported{Items: []deploy.Report{r}})
	}
	was := target().OutKey
	set("1", false)
	f.must(deploy.HostDrained{Host: "h1"})
	out := target().OutKey
	if says(deploy.OutNone, was); target().Out != deploy.OutMoving || out == was {
		t.Errorf("drained, and an older report came: %+v", target())
	}
	if says(deploy.OutDone, out); target().Out != deploy.OutDone || target().Serving() {
		t.Errorf("out: %+v", target())
	}
	set("2", true)
	if target().Serving() || target().OutKey == out {
		t.Errorf("called back, it counts at once: %+v", target())
	}
	for _, key := range []uint64{was, out} {
		if says(deploy.OutNone, key); target().Serving() {
			t.Errorf("an answer to word %d counts for %d: %+v", key, target().OutKey, target())
		}
	}
	if says(deploy.OutNone, target().OutKey); !target().Serving() {
		t.Errorf("back: %+v", target())
	}
}
