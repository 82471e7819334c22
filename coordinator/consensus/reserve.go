package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/internal/durable"
)

// reserve is a file of preallocated room beside the log. It is given up when
// the disk is full, so that what must be written then can be: a vote, a term, the
// snapshot that lets the log shrink.
type reserve struct {
	path string
	size int64 // 0 keeps none
}

func reserveIn(dir string, size int64) *reserve {
	return &reserve{path: filepath.Join(dir, "reserve"), size: size}
}

// there reports whether the room is held.
func (r *reserve) there() bool {
	info, err := os.Stat(r.path)
	return err == nil && info.Size() == r.size && r.size > 0
}

// hold takes the room, or answers why it cannot. A file that is not whole is no
// reserve, and is removed.
func (r *reserve) hold() error {
	if r.size == 0 || r.there() {
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("hold a reserve of %d bytes: %w", r.size, err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, r.size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fill(f, r.size)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("hold a reserve of %d bytes in %s: %w", r.size, r.path, err), os.Remove(r.path))
	}
	return nil
}

// fill writes zeros, where a file system cannot preallocate.
func fill(f *os.File, size int64) error {
	zeros := make([]byte, 1<<20)
	for size > 0 {
		n, err := f.Write(zeros[:min(size, int64(len(zeros)))])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// release gives the room up; false if there was none.
func (r *reserve) release() bool {
	if _, err := os.Stat(r.path); err != nil {
		return false
	}
	return durable.Remove(r.path) == nil
}
