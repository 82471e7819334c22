package artifacts_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
)

func inode(t *testing.T, path string) (ino, links uint64) {
	t.Helper()
	st, err := os.Lstat(path)
	check(t, err)
	sys := st.Sys().(*syscall.Stat_t)
	return sys.Ino, uint64(sys.Nlink)
}

// reads counts the ranges of packs that are read from a store.
func reads(s artifacts.Store, n *int) artifacts.Store {
	return &faulty{Store: s, fault: func(key string, _ int, r io.ReadCloser, err error) (io.ReadCloser, error) {
		if strings.HasPrefix(key, "packs/") {
			*n++
		}
		return r, err
	}}
}

// A file that was fetched is created once: its inode is that of the release,
// and of nothing else. What is shared with a revision on disk moves no bytes,
// whether the cache was refilled or not, and an edit reaches nothing else.
func TestMove(t *testing.T) {
	for _, refill := range []bool{false, true} {
		s, cache := newStore(t), newCache(t)
		first := push(t, s, writeDir(t, sample))
		changed := append([]file{{name: "added", data: "new"}}, sample...)
		second := push(t, s, writeDir(t, changed))
		dir := t.TempDir()
		one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")

		f := &artifacts.Fetcher{Opener: s, Cache: cache, Move: true}
		m1, err := f.Stage(t.Context(), first.Digest, one)
		check(t, err)
		check(t, artifacts.VerifyTree(one, m1))
		e, _ := m1.Lookup("appspec.yml")
		if cache.Has(e.Sum, e.Size) {
			t.Error("the cache still has what was moved")
		}
		if refill {
			check(t, cache.Refill(t.Context(), m1, one))
			if !cache.Has(e.Sum, e.Size) {
				t.Error("not refilled")
			}
		}
		ranges := 0
		f = &artifacts.Fetcher{
			Opener: reads(s, &ranges), Cache: cache, Move: true,
			Donors: []artifacts.Donor{{Digest: first.Digest, Dir: one}},
		}
		m2, err := f.Stage(t.Context(), second.Digest, two)
		check(t, err)
		check(t, artifacts.VerifyTree(two, m2))
		if ranges != 1 { // the file that was added
			t.Errorf("refill %v: %d ranges were read", refill, ranges)
		}
		for e := range m2.All() {
			if e.Type != artifacts.TypeFile {
				continue
			}
			ino, links := inode(t, filepath.Join(two, e.Path))
			if links != 1 {
				t.Errorf("%s has %d links", e.Path, links)
			}
			if old, err := os.Lstat(filepath.Join(one, e.Path)); err == nil && old.Sys().(*syscall.Stat_t).Ino == ino {
				t.Errorf("%s is shared", e.Path)
			}
		}
		check(t, os.WriteFile(filepath.Join(two, "appspec.yml"), []byte("edited"), 0))
		check(t, artifacts.VerifyTree(one, m1))
		cached(t, cache)
	}
}

// A donor whose file was edited is not believed.
func TestEditedDonor(t *testing.T) {
	s, cache := newStore(t), newCache(t)
	first := push(t, s, writeDir(t, sample))
	one := filepath.Join(t.TempDir(), "one")
	f := &artifacts.Fetcher{Opener: s, Cache: cache, Move: true}
	m, err := f.Stage(t.Context(), first.Digest, one)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(one, "appspec.yml"), []byte("version: 0.0\nos: evil!\n"), 0))
	check(t, cache.Refill(context.Background(), m, one))
	ranges := 0
	f = &artifacts.Fetcher{Opener: reads(s, &ranges), Cache: cache, Move: true, Donors: []artifacts.Donor{{Digest: first.Digest, Dir: one}}}
	two := filepath.Join(t.TempDir(), "two")
	_, err = f.Stage(t.Context(), first.Digest, two)
	check(t, err)
	check(t, artifacts.VerifyTree(two, m))
	if ranges != 1 {
		t.Errorf("%d ranges were read", ranges)
	}
}
