package release_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/groundswell/groundswell/agent/release"
	"github.com/groundswell/groundswell/internal/room"
)

// victims is a folder outside of everything, which no deployment may touch: a
// file for each name that a revision could be made to hit.
func victims(t *testing.T) (dir string, untouched func()) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"a", "b", "s/a", "x"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("victim"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot(t, dir, true)
	return dir, func() {
		t.Helper()
		if got := snapshot(t, dir, true); got != before {
			t.Errorf("what a link leads to was touched:\n%s\nwas\n%s", got, before)
		}
	}
}

// A link of a revision is installed, given its owner, replaced, removed and
// put back, and what it leads to is never touched: not by the next revision
// that has a directory there, nor by permissions, clean-up, undo or pruning.
func TestLinksAreNotFollowed(t *testing.T) {
	dir, untouched := victims(t)
	h := newHost(t, release.Options{Keep: 1})
	perms := "permissions:\n  - {object: /d, mode: 777, owner: nobody}\n"
	if os.Geteuid() != 0 {
		perms = "permissions:\n  - {object: /d, mode: 777}\n"
	}
	linked := tree{"t/s": "->" + dir, "t/l": "->" + filepath.Join(dir, "a"), "t/f": "1"}
	h.must(h.deploy(files("t", "/d")+perms, linked))
	h.has(tree{"d/s": "->" + dir, "d/l": "->" + filepath.Join(dir, "a")})
	untouched()
	before := snapshot(t, h.root, false)
	v2 := h.stage("v2x", files("t", "/d")+perms, tree{"t/s/a": "2", "t/s/s/a": "2", "t/l": "2"})
	h.must(h.r.Install(t.Context(), v2))
	h.has(tree{"d/s": "/", "d/s/a": "2", "d/s/s/a": "2", "d/l": "2", "d/f": ""})
	untouched()
	h.must(h.r.Undo(t.Context(), "www"))
	h.same(0, "undone", snapshot(t, h.root, false), before)
	h.must(h.r.Install(t.Context(), v2))
	h.must(h.r.Settle("www"))
	h.must(h.deploy(files("t", "/d"), linked))
	if _, err := h.r.Prune("www"); err != nil {
		t.Error(err)
	}
	h.must(h.deploy("os: linux\n", nil))
	h.has(tree{"d": ""})
	untouched()
}

// A hook may put a link in the place of a directory that the deployment made:
// neither the clean-up of the next one, nor a way back, goes through it.
func TestDirectoryThatBecameALink(t *testing.T) {
	for _, undo := range []bool{false, true} {
		t.Run(fmt.Sprint("undo ", undo), func(t *testing.T) {
			dir, untouched := victims(t)
			h := newHost(t, release.Options{})
			v1 := tree{"t/s/a": "1", "t/s/b": "1", "t/s/s/a": "1", "t/f": "1"}
			h.must(h.deploy(files("t", "/d"), v1))
			relink := func() {
				h.must(os.RemoveAll(filepath.Join(h.root, "d/s")))
				h.must(os.Symlink(dir, filepath.Join(h.root, "d/s")))
			}
			if !undo {
				relink()
			}
			v2 := h.stage("v2x", files("t", "/d"), tree{"t/s/a": "2", "t/s/x": "2", "t/f": "2"})
			h.must(h.r.Install(t.Context(), v2))
			if undo {
				relink()
				h.must(h.r.Undo(t.Context(), "www"))
				h.has(tree{"d/f": "1"})
			}
			h.must(h.deploy("os: linux\n", nil))
			untouched()
		})
	}
}

// The room of an install is known before it begins, without touching anything,
// and what stays needs none.
func TestRoomOfAnInstall(t *testing.T) {
	h := newHost(t, release.Options{})
	if err := syscall.Mount("tmpfs", h.root, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a file system of its own needs root: %v", err)
	}
	t.Cleanup(func() { h.must(syscall.Unmount(h.root, syscall.MNT_DETACH)) })
	big := func(text string) string { return fmt.Sprintf("%01200000d%s", 0, text) }
	h.must(h.deploy(files("t", "/d"), tree{"t/big": big("1"), "t/f": "1"}))
	before := snapshot(t, h.root, true)
	fits := h.stage("fits", files("t", "/d"), tree{"t/big": big("1"), "t/f": "2"})
	h.must(h.r.CheckRoom(fits))
	large := h.stage("large", files("t", "/d"), tree{"t/big": big("2"), "t/f": "3"})
	for _, err := range []error{h.r.CheckRoom(large), h.r.Install(t.Context(), large)} {
		var lack *room.Shortage
		if !errors.As(err, &lack) || lack.Dir != filepath.Join(h.root, "d") {
			t.Errorf("%v, want a shortage of the disk it installs to", err)
		}
	}
	h.same(0, "after a refusal", snapshot(t, h.root, true), before)
	h.must(h.r.Install(t.Context(), fits))
}
