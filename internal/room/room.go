// Package room answers whether a file system has room for what is about to be
// written to it.
package room

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrFull says that a disk lacks the bytes or inodes that are needed.
var ErrFull = errors.New("disk full")

// Shortage is room that a file system does not have. It is an ErrFull, and
// comes before anything was written.
type Shortage struct {
	Dir string
	// Bytes and Files are what is to be written.
	Bytes int64
	Files int

	need, free uint64
	unit       string
}

// Error implements error.
func (s *Shortage) Error() string {
	return fmt.Sprintf("disk full: %s: %d %s needed, %d free; make room on its file system", s.Dir, s.need,
		s.unit, s.free)
}

// Over reports whether there is room by now.
func (s *Shortage) Over() bool { return Check(s.Dir, s.Bytes, s.Files) == nil }

// Is makes a Shortage an ErrFull.
func (s *Shortage) Is(target error) bool { return target == ErrFull }

// Marked returns err so that it is an ErrFull if the kernel said that a disk
// or a quota is full.
func Marked(err error) error {
	if IsFull(err) && !errors.Is(err, ErrFull) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// IsFull reports whether err says that a disk is full, in whichever way.
func IsFull(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Free is what the file system of dir, or of the nearest folder above it that
// is there, has for anybody: what is set aside for root does not count. Inodes
// is the largest number where the file system counts none.
func Free(dir string) (bytes, inodes uint64, err error) {
	var s unix.Statfs_t
	for err = unix.Statfs(dir, &s); errors.Is(err, syscall.ENOENT) && dir != "/"; err = unix.Statfs(dir, &s) {
		dir = filepath.Dir(dir)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	if inodes = s.Ffree; s.Files == 0 {
		inodes = ^uint64(0)
	}
	return s.Bavail * uint64(s.Bsize), inodes, nil
}

// block is what a file takes at least on most file systems; on average half of
// its last one is lost.
const block = 4096

// Check answers a *Shortage unless the file system of dir has room for so many
// bytes in so many files. It errs on the side of trying: the kernel has the
// last word.
func Check(dir string, bytes int64, files int) error {
	free, inodes, err := Free(dir)
	need := uint64(max(0, bytes)) + uint64(files)*block/2
	switch {
	case err != nil:
		return err
	case need > free:
		return &Shortage{dir, bytes, files, need, free, "bytes"}
	case uint64(files) > inodes:
		return &Shortage{dir, bytes, files, uint64(files), inodes, "inodes"}
	}
	return nil
}
