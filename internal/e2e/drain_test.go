package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// A host is taken out of both balancers by hand, under load: no request fails, what runs
// goes on, the floor holds the next one, a deployment leaves it out, and whoever dies
// meanwhile, it stays out until it is put back, and is caught up with.
func TestAHostIsDrainedByHand(t *testing.T) {
	long(t)
	b := startBalanced(t, 3)
	b.group(edge)
	b.rude("v1")
	b.rude("v2")
	b.must("deploy", "--app", "hello", "--rev", "v1", "--timeout", "2m")
	b.until(20e9, "every server is ready", func() bool { return b.serving() == 6 })
	stop := b.load(b.all[0])
	first, second := b.fleet.Hosts[0], b.fleet.Hosts[1]
	out := b.must("hosts", "drain", first.Name, "--reason", "a new kernel")
	if !strings.Contains(out, "drained by admin: a new kernel") {
		t.Errorf("drained: %s", out)
	}
	if n := b.serving(); n != 4 {
		t.Errorf("%d servers are ready with one host drained", n)
	}
	b.serve("v1")

	// 60 % of three is two: nobody else may go.
	out, code := b.dctl("hosts", "drain", second.Name, "--timeout", "2s")
	if code == 0 || !strings.Contains(out, "2 hosts serve hello/prod, the floor is 2") {
		t.Errorf("below the floor: exit %d\n%s", code, out)
	}
	b.must("hosts", "undrain", second.Name)

	leader, err := b.fleet.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		b.fleet.KillCoordinator(leader), b.fleet.KillAgent(first), b.fleet.RestartAgent(first),
		b.fleet.RestartCoordinator(t.Context(), leader),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b.all[1].Restart() // it has forgotten everything
	b.until(20e9, "the host is out again", func() bool { return b.serving() == 4 })
	made, failed, why := stop()
	t.Logf("%d of %d requests failed (%s)", failed, made, why)
	if failed > 0 {
		t.Errorf("%d of %d requests failed: %s", failed, made, why)
	}

	// The floor counts the drained one as missing: with one more out it would be one.
	b.must("deploy", "--app", "hello", "--rev", "v2", "--detach")
	b.until(30e9, "the deployment waits for the floor", func() bool {
		out, _ := b.dctl("status", "--app", "hello")
		return strings.Contains(out, "floor is 2")
	})
	if list := b.must("hosts", "list"); !strings.Contains(list, ", drained") {
		t.Errorf("the list says\n%s", list)
	}
	stop = b.load(b.all...)
	b.must("hosts", "undrain", first.Name)
	b.until(60e9, "everybody runs v2", func() bool {
		for _, rev := range b.running() {
			if rev != "v2" {
				return false
			}
		}
		return true
	})
	b.until(20e9, "everybody is back", func() bool { return b.serving() == 6 })
	made, failed, why = stop()
	t.Logf("%d of %d requests failed (%s)", failed, made, why)
	if failed > 0 {
		t.Errorf("%d of %d requests failed: %s", failed, made, why)
	}
	b.serve("v2")
}

// A revision that cannot start costs no serving host: it is tasted beside what runs.
func TestATasteCostsNobody(t *testing.T) {
	long(t)
	w := start(t, 1, 3)
	taste := `{capacity: {minHealthy: 60%, maxZones: all}, waves: [{name: all, select: remainder}],
      taste: {script: scripts/0.sh, timeout: 20s}, onFailure: {wave: {action: pause}}}`
	w.app(taste)
	script := hook{event: "ValidateService", script: `echo "$LIFECYCLE_EVENT ${PORT:-none}"
[ "$LIFECYCLE_EVENT" != Taste ] || [ "$(cat revision)" != bad ] || { echo no such database; exit 3; }`}
	w.push("v1", script)
	w.must("deploy", "--app", "hello", "--rev", "v1", "--timeout", "1m")
	w.push("bad", script)
	out, code := w.dctl("deploy", "--app", "hello", "--rev", "bad", "--timeout", "1m")
	if code == 0 || !strings.Contains(out, "Taste") || !strings.Contains(out, "no such database") {
		t.Errorf("a revision that cannot start: exit %d\n%s", code, out)
	}
	w.all("v1")
	for _, task := range w.deployment().Deployment.Tasks {
		if task.Status == "granted" || task.Status == "settled" {
			t.Errorf("%s was disrupted: %v", task.Name, task)
		}
	}
	for _, h := range w.fleet.Hosts {
		if runs, _ := filepath.Glob(filepath.Join(h.Dir, "root", "hooks", "*taste*")); len(runs) == 0 {
			t.Errorf("%s tasted nothing", h.Name)
		}
	}
	if out := w.must("logs", w.deployment().Deployment.Id, "--failed"); !strings.Contains(out, "no such database") {
		t.Errorf("the output of the tastes:\n%s", out)
	}
	w.must("abort", w.deployment().Deployment.Id, "--leave", "--yes", "-m", "a test")
	w.push("v2", script)
	w.must("deploy", "--app", "hello", "--rev", "v2", "--timeout", "1m")
	w.all("v2")
}
