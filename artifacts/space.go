package artifacts

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// checkSpace asks whether the file system of dir has room for so many bytes
// and files, before the first is written. It errs on the side of trying: the
// kernel has the last word.
func checkSpace(dir string, bytes int64, files int) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("ask for free space of %s: %w", dir, err)
	}
	const block = 4096 // a file takes whole blocks
	need := uint64(bytes) + uint64(files)*block/2
	if free := s.Bavail * uint64(s.Bsize); need > free {
		return fmt.Errorf("%s: %d bytes needed, %d free: %w", dir, need, free, ErrNoSpace)
	}
	if s.Files > 0 && uint64(files) > s.Ffree { // btrfs and others count no inodes
		return fmt.Errorf("%s: %d inodes needed, %d free: %w", dir, files, s.Ffree, ErrNoSpace)
	}
	return nil
}
