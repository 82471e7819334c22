package cache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/artifacts"
)

// file copies one entry from the cache and verifies what has landed.
func (u *unpacker) file(dir *os.Root, at *os.File, e artifacts.Entry) error {
	if done, err := u.move(at, e); done || err != nil {
		return err
	}
	in, err := u.cache.Open(e.Sum)
	if err != nil {
		if artifacts.IsNotExist(err) {
			return fmt.Errorf("the cache lacks %s: %w", e.Sum, artifacts.ErrNotFound)
		}
		return err
	}
	defer in.Close()
	out, err := dir.OpenFile(path.Base(e.Path), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = u.copy(out, in, e)
	if errors.Is(err, artifacts.ErrDigestMismatch) {
		err = errors.Join(err, u.cache.Drop(e.Sum))
	}
	if err == nil {
		err = u.owners.SetAttributes(at, out, e)
	}
	return errors.Join(err, out.Close())
}

func (u *unpacker) copy(out, in *os.File, e artifacts.Entry) error {
	if u.clone(out, in) {
		return u.cache.copyVerified(io.Discard, e.Sum, e.Size, out)
	}
	return u.cache.copyVerified(out, e.Sum, e.Size, in)
}

// clone shares in's blocks with out until either is written to, if the file
// system can. It is the one way to share that keeps later edits apart.
func (u *unpacker) clone(out, in *os.File) bool {
	if u.noClone.Load() {
		return false
	}
	if err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd())); err != nil {
		u.noClone.Store(true)
		return false
	}
	return true
}
