package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const oneBoxFirst = `{capacity: {minHealthy: 50%, maxConcurrent: 2},
      waves: [{name: one-box, select: {count: 1}}, {name: rest, select: remainder}]}`

// deployed pushes and deploys revisions one after another.
func (w *world) deployed(revs ...string) {
	w.Helper()
	for _, rev := range revs {
		w.push(rev)
		w.must("deploy", "--app", "hello", "--rev", rev)
	}
	w.all(revs[len(revs)-1])
}

// stays checks for a while that nobody moves a host.
func (w *world) stays(rev string) {
	w.Helper()
	time.Sleep(3 * time.Second) // late tasks come within a second
	w.all(rev)
}

func TestANamedRollbackStays(t *testing.T) {
	w := start(t, 1, 3)
	w.app(oneBoxFirst)
	w.deployed("v1", "v2", "v4")
	out, code := w.dctl("rollback", "--app", "hello", "--to", "v1", "--reason", "v4 leaks")
	if code != 0 || !strings.Contains(out, "rolled back to v1, as asked") || strings.Contains(out, "FAILED") {
		t.Errorf("exit %d: %s", code, out)
	}
	w.all("v1")
	w.stays("v1")
	if out := w.must("history", "--app", "hello"); !strings.Contains(out, "v4 leaks") {
		t.Error("the history does not hold the reason")
	}
	if out := w.must("apps", "show", "hello"); strings.Contains(out, "SHOULD RUN") {
		t.Errorf("something has drifted: %s", out)
	}
	// A host that joins is born on what people went back to.
	if err := w.fleet.AddAgents(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	w.until(15*time.Second, "the newcomer runs v1", func() bool { return w.running()["www-04"] == "v1" })
	if out := w.must("hosts", "show", "www-04", "--why"); !strings.Contains(out, "should run v1") {
		t.Errorf("nothing says why: %s", out)
	}
	// Nothing was there before v1: the next rollback says so.
	if out, code := w.dctl("rollback", "--app", "hello"); code != 7 || !strings.Contains(out, "--to") {
		t.Errorf("exit %d: %s", code, out)
	}
	// v2 and v4 were not bad.
	w.must("deploy", "--app", "hello", "--rev", "v4")
	w.all("v4")
}

func TestARollbackTakesBackWhatWasDeployedLast(t *testing.T) {
	w := start(t, 1, 4)
	w.app(strings.Replace(oneBoxFirst, "count: 1}", "count: 1}, bake: {min: 1h}", 1))
	w.push("v1")
	w.dctl("deploy", "--app", "hello", "--rev", "v1", "--detach")
	w.bakes()
	w.must("promote", w.deployment().Deployment.Id)
	w.must("watch", w.deployment().Deployment.Id)
	w.push("v2")
	w.dctl("deploy", "--app", "hello", "--rev", "v2", "--detach")
	w.bakes()
	w.must("abort", w.deployment().Deployment.Id, "--leave", "--reason", "later")
	w.until(10*time.Second, "it has ended", func() bool { return w.deployment().Deployment.Terminal })
	if n := count(w.running(), "v2"); n != 1 {
		t.Fatalf("%d hosts run v2, want the one-box", n)
	}
	out, code := w.dctl("rollback", "--app", "hello")
	if code != 0 || !strings.Contains(out, "rolled back to v1, as asked") {
		t.Errorf("exit %d: %s", code, out)
	}
	w.all("v1")
	if out := w.must("plan", "--app", "hello", "--rev", "v1"); strings.Contains(out, "bad") {
		t.Errorf("the good revision was marked bad: %s", out)
	}
	if out, code := w.dctl("deploy", "--app", "hello", "--rev", "v2"); code != 7 ||
		!strings.Contains(out, "--force-bad") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// bakes waits until a wave of the newest deployment bakes.
func (w *world) bakes() {
	w.Helper()
	w.until(30*time.Second, "a wave bakes", func() bool {
		for _, v := range w.deployment().Deployment.Waves {
			if v.Status == "baking" {
				return true
			}
		}
		return false
	})
}

func count(running map[string]string, rev string) int {
	n := 0
	for _, r := range running {
		if r == rev {
			n++
		}
	}
	return n
}

func TestHostsBornSinceGoBack(t *testing.T) {
	long(t)
	w := start(t, 1, 2)
	w.app(strings.Replace(oneBoxFirst, "count: 1}", "count: 1}, bake: {min: 1s}", 1))
	w.deployed("v1", "v2")
	if err := w.fleet.AddAgents(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	w.until(20*time.Second, "newcomers run v2", func() bool { return count(w.running(), "v2") == 4 })
	for _, h := range w.fleet.Hosts[:2] { // the old machines go
		if err := w.fleet.KillAgent(h); err != nil {
			t.Fatal(err)
		}
		name := h.Name
		w.until(30*time.Second, name+" is forgotten", func() bool {
			_, code := w.dctl("hosts", "forget", name, "--yes")
			return code == 0
		})
	}
	w.fleet.Hosts = w.fleet.Hosts[2:]
	w.push("v3", hook{event: "ValidateService", script: "sleep 1"})
	w.dctl("deploy", "--app", "hello", "--rev", "v3", "--detach")
	w.until(30*time.Second, "a newcomer runs v3", func() bool { return count(w.running(), "v3") > 0 })
	w.must("freeze", "--app", "hello")
	if out, code := w.dctl("rollback", "--app", "hello"); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	w.all("v2")
	w.must("unfreeze", "--app", "hello")
	w.stays("v2")
	// And the group's history has a way back further.
	if out, code := w.dctl("rollback", "--app", "hello"); code != 0 || !strings.Contains(out, "rolled back to v1") {
		t.Errorf("exit %d: %s", code, out)
	}
	w.all("v1")
}

func TestARepairDuringARollbackGoesByItsWaves(t *testing.T) {
	long(t)
	w := start(t, 1, 4)
	w.app(strings.Replace(oneBoxFirst, "count: 1}", "count: 1}, bake: {min: 3s}", 1))
	w.deployed("v1")
	w.push("v2", hook{event: "ApplicationStop", script: "sleep 1"})
	w.must("deploy", "--app", "hello", "--rev", "v2")
	w.must("rollback", "--app", "hello", "--detach")
	w.push("v3")
	out := w.must("deploy", "--app", "hello", "--rev", "v3")
	if !strings.Contains(out, "one-box") || !strings.Contains(out, "baking") {
		t.Errorf("the repair had no one-box, or no bake: %s", out)
	}
	w.all("v3")
	names := []string{}
	for _, v := range w.deployment().Deployment.Waves {
		names = append(names, v.Name)
	}
	if !slices.Equal(names, []string{"one-box", "rest"}) {
		t.Errorf("waves are %v", names)
	}
}

func TestTheCanaryIsNotLost(t *testing.T) {
	w := start(t, 1, 4)
	w.app(strings.Replace(oneBoxFirst, "count: 1}", "count: 1}, bake: {min: 2s}", 1))
	w.deployed("v1")
	first := func() string {
		for _, task := range w.deployment().Deployment.Tasks {
			if task.Wave == 0 {
				return task.Name
			}
		}
		return ""
	}
	box := first()
	w.must("hosts", "cordon", box, "--reason", "disk")
	w.push("v2")
	out := w.must("deploy", "--app", "hello", "--rev", "v2")
	if again := first(); again == box || again == "" {
		t.Errorf("the one-box is %q, which is cordoned", again)
	}
	if !strings.Contains(out, "left out: "+box) {
		t.Errorf("the end does not name who was left out: %s", out)
	}
	w.must("hosts", "uncordon", box)
	w.until(20*time.Second, "the cordoned one is caught up with", func() bool { return w.running()[box] == "v2" })
	w.all("v2")
}
