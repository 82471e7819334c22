package hooks_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/hooks"
)

// A tree that forks on and on is ended whole by the timeout.
func TestForkBombIsEnded(t *testing.T) {
	h := newHost(t, hooks.Options{Limits: hooks.Limits{Grace: 50 * time.Millisecond}})
	// Bounded to 120 processes at a time so that a broken kill harms no one.
	r := h.run(hooks.Script{Timeout: time.Second}, `#!/bin/sh
trap '' TERM
while :; do
  if [ "$(cat spawned 2>/dev/null | wc -l)" -lt 120 ]; then
    (trap '' TERM; setsid sleep 300 & echo $! >>spawned) &
  fi
  sleep 0.002
done
`)
	if r.Code != hooks.CodeTimedOut {
		t.Fatalf("got %+v", r)
	}
	data, _ := os.ReadFile(filepath.Join(h.root, "spawned"))
	pids := strings.Fields(string(data))
	if len(pids) < 10 {
		t.Fatalf("only %d processes were forked", len(pids))
	}
	for _, p := range pids {
		var pid int
		if _, err := fmt.Sscan(p, &pid); err == nil && alive(pid) && isSleep(pid) {
			t.Errorf("process %d survived (%d forked)", pid, len(pids))
		}
	}
}

func isSleep(pid int) bool {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.HasPrefix(string(name), "sleep")
}

// Endless output stays within its bounds on disk, and both ends are kept.
func TestEndlessOutputIsBounded(t *testing.T) {
	h := newHost(t, hooks.Options{Limits: hooks.Limits{
		Head: 64 << 10, Tail: 64 << 10, Backlog: 1 << 20,
		Grace: 50 * time.Millisecond,
	}})
	r := h.run(hooks.Script{Timeout: time.Second}, "#!/bin/sh\necho the very first\nyes groundswell\n")
	if r.Code != hooks.CodeTimedOut {
		t.Fatalf("got %+v", r)
	}
	if log := h.log(r); !strings.Contains(log, "the very first") || !strings.Contains(log, "failed to complete") {
		t.Errorf("an end of the log is missing (%d bytes)", len(log))
	}
	var written, kept int64
	entries, _ := os.ReadDir(filepath.Dir(r.Log))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		written += info.Size()
		kept += info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	if written < 4<<20 {
		t.Skipf("the flood was only %d bytes", written)
	}
	if kept > 3<<20 {
		t.Errorf("%d bytes on disk of %d written", kept, written)
	}
}

// A script may delete the revision it is in.
func TestScriptDeletesItsRelease(t *testing.T) {
	h := newHost(t, hooks.Options{})
	r := h.run(hooks.Script{}, "#!/bin/sh\nrm -rf \"$PWD\"\necho gone\n")
	if !r.OK() || !strings.Contains(h.log(r), "[stdout]gone") {
		t.Fatalf("got %+v", r)
	}
	if r := h.run(hooks.Script{}, ""); r.OK() || !strings.Contains(r.Message, "find the revision") {
		t.Fatalf("got %+v", r)
	}
}

