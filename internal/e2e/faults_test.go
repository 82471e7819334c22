package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// oneByOne is a config that shows one host at a time.
const oneByOne = `{capacity: {minHealthy: 50%, maxConcurrent: 1}, waves: [{name: one-box, select: {count: 1}}, {name: rest, select: remainder}], ` + allBack + `}`

const allBack = `onFailure: {wave: {action: rollback, scope: all}, gate: {action: rollback, scope: all}}`

func TestFailingHookIsRolledBack(t *testing.T) {
	w := start(t, 1, 3)
	w.app(oneByOne)
	w.push("v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")
	w.all("v1")
	w.push("v2", hook{event: "AfterInstall", script: "echo preparing; echo 'no such table: users' >&2; exit 3"})
	out, code := w.dctl("deploy", "--app", "hello", "--rev", "v2")
	if code != 5 {
		t.Errorf("exit code %d, want 5: failed and rolled back clean", code)
	}
	box, zone := "", ""
	for _, task := range w.deployment().Deployment.Tasks {
		if task.Wave == 0 {
			box, zone = task.Name, task.Zone
		}
	}
	for _, want := range []string{"AfterInstall", "scripts/0.sh", "no such table: users", box, zone} {
		if !strings.Contains(out, want) {
			t.Errorf("the failure does not name %q", want)
		}
	}
	w.all("v1")
	touched := 0
	for _, task := range w.deployment().Deployment.Tasks {
		if task.Failure != nil {
			touched++
		}
	}
	if touched != 1 {
		t.Errorf("%d hosts saw the bad revision, want the one-box alone", touched)
	}
	if out, code := w.dctl("deploy", "--app", "hello", "--rev", "v2"); code != 7 || !strings.Contains(out, "bad") {
		t.Errorf("a bad revision again: exit %d, %s", code, out)
	}
	if out, code := w.dctl("logs", w.deployment().Deployment.Id, "--failed"); code != 0 ||
		!strings.Contains(out, "no such table: users") {
		t.Errorf("logs --failed: exit %d, %s", code, out)
	}
}

func TestHangingHookIsKilled(t *testing.T) {
	long(t)
	w := start(t, 1, 2)
	w.app(oneByOne)
	w.push("v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")
	pids := filepath.Join(w.dir, "pids")
	w.push("v2", hook{
		event: "ApplicationStart", timeout: 1,
		script: "trap '' TERM; echo $$ >>" + pids + "; sleep 600 & echo $! >>" + pids + "; wait; sleep 600",
	})
	began := time.Now()
	out, code := w.dctl("deploy", "--app", "hello", "--rev", "v2")
	if code != 5 || !strings.Contains(out, "failed to complete in 1 seconds") {
		t.Errorf("exit %d; the text must say that it timed out:\n%s", code, out)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %s; the hook has 1 s, 5 s of grace and is killed then", took)
	}
	w.all("v1")
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(b)) {
		if cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil &&
			strings.Contains(string(cmdline), "sleep") {
			t.Errorf("process %s of the hook still lives: %q", pid, cmdline)
		}
	}
}

func TestKilledAgentIsAdopted(t *testing.T) {
	w := start(t, 1, 2)
	w.app(oneByOne)
	w.push("v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")
	mark, ran := filepath.Join(w.dir, "go"), filepath.Join(w.dir, "ran")
	w.push("v2", hook{
		event:  "ApplicationStart",
		script: "echo run >>" + ran + "; i=0; while [ ! -e " + mark + " ] && [ $i -lt 400 ]; do sleep 0.05; i=$((i+1)); done",
	})
	done := make(chan int, 1)
	go func() {
		_, code := w.dctl("deploy", "--app", "hello", "--rev", "v2")
		done <- code
	}()
	w.until(20*time.Second, "the hook runs", func() bool { _, err := os.Stat(ran); return err == nil })
	victim := w.fleet.Hosts[0]
	if d := w.deployment().Deployment; len(d.Tasks) > 0 {
		for _, task := range d.Tasks {
			for _, h := range w.fleet.Hosts {
				if task.Status == "granted" && h.Name == task.Name {
					victim = h
				}
			}
		}
	}
	if err := w.fleet.KillAgent(victim); err != nil {
		t.Fatal(err)
	}
	if err := w.fleet.RestartAgent(victim); err != nil {
		t.Fatal(err)
	}
	w.write(mark, "")
	if code := <-done; code != 0 {
		t.Errorf("exit %d, want 0: a hook that still runs is adopted", code)
	}
	w.all("v2")
	if b, _ := os.ReadFile(ran); strings.Count(string(b), "run") != 2 {
		t.Errorf("the hook ran %d times on 2 hosts", strings.Count(string(b), "run"))
	}
}

