package artifacts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"

	"golang.org/x/sys/unix"
)

// mover moves files from the cache into a tree instead of copying them: each
// inode is in one place alone, so an edit of the tree reaches nothing else,
// and a file that was just fetched is created once.
type mover struct {
	// verified are contents that this process has hashed on their way into the
	// cache; all others are hashed before they are moved.
	verified map[Sum]struct{}

	mu   sync.Mutex
	uses map[Sum]int // places in the tree that still need the content
}

func newMover(m *Manifest, verified map[Sum]struct{}) *mover {
	v := &mover{verified: verified, uses: make(map[Sum]int, m.files)}
	for e := range m.All() {
		if e.Type == TypeFile {
			v.uses[e.Sum]++
		}
	}
	return v
}

// last reports whether nobody else needs the content: only then it may go. A
// content of several places is copied for all of them.
func (v *mover) last(sum Sum) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.uses[sum] == 1
}

// move brings one file from the cache to its place. It answers false where
// that is another filesystem. The place is a name in the open directory at.
func (u *unpacker) move(at *os.File, e Entry) (done bool, err error) {
	if u.mover == nil || !u.mover.last(e.Sum) {
		return false, nil
	}
	in, err := u.cache.Open(e.Sum)
	if err != nil {
		if IsNotExist(err) {
			return false, fmt.Errorf("the cache lacks %s: %w", e.Sum, ErrNotFound)
		}
		return false, err
	}
	defer in.Close()
	if _, ok := u.mover.verified[e.Sum]; !ok {
		if err := u.cache.copyVerified(io.Discard, e.Sum, e.Size, in); err != nil {
			if errors.Is(err, ErrDigestMismatch) {
				err = errors.Join(err, u.cache.Drop(e.Sum))
			}
			return false, err
		}
	}
	err = unix.Renameat2(unix.AT_FDCWD, u.cache.path(e.Sum), int(at.Fd()), path.Base(e.Path), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) {
		return false, nil // another filesystem, or one that cannot
	}
	if errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("the cache lacks %s by now: %w", e.Sum, ErrNotFound)
	}
	if err != nil {
		return false, fmt.Errorf("move from the cache: %w", err)
	}
	return true, u.finish(in, e)
}
