package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/artifacts"
)

// claims count the stagings at work that need a content of the cache. One
// that a single staging needs may leave the cache for its tree; one that
// several need is copied; none that is needed is evicted. A claim comes before
// the look into the cache, and whoever takes an entry away holds the lock: so
// a staging either finds what it claimed for as long as it runs, or knows that
// it has to fetch it.
type claims struct {
	mu sync.Mutex
	n  map[artifacts.Sum]int
}

// claim claims the manifest and every content of m until release is called.
func (c *claims) claim(m *artifacts.Manifest) (release func()) {
	c.add(m, 1)
	return func() { c.add(m, -1) }
}

func (c *claims) add(m *artifacts.Manifest, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[artifacts.Sum]int{}
	}
	count := func(sum artifacts.Sum) {
		if c.n[sum] += by; c.n[sum] == 0 {
			delete(c.n, sum)
		}
	}
	if sum, err := m.Digest().Sum(); err == nil { // a Manifest's digest is always valid
		count(sum)
	}
	for e := range m.Contents() {
		count(e.Sum)
	}
}

// moveOut renames an entry to name in the open directory at, for the only
// staging that claims it. It answers false where it must be copied: others
// need it, or the place is on a filesystem that cannot take it.
func (c *Cache) moveOut(sum artifacts.Sum, at *os.File, name string) (moved bool, err error) {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if c.claims.n[sum] > 1 {
		return false, nil
	}
	err = unix.Renameat2(unix.AT_FDCWD, c.path(sum), int(at.Fd()), name, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL):
		return false, nil
	case errors.Is(err, unix.ENOENT):
		return false, fmt.Errorf("the cache lacks %s by now: %w", sum, artifacts.ErrNotFound)
	case err != nil:
		return false, fmt.Errorf("move from the cache: %w", err)
	}
	return true, nil
}

// evict removes the file of an entry, or a left-over whose name is no sum,
// unless a staging claims it. One that is gone counts as not evicted.
func (c *Cache) evict(f cached) (evicted bool, err error) {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if !f.stale && c.claims.n[f.sum] > 0 {
		return false, nil
	}
	err = os.Remove(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
