package agent_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// tasted packs a revision with a script taste.sh, which notes its process and that of a
// child in a session of its own.
func (w *world) tasted(name, script string) *agentv1.Revision {
	w.Helper()
	dir := w.TempDir()
	must(w.T, os.WriteFile(filepath.Join(dir, "revision"), []byte(name), 0o644))
	must(w.T, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte("version: 0.0\nos: linux\nfiles:\n"+
		"  - source: revision\n    destination: /srv/www\nfile_exists_behavior: OVERWRITE\n"), 0o644))
	must(w.T, os.WriteFile(filepath.Join(dir, "warm.sh"), []byte("#!/bin/sh\necho warm >>\"$OUT\"\n"), 0o755))
	must(w.T, os.WriteFile(filepath.Join(dir, "taste.sh"), []byte("#!/bin/sh\n"+
		"setsid sh -c 'echo $$ >>\"$OUT.pids\"; exec sleep 600' &\nwhile [ ! -s \"$OUT.pids\" ]; do sleep 0.01; done\n"+
		"echo $$ >>\"$OUT.pids\"\n"+
		"echo \"taste $GROUNDSWELL_REVISION $DEPLOYMENT_ID $LIFECYCLE_EVENT $PORT $(cat revision)\" >>\"$OUT\"\n"+
		script), 0o755))
	return w.pushDir(dir, name)
}

// tastes assigns a revision that is to be staged and tasted.
func (w *world) tastes(rev *agentv1.Revision, key string) {
	w.assign(&agentv1.Assignment{
		App: "www", Group: "prod", Generation: w.gen, Stage: rev, StageKey: key, Artifacts: "file:///store",
		Tastes: &agentv1.Tastes{Deployment: "d-next", Scripts: []*agentv1.StageScript{
			{Event: "Warmup", Script: "warm.sh", TimeoutNs: int64(20 * time.Second)},
			{Event: "Taste", Script: "taste.sh", TimeoutNs: int64(20 * time.Second)},
		}},
	})
}

