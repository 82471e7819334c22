package release_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/groundswell/groundswell/agent/release"
)

func owner(t *testing.T, path string) [2]uint32 {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	return [2]uint32{sys.Uid, sys.Gid}
}

// crash ends do at the nth effect as a kill would: all that is left is what is
// on disk. It reports whether the point was reached.
func crash(r *release.Releases, n int, do func() error) (crashed bool, err error) {
	type stop struct{}
	seen := 0
	release.SetPoint(r, func(string) {
		if seen++; seen == n {
			panic(stop{})
		}
	})
	defer release.SetPoint(r, func(string) {})
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(stop); !ok {
				panic(p)
			}
			crashed = true
		}
	}()
	return false, do()
}

// upgrade is a host on v1 with a v2 that changes everything that can be
// changed: files, links, modes, kinds, foreign files, directories.
func upgrade(t *testing.T) (h *host, v1, v2 release.Request) {
	t.Helper()
	h = newHost(t, release.Options{})
	h.n = 2 // v1 and v2 are below
	tree{"d/foreign": "foreign", "d/flink": "->foreign", "d/user": "mine"}.build(t, h.root)
	perms := "permissions:\n  - {object: /d/s, mode: 750}\n"
	v1 = h.stage("v1", files("t", "/d"), tree{
		"t/same": "1", "t/changed": "m:0640 1", "t/gone": "1", "t/s/x": "1", "t/s/gone": "1",
		"t/file2dir": "1", "t/dir2file/a": "1", "t/olddir/b": "1", "t/link": "->same",
	})
	h.must(h.r.Install(t.Context(), v1))
	h.must(h.r.Settle("www"))
	v2 = h.stage("v2", overwrite+files("t", "/d")+perms, tree{
		"t/same": "1", "t/changed": "m:0600 2", "t/s/x": "2", "t/s/new": "2", "t/file2dir/a": "2", "t/dir2file": "2",
		"t/new/deep/c": "2", "t/link": "->changed", "t/foreign": "2", "t/flink": "2",
	})
	return h, v1, v2
}

// Killed before any effect of an install: Undo restores the host byte for
// byte, and, told to install instead, the host gets to the same end.
func TestInstallKilledAtEveryEffect(t *testing.T) {
	h, _, v2 := upgrade(t)
	before := snapshot(t, h.root, true)
	h.must(h.r.Install(t.Context(), v2))
	after := snapshot(t, h.root, false)
	if before == snapshot(t, h.root, true) {
		t.Fatal("the install changed nothing")
	}
	points := 0
	for n := 1; ; n++ {
		h, _, v2 := upgrade(t)
		before := snapshot(t, h.root, true)
		crashed, err := crash(h.r, n, func() error { return h.r.Install(t.Context(), v2) })
		h.must(err)
		if !crashed {
			points = n - 1
			break
		}
		target := "v1"
		if n%2 == 0 {
			h.must(h.r.Install(t.Context(), v2))
			h.same(n, "installed again", snapshot(t, h.root, false), after)
			target = "v2"
		} else {
			h.must(h.r.Undo(t.Context(), "www"))
			h.same(n, "undone", snapshot(t, h.root, true), before)
		}
		if got, _ := h.r.Current("www"); got != target {
			t.Fatalf("killed at %d: current is %s, want %s", n, got, target)
		}
	}
	if points < 25 {
		t.Errorf("only %d points", points)
	}
}

func (h *host) same(n int, what, got, want string) {
	h.Helper()
	if got != want {
		h.Fatalf("killed at %d, %s:\n%s\nwant\n%s", n, what, got, want)
	}
}

