package pool

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "run", "www", "in-service")
	f, err := Within([]string{"/elsewhere", dir}, path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"/etc/passwd", dir, dir + "x/in-service", dir + "/../passwd"} {
		if _, err := Within([]string{dir, "relative"}, bad); err == nil {
			t.Errorf("%s lies in %s", bad, dir)
		}
	}
	there := func(want bool) {
		t.Helper()
		if got, err := f.Found(); got != want || err != nil {
			t.Errorf("found %v, %v, want %v", got, err, want)
		}
	}
	there(false)
	for range 2 {
		if err := f.Block(t.Context()); err != nil {
			t.Fatal(err)
		}
		there(false)
	}
	for range 2 {
		if err := f.Allow(); err != nil {
			t.Fatal(err)
		}
		there(true)
	}
	if err := f.Block(t.Context()); err != nil {
		t.Fatal(err)
	}
	there(false)
	// What stands in its place is nobody's to remove.
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if err := f.Block(t.Context()); err == nil {
		t.Error("a link was taken for the file")
	}
	if err := f.Allow(); err == nil {
		t.Error("a link was taken for the file")
	}
	// A folder that became a link leads nowhere.
	run := filepath.Join(dir, "run")
	if err := errors.Join(os.RemoveAll(run), os.Symlink(filepath.Dir(victim), run)); err != nil {
		t.Fatal(err)
	}
	if err := (File{Dir: dir, Name: "run/victim"}).Block(t.Context()); err == nil {
		t.Error("a file elsewhere was removed")
	}
	if err := (File{Dir: dir, Name: "run/made"}).Allow(); err == nil {
		t.Error("a file was made elsewhere")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (File{Dir: filepath.Dir(victim), Name: "victim", Settle: time.Hour}).Block(ended); !errors.Is(err,
		context.Canceled) {
		t.Errorf("told to stop while it settles: %v", err)
	}
}

func TestCommand(t *testing.T) {
	t.Setenv("SECRET", "of the agent")
	if err := (Command{"/bin/sh", "-c", `test -z "$SECRET" && test "$GROUNDSWELL_HOST" = web-1`}).Run(t.Context(),
		[]string{"GROUNDSWELL_HOST=web-1"}); err != nil {
		t.Error(err)
	}
	err := (Command{"/bin/sh", "-c", "echo no such pool >&2; exit 3"}).Run(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "no such pool") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a command that fails: %v", err)
	}
	for _, c := range []Command{nil, {"true"}, {"../bin/true"}} {
		if err := c.Run(t.Context(), nil); err == nil {
			t.Errorf("%q was run", c)
		}
	}
	// Told to end it ends, with what it started.
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- (Command{"/bin/sh", "-c", "sleep 1000 & echo $! >" + dir + "/child; mv " + dir + "/child " + dir + "/pid; wait"}).
			Run(ctx, nil)
	}()
	var pid int
	for pid == 0 {
		if b, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil {
			pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("told to end: %v", err)
	}
	for end := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(time.Millisecond) {
		if stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); strings.Contains(string(stat), ") Z ") {
			break // dead, and nobody here may bury it
		}
		if time.Now().After(end) {
			t.Fatal("what it started lives on")
		}
	}
}
