package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/agent/journal"
)

// F28 in meaning: waits grow and stay below a bound, that of CodeDeploy's 90 s.
func TestBackoff(t *testing.T) {
	waits := agent.Delays(40)
	for i, d := range waits {
		least, most := 50*time.Millisecond, 90*time.Second
		if i > 20 {
			least, most = 2500*time.Millisecond, 7500*time.Millisecond
		}
		if d < least || d > most {
			t.Errorf("wait %d is %v, want %v to %v", i, d, least, most)
		}
	}
	if waits[0] > 200*time.Millisecond {
		t.Errorf("the first wait is %v", waits[0])
	}
}

// local writes a bundle with one hook and returns the options to deploy it.
func local(t *testing.T, event, script string) agent.LocalOptions {
	t.Helper()
	dir := t.TempDir()
	spec := "version: 0.0\nos: linux\nhooks:\n  " + event + ":\n    - location: h.sh\n"
	must(t, os.MkdirAll(filepath.Join(dir, "v1"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "v1", "appspec.yml"), []byte(spec), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "v1", "h.sh"), []byte("#!/bin/sh\ncd "+dir+"\n"+script), 0o755))
	return agent.LocalOptions{
		Bundle: filepath.Join(dir, "v1"), App: "www", Group: "g",
		Root: filepath.Join(dir, "root"),
	}
}

// F21: told to stop while a hook runs, the hook ends and nothing more begins;
// the next deployment takes over.
func TestLocalStop(t *testing.T) {
	o := local(t, "BeforeInstall", "echo began >began; while [ ! -e go ]; do sleep 0.01; done; echo ended >ended\n")
	dir := filepath.Dir(o.Root)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan agent.LocalResult, 1)
	go func() {
		r, err := agent.DeployLocal(ctx, o)
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	until(t, "the hook runs", func() bool { _, err := os.Stat(filepath.Join(dir, "began")); return err == nil })
	if _, err := agent.DeployLocal(t.Context(), o); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("a second deployment on the folder: %v", err)
	}
	patient := o
	waits, waited := make(chan struct{}), make(chan agent.LocalResult, 1)
	patient.Wait, patient.Waiting = time.Minute, func() { close(waits) }
	go func() {
		r, err := agent.DeployLocal(t.Context(), patient)
		if err != nil {
			t.Error(err)
		}
		waited <- r
	}()
	<-waits
	cancel()
	must(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	r := <-done
	if _, err := os.Stat(filepath.Join(dir, "ended")); err != nil || r.Result != agent.LocalFailed ||
		r.Event != "Install" || !strings.Contains(r.Message, "told to stop") {
		t.Fatalf("hook ended: %v, result %+v", err, r)
	}
	r = <-waited
	if r.Result != agent.LocalSucceeded || !strings.Contains(strings.Join(r.Warnings, " "), "takes over") {
		t.Errorf("the next one, which waited: %+v", r)
	}
}

// The umask of whoever calls changes nothing: a hook of another user can read
// its revision, and what is installed has the modes that were stated.
func TestLocalUmask(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		must(t, os.Chmod(d, 0o755))
	}
	v1 := filepath.Join(dir, "v1")
	must(t, os.MkdirAll(filepath.Join(v1, "app", "deep"), 0o755))
	spec := "version: 0.0\nos: linux\nfiles:\n  - {source: app, destination: " + dir + "/dst}\n" +
		"hooks:\n  AfterInstall:\n    - {location: s.sh, runas: nobody}\n"
	must(t, os.WriteFile(filepath.Join(v1, "appspec.yml"), []byte(spec), 0o644))
	must(t, os.WriteFile(filepath.Join(v1, "s.sh"),
		[]byte("#!/bin/sh\nid -un; cat appspec.yml "+dir+"/dst/deep/f app/deep/f\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(v1, "app", "deep", "f"), []byte("f"), 0o644))
	must(t, os.Symlink("f", filepath.Join(v1, "app", "deep", "l")))
	defer syscall.Umask(syscall.Umask(0o077))
	r, err := agent.DeployLocal(t.Context(), agent.LocalOptions{
		Bundle: v1, App: "www", Group: "g",
		Root: filepath.Join(dir, "root", "deep"),
	})
	if err != nil || r.Result != agent.LocalSucceeded {
		t.Errorf("%+v, %v", r, err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}
