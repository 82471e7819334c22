package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// fails is a hook that fails on hosts of that name.
func fails(names ...string) hook {
	return hook{event: "ValidateService", script: `case "$PWD" in *` + strings.Join(names,
		"*|*") + `*) echo "no database" >&2; exit 4;; esac`}
}

// wave finds a wave of the newest deployment.
func (w *world) wave(name string) *controlv1.Wave {
	w.Helper()
	for _, v := range w.deployment().Deployment.Waves {
		if v.Name == name {
			return v
		}
	}
	w.Fatalf("no wave %s", name)
	return nil
}

// operator enrols a person and returns the global flags that act as that person.
func (w *world) operator(name string) []string {
	w.Helper()
	token := filepath.Join(w.dir, name+".token")
	out := w.must("token", "create", "--role", "operator", "--name", name)
	w.write(token, strings.TrimSpace(strings.SplitN(out, "\n", 2)[0])+"\n")
	dir := filepath.Join(w.dir, "operators", name)
	w.must("login", name, "-C", strings.Join(w.fleet.Addresses(), ","), "--credentials", dir, "--token-file", token)
	return []string{"--credentials", dir}
}

// breakGlass makes an operator's credential from a coordinator's folder.
func (w *world) breakGlass() []string {
	w.Helper()
	out := filepath.Join(w.dir, "break-glass")
	cmd := exec.Command(filepath.Join(bin, "dcoord"), "operator", "--dir", filepath.Join(w.fleet.Dir(), "c1"), "--name",
		"root", "--out", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("dcoord operator: %v\n%s", err, text)
	}
	return []string{"--credentials", out}
}

func TestPeopleApproveFreezeAndReject(t *testing.T) {
	long(t)
	w := start(t, 1, 3)
	w.app(`{capacity: {minHealthy: 50%, maxConcurrent: 1}, gates: {go: {approval: {count: 1}, scope: deployment}}, preGates: [go],
      waves: [{name: one-box, select: {count: 1}, rehearseRollback: true}, {name: rest, select: remainder}]}`)
	w.push("v1")
	if out := w.must("plan", "--app", "hello", "--rev", "v1"); !strings.Contains(out, "first go") ||
		!strings.Contains(out, "blast radius: one-box: 1 of 3 hosts") {
		t.Error("the plan names neither the approval nor the blast radius")
	}
	out, code := w.dctl("deploy", "--app", "hello", "--rev", "v1")
	if code != 9 || !strings.Contains(out, "dctl approve") {
		t.Fatalf("exit %d, want 9: it waits for an approval", code)
	}
	id := w.deployment().Deployment.Id
	if out, code := w.dctl("approve", id); code != 7 || !strings.Contains(out, "somebody else") {
		t.Errorf("the requester approved: exit %d, %s", code, out)
	}
	ann := w.operator("ann")
	if out, code := w.dctl(append(ann, "approve", id)...); code != 7 ||
		!strings.Contains(out, "ann counts as the same person") {
		t.Errorf("whom the requester made approved: exit %d, %s", code, out)
	}
	w.must(append(w.breakGlass(), "access", "confirm", "ann", "--reason", "she sits next to me")...)
	w.must(append(ann, "approve", id, "--reason", "checked with support")...)
	w.must("watch", id)
	w.all("v1")
	if out := w.must("status", id); !strings.Contains(out, "approved by ann") ||
		!strings.Contains(out, "checked with support") {
		t.Error("status does not say who approved, and why")
	}

	w.push("v2")
	w.must("freeze", "--app", "hello", "--reason", "trade fair")
	if _, code := w.dctl("deploy", "--app", "hello", "--rev", "v2"); code != 9 {
		t.Errorf("exit %d, want 9", code)
	}
	id = w.deployment().Deployment.Id
	w.must(append(ann, "approve", id)...)
	w.until(10*time.Second, "the freeze is named", func() bool {
		return slices.ContainsFunc(w.deployment().Deployment.Holds,
			func(h string) bool { return strings.Contains(h, "trade fair") })
	})
	w.all("v1")
	if out := w.must("status"); !strings.Contains(out, "FROZEN: hello") {
		t.Error("the overview does not show the freeze")
	}
	if out := w.must("apps", "show", "hello"); !strings.Contains(out, "is frozen by") {
		t.Errorf("apps show does not tell of the freeze:\n%s", out)
	}
	if _, code := w.dctl("freeze", "--app", "hello", "--until", "2020-01-01"); code != 2 {
		t.Errorf("a freeze that ended in 2020: exit %d, want 2", code)
	}
	w.must("freeze", "--app", "hello", "--reason", "trade fair", "--until", "3s") // and ends by itself
	if out := w.must("status"); !strings.Contains(out, " until 2") {
		t.Errorf("the overview does not show when the freeze ends:\n%s", out)
	}
	w.must("watch", id)
	w.all("v2")
	if v := w.wave("one-box"); v.RehearsedMs == 0 {
		t.Error("the one-box did not rehearse its rollback")
	}
	replay := w.must("replay", id)
	for _, want := range []string{"rehearses the way back to v1", "a rollback takes", "approve", "frozen by"} {
		if !strings.Contains(replay, want) {
			t.Errorf("the replay does not show %q", want)
		}
	}

	w.push("v3")
	w.dctl("deploy", "--app", "hello", "--rev", "v3", "--detach")
	id = w.deployment().Deployment.Id
	w.until(10*time.Second, "it waits", func() bool { return len(w.deployment().Deployment.WaitsFor) == 1 })
	w.must(append(ann, "reject", id, "--reason", "not today")...)
	if out, code := w.dctl("watch", id); code != 7 || !strings.Contains(out, "not today") {
		t.Errorf("rejected: exit %d, %s", code, out)
	}
	w.all("v2")
}

func TestOneZoneGoesBackAndIsSkipped(t *testing.T) {
	w := start(t, 1, 6)
	const zones = `{capacity: {minHealthy: 50%, maxConcurrent: 2}, waves: [{name: zones, select: remainder, forEach: zone}],
      onFailure: {wave: {action: rollback, scope: zone, then: pause}}}`
	w.app(zones)
	w.push("v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")
	w.push("v2", fails("www-02", "www-05"))
	if out := func() string {
		out, _ := w.dctl("simulate", "--app", "hello", "--rev", "v2", "--fail", "zone=eu-1b", "--events")
		return out
	}(); !strings.Contains(out, "ends paused") || !strings.Contains(out, "RollbackStarted") {
		t.Error("the simulation does not show what a failing zone does")
	}
	out, code := w.dctl("deploy", "--app", "hello", "--rev", "v2")
	if code != 3 || !strings.Contains(out, "no database") || !strings.Contains(out, "dctl skip-zone") {
		t.Fatalf("exit %d, want 3: it waits for a decision", code)
	}
	id := w.deployment().Deployment.Id
	runs := w.running()
	if runs["www-01"] != "v2" || runs["www-02"] != "v1" || runs["www-05"] != "v1" || runs["www-03"] != "v1" {
		t.Errorf("after the zone went back: %v", runs)
	}
	w.must("skip-zone", id, "eu-1b", "--reason", "zone incident")
	w.must("watch", id)
	want := map[string]string{
		"www-01": "v2", "www-02": "v1", "www-03": "v2", "www-04": "v2", "www-05": "v1",
		"www-06": "v2",
	}
	for h, rev := range want {
		if got := w.running()[h]; got != rev {
			t.Errorf("%s runs %s, want %s", h, got, rev)
		}
	}
	if out := w.must("apps", "show", "hello"); !strings.Contains(out, "zone eu-1b was skipped") {
		t.Error("the drift that was meant is not listed")
	}
	w.push("v3")
	w.must("deploy", "--app", "hello", "--rev", "v3")
	w.all("v3")
}

func TestTwoRevisionsTravelTogether(t *testing.T) {
	long(t)
	w := start(t, 3, 6)
	w.app(`{capacity: {minHealthy: 50%, maxConcurrent: 3}, waves: [{name: one-box, select: {count: 1}, bake: {min: 1s}}, {name: half, select: {percent: 50%}, bake: {min: 4s}},
      {name: rest, select: remainder, bake: {min: 1s}}], ` + allBack + `}`)
	for _, v := range []string{"v1", "v2", "v3", "v4", "v5"} {
		w.push(v)
	}
	w.must("deploy", "--app", "hello", "--rev", "v1")
	w.must("deploy", "--app", "hello", "--rev", "v2", "--detach")
	w.until(20*time.Second, "v2 leaves its one-box", func() bool { return w.wave("one-box").Status == "sealed" })
	first := w.deployment().Deployment.Id
	w.must("deploy", "--app", "hello", "--rev", "v3", "--detach")
	second := w.deployment().Deployment.Id
	w.until(20*time.Second, "both travel", func() bool {
		runs := w.running()
		revs := map[string]bool{}
		for _, r := range runs {
			revs[r] = true
		}
		return revs["v2"] && revs["v3"]
	})
	w.must("watch", first)
	w.must("watch", second)
	w.all("v3")

	w.must("deploy", "--app", "hello", "--rev", "v4", "--detach")
	w.until(20*time.Second, "v4 leaves its one-box", func() bool { return w.wave("one-box").Status == "sealed" })
	first = w.deployment().Deployment.Id
	w.must("deploy", "--app", "hello", "--rev", "v5", "--detach")
	second = w.deployment().Deployment.Id
	w.until(20*time.Second, "v5 is in its one-box", func() bool { return w.wave("one-box").Settled == 1 })
	w.must("abort", first, "--rollback", "--reason", "leaks memory")
	if _, code := w.dctl("watch", first); code != 5 {
		t.Errorf("v4: exit %d, want 5", code)
	}
	if out, code := w.dctl("watch", second); code != 5 || !strings.Contains(out, "revoked by the rollback of v4") {
		t.Errorf("v5, which contains v4: exit %d, %s", code, out)
	}
	w.all("v3")
	if out, code := w.dctl("deploy", "--app", "hello", "--rev", "v5"); code != 7 ||
		!strings.Contains(out, "marked bad") {
		t.Errorf("v5 again: exit %d, %s", code, out)
	}
}

