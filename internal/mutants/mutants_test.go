package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mutant is one change of a file and the test that must fail with it.
type mutant struct {
	name     string
	file     string // below the module
	old, now string
	pkg, run string
}

const (
	permits   = "^TestModelPermits$"
	staggered = "^TestModelStaggered$"
	simulated = "^TestSimulation$"
	deep      = " MODEL=1" // the whole model
)

// table lists the mutants. A snippet occurs exactly once in its file.
var table = []mutant{
	{"floor not tested at the grant", "deploy/capacity.go", "s-1 < f.Min", "s < 0", "./deploy", permits},
	{"floor off by one", "deploy/capacity.go", "s-1 < f.Min", "s < f.Min", "./deploy", permits},
	{"unconditional permit for who does not serve", "deploy/capacity.go", "return PermitConditional, nil", "return map[bool]Permit{false: PermitConditional, true: PermitNormal}[t.EverHealthy], nil", "./deploy", permits + deep},
	{"conditional check left out by the agent", "deploy/model_permits_test.go", "a[accepted] == byte(deploy.PermitConditional) && a[serves] == 1", "false && a[serves] == 1", "./deploy", permits + deep},
	{"agent acts on any generation", "deploy/model_permits_test.go", "return gen > a[acked]", "return gen != a[acked]", "./deploy", permits},
	{"more permits than maxConcurrent", "deploy/capacity.go", "p >= x.concurrent {", "p > x.concurrent {", "./deploy", simulated},
	{"zones not limited", "deploy/capacity.go", "if n >= x.maxZones {", "if n > x.maxZones {", "./deploy", simulated},
	{"host mutex left out", "deploy/capacity.go", "other.Permit != PermitNone && (x.exclusive", "false && (x.exclusive", "./deploy", "^TestOneAppWantsTheHostAlone$"},
	{"open generations count as serving", "deploy/target.go", "t.Permit == PermitNone && !t.Open && !t.Quarantined", "t.Permit == PermitNone && !t.Quarantined", "./deploy", "^TestAnOpenGenerationDoesNotServe$"},
	{"N counts who is alive", "deploy/progress.go", "c.zone, c.registered, c.serving = t.Zone, t.EverHealthy, t.Serving()", "c.zone, c.registered, c.serving = t.Zone, t.Health == HealthHealthy, t.Serving()", "./deploy", permits},
	{"LOST leaves health as it was", "deploy/apply_tasks.go", "t.Permit, t.Health = PermitNone, HealthUnknown // never healthy, and Gen stays open", "t.Permit, t.Open = PermitNone, false", "./deploy", permits},
	{"report of a lower generation applied", "deploy/apply_reports.go", "if r.Gen < t.Gen {\n\t\treturn nil\n\t}", "", "./deploy", permits},
	{"counter not fenced", "deploy/apply_reports.go", "if t != nil && r.Counter <= t.Counter {\n\t\treturn\n\t}", "", "./deploy", permits},
	{"health alone closes a generation", "deploy/apply_reports.go", "if t.Open && r.Result != ResultNone {", "if t.Open && (r.Result != ResultNone || r.Health == HealthHealthy) {", "./deploy", permits},
	{"grant of any generation", "deploy/apply_tasks.go", "task.Wave != e.Wave || item.Gen != t.Gen+1 ||", "task.Wave != e.Wave ||", "./deploy", "^TestAGrantFitsTheStateItMeets$"},
	{"grants not tested again", "deploy/apply_tasks.go", "err != nil || kind != item.Kind {", "kind != item.Kind && err == nil {", "./deploy", "^TestAGrantFitsTheStateItMeets$"},
	{"R2: overtaking", "deploy/deployment.go", "case wave < len(o.Waves) && !o.Waves[wave].Status.Passed():", "case false:", "./deploy", staggered},
	{"R3: on behind one that halts", "deploy/deployment.go", "case o.Status != DeploymentStatusRunning || o.ScopeRevert != nil:", "case false:", "./deploy", staggered},
	{"R6: no cascade", "deploy/decide_rollback.go", "if o.Seq > dep.Seq && o.contains(bad) {", "if false {", "./deploy", "^TestARollbackRevokesWhatContainsIt$"},
	{"bake deadline lost on failover", "deploy/wave.go", "`json:\"bake_until,omitempty\"`", "`json:\"-\"`", "./deploy", "^TestAFailoverForgetsNothing$"},
	{"failure count lost on failover", "deploy/deployment.go", "`json:\"failures\"`", "`json:\"-\"`", "./deploy", "^TestAFailoverForgetsNothing$"},
	{"freeze does not hold grants", "deploy/apply_tasks.go", "frozen && task.Status != TaskReverting {", "frozen && task.Status == TaskGranted {", "./deploy", "^TestAFreezeHoldsGrantsButNoWayBack$"},
	{"freeze holds the way back", "deploy/apply_tasks.go", "frozen && task.Status != TaskReverting {", "frozen {", "./deploy", "^TestAFreezeHoldsGrantsButNoWayBack$"},
	{"bad revision admitted", "deploy/apply_deployment.go", "by != \"\" && !e.Force && !e.Inverse {", "false && by != \"\" && where != \"\" {", "./deploy", "^TestARollbackRevokesWhatContainsIt$"},
	{"sealed without coverage", "deploy/decide_waves.go", "case !p.covered():", "case false:", "./deploy", "^TestNothingIsDueTwice$"},
	{"sealed early", "deploy/apply_waves.go", "d.AskAgain != 0 || early || d.failing(w)", "d.AskAgain != 0 || early && s == nil || d.failing(w)", "./deploy", "^TestAFailoverForgetsNothing$"},
	{"requester approves", "deploy/apply_requests.go", "if e.Request.person() == cmp.Or(d.Person, d.Actor) {", "if false {", "./deploy", "^TestFourEyes$"},
	{"one person approves twice", "deploy/apply_requests.go", "if a.Gate == g.Name && cmp.Or(a.Person, a.Actor) == e.Request.person() {", "if false {", "./deploy", "^TestFourEyes$"},
	{"retry beside an older deployment", "deploy/apply_requests.go", "w.Status == WaveStatusReverted && len(s.orderHolds(d, s.group(d), i)) > 0:", "false:", "./deploy", staggered + deep},
	{"a failed wave that waits is skipped", "deploy/deployment.go", "p.evidence == 0 && p.failures+d.Waves[i].Extra <= d.Waves[i].Budget", "p.evidence == 0", "./deploy", "^TestAFailureBeforeAWaveIsNotSkipped$"},
}

