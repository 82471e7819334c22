package release

import (
	"bytes"
	"io"
	"os"
	"syscall"
)

// withoutUnchanged is the copies without those that would change nothing: a file of the
// revision before that is, byte for byte and in owner, mode and attributes,
// what would be put in its place stays. Only its time is set.
func (w *planner) withoutUnchanged(copies []action) []action {
	buf := new([2 * compareBuffer]byte)
	all := copies[:0]
	for _, a := range copies {
		switch touch, same := w.same(a, buf); {
		case !same:
			all = append(all, a)
		case !touch.Touch.Time.Equal(touch.Touch.Was):
			all = append(all, touch)
		}
	}
	return all
}

// same says that a copy would change no more than a time, and which. What
// cannot be read is no reason not to copy.
func (w *planner) same(a action, buf *[2 * compareBuffer]byte) (action, bool) {
	b := a.Before
	extra := a.Access != nil && (a.Access.ACL != nil || len(a.Access.Context) > 0)
	if !b.Exists || !b.Mode.IsRegular() || !w.old[a.Path] || len(b.Attrs) > 0 || extra {
		return action{}, false
	}
	from, err := os.Open(a.Source)
	if err != nil {
		return action{}, false
	}
	defer func() { _ = from.Close() }()
	to, err := os.Open(a.Path)
	if err != nil {
		return action{}, false
	}
	defer func() { _ = to.Close() }()
	want, errWant := from.Stat()
	is, errIs := to.Stat()
	if errWant != nil || errIs != nil || !want.Mode().IsRegular() || want.Size() != is.Size() || !a.fits(want, is) ||
		!equal(from, to, buf) {
		return action{}, false
	}
	return action{Op: opTouch, Path: a.Path, Touch: &stamps{want.ModTime(), is.ModTime()}, Before: b}, true
}

// fits says that a file has the owner and mode that the copy would have.
func (a action) fits(want, is os.FileInfo) bool {
	w, okW := want.Sys().(*syscall.Stat_t)
	i, okI := is.Sys().(*syscall.Stat_t)
	if !okW || !okI {
		return false
	}
	uid, gid, mode := w.Uid, w.Gid, w.Mode&0o7777
	if acc := a.Access; acc != nil {
		if acc.UID >= 0 {
			uid = uint32(acc.UID)
		}
		if acc.GID >= 0 {
			gid = uint32(acc.GID)
		}
		if acc.Mode != nil {
			mode = *acc.Mode
		}
	}
	return i.Uid == uid && i.Gid == gid && i.Mode&0o7777 == mode
}

// compareBuffer is one read of a comparison: larger ones gain nothing.
const compareBuffer = 64 << 10

// equal compares two files of one size.
func equal(a, b *os.File, buf *[2 * compareBuffer]byte) bool {
	left, right := buf[:compareBuffer], buf[compareBuffer:]
	for {
		n, errA := io.ReadFull(a, left)
		m, errB := io.ReadFull(b, right)
		if n != m || !bytes.Equal(left[:n], right[:m]) {
			return false
		}
		if errA != nil || errB != nil {
			return isEnd(errA) && isEnd(errB)
		}
	}
}

func isEnd(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }
