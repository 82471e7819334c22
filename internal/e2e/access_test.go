package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAccessPage runs what docs/access.md tells people to type, with the documents that
// it shows, on three coordinators.
func TestAccessPage(t *testing.T) {
	long(t)
	w := start(t, 3, 1)
	page := filepath.Join("..", "..", "docs", "access.md")
	b, err := os.ReadFile(page)
	must(t, err)
	var document string
	for _, part := range strings.Split(string(b), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(part, "```")
		document += text
	}
	w.write(filepath.Join(w.dir, "access.yaml"), document)
	if out := w.must("cluster", "status"); !strings.Contains(out, "EVERY OPERATOR IS ADMIN") {
		t.Error("without a document the status does not say who may everything")
	}
	ran := 0
	for _, block := range blocks(t, page) {
		for _, line := range commands(block) {
			cmd := exec.Command("bash", "-c", line)
			cmd.Dir = w.dir
			cmd.Env = append(append(os.Environ(), w.fleet.Env()...), "DCTL_OUTPUT=plain",
				"DCTL_CONFIG="+filepath.Join(w.dir, "contexts.yaml"), "PATH="+bin+":"+os.Getenv("PATH"))
			text, err := cmd.CombinedOutput()
			t.Logf("$ %s  → %d\n%s", line, cmd.ProcessState.ExitCode(), text)
			want := 0
			if strings.Contains(line, "access test") { // ann may in staging alone
				want = 4
			}
			if code := cmd.ProcessState.ExitCode(); code != want {
				t.Errorf("%s: %v, exit %d instead of %d", line, err, code, want)
			}
			ran++
		}
	}
	if ran < 6 {
		t.Errorf("the page has %d commands", ran)
	}
	if out := w.must("cluster", "status"); !strings.Contains(out, "access.yaml is in force") {
		t.Error("the status does not tell of the document")
	}
	w.must("access", "apply", filepath.Join(w.dir, "access.yaml")) // once more changes nothing
	ann := w.operator("ann")
	if out, code := w.dctl(append(ann, "deploy", "--app", "www", "--rev", "v1")...); code != 2 ||
		!strings.Contains(out, "no application \"www\"") {
		t.Errorf("ann deploys what is not there: exit %d", code)
	}
	if out, code := w.dctl(append(ann, "freeze")...); code != 4 || !strings.Contains(out, "ask admin") {
		t.Errorf("ann freezes everything: exit %d", code)
	}
}