// TestMutants applies every mutant and runs the test that must kill it. Without
// MUTANTS set it only tests that every mutant applies; MUTANTS=text selects.
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	which, on := os.LookupEnv("MUTANTS")
	for _, m := range table {
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			path := filepath.Join(root, m.file)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(text, []byte(m.old)); n != 1 {
				t.Fatalf("%s: the snippet occurs %d times, not once: %s", m.file, n, m.old)
			}
			if !on || which != "all" && !strings.Contains(m.name, which) {
				return
			}
			began := time.Now()
			out := m.test(t, root, path, bytes.Replace(text, []byte(m.old), []byte(m.now), 1))
			t.Logf("killed  %-46s %s %s (%.1fs)", m.name, m.run, out, time.Since(began).Seconds())
		})
	}
}

// test runs the mutant's test over the changed file and returns the line that
// killed it.
func (m *mutant) test(t *testing.T, root, path string, text []byte) string {
	t.Helper()
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, what := range map[string][]byte{changed: text, overlay: list} {
		if err := os.WriteFile(name, what, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	run, whole := strings.CutSuffix(m.run, deep)
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-vet=off", "-timeout=100s", "-overlay="+overlay, "-run="+run, m.pkg)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "SEEDS=60", "MODEL=")
	if whole {
		cmd.Env = append(cmd.Env, "MODEL=1")
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil && bytes.Contains(out, []byte("no tests to run")):
		t.Fatalf("%s: no test %s", m.name, m.run)
	case err == nil:
		t.Fatalf("SURVIVED: %s, by %s", m.name, m.run)
	case !bytes.Contains(out, []byte("--- FAIL")):
		t.Fatalf("%s: no test failed, it was not run: %s", m.name, out)
	}
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, "_test.go:") && !strings.Contains(line, " states, ") {
			return strings.TrimSpace(line)[:min(len(strings.TrimSpace(line)), 120)]
		}
	}
	return "it panicked"
}
