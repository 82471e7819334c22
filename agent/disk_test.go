package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// onDisk puts the host's state and installed files on a file system of its
// own, of so many MiB.
func (w *world) onDisk(mib int) (dir string) {
	w.Helper()
	dir = w.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		w.Skipf("a file system of its own needs root: %v", err)
	}
	w.Cleanup(func() { must(w.T, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	w.o.Root, w.o.InstallRoot = filepath.Join(dir, "root"), filepath.Join(dir, "fs")
	return dir
}

// big pushes a revision with a file of so many MiB, all of it its own.
func (w *world) big(name string, mib int, b hookScripts) *agentv1.Revision {
	w.Helper()
	dir := w.TempDir()
	spec := "version: 0.0\nos: linux\nfiles:\n  - {source: d, destination: /srv/www}\nhooks:\n"
	for event, script := range b {
		spec += "  " + event + ":\n    - location: " + event + ".sh\n"
		must(w.T, os.WriteFile(filepath.Join(dir, event+".sh"), []byte("#!/bin/sh\n"+script), 0o755))
	}
	must(w.T, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	must(w.T, os.WriteFile(filepath.Join(dir, "d", "data"),
		[]byte(strings.Repeat(name+"\n", mib<<20/(len(name)+1))), 0o644))
	must(w.T, os.WriteFile(filepath.Join(dir, "d", "revision"), []byte(name), 0o644))
	must(w.T, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte(spec), 0o644))
	return w.pushDir(dir, name)
}

func (w *world) runs(want string) {
	w.Helper()
	got, err := os.ReadFile(filepath.Join(w.o.InstallRoot, "srv", "www", "revision"))
	if err != nil || string(got) != want {
		w.Errorf("%q is installed (%v), want %s", got, err, want)
	}
}

func (w *world) free() uint64 {
	var s syscall.Statfs_t
	must(w.T, syscall.Statfs(w.o.Root, &s))
	return s.Bavail * uint64(s.Bsize)
}

// A revision takes its size twice, once as revision and once installed; the
// agent's cache never keeps it from that, and what will not fit is known
// before anything is stopped.
func TestDiskOfTheHostsSize(t *testing.T) {
	w := newWorld(t)
	w.o.PruneAfter, w.o.KeepReleases = 50*time.Millisecond, 2
	w.onDisk(38)
	w.start()
	stops := func() hookScripts {
		return hookScripts{"ApplicationStop": "echo stopped $GROUNDSWELL_REVISION >>\"$OUT\"\n"}
	}
	v1 := w.big("v1", 8, stops())
	w.done(v1) // 16 of 38, 1 is ballast
	w.until("the cache was filled again", func() bool { return w.free() < 14<<20 })
	w.done(w.big("v2", 8, stops())) // the cache gives way
	w.runs("v2")
	if got := w.out(); got != "stopped v1\n" {
		t.Errorf("hooks said %q", got)
	}
	r := w.result(w.grant(w.big("v3", 9, stops())), agentv1.Result_RESULT_FAILED)
	w.runs("v2")
	if got := w.out(); got != "stopped v1\n" || !strings.Contains(r.Failure.Message, "disk full") {
		t.Errorf("v3, which does not fit: %v; hooks said %q", r.Failure, got)
	}
	w.done(v1) // from the disk
	w.runs("v1")
}

// A refill never takes the room of the next revision.
func TestRefillLeavesRoom(t *testing.T) {
	w := newWorld(t)
	w.o.PruneAfter = 20 * time.Millisecond
	w.onDisk(30)
	w.start()
	w.done(w.big("v1", 8, nil))
	before := w.free()
	w.never("a refill into less than twice the revision", func() bool { return w.free() < before-1<<20 })
}

// never watches for as long as ten times what it takes to happen.
func (w *world) never(what string, happened func() bool) {
	w.Helper()
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if happened() {
			w.Fatal(what)
		}
	}
}

// A disk that a hook fills: what runs before it is put back exactly, and a
// host that could not even start that tries again when there is room.
func TestBrokenOnAFullDisk(t *testing.T) {
	w := newWorld(t)
	dir := w.onDisk(28)
	w.start()
	filler, state := filepath.Join(dir, "filler"), filepath.Join(dir, "state")
	start := hookScripts{
		"ApplicationStart": "head -c 5000000 /dev/zero >" + state + " || exit 1\n",
		"ApplicationStop":  "rm -f " + state + "\n",
	}
	v1 := w.big("v1", 2, start)
	w.done(v1)
	start["AfterInstall"] = "while head -c 65536 /dev/zero >>" + filler + "; do :; done; exit 1\n"
	r := w.result(w.grant(w.big("v2", 2, start)), agentv1.Result_RESULT_BROKEN)
	w.runs("v1")
	if r.Health != agentv1.Health_HEALTH_UNHEALTHY {
		t.Errorf("%v", r)
	}
	must(t, os.Remove(filler))
	w.report("back when there is room", func(r *agentv1.Report) bool {
		return r.Health == agentv1.Health_HEALTH_HEALTHY && r.Running == v1.Digest && r.Generation == w.gen
	})
	w.runs("v1")
	if st, err := os.Stat(state); err != nil || st.Size() != 5000000 {
		t.Errorf("v1 was not started: %v", err)
	}
}

// A store that is away is a warning while it is, not only at the end.
func TestDeadStoreIsAWarning(t *testing.T) {
	w := newWorld(t)
	w.o.SlowStaging = 20 * time.Millisecond
	w.fake.sign = func(string) (string, error) { return "http://127.0.0.1:1/none", nil }
	w.start()
	rev := w.push("v1", whole())
	w.prefetch(rev, "k")
	w.until("a warning", func() bool {
		return strings.Contains(w.log.String(), "the store does not answer") &&
			strings.Contains(w.log.String(), "revision=v1")
	})
}
