package release_test

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/agent/release"
	"github.com/groundswell/groundswell/hooks"
)

// tree is paths with what is there: content; "->target" is a symlink, "/" a
// directory; "0750 text" behind a mode prefix of "m:" sets the mode.
type tree map[string]string

func (tr tree) build(t *testing.T, dir string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(tr)) {
		path, what := filepath.Join(dir, name), tr[name]
		mode := fs.FileMode(0o644)
		if rest, ok := strings.CutPrefix(what, "m:"); ok {
			var bits uint32
			if _, err := fmt.Sscanf(rest, "%o", &bits); err != nil {
				t.Fatal(err)
			}
			mode = hooks.FileMode(bits)
			_, what, _ = strings.Cut(rest, " ")
		}
		var err error
		switch target, link := strings.CutPrefix(what, "->"); {
		case link:
			err = mkparent(path, func() error { return os.Symlink(target, path) })
		case what == "/":
			if mode == 0o644 {
				mode = 0o755
			}
			if err = os.MkdirAll(path, 0o755); err == nil {
				err = os.Chmod(path, mode)
			}
		default:
			err = mkparent(path, func() error { return os.WriteFile(path, []byte(what), 0o600) })
			if err == nil {
				err = os.Chmod(path, mode)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func mkparent(path string, then func() error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return then()
}

// snapshot describes everything below dir, with modes, owners and times of
// files: two equal snapshots are the same tree byte for byte.
func snapshot(t *testing.T, dir string, times bool) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		what := ""
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			what, _ = os.Readlink(path)
			what = "->" + what
		case info.Mode().IsRegular():
			data, _ := os.ReadFile(path)
			what = fmt.Sprintf("%v %q", info.Mode(), data)
			if times {
				what += info.ModTime().String()
			}
		default:
			what = info.Mode().String()
		}
		fmt.Fprintf(&b, "%s %s\n", rel, what)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// host has releases of the application www below an install root.
type host struct {
	*testing.T
	r    *release.Releases
	root string // install root
	dir  string // state
	n    int
}

func newHost(t *testing.T, o release.Options) *host {
	t.Helper()
	h := &host{T: t, root: t.TempDir(), dir: t.TempDir()}
	o.Root, o.InstallRoot = h.dir, h.root
	r, err := release.New(o)
	if err != nil {
		t.Fatal(err)
	}
	h.r = r
	return h
}

const head = "version: 0.0\nos: linux\n"

// stage makes a revision of the tree and the rest of an appspec.
func (h *host) stage(id, spec string, content tree) release.Request {
	h.Helper()
	err := h.r.Stage(h.Context(), "www", id, func(_ context.Context, dest string) error {
		content.build(h.T, dest)
		return os.WriteFile(filepath.Join(dest, "appspec.yml"), []byte(head+spec), 0o644)
	})
	if err != nil {
		h.Fatal(err)
	}
	parsed, err := hooks.Load(h.r.Dir("www", id), "")
	if err != nil {
		h.Fatal(err)
	}
	return release.Request{App: "www", To: id, Spec: parsed}
}

// deploy stages, installs and settles the next revision.
func (h *host) deploy(spec string, content tree) error {
	h.Helper()
	h.n++
	q := h.stage(fmt.Sprintf("v%d", h.n), spec, content)
	if err := h.r.Install(h.Context(), q); err != nil {
		return err
	}
	return h.r.Settle("www")
}

func (h *host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// has checks files of the install root: content, "->target", "/", or "" for
// nothing there; "m:0750" checks the mode.
func (h *host) has(want tree) {
	h.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		path := filepath.Join(h.root, name)
		st, err := os.Lstat(path)
		got := ""
		switch {
		case err != nil:
		case strings.HasPrefix(want[name], "m:"):
			got = fmt.Sprintf("m:%04o", unixMode(st.Mode()))
		case st.IsDir():
			got = "/"
		case st.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			got = "->" + target
		default:
			data, _ := os.ReadFile(path)
			got = string(data)
		}
		if got != want[name] {
			h.Errorf("%s: got %q, want %q", name, got, want[name])
		}
	}
}

func unixMode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		bits |= 0o4000
	}
	return bits
}
