package agent

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/internal/room"
)

// ballast is a file that does nothing but take room, on the disk of the
// agent's state. It is given up when the disk is full, so that the journal,
// the way back and the hooks of the running revision still have some. Its
// methods may be called concurrently.
type ballast struct {
	path string
	mu   sync.Mutex
	out  bool
}

const (
	// ballastSize holds the records, links and logs of a way back many times.
	ballastSize = 1 << 20
	// ballastLow is the room at which the ballast goes.
	ballastLow = 256 << 10
)

// ease gives the ballast up if the disk is full, and reports whether it did.
func (b *ballast) ease() bool {
	free, inodes, err := room.Free(b.path)
	if err != nil || free >= ballastLow && inodes >= 16 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out = true
	return os.Remove(b.path) == nil // it may be gone already
}

// released says that the disk was full and is not known to have room again.
func (b *ballast) released() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out
}

// restore takes the room again, and reports whether there is some.
func (b *ballast) restore() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if st, err := os.Stat(b.path); err == nil && st.Size() == ballastSize {
		b.out = false
		return true
	}
	if room.Check(b.path, 4*ballastSize, 64) != nil {
		b.out = true
		return false
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		if err = unix.Fallocate(int(f.Fd()), 0, 0, ballastSize); errors.Is(err, unix.EOPNOTSUPP) {
			_, err = f.Write(make([]byte, ballastSize))
		}
		err = errors.Join(err, f.Close())
	}
	b.out = err != nil
	return err == nil
}
