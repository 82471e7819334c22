package release_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/agent/release"
)

// edited compares and returns the edited paths, relative to the install root.
func (h *host) edited() []string {
	h.Helper()
	c, err := h.r.Compare("www", func(int) error { return nil })
	if err != nil {
		h.Fatal(err)
	}
	if err := h.r.Learn("www", c); err != nil {
		h.Fatal(err)
	}
	var out []string
	for _, p := range c.Edits.Paths {
		out = append(out, strings.TrimPrefix(p, h.root+"/"))
	}
	if len(out) != min(c.Edits.Files, 5) {
		h.Errorf("%d edited, named are %v", c.Edits.Files, out)
	}
	slices.Sort(out)
	return out
}

func (h *host) path(name string) string { return filepath.Join(h.root, name) }

// do runs steps of a test that must not fail.
func (h *host) do(errs ...error) {
	h.Helper()
	if err := errors.Join(errs...); err != nil {
		h.Fatal(err)
	}
}

// TestBaseline: what counts as edited is content, mode, owner, where a link
// leads, and that a path is there; not its times, its links, what lies beside
// it, nor what a hook did before the baseline was noted.
func TestBaseline(t *testing.T) {
	h := newHost(t, release.Options{})
	q := h.stage("v1", "files:\n  - source: www\n    destination: /srv\n", tree{
		"www/a": "a", "www/b": "b", "www/c": "c", "www/d/e": "e", "www/link": "->a", "www/hook": "raw", "www/gone": "x",
	})
	if _, err := h.r.Compare("www", nil); !errors.Is(err, release.ErrNoBaseline) {
		t.Errorf("nothing is installed: %v", err)
	}
	h.do(h.r.Install(t.Context(), q), os.WriteFile(h.path("srv/hook"), []byte("made"), 0o644),
		os.Remove(h.path("srv/gone")), h.r.Settle("www"), h.r.NoteBaseline("www"))
	none := func(what string) {
		t.Helper()
		if got := h.edited(); len(got) > 0 {
			t.Errorf("%s: edited are %v", what, got)
		}
	}
	only := func(what, path string, do, undo func() error) {
		t.Helper()
		h.do(do())
		if got := h.edited(); !slices.Equal(got, []string{path}) {
			t.Errorf("%s: edited are %v", what, got)
		}
		if undo != nil {
			h.do(undo())
			none(what + ", undone")
		}
	}
	write := func(name, text string) func() error {
		return func() error { return os.WriteFile(h.path(name), []byte(text), 0o644) }
	}
	none("at once")
	later := time.Now().Add(time.Hour)
	h.do(os.Chtimes(h.path("srv/a"), later, later), os.Link(h.path("srv/b"), h.path("other")),
		write("srv/d/new", "new")(), write("srv/c", "c")())
	none("touched, linked, written with what it held, and a new file")
	only("same size", "srv/a", write("srv/a", "A"), write("srv/a", "a"))
	only("a hook's file", "srv/hook", write("srv/hook", "raw!"), write("srv/hook", "made"))
	only("mode", "srv/b", func() error { return os.Chmod(h.path("srv/b"), 0o600) },
		func() error { return os.Chmod(h.path("srv/b"), 0o644) })
	only("removed", "srv/d/e", func() error { return os.Remove(h.path("srv/d/e")) }, write("srv/d/e", "e"))
	only("made", "srv/gone", write("srv/gone", "x"), func() error { return os.Remove(h.path("srv/gone")) })
	only("link", "srv/link", func() error {
		return errors.Join(os.Remove(h.path("srv/link")), os.Symlink("b", h.path("srv/link")))
	}, func() error { return errors.Join(os.Remove(h.path("srv/link")), os.Symlink("a", h.path("srv/link"))) })
	only("another kind", "srv/c", func() error {
		return errors.Join(os.Remove(h.path("srv/c")), os.Mkdir(h.path("srv/c"), 0o755))
	}, nil)

	// A redeployment repairs it, and nothing else is written.
	before := stat(t, h.path("srv/b"))
	h.do(h.r.Install(t.Context(), q), h.r.Settle("www"), h.r.NoteBaseline("www"))
	none("repaired")
	if after := stat(t, h.path("srv/b")); after != before {
		t.Error("a file that needed no repair was written anew")
	}
}

func stat(t *testing.T, path string) string {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v", st.Sys())
}

// TestBaselineBeforeContentIsKnown: a file that was written before its content
// was ever read is edited: nobody can say that it is the same.
func TestBaselineBeforeContentIsKnown(t *testing.T) {
	h := newHost(t, release.Options{})
	content := tree{}
	for i := range 9 {
		content[fmt.Sprintf("www/f%d", i)] = "x"
	}
	q := h.stage("v1", "files:\n  - source: www\n    destination: /srv\n", content)
	h.do(h.r.Install(t.Context(), q), h.r.Settle("www"), h.r.NoteBaseline("www"))
	for i := range 7 {
		h.do(os.WriteFile(h.path(fmt.Sprintf("srv/f%d", i)), []byte("y"), 0o644))
	}
	later := time.Now().Add(time.Hour)
	h.do(os.Chtimes(h.path("srv/f7"), later, later))
	c, err := h.r.Compare("www", func(int) error { return nil })
	if err != nil || c.Edits.Files != 8 || len(c.Edits.Paths) != 5 {
		t.Errorf("%+v, %v", c.Edits, err)
	}
	stop := errors.New("stop")
	if _, err := h.r.Compare("www", func(int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("it did not stop: %v", err)
	}
	h.do(h.r.ForgetBaseline("www"))
	if _, err := h.r.Compare("www", nil); !errors.Is(err, release.ErrNoBaseline) {
		t.Errorf("forgotten: %v", err)
	}
}
