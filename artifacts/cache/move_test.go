package cache_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/bundletest"
	"github.com/groundswell/groundswell/artifacts/cache"
	"github.com/groundswell/groundswell/internal/room"
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
	count := func(key string, _ int, r io.ReadCloser, err error) (io.ReadCloser, error) {
		if strings.HasPrefix(key, "packs/") {
			*n++
		}
		return r, err
	}
	return &bundletest.Faulty{Store: s, Fault: count}
}

// A file that was fetched is created once: its inode is that of the release,
// and of nothing else. What is shared with a revision on disk moves no bytes,
// whether the cache was refilled or not, and an edit reaches nothing else.
func TestMove(t *testing.T) {
	for _, refill := range []bool{false, true} {
		s, kept := bundletest.NewStore(t), bundletest.NewCache(t)
		first := bundletest.Push(t, s, bundletest.WriteDir(t, bundletest.Sample))
		changed := append([]file{{Name: "added", Data: "new"}}, bundletest.Sample...)
		second := bundletest.Push(t, s, bundletest.WriteDir(t, changed))
		dir := t.TempDir()
		one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")

		f := &cache.Fetcher{Opener: s, Cache: kept, Move: true}
		m1, err := f.Stage(t.Context(), first.Digest, one)
		check(t, err)
		check(t, bundletest.VerifyTree(one, m1))
		e, _ := m1.Lookup("appspec.yml")
		if kept.Has(e.Sum, e.Size) {
			t.Error("the cache still has what was moved")
		}
		if refill {
			check(t, kept.Refill(t.Context(), m1, one, 0))
			if !kept.Has(e.Sum, e.Size) {
				t.Error("not refilled")
			}
		}
		ranges := 0
		f = &cache.Fetcher{
			Opener: reads(s, &ranges), Cache: kept, Move: true,
			Bases: []cache.Basis{{Digest: first.Digest, Dir: one}},
		}
		m2, err := f.Stage(t.Context(), second.Digest, two)
		check(t, err)
		check(t, bundletest.VerifyTree(two, m2))
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
		check(t, bundletest.VerifyTree(one, m1))
		cached(t, kept)
	}
}

// A basis whose file was edited is not believed.
func TestEditedBasis(t *testing.T) {
	s, kept := bundletest.NewStore(t), bundletest.NewCache(t)
	first := bundletest.Push(t, s, bundletest.WriteDir(t, bundletest.Sample))
	one := filepath.Join(t.TempDir(), "one")
	f := &cache.Fetcher{Opener: s, Cache: kept, Move: true}
	m, err := f.Stage(t.Context(), first.Digest, one)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(one, "appspec.yml"), []byte("version: 0.0\nos: evil!\n"), 0))
	check(t, kept.Refill(context.Background(), m, one, 0))
	ranges := 0
	f = &cache.Fetcher{
		Opener: reads(s, &ranges), Cache: kept, Move: true,
		Bases: []cache.Basis{{Digest: first.Digest, Dir: one}},
	}
	two := filepath.Join(t.TempDir(), "two")
	_, err = f.Stage(t.Context(), first.Digest, two)
	check(t, err)
	check(t, bundletest.VerifyTree(two, m))
	if ranges != 1 {
		t.Errorf("%d ranges were read", ranges)
	}
}

