package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// output is what a process has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// mentioning lists the processes whose command line names the folder.
func mentioning(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir)) {
			out = append(out, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out
}

// TestInterruptLeavesNothing sends Ctrl-C in the middle of a deployment of the
// demo: no process and no file may stay behind, and stop is still reported.
func TestInterruptLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	cmd := exec.Command(filepath.Join(bin, "dctl"), "dev", "--auto", "--output", "jsonl", "--agents", "3",
		"--coordinators", "1", "--dir", dir)
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	limit := time.After(40 * time.Second)
	for !strings.Contains(out.String(), `"step":"start","result":"pass"`) {
		select {
		case err := <-done:
			t.Fatalf("the demo ended by itself: %v\n%s", err, out)
		case <-limit:
			t.Fatalf("the demo did not start:\n%s", out)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if len(mentioning(t, dir)) < 5 {
		t.Errorf("few processes run: %v", mentioning(t, dir))
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-limit:
		t.Fatal("the demo did not end")
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if left := mentioning(t, dir); len(left) > 0 {
		t.Errorf("processes left:\n%s", strings.Join(left, "\n"))
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
	var steps []string
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		var s struct{ Step, Result string }
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("standard output has a line that is no object: %q", line)
		}
		steps = append(steps, s.Step+":"+s.Result)
	}
	if !slices.Equal(steps, []string{"start:pass", "deploy-v1:fail", "stop:pass"}) {
		t.Errorf("steps %v", steps)
	}
}

// TestRollbackNeedsNoArguments takes a finished deployment back, then goes to
// a revision by name.
func TestRollbackNeedsNoArguments(t *testing.T) {
	w := start(t, 1, 3)
	w.app(oneByOne)
	for _, rev := range []string{"v1", "v2", "v3"} {
		w.push(rev)
		w.must("deploy", "--app", "hello", "--rev", rev)
	}
	if err := w.fleet.StopS3(); err != nil { // nothing is downloaded: it is still on disk
		t.Fatal(err)
	}
	w.must("rollback", "--app", "hello", "--yes")
	w.all("v2")
	if out, code := w.dctl("deploy", "--app", "hello", "--rev", "v3"); code != 7 || !strings.Contains(out, "bad") {
		t.Errorf("the revision that was taken back: exit %d\n%s", code, out)
	}
	w.must("rollback", "--app", "hello", "--to", "v1", "--yes")
	w.all("v1")
	if out, code := w.dctl("rollback", "--app", "hello", "--to", "v3", "--yes"); code != 7 {
		t.Errorf("back to a bad revision: exit %d\n%s", code, out)
	}
}

// TestAbortTakesBackWhatIsInFlight aborts while a host is at work and others wait.
func TestAbortTakesBackWhatIsInFlight(t *testing.T) {
	w := start(t, 1, 3)
	w.app(oneByOne)
	w.push("v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")
	ran := filepath.Join(w.dir, "ran")
	w.push("v2", hook{
		event:  "ApplicationStart",
		script: "echo x >>" + ran + "; [ $(wc -l <" + ran + ") -lt 2 ] || sleep 3",
	})
	done := make(chan int, 1)
	go func() {
		_, code := w.dctl("deploy", "--app", "hello", "--rev", "v2")
		done <- code
	}()
	w.until(20*time.Second, "the second host works", func() bool {
		b, _ := os.ReadFile(ran)
		return bytes.Count(b, []byte("x")) >= 2
	})
	w.must("abort", w.deployment().Deployment.Id, "--rollback", "--yes")
	if code := <-done; code != 5 {
		t.Errorf("exit %d of the watching deploy, want 5", code)
	}
	w.all("v1")
}