// agent starts the test binary as an agent that runs a.sh.
func (h *host) agent() *exec.Cmd {
	h.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "TEST_AGENT_DIR="+h.dir, "TEST_AGENT_ROOT="+h.root)
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func kill9(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// F19: a hook that runs while the agent is killed is adopted, its real result
// and all of its output are reported, and it ran once.
func TestAgentKilledHookAdopted(t *testing.T) {
	for _, wait := range []bool{true, false} { // ends after, or before, the restart
		t.Run(fmt.Sprintf("running=%v", wait), func(t *testing.T) {
			h := newHost(t, hooks.Options{})
			h.write("a.sh", "#!/bin/sh\necho start >>count\necho $$ >pid\nwhile [ ! -e go ]; do sleep 0.02; echo tick; done\necho finished\nexit 41\n")
			agent := h.agent()
			script := h.pid("pid")
			kill9(t, agent)
			if !alive(script) {
				t.Fatal("the hook died with the agent")
			}
			h.write("go", "")
			if !wait {
				h.eventually("the hook ends", func() bool { return !alive(script) })
			}
			r := h.runner.Run(t.Context(), hooks.Script{Location: "a.sh"}, h.env("run"))
			if r.Code != hooks.CodeFailed || r.ExitStatus != 41 || !strings.Contains(r.Tail, "finished") {
				t.Fatalf("got %+v", r)
			}
			if data, _ := os.ReadFile(filepath.Join(h.root, "count")); string(data) != "start\n" {
				t.Errorf("starts: %q", data)
			}
		})
	}
}

// The agent killed at any moment of a start: afterwards the script has run
// exactly once, whichever agent ran it.
func TestAgentKilledWhileStarting(t *testing.T) {
	h := newHost(t, hooks.Options{})
	h.write("a.sh", "#!/bin/sh\necho start >>count\n")
	for i := range 25 {
		_ = os.Remove(filepath.Join(h.root, "count"))
		_ = os.RemoveAll(filepath.Join(h.dir, "run"))
		agent := h.agent()
		// The moment of the kill is what is varied here, not a wait.
		time.Sleep(time.Duration(i) * 2 * time.Millisecond)
		kill9(t, agent)
		r := h.runner.Run(t.Context(), hooks.Script{Location: "a.sh"}, h.env("run"))
		data, _ := os.ReadFile(filepath.Join(h.root, "count"))
		if !r.OK() || string(data) != "start\n" {
			t.Fatalf("kill %d: %+v, starts %q", i, r, data)
		}
	}
}

// A supervisor that was killed leaves an unknown result: code 7, the script is
// ended, and nothing runs it again unless it is declared idempotent.
func TestSupervisorKilled(t *testing.T) {
	h := newHost(t, hooks.Options{})
	h.write("a.sh", "#!/bin/sh\necho start >>count\necho $$ >pid\n[ -e go ] || sleep 60\n")
	agent := h.agent()
	script := h.pid("pid")
	kill9(t, agent)
	h.eventually("the supervisor's record", func() bool {
		_, err := os.Stat(filepath.Join(h.dir, "run", "script"))
		return err == nil
	})
	if err := syscall.Kill(parent(t, script), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := h.runner.Run(t.Context(), hooks.Script{Location: "a.sh"}, h.env("run"))
		if r.Code != hooks.CodeRestart {
			t.Fatalf("got %+v", r)
		}
	}
	h.eventually("the script is ended", func() bool { return !alive(script) })
	h.write("go", "")
	env := h.env("x")
	if err := os.Rename(filepath.Join(h.dir, "run"), filepath.Join(h.dir, "x.0")); err != nil {
		t.Fatal(err)
	}
	r := h.runner.RunEvent(t.Context(), []hooks.Script{{Location: "a.sh", Idempotent: true}}, env, nil)
	if data, _ := os.ReadFile(filepath.Join(h.root, "count")); !r.OK() || string(data) != "start\nstart\n" {
		t.Fatalf("got %+v, starts %q", r, data)
	}
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	var state string
	var ppid int
	if _, err := fmt.Sscan(rest, &state, &ppid); err != nil {
		t.Fatal(err)
	}
	return ppid
}

// A daemon that the hook started keeps writing after agent and supervisor are
// gone: no SIGPIPE, and its output is there.
func TestDaemonOutlivesEverything(t *testing.T) {
	h := newHost(t, hooks.Options{})
	h.write("a.sh", "#!/bin/sh\nsetsid sh -c 'echo $$ >pid; while [ ! -e stop ]; do sleep 0.02; echo alive; done; echo bye >&2; echo yes >survived' &\nexit 0\n")
	agent := h.agent()
	daemon := h.pid("pid")
	_ = agent.Wait()
	h.write("stop", "")
	h.eventually("the daemon's own end", func() bool { return !alive(daemon) })
	if _, err := os.Stat(filepath.Join(h.root, "survived")); err != nil {
		t.Fatal("the daemon did not reach its end")
	}
	if err := h.runner.Trim(); err != nil {
		t.Fatal(err)
	}
	r, _, err := h.runner.Adopt(t.Context(), "run")
	if err != nil || !r.OK() || !strings.Contains(h.log(r), "[stderr]bye") {
		t.Fatalf("got %+v, %v:\n%s", r, err, h.log(r))
	}
}

// F21: the end of the context ends only the waiting. Stop ends the script.
func TestDetachThenStop(t *testing.T) {
	h := newHost(t, hooks.Options{Limits: hooks.Limits{Grace: 50 * time.Millisecond}})
	h.write("a.sh", "#!/bin/sh\necho $$ >pid\nsleep 60\n")
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan hooks.Result, 1)
	go func() { results <- h.runner.Run(ctx, hooks.Script{Location: "a.sh"}, h.env("d")) }()
	script := h.pid("pid")
	cancel()
	if r := <-results; !r.Detached || r.OK() || !alive(script) {
		t.Fatalf("got %+v, alive %v", r, alive(script))
	}
	h.eventually("the supervisor's record", func() bool {
		_, err := os.Stat(filepath.Join(h.dir, "d", "script"))
		return err == nil
	})
	if err := h.runner.Stop("d"); err != nil {
		t.Fatal(err)
	}
	r, known, err := h.runner.Adopt(t.Context(), "d")
	if err != nil || !known || r.Code != hooks.CodeOther || alive(script) {
		t.Fatalf("got %+v, %v, %v", r, known, err)
	}
}

// Follow streams while the hook runs and ends with it.
func TestFollowStreams(t *testing.T) {
	h := newHost(t, hooks.Options{})
	h.write("a.sh", "#!/bin/sh\necho first\nwhile [ ! -e go ]; do sleep 0.02; done\necho second\n")
	done := make(chan hooks.Result, 1)
	go func() { done <- h.runner.Run(t.Context(), hooks.Script{Location: "a.sh"}, h.env("f")) }()
	w := &goOn{h: h}
	off, err := h.runner.Follow(t.Context(), "f", 0, w)
	if err != nil || !strings.Contains(w.String(), "[stdout]second\n") {
		t.Fatalf("%v: %s", err, w.String())
	}
	if r := <-done; !r.OK() {
		t.Fatalf("got %+v", r)
	}
	if again, err := h.runner.Follow(t.Context(), "f", off, w); err != nil || again != off {
		t.Errorf("resumed to %d, %v; want %d", again, err, off)
	}
}

// goOn lets the followed script end once its first line has arrived.
type goOn struct {
	strings.Builder
	h *host
}

func (g *goOn) Write(p []byte) (int, error) {
	n, err := g.Builder.Write(p)
	if strings.Contains(g.String(), "[stdout]first") {
		g.h.write("go", "")
	}
	return n, err
}