// Ten applications share files and stage at the same time, while the cache is
// emptied under them: none of a thousand stagings fails, and each tree is
// whole.
func TestApplicationsThatShareFiles(t *testing.T) {
	const apps, rounds = 10, 100
	s, kept := bundletest.NewStore(t), bundletest.NewCache(t)
	var pushed [apps][2]bundle.Pushed
	for app := range apps {
		for v := range 2 {
			own := []file{{Name: "own", Data: fmt.Sprintf("%d of %d", v, app)}, {Name: "v", Data: fmt.Sprint(v)}}
			pushed[app][v] = bundletest.Push(t, s, bundletest.WriteDir(t, append(own, bundletest.Sample...)))
		}
	}
	dir := t.TempDir()
	var failures atomic.Int64
	var group sync.WaitGroup
	for app := range apps {
		group.Go(func() {
			for n := range rounds {
				dest := filepath.Join(dir, fmt.Sprintf("%d-%d", app, n))
				f := &cache.Fetcher{Opener: s, Cache: kept, Move: true}
				m, err := f.Stage(t.Context(), pushed[app][n%2].Digest, dest)
				if err == nil {
					err = bundletest.VerifyTree(dest, m)
				}
				if err == nil && n%apps == app {
					err = kept.Evict(t.Context(), nil, func() bool { return false })
				}
				if err != nil {
					failures.Add(1)
					t.Errorf("application %d, staging %d: %v", app, n, err)
				}
				_ = os.RemoveAll(dest)
			}
		})
	}
	group.Wait()
	t.Logf("%d stagings, %d failures", apps*rounds, failures.Load())
}

// An entry that is lost while it is staged is fetched again, and is never a
// reason that lasts.
func TestLostEntryIsFetchedAgain(t *testing.T) {
	s, kept := bundletest.NewStore(t), bundletest.NewCache(t)
	pushed := bundletest.Push(t, s, bundletest.WriteDir(t, bundletest.Sample))
	lose := func(times int) cache.Fetcher {
		return cache.Fetcher{Opener: s, Cache: kept, Move: true, Progress: func(p cache.Progress) {
			if p.Files == p.TotalFiles && times > 0 {
				times--
				check(t, filepath.WalkDir(kept.Dir(), func(path string, d os.DirEntry, err error) error {
					if err == nil && !d.IsDir() {
						err = os.Remove(path)
					}
					return err
				}))
			}
		}}
	}
	f, dest := lose(1), filepath.Join(t.TempDir(), "r")
	m, err := f.Stage(t.Context(), pushed.Digest, dest)
	check(t, err)
	check(t, bundletest.VerifyTree(dest, m))
	f = lose(100)
	_, err = f.Stage(t.Context(), pushed.Digest, filepath.Join(t.TempDir(), "r"))
	if err == nil || artifacts.IsPermanent(err) {
		t.Errorf("lost again and again: %v", err)
	}
}

// A staging that lacks room asks for it, and goes on once there is some.
func TestStageMakesRoom(t *testing.T) {
	s := bundletest.NewStore(t)
	files := append([]file{{Name: "big", Data: bundletest.Noise(2 << 20)}}, bundletest.Sample...)
	pushed := bundletest.Push(t, s, bundletest.WriteDir(t, files))
	dir := tmpfs(t, 3<<20)
	ballast := filepath.Join(dir, "ballast")
	check(t, os.WriteFile(ballast, []byte(bundletest.Noise(3<<19)), 0o600))
	kept, err := cache.Open(filepath.Join(dir, "cache"))
	check(t, err)
	asked := 0
	f := cache.Fetcher{
		Opener: s, Cache: kept, Move: true,
		MakeRoom: func(_ context.Context, lack *room.Shortage) bool {
			asked++
			check(t, os.Remove(ballast))
			return lack.Over()
		},
	}
	// Twice its size is not there: what was fetched moves.
	m, err := f.Stage(t.Context(), pushed.Digest, filepath.Join(dir, "one"))
	check(t, err)
	check(t, bundletest.VerifyTree(filepath.Join(dir, "one"), m))
	if asked != 1 {
		t.Errorf("asked for room %d times", asked)
	}
	check(t, kept.Refill(t.Context(), m, filepath.Join(dir, "one"), 0)) // no room: not at all
	e, _ := m.Lookup("big")
	if kept.Has(e.Sum, e.Size) {
		t.Error("refilled a full disk")
	}
}

// tmpfs is a file system of that size.
func tmpfs(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("a file system of its own needs root: %v", err)
	}
	t.Cleanup(func() { check(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}
