package room_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/groundswell/groundswell/internal/room"
)

func TestCheck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	free, inodes, err := room.Free(dir)
	if err != nil || free == 0 || inodes == 0 {
		t.Fatalf("%d bytes, %d inodes, %v", free, inodes, err)
	}
	if err := room.Check(dir, 1, 1); err != nil {
		t.Errorf("a byte: %v", err)
	}
	var s *room.Shortage
	err = fmt.Errorf("stage: %w", room.Check(dir, 1<<62, 1))
	if !errors.As(err, &s) || !errors.Is(err, room.ErrFull) || !room.IsFull(err) || s.Bytes != 1<<62 || s.Over() {
		t.Errorf("more than there is: %v", err)
	}
}

func TestMarked(t *testing.T) {
	for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		err := room.Marked(&fs.PathError{Op: "write", Err: errno})
		if !errors.Is(err, room.ErrFull) || !errors.Is(err, errno) {
			t.Errorf("%v", err)
		}
	}
	if err := room.Marked(syscall.EIO); errors.Is(err, room.ErrFull) || room.Marked(nil) != nil {
		t.Errorf("%v", err)
	}
}
