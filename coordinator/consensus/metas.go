package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// bbolt keeps two meta pages, of the newest transaction and of the one before it,
// and takes the latter when the sum of the former is wrong: the newest entries or
// votes would be gone, and nobody told. A write that was cut off leaves no such
// page, as a meta is 64 bytes in one sector: a wrong sum is damage.
const (
	metaAt   = 16 // in its page, behind a header: magic, version, page size, flags, root, freelist, pages, transaction
	metaSize = 56 // and then FNV-1a of that
)

// checkMetas looks at the meta pages of a file that nobody has open, before bbolt
// does, which writes. A file that is not there, or empty, has none.
func checkMetas(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the log's file: %w", err)
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil {
		return nil // somebody writes: bbolt will say so
	}
	page := int64(0)
	for n := range int64(2) {
		var m [metaSize + 8]byte
		if _, err := f.ReadAt(m[:], n*page+metaAt); errors.Is(err, io.EOF) && n == 0 {
			return nil // bbolt knows what it makes of a file without a page
		} else if err != nil {
			return fmt.Errorf("%w: meta page %d: %w", errPages, n, err)
		}
		h := fnv.New64a()
		_, _ = h.Write(m[:metaSize]) // a hash takes everything
		if h.Sum64() != binary.NativeEndian.Uint64(m[metaSize:]) {
			return fmt.Errorf("%w: the checksum of meta page %d is wrong", errPages, n)
		}
		page = int64(binary.NativeEndian.Uint32(m[8:]))
	}
	return nil
}
