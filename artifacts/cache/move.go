package cache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"

	"github.com/groundswell/groundswell/artifacts"
)

// mover moves files from the cache into a tree instead of copying them: each
// inode is in one place alone, so an edit of the tree reaches nothing else,
// and a file that was just fetched is created once.
type mover struct {
	// verified are contents that this process has hashed on their way into the
	// cache; all others are hashed before they are moved.
	verified map[artifacts.Sum]struct{}

	mu   sync.Mutex
	uses map[artifacts.Sum]int // places in the tree that still need the content
}

func newMover(m *artifacts.Manifest, verified map[artifacts.Sum]struct{}) *mover {
	v := &mover{verified: verified, uses: make(map[artifacts.Sum]int, m.Files())}
	for e := range m.All() {
		if e.Type == artifacts.TypeFile {
			v.uses[e.Sum]++
		}
	}
	return v
}

// onlyUse reports whether nobody else needs the content: only then it may go. A
// content of several places is copied for all of them.
func (v *mover) onlyUse(sum artifacts.Sum) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.uses[sum] == 1
}

// copied is how many bytes of m the mover leaves in the cache: what several
// places of the tree need is copied for each.
func (v *mover) copied(m *artifacts.Manifest) (bytes int64) {
	for e := range m.All() {
		if e.Type == artifacts.TypeFile && !v.onlyUse(e.Sum) {
			bytes += e.Size
		}
	}
	return bytes
}

// move brings one file from the cache to its place, a name in the open
// directory at. It answers false where it must be copied, see Cache.moveOut.
func (u *unpacker) move(at *os.File, e artifacts.Entry) (done bool, err error) {
	if u.mover == nil || !u.mover.onlyUse(e.Sum) {
		return false, nil
	}
	in, err := u.cache.Open(e.Sum)
	if err != nil {
		if artifacts.IsNotExist(err) {
			return false, fmt.Errorf("the cache lacks %s: %w", e.Sum, artifacts.ErrNotFound)
		}
		return false, err
	}
	defer in.Close()
	if _, ok := u.mover.verified[e.Sum]; !ok {
		if err := u.cache.copyVerified(io.Discard, e.Sum, e.Size, in); err != nil {
			if errors.Is(err, artifacts.ErrDigestMismatch) {
				err = errors.Join(err, u.cache.Drop(e.Sum))
			}
			return false, err
		}
	}
	if moved, err := u.cache.moveOut(e.Sum, at, path.Base(e.Path)); !moved || err != nil {
		return false, err
	}
	return true, u.owners.SetAttributes(at, in, e)
}
