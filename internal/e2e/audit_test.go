package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAuditPage runs what docs/audit.md tells people to type, on three coordinators, kills
// their leader again and again while somebody works, and finds every record that was
// acknowledged, once, in a chain that fits; also with the files of a coordinator that was
// killed, and not with one of them changed.
func TestAuditPage(t *testing.T) {
	long(t)
	w := start(t, 3, 1)
	must(t, os.WriteFile(filepath.Join(w.dir, "access.yaml"), []byte(
		"version: 1\nrules: [{people: [admin], role: admin, applications: [\"*\"]}]\n"), 0o600))
	w.must("access", "apply", filepath.Join(w.dir, "access.yaml"), "-m", "only admin")
	ran := 0
	for _, block := range blocks(t, filepath.Join("..", "..", "docs", "audit.md")) {
		for _, line := range commands(block) {
			cmd := exec.Command("bash", "-c", line)
			cmd.Dir = w.dir
			cmd.Env = append(append(os.Environ(), w.fleet.Env()...), "DCTL_OUTPUT=plain",
				"DCTL_CONFIG="+filepath.Join(w.dir, "contexts.yaml"), "PATH="+bin+":"+os.Getenv("PATH"))
			text, err := cmd.CombinedOutput()
			t.Logf("$ %s\n%s", line, text)
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			ran++
		}
	}
	if ran != 6 {
		t.Errorf("the page has %d commands", ran)
	}
	ann := w.operator("ann")
	const kills = 20
	for i := range kills {
		leader, err := w.fleet.Leader(t.Context())
		must(t, err)
		asked := make(chan func(), 2)
		go func() {
			out, code := w.dctl("freeze", "-m", fmt.Sprintf("kill %d!", i))
			asked <- func() {
				if code != 0 {
					t.Errorf("freeze while the leader dies: exit %d\n%s", code, out)
				}
			}
		}()
		go func() {
			out, code := w.dctl(append(ann, "freeze", "-m", "ann may not")...)
			asked <- func() {
				if code == 0 {
					t.Errorf("ann may freeze nothing, and did:\n%s", out)
				}
			}
		}()
		answers := 2
		select { // the leader dies before, while or after it answers
		case f := <-asked:
			f()
			answers--
		case <-time.After(time.Duration(i) * 10 * time.Millisecond):
		}
		must(t, w.fleet.KillCoordinator(leader))
		for range answers {
			(<-asked)()
		}
		must(t, w.fleet.RestartCoordinator(t.Context(), leader))
		must(t, w.fleet.Reconnect())
	}
	w.must("audit", "verify", "--head", strings.TrimSpace(w.read("head")))
	all := w.must("audit", "--limit", "0", "-o", "jsonl")
	for i := range kills {
		n := 0
		for _, line := range strings.Split(all, "\n") {
			if strings.Contains(line, fmt.Sprintf(`"kill %d!"`, i)) && strings.Contains(line, `"outcome":"ok"`) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("what was asked at kill %d is recorded %d times", i, n)
		}
	}
	for _, line := range strings.Split(all, "\n") {
		if strings.Contains(line, "ann may not") && strings.Contains(line, `"outcome":"ok"`) {
			t.Errorf("ann did what she may not: %s", line)
		}
	}

	var files []string
	for _, c := range w.fleet.Coordinators() {
		found, err := filepath.Glob(filepath.Join(w.fleet.Dir(), c.Name, "audit", "*.jsonl"))
		must(t, err)
		if len(found) == 0 {
			t.Errorf("%s has exported nothing", c.Name)
		}
		files = append(files, found...)
	}
	w.must(append([]string{"audit", "verify"}, files...)...)
	b, err := os.ReadFile(files[0])
	must(t, err)
	b[bytes.LastIndex(b, []byte(`"actor":"`))+len(`"actor":"`)] ^= 2
	must(t, os.WriteFile(filepath.Join(w.dir, "flipped.jsonl"), b, 0o600))
	if out, code := w.dctl("audit", "verify", filepath.Join(w.dir, "flipped.jsonl")); code != 1 {
		t.Errorf("a flipped byte is not found: exit %d\n%s", code, out)
	}
}

func (w *world) read(name string) string {
	w.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, name))
	must(w.T, err)
	return string(b)
}
