package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/groundswell/groundswell/internal/room"
)

// A disk that hangs takes raft's loop with it: a leader goes on sending
// heartbeats, which other goroutines do, and nobody else is elected. So every
// write is watched, and while there are none a probe is written, by a goroutine of
// its own, to the log's folder. A write that does not come back for late ends the
// node, see Options.Failed: it can hand nothing over, and an orderly stop would
// hang as well.
//
// Time is counted in looks: a process that was stopped, or a machine that was
// suspended, has not looked meanwhile, and its disk is not to blame.
const (
	lateLook   = 250 * time.Millisecond // at least; half a heartbeat where that is longer
	lateLooks  = 28                     // for which a write may be under way: 7 s, and 3 are left to end within 10
	probeLooks = 4                      // without a write, until one is made
	probeFile  = "probe"
)

// underway counts for how many looks writes have not come back.
type underway struct {
	mu    sync.Mutex
	looks int
	quiet int         // looks without a write
	began map[int]int // a write -> looks when it began
	next  int
}

// begin notes that a write begins; end that it came back.
func (u *underway) begin() (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.began == nil {
		u.began = map[int]int{}
	}
	id := u.next
	u.next++
	u.began[id], u.quiet = u.looks, 0
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.began, id)
	}
}

// look returns for how many looks the oldest write has been under way, and whether
// it is time for a probe.
func (u *underway) look() (oldest int, probe bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.looks++
	u.quiet++
	return u.oldest(), u.quiet >= probeLooks && len(u.began) == 0
}

func (u *underway) oldest() (looks int) {
	for _, at := range u.began {
		looks = max(looks, u.looks-at)
	}
	return looks
}

// waitsSince says since when a write has been under way, zero for none that was
// looked at.
func (d *disk) waitsSince() (t time.Time) {
	d.underway.mu.Lock()
	defer d.underway.mu.Unlock()
	if looks := d.underway.oldest(); looks > 0 {
		t = time.Now().Add(-time.Duration(looks) * d.every)
	}
	return t
}

// watch looks at writes until the store is closed.
func (d *disk) watch() {
	look := time.NewTicker(d.every)
	defer look.Stop()
	for {
		select {
		case <-d.closed:
			return
		case <-look.C:
		}
		oldest, probe := d.underway.look()
		if oldest >= lateLooks {
			d.tell(&DiskFailed{Dir: d.dir, Err: fmt.Errorf("a write has not come back for %s",
				time.Duration(oldest)*d.every)})
			return
		}
		if probe {
			d.watching.Go(d.probe) // it may never come back
		}
	}
}

// probe writes and syncs a byte. A full disk is no news of the disk's health.
func (d *disk) probe() {
	defer d.underway.begin()()
	if err := touch(d.dir); err != nil && !room.IsFull(err) {
		select {
		case <-d.closed: // the folder may be gone
		default:
			d.tell(&DiskFailed{Dir: d.dir, Err: err})
		}
	}
}

// touch makes one durable write in a folder.
func touch(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, probeFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("probe the disk: %w", err)
	}
	_, err = f.WriteAt([]byte{'.'}, 0)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("probe the disk: %w", err)
	}
	return nil
}

// silence is how long Await waits before it says so.
const silence = 2 * time.Second

// Await makes the folder and waits until a write in it is durable, or ctx ends:
// whoever was ended by a disk that hangs begins again once that answers. It says
// so if it takes long. A full disk does answer.
func Await(ctx context.Context, dir string, waits func()) error {
	done := make(chan error, 1)
	go func() {
		err := os.MkdirAll(dir, 0o700)
		if err == nil {
			err = touch(dir)
		}
		done <- err
	}()
	var err error
	select {
	case err = <-done:
	case <-time.After(silence):
		waits()
		select {
		case err = <-done:
		case <-ctx.Done():
			return fmt.Errorf("wait for the disk of %s: %w", dir, ctx.Err())
		}
	}
	if err != nil && !room.IsFull(err) {
		return &DiskFailed{Dir: dir, Err: err}
	}
	return nil
}
