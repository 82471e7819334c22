package artifacts_test

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
			check(t, cache.Refill(t.Context(), m1, one, 0))
			if !cache.Has(e.Sum, e.Size) {
				t.Error("not refilled")
			}
		}
		ranges := 0
		f = &artifacts.Fetcher{
			Opener: reads(s, &ranges), Cache: cache, Move: true,
			Bases: []artifacts.Basis{{Digest: first.Digest, Dir: one}},
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

// A basis whose file was edited is not believed.
func TestEditedDonor(t *testing.T) {
	s, cache := newStore(t), newCache(t)
	first := push(t, s, writeDir(t, sample))
	one := filepath.Join(t.TempDir(), "one")
	f := &artifacts.Fetcher{Opener: s, Cache: cache, Move: true}
	m, err := f.Stage(t.Context(), first.Digest, one)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(one, "appspec.yml"), []byte("version: 0.0\nos: evil!\n"), 0))
	check(t, cache.Refill(context.Background(), m, one, 0))
	ranges := 0
	f = &artifacts.Fetcher{
		Opener: reads(s, &ranges), Cache: cache, Move: true,
		Bases: []artifacts.Basis{{Digest: first.Digest, Dir: one}},
	}
	two := filepath.Join(t.TempDir(), "two")
	_, err = f.Stage(t.Context(), first.Digest, two)
	check(t, err)
	check(t, artifacts.VerifyTree(two, m))
	if ranges != 1 {
		t.Errorf("%d ranges were read", ranges)
	}
}

// Ten applications share files and stage at the same time, while the cache is
// emptied under them: none of a thousand stagings fails, and each tree is
// whole.
func TestApplicationsThatShareFiles(t *testing.T) {
	const apps, rounds = 10, 100
	s, cache := newStore(t), newCache(t)
	var pushed [apps][2]artifacts.Pushed
	for app := range apps {
		for v := range 2 {
			own := []file{{name: "own", data: fmt.Sprintf("%d of %d", v, app)}, {name: "v", data: fmt.Sprint(v)}}
			pushed[app][v] = push(t, s, writeDir(t, append(own, sample...)))
		}
	}
	dir := t.TempDir()
	var failures atomic.Int64
	var group sync.WaitGroup
	for app := range apps {
		group.Go(func() {
			for n := range rounds {
				dest := filepath.Join(dir, fmt.Sprintf("%d-%d", app, n))
				f := &artifacts.Fetcher{Opener: s, Cache: cache, Move: true}
				m, err := f.Stage(t.Context(), pushed[app][n%2].Digest, dest)
				if err == nil {
					err = artifacts.VerifyTree(dest, m)
				}
				if err == nil && n%apps == app {
					err = cache.Evict(t.Context(), nil, func() bool { return false })
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
	s, cache := newStore(t), newCache(t)
	pushed := push(t, s, writeDir(t, sample))
	lose := func(times int) artifacts.Fetcher {
		return artifacts.Fetcher{Opener: s, Cache: cache, Move: true, Progress: func(p artifacts.Progress) {
			if p.Files == p.TotalFiles && times > 0 {
				times--
				check(t, filepath.WalkDir(cache.Dir(), func(path string, d os.DirEntry, err error) error {
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
	check(t, artifacts.VerifyTree(dest, m))
	f = lose(100)
	_, err = f.Stage(t.Context(), pushed.Digest, filepath.Join(t.TempDir(), "r"))
	if err == nil || artifacts.IsPermanent(err) {
		t.Errorf("lost again and again: %v", err)
	}
}

// A staging that lacks room asks for it, and goes on once there is some.
func TestStageMakesRoom(t *testing.T) {
	s := newStore(t)
	pushed := push(t, s, writeDir(t, append([]file{{name: "big", data: noise(2 << 20)}}, sample...)))
	dir := tmpfs(t, 3<<20)
	ballast := filepath.Join(dir, "ballast")
	check(t, os.WriteFile(ballast, []byte(noise(3<<19)), 0o600))
	cache, err := artifacts.OpenCache(filepath.Join(dir, "cache"))
	check(t, err)
	asked := 0
	f := artifacts.Fetcher{
		Opener: s, Cache: cache, Move: true,
		MakeRoom: func(_ context.Context, lack *room.Shortage) bool {
			asked++
			check(t, os.Remove(ballast))
			return lack.Over()
		},
	}
	// Twice its size is not there: what was fetched moves.
	m, err := f.Stage(t.Context(), pushed.Digest, filepath.Join(dir, "one"))
	check(t, err)
	check(t, artifacts.VerifyTree(filepath.Join(dir, "one"), m))
	if asked != 1 {
		t.Errorf("asked for room %d times", asked)
	}
	check(t, cache.Refill(t.Context(), m, filepath.Join(dir, "one"), 0)) // no room: not at all
	e, _ := m.Lookup("big")
	if cache.Has(e.Sum, e.Size) {
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