// left lists the processes of tastes that live.
func (w *world) left() (pids []int) {
	b, _ := os.ReadFile(filepath.Join(w.dir, "out.pids"))
	for _, text := range strings.Fields(string(b)) {
		pid := 0
		_, _ = fmt.Sscan(text, &pid)
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil &&
			!strings.Contains(string(stat), ") Z ") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A revision is tasted beside the one that serves: that one goes on, nothing of the
// taste does, and the key says under which staging it passed, or failed.
func TestARevisionIsTastedBeforeItsPermit(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	w.done(w.push("v1", nil))
	good, bad := w.tasted("v2", ""), w.tasted("v3", "echo no such database; exit 3\n")

	w.tastes(good, "k1")
	r := w.newest("the taste has passed", func(r *agentv1.Report) bool { return r.StageKey == "k1" })
	if r.StageFailed != "" || r.Health != agentv1.Health_HEALTH_HEALTHY || r.Running == good.Digest {
		t.Errorf("after a good taste: %v", r)
	}
	if got := w.out(); !strings.HasPrefix(got, "warm\ntaste v2 d-next Taste ") || !strings.HasSuffix(got, " v2\n") {
		t.Errorf("the scripts said %q", got)
	}
	if left := w.left(); len(left) > 0 || w.installed() != "v1" {
		t.Errorf("left behind: %v; installed is %s", left, w.installed())
	}

	w.tastes(bad, "k2")
	r = w.newest("the taste has failed", func(r *agentv1.Report) bool { return r.StageFailed != "" })
	if f := r.Failure; r.StageKey != "k2" || f.GetEvent() != "Taste" || f.GetScript() != "taste.sh" ||
		!strings.Contains(f.GetTail(), "no such database") || f.GetExit() != "exit status 3" {
		t.Errorf("a bad taste is reported as %v", r)
	}
	if left := w.left(); len(left) > 0 || w.installed() != "v1" {
		t.Errorf("left behind: %v; installed is %s", left, w.installed())
	}

	// The same revision under another key is tasted again, though it is on the disk; what has
	// passed is not, also after a restart.
	w.tastes(good, "k3")
	w.newest("tasted again", func(r *agentv1.Report) bool { return r.StageKey == "k3" && r.StageFailed == "" })
	stop()
	n := strings.Count(w.out(), "taste v2")
	w.with(func() { w.reports = nil })
	w.start()
	w.newest("after a restart", func(r *agentv1.Report) bool { return r.StageKey == "k3" })
	if again := strings.Count(w.out(), "taste v2"); n != 2 || again != n {
		t.Errorf("tasted %d times, after a restart %d", n, again)
	}
	w.done(good)
	if w.installed() != "v2" {
		t.Errorf("installed is %s", w.installed())
	}
}

// A taste gives way: to a permit, which must not wait, to a deployment that is over, and
// to the end of the agent, whether told or killed.
func TestATasteGivesWay(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	w.done(w.push("v1", nil))
	stop() // it has an identity now
	first := w.process()
	slow := w.tasted("v2", "sleep 600\n")
	begin := func(key string) {
		t.Helper()
		must(t, os.RemoveAll(filepath.Join(w.dir, "out.pids")))
		w.tastes(slow, key)
		w.until("the taste runs", func() bool { return len(w.left()) == 2 })
	}
	begin("k1")
	v3, next := w.push("v3", nil), w.items["www"]
	w.done(v3, func(a *agentv1.Assignment) { // another deployment's; the taste is asked for all the same
		a.Stage, a.StageKey, a.Tastes = next.Stage, next.StageKey, next.Tastes
	})
	w.until("it is tasted after the permit", func() bool { return strings.Count(w.out(), "taste v2") == 2 })
	w.assign(&agentv1.Assignment{App: "www", Group: "prod", Generation: w.gen, Artifacts: "file:///store"})
	w.until("nothing is left", func() bool { return len(w.left()) == 0 })

	begin("k2")
	w.assign(&agentv1.Assignment{App: "www", Group: "prod", Generation: w.gen, Artifacts: "file:///store"})
	w.until("nothing is left after an abort", func() bool { return len(w.left()) == 0 })

	begin("k3")
	w.assign(&agentv1.Assignment{App: "www", Group: "prod", Generation: w.gen, Artifacts: "file:///store"})
	w.until("nothing is left", func() bool { return len(w.left()) == 0 })
	begin("k4")
	must(t, first.Process.Kill())
	_ = first.Wait()
	if len(w.left()) != 2 {
		t.Error("killed, the agent took the taste along: nothing is tested")
	}
	w.assign(&agentv1.Assignment{App: "www", Group: "prod", Generation: w.gen, Artifacts: "file:///store"})
	second := w.process()
	w.until("nothing is left after a restart", func() bool { return len(w.left()) == 0 })

	begin("k5")
	must(t, second.Process.Signal(syscall.SIGTERM))
	if err := second.Wait(); err != nil {
		t.Errorf("told to stop, the agent ended with %v", err)
	}
	w.until("nothing is left after a stop", func() bool { return len(w.left()) == 0 })
}

// A script that is not there, and one that takes too long, are failures of the revision.
func TestATasteThatCannotBe(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.done(w.push("v1", nil))
	rev := w.tasted("v2", "sleep 600\n")
	for key, s := range map[string]*agentv1.StageScript{
		"missing": {Event: "Taste", Script: "tast.sh", TimeoutNs: int64(20 * time.Second)},
		"slow":    {Event: "Taste", Script: "taste.sh", TimeoutNs: int64(time.Second)},
		"outside": {Event: "Taste", Script: "../../../../../../bin/true", TimeoutNs: int64(time.Second)},
	} {
		w.assign(&agentv1.Assignment{
			App: "www", Group: "prod", Generation: w.gen, Stage: rev, StageKey: key, Artifacts: "file:///store",
			Tastes: &agentv1.Tastes{Deployment: "d", Scripts: []*agentv1.StageScript{s}},
		})
		r := w.newest(key, func(r *agentv1.Report) bool { return r.StageKey == key })
		if r.StageFailed != rev.Digest || r.Failure.GetMessage() == "" {
			t.Errorf("%s: %v", key, r)
		}
		t.Log(r.Failure.GetMessage())
		if left := w.left(); len(left) > 0 {
			t.Error(errors.New("left behind"), left)
		}
	}
	w.assign(&agentv1.Assignment{ // whatever deploy.yaml says, a script of this application is no root's
		App: "www", Group: "prod", Generation: w.gen, Stage: rev, StageKey: "bound", Artifacts: "file:///store",
		RunAs: []string{"nobody-at-all"},
		Tastes: &agentv1.Tastes{Deployment: "d", Scripts: []*agentv1.StageScript{
			{Event: "Warmup", Script: "warm.sh", TimeoutNs: int64(time.Second)},
		}},
	})
	r := w.newest("bound", func(r *agentv1.Report) bool { return r.StageKey == "bound" })
	if !strings.Contains(r.Failure.GetMessage(), "may run scripts as nobody-at-all alone") || strings.Contains(w.out(), "warm") {
		t.Errorf("%v; the script said %q", r, w.out())
	}
}