func TestDeadAgentIsNamedAndLost(t *testing.T) {
	long(t)
	w := start(t, 1, 3)
	w.app(`{capacity: {minHealthy: 33%, maxConcurrent: 1}, waves: [{name: all, select: remainder, failureBudget: 1}], timeouts: {lostAfter: 2s}}`)
	w.push("v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")
	victim := w.fleet.Hosts[1]
	if err := w.fleet.KillAgent(victim); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	w.until(20*time.Second, "the dead host is named", func() bool {
		out, _ := w.dctl("hosts", "show", victim.Name)
		return strings.Contains(out, "unreachable")
	})
	t.Logf("a dead host was named after %s", time.Since(began))
	w.push("v2")
	if _, code := w.dctl("deploy", "--app", "hello", "--rev", "v2"); code != 0 {
		t.Errorf("exit %d: one offline host within the budget must not fail the run", code)
	}
	running := w.running()
	if running[victim.Name] != "v1" || running["www-01"] != "v2" || running["www-03"] != "v2" {
		t.Errorf("running %v", running)
	}
	if err := w.fleet.RestartAgent(victim); err != nil {
		t.Fatal(err)
	}
	if err := w.fleet.WaitConnected(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	w.must("deploy", "--app", "hello", "--rev", "v2")
	w.all("v2")
}

func TestStoppedStoreCostsNoCapacity(t *testing.T) {
	w := start(t, 1, 2)
	w.app(`{capacity: {minHealthy: 50%, maxConcurrent: 1}, waves: [{name: all, select: remainder}], timeouts: {stage: 4s}, ` + allBack + `}`)
	w.push("v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")
	w.push("v2")
	if err := w.fleet.StopS3(); err != nil {
		t.Fatal(err)
	}
	out, code := w.dctl("deploy", "--app", "hello", "--rev", "v2")
	if code != 5 {
		t.Errorf("exit %d, want 5", code)
	}
	if !strings.Contains(out, "stage") {
		t.Errorf("the text must say that staging failed:\n%s", out)
	}
	w.all("v1")
	for _, task := range w.deployment().Deployment.Tasks {
		if task.Status == "granted" || task.Status == "failed" {
			t.Errorf("%s is %s: no capacity may be spent on what cannot be staged", task.Name, task.Status)
		}
	}
	if err := w.fleet.StartS3(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.must("deploy", "--app", "hello", "--rev", "v2", "--force-bad", "--reason", "the store is back")
	w.all("v2")
}

func TestStoreComesBackInTime(t *testing.T) {
	w := start(t, 1, 2)
	w.app(oneByOne)
	w.push("v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")
	w.push("v2")
	if err := w.fleet.StopS3(); err != nil {
		t.Fatal(err)
	}
	done := make(chan int, 1)
	go func() {
		_, code := w.dctl("deploy", "--app", "hello", "--rev", "v2")
		done <- code
	}()
	w.until(10*time.Second, "the deployment runs", func() bool { return w.deployment().Deployment.Revision == "v2" })
	if err := w.fleet.StartS3(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 0 {
		t.Errorf("exit %d, want 0: the fetch is tried again", code)
	}
	w.all("v2")
}

func TestKilledLeaderSkipsNoBake(t *testing.T) {
	long(t)
	w := start(t, 3, 3)
	w.app(`{capacity: {minHealthy: 33%, maxConcurrent: 2}, waves: [{name: one-box, select: {count: 1}, bake: {min: 4s}}, {name: rest, select: remainder}]}`)
	w.push("v1")
	began := time.Now()
	done := make(chan int, 1)
	go func() {
		_, code := w.dctl("deploy", "--app", "hello", "--rev", "v1")
		done <- code
	}()
	w.until(20*time.Second, "the one-box bakes", func() bool {
		d, err := w.fleet.Control.GetDeployment(t.Context(), &controlv1.GetDeploymentRequest{App: "hello"})
		return err == nil && d.Deployment.Waves[0].Status == "baking"
	})
	leader, err := w.fleet.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.fleet.KillCoordinator(leader); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 0 {
		t.Fatalf("exit %d, want 0", code)
	}
	if took := time.Since(began); took < 4*time.Second {
		t.Errorf("took %s: the bake of 4 s was cut short", took)
	}
	w.all("v1")
}

// TestApplicationOutlivesTheAgent kills the agent and checks the daemon that a
// hook started, which still writes to the hook's standard output.
func TestApplicationOutlivesTheAgent(t *testing.T) {
	w := start(t, 1, 1)
	w.app(oneByOne)
	pid := filepath.Join(w.dir, "pid")
	w.push("v1", hook{
		event:  "ApplicationStart",
		script: "(while true; do echo alive; sleep 0.02; done) & echo $! >" + pid,
	})
	w.must("deploy", "--app", "hello", "--rev", "v1")
	h := w.fleet.Hosts[0]
	for _, end := range []func() error{
		func() error { return w.fleet.KillAgent(h) },
		func() error { return w.fleet.RestartAgent(h) },
	} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			time.Sleep(30 * time.Millisecond) // it writes at least once more
			b, err := os.ReadFile(pid)
			if err != nil {
				t.Fatal(err)
			}
			if !alive(strings.TrimSpace(string(b))) {
				t.Fatal("the application died with its agent")
			}
		}
	}
}

func alive(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// TestRefusals: what is wrong is refused before anything changes, each with
// its own text and exit code.
func TestRefusals(t *testing.T) {
	w := start(t, 1, 1)
	w.app(oneByOne)
	w.push("4f2a91c0")
	for _, c := range []struct {
		name, want string
		code       int
		args       []string
	}{
		{"unknown revision", "4f2a91c0", 2, []string{"deploy", "--app", "hello", "--rev", "4f2a91d0"}},
		{"unknown app", "hello", 2, []string{"deploy", "--app", "helo", "--rev", "4f2a91c0"}},
		{"unknown flag", "--rev", 2, []string{"deploy", "--app", "hello", "--rv", "x"}},
		{"unknown config", "built in", 2, []string{
			"deploy", "--app", "hello", "--rev", "4f2a91c0", "--config",
			"nope",
		}},
		{"unknown host", "www-01", 2, []string{"hosts", "show", "www-02"}},
		{"unknown deployment", "no deployment", 2, []string{"status", "01NOPE"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, code := w.dctl(c.args...)
			if code != c.code || !strings.Contains(out, c.want) {
				t.Errorf("exit %d, want %d; the text must name %q:\n%s", code, c.code, c.want, out)
			}
		})
	}
	t.Run("no host matches", func(t *testing.T) {
		path := filepath.Join(w.dir, "other.yaml")
		w.write(path, "app: other\nartifacts: "+w.fleet.Store("other")+"\ngroups:\n  prod:\n    select: role == \"db\"\n")
		w.must("apps", "apply", "-f", path)
		w.must("revisions", "push", filepath.Join(w.dir, "bundles", "4f2a91c0"), "--app", "other", "--rev", "v1")
		out, code := w.dctl("deploy", "--app", "other", "--rev", "v1")
		if code != 2 || !strings.Contains(out, "no host") {
			t.Errorf("exit %d:\n%s", code, out)
		}
	})
	t.Run("floor that cannot be kept", func(t *testing.T) {
		w.app(`{capacity: {minHealthy: 66%, smallFleet: reject}, waves: [{name: all, select: remainder}]}`)
		out, code := w.dctl("deploy", "--app", "hello", "--rev", "4f2a91c0")
		if code != 2 || !strings.Contains(out, "66%") {
			t.Errorf("exit %d:\n%s", code, out)
		}
	})
	t.Run("deployment in flight", func(t *testing.T) {
		w.app(`{capacity: {minHealthy: 0}, waves: [{name: one-box, select: {count: 1}, bake: {min: 10m}}, {name: rest, select: remainder}], inFlight: {queue: reject}}`)
		w.must("deploy", "--app", "hello", "--rev", "4f2a91c0", "--detach")
		w.push("v2")
		out, code := w.dctl("deploy", "--app", "hello", "--rev", "v2")
		if code != 7 || !strings.Contains(out, "in flight") {
			t.Errorf("exit %d:\n%s", code, out)
		}
		id := w.deployment().Deployment.Id
		w.must("pause", id)
		w.must("resume", id)
		w.must("abort", id, "--leave", "--yes")
		w.dctl("watch", id) // to its end
	})
}
