package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// drained tells the target whether to be out of its pools, as an assignment says it.
func (w *world) drain(file string, key uint64, out bool) func(*agentv1.Assignment) {
	return func(a *agentv1.Assignment) {
		a.Out, a.OutKey = out, key
		a.Traffic = &agentv1.Traffic{Pools: []*agentv1.Pool{{Kind: "file", Path: file}}}
	}
}

// A drained host leaves its pools and stays out of them, whatever is deployed to it,
// also after a restart; what runs goes on, and no hook of it runs. Each answer names the
// word that it is for.
func TestADrainedHostStaysOut(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "run", "in-service")
	w.o.TrafficFiles = []string{filepath.Join(dir, "run")}
	stop := w.start()
	scripts := hookScripts{
		"BeforeBlockTraffic": "echo block >>\"$OUT\"\n", "ApplicationStop": "echo stop >>\"$OUT\"\n",
	}
	there := func() bool { _, err := os.Stat(file); return err == nil }
	idle := func(key uint64, out bool) {
		a := &agentv1.Assignment{App: "www", Group: "prod", Generation: w.gen, Artifacts: "file:///store"}
		w.drain(file, key, out)(a)
		w.assign(a)
	}
	answers := func(key uint64, want agentv1.Out) {
		t.Helper()
		w.newest("an answer", func(r *agentv1.Report) bool { return r.OutKey == key && r.Out == want })
	}
	v1 := w.push("v1", scripts)
	w.done(v1, w.drain(file, 0, false))
	if !there() {
		t.Fatal("the host serves, and its file says that it does not")
	}
	idle(7, true)
	answers(7, agentv1.Out_OUT_DONE)
	if there() || w.installed() != "v1" || strings.Contains(w.out(), "block") || strings.Contains(w.out(), "stop") {
		t.Errorf("drained: file there %v, installed %s, hooks %q", there(), w.installed(), w.out())
	}

	w.done(w.push("v2", scripts), w.drain(file, 7, true)) // a way back, say
	if there() || w.installed() != "v2" {
		t.Errorf("after a permit: file there %v, installed %s", there(), w.installed())
	}
	stop()
	w.with(func() { w.reports = nil })
	w.start()
	answers(7, agentv1.Out_OUT_DONE)
	if there() {
		t.Error("after a restart it is back")
	}

	// Back, out and back once more: the last word counts, and is answered.
	idle(8, false)
	idle(9, true)
	idle(10, false)
	answers(10, agentv1.Out_OUT_UNSPECIFIED)
	if !there() {
		t.Error("undrained, it is not back")
	}
	// A coordinator whose log is from a backup knows of no drain.
	idle(11, true)
	answers(11, agentv1.Out_OUT_DONE)
	idle(0, false)
	answers(0, agentv1.Out_OUT_UNSPECIFIED)
	if !there() {
		t.Error("nobody wants it out, and it is")
	}
}

// A pool that cannot be asked is asked again, and nobody is told that the host is out.
func TestADrainThatFailsIsNotDone(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.o.TrafficFiles = []string{filepath.Join(dir, "run")}
	w.start()
	w.done(w.push("v1", nil), w.drain(filepath.Join(dir, "run", "a"), 0, false))
	a := &agentv1.Assignment{App: "www", Group: "prod", Generation: w.gen, Artifacts: "file:///store"}
	w.drain(filepath.Join(dir, "elsewhere"), 3, true)(a)
	w.assign(a)
	w.newest("it is on its way", func(r *agentv1.Report) bool { return r.OutKey == 3 })
	w.until("the reason is told", func() bool { return strings.Contains(w.log.String(), "a pool does not follow") })
	if r := w.newest("", func(*agentv1.Report) bool { return true }); r.Out != agentv1.Out_OUT_MOVING {
		t.Errorf("%v", r)
	}
	w.drain(filepath.Join(dir, "run", "a"), 4, false)(a)
	w.assign(a)
	w.newest("called off", func(r *agentv1.Report) bool { return r.OutKey == 4 && r.Out == agentv1.Out_OUT_UNSPECIFIED })
}

// A machine on which nothing is installed is drained and called back: it does not say
// that it serves before something does.
func TestADrainOfNothing(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "run", "in-service")
	w.o.TrafficFiles = []string{filepath.Join(dir, "run")}
	w.start()
	there := func() bool { _, err := os.Stat(file); return err == nil }
	for key, out := range []bool{1: true, 2: false} {
		if key == 0 {
			continue
		}
		a := &agentv1.Assignment{App: "www", Group: "prod", Generation: w.gen, Artifacts: "file:///store"}
		w.drain(file, uint64(key), out)(a)
		w.assign(a)
		want := map[bool]agentv1.Out{true: agentv1.Out_OUT_DONE, false: agentv1.Out_OUT_UNSPECIFIED}[out]
		w.newest("answered", func(r *agentv1.Report) bool { return r.OutKey == uint64(key) && r.Out == want })
		if there() {
			t.Errorf("out %v: nothing is installed, and the host says that it serves", out)
		}
	}
	w.done(w.push("v1", nil), w.drain(file, 2, false))
	if !there() {
		t.Error("it serves, and says that it does not")
	}
}