func TestAWebhookGateTakesTheWaveBack(t *testing.T) {
	bad := ""
	asked := make(chan map[string]any, 1000)
	tests := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var q map[string]any
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Errorf("the question: %v", err)
		}
		asked <- q
		answer := `{"answer":"pass","value":"0 of 12 tests failed"}`
		if q["revision"] == bad {
			answer = `{"answer":"fail","value":"7 of 12 tests failed","detail":"checkout is broken"}`
		}
		_, _ = rw.Write([]byte(answer)) // a client that went away notices itself
	}))
	defer tests.Close()
	bad = "v2"
	w := start(t, 1, 3)
	w.app(`{capacity: {minHealthy: 50%, maxConcurrent: 1}, gates: {tests: {webhook: "` + tests.URL + `/run", interval: 1s}},
      waves: [{name: one-box, select: {count: 1}, bake: {min: 1s}, gates: [tests]}, {name: rest, select: remainder}],
      onFailure: {test: {action: rollback, scope: all}}}`)
	w.push("v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")
	w.push("v2")
	out, code := w.dctl("deploy", "--app", "hello", "--rev", "v2")
	if code != 5 {
		t.Errorf("exit %d, want 5", code)
	}
	for _, want := range []string{"tests", "7 of 12 tests failed", "checkout is broken", "/run"} {
		if !strings.Contains(out, want) {
			t.Errorf("the failure does not show %q", want)
		}
	}
	w.all("v1")
	if q := <-asked; q["app"] != "hello" || q["wave"] != "one-box" {
		t.Errorf("the question was %v", q)
	}
}

func TestHostsThatWereAwayCatchUp(t *testing.T) {
	long(t)
	w := start(t, 1, 4)
	w.app(`{capacity: {minHealthy: 50%, maxConcurrent: 2}, waves: [{name: all, select: remainder}]}`)
	w.push("v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")
	w.push("v2")
	gone := w.fleet.Hosts[1]
	if err := w.fleet.KillAgent(gone); err != nil {
		t.Fatal(err)
	}
	w.until(30*time.Second, "the host is named unreachable", func() bool {
		out, code := w.dctl("hosts", "list")
		return code == 0 && strings.Contains(out, "unreachable")
	})
	w.must("plan", "--app", "hello", "--rev", "v2")
	w.must("deploy", "--app", "hello", "--rev", "v2", "--skip-offline", "--exclude", "www-04")
	if runs := w.running(); runs["www-02"] != "v1" || runs["www-04"] != "v1" || runs["www-01"] != "v2" {
		t.Errorf("after the deployment: %v", runs)
	}
	if err := w.fleet.RestartAgent(gone); err != nil {
		t.Fatal(err)
	}
	w.until(30*time.Second, "the host catches up", func() bool { return w.running()["www-02"] == "v2" })
	if got := w.running()["www-04"]; got != "v1" {
		t.Errorf("the host that was excluded runs %s", got)
	}
	if out := w.must("apps", "show", "hello"); !strings.Contains(out, "www-04") || strings.Contains(out, "www-02") {
		t.Error("the drift is not the excluded host alone")
	}
	w.must("hosts", "cordon", "www-01", "--reason", "disk")
	if out := w.must("hosts", "show", "www-01"); !strings.Contains(out, "cordoned by") {
		t.Error("the cordon is not shown")
	}
	w.must("hosts", "uncordon", "www-01")
}