// Killed before any effect of an undo: the next Undo comes to the same end.
func TestUndoKilledAtEveryEffect(t *testing.T) {
	for n := 1; ; n++ {
		h, _, v2 := upgrade(t)
		before := snapshot(t, h.root, true)
		h.must(h.r.Install(t.Context(), v2))
		crashed, err := crash(h.r, n, func() error { return h.r.Undo(t.Context(), "www") })
		h.must(err)
		h.must(h.r.Undo(t.Context(), "www"))
		h.same(n, "undone", snapshot(t, h.root, true), before)
		if got, _ := h.r.Current("www"); got != "v1" {
			t.Fatalf("killed at %d: current is %s", n, got)
		}
		h.must(h.deploy("", nil)) // the clean-up list is right too
		h.has(tree{"d/changed": "", "d/user": "mine", "d/foreign": "foreign"})
		if !crashed {
			return
		}
	}
}

// F09, F10 with revert: back to the old revision byte for byte; and a first
// install that fails leaves nothing.
func TestUndo(t *testing.T) {
	h, _, v2 := upgrade(t)
	before := snapshot(t, h.root, true)
	h.must(h.r.Install(t.Context(), v2))
	if to, complete, err := h.r.Pending("www"); to != "v2" || !complete || err != nil {
		t.Errorf("pending %s, %v, %v", to, complete, err)
	}
	h.must(h.r.Undo(t.Context(), "www"))
	h.must(h.r.Undo(t.Context(), "www"))
	h.same(0, "undone", snapshot(t, h.root, true), before)

	h = newHost(t, release.Options{})
	h.must(h.r.Install(t.Context(), h.stage("v1", files("a", "/d"), tree{"a": "1"})))
	h.must(h.r.Undo(t.Context(), "www"))
	h.has(tree{"d": ""})
	if got, err := h.r.Current("www"); got != "" || err != nil {
		t.Errorf("current %q, %v", got, err)
	}
}

// Nothing installed as a goal.
func TestUninstall(t *testing.T) {
	h, _, _ := upgrade(t)
	h.must(h.r.Install(t.Context(), release.Request{App: "www"}))
	h.must(h.r.Settle("www"))
	h.has(tree{"d/same": "", "d/user": "mine"})
	if got, _ := h.r.Current("www"); got != "" {
		t.Errorf("current %s", got)
	}
}

// E33: what a BeforeInstall hook edits in the revision is what is installed.
func TestEditedRevision(t *testing.T) {
	h := newHost(t, release.Options{})
	q := h.stage("v1", files("a", "/d"), tree{"a": "1"})
	h.must(os.WriteFile(filepath.Join(h.r.Dir("www", "v1"), "a"), []byte("edited"), 0o644))
	h.must(h.r.Install(t.Context(), q))
	h.has(tree{"d/a": "edited"})
}

// F07 and a hook that deletes its own release: told, nothing touched.
func TestReleaseFolderGone(t *testing.T) {
	h, _, v2 := upgrade(t)
	before := snapshot(t, h.root, true)
	h.must(os.RemoveAll(h.r.Dir("www", "v2")))
	if err := h.r.Install(t.Context(), v2); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "stage") {
		t.Errorf("got %v", err)
	}
	h.same(0, "untouched", snapshot(t, h.root, true), before)
}

// G24 and a crash while staging: no partial folder gets the name.
func TestStageFails(t *testing.T) {
	h := newHost(t, release.Options{})
	boom := errors.New("no space left on device")
	err := h.r.Stage(t.Context(), "www", "v1", func(_ context.Context, dest string) error {
		tree{"half": "1"}.build(t, dest)
		return boom
	})
	if !errors.Is(err, boom) || h.r.Has("www", "v1") {
		t.Errorf("got %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(h.dir, "www", "releases", ".*"))
	if len(left) != 0 {
		t.Errorf("left %v", left)
	}
	h.stage("v1", "", tree{"a": "1"})
	h.must(h.r.Stage(t.Context(), "www", "v1", func(context.Context, string) error { return boom }))
	for _, bad := range []string{"", "../x", "a/b", ".hidden", strings.Repeat("x", 129)} {
		if err := h.r.Stage(t.Context(), "www", bad, nil); err == nil {
			t.Errorf("revision %q was accepted", bad)
		}
	}
	if fmt.Sprint(h.r.List("www")) == "" {
		t.Error("no list")
	}
}
