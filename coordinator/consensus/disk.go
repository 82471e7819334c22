package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/groundswell/groundswell/internal/room"
)

// disk is raft's log and its votes, on a disk that may be full.
//
// When a write finds no room, the reserve is given up and the write is made
// again. From then on the node is full: it takes no new work, and of the room it
// got a quarter is for entries that others send, so that three quarters are left
// for votes, terms and the snapshot after which the log can shrink. A vote that
// finds no room all the same waits for some: raft would end the process, and
// answering without having written would be a second vote. The node is full no
// more once the reserve is held again, or the log's own file has as much room
// inside.
//
// Crash safety: the reserve holds nothing. It is removed before what it made room
// for is written, and a start that finds none begins full.
type disk struct {
	*raftboltdb.BoltStore
	dir     string
	snaps   raft.SnapshotStore // nil while offline
	reserve *reserve
	told    func(full bool, why error)
	wake    chan struct{} // the disk became full, or much was written

	mu      sync.Mutex
	full    error  // why, nil when it is not
	spent   int64  // by entries since then
	written int64  // bytes of entries since the last snapshot
	last    uint64 // index of the last entry
	sizes   [mostTrailing]uint32
}

const (
	// mostTrailing entries stay behind a snapshot at most, for followers that lag.
	mostTrailing = 10_240
	// pageCost is what an entry takes in the log's file beside itself, about.
	pageCost = 4 << 10
	// voteRetry is how often a vote without room is tried.
	voteRetry = time.Second
)

// DiskFull says that the disk of this node is full. The node goes on by itself
// once there is room.
type DiskFull struct {
	Dir string
	Err error
}

func (e *DiskFull) Error() string {
	return fmt.Sprintf("the disk of this coordinator is full: make room on the file system of %s; "+
		"it goes on by itself (%v)", e.Dir, e.Err)
}

// Unwrap returns what the system said.
func (e *DiskFull) Unwrap() error { return e.Err }

// Kind names the error for a transport.
func (e *DiskFull) Kind() string { return "unavailable" }

// open opens the log, and holds the reserve or begins full.
func (d *disk) open() (err error) {
	path := filepath.Join(d.dir, "raft.db")
	open := func() (err error) {
		d.BoltStore, err = raftboltdb.New(raftboltdb.Options{
			Path: path, MsgpackUseNewTimeFormat: true, BoltOptions: &bbolt.Options{Timeout: lockWait},
		})
		return err
	}
	if err := d.write(open); err != nil {
		return fmt.Errorf("open raft log %s (is another coordinator using it?): %w", path, err)
	}
	if err := d.reserve.hold(); room.IsFull(err) {
		d.fill(err)
	} else if err != nil {
		return errors.Join(err, d.Close())
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// GetLog implements raft.LogStore. The entry that the newest snapshot ends with
// is known by its term alone, if the log begins right after it. Raft needs that:
// a follower that was sent a snapshot and entries, and whose answer to the
// entries was lost, is asked whether it has the snapshot's last entry, and would
// be sent the same snapshot for ever (hashicorp/raft issue 86). A leader never
// sends this entry: it first looks for the one before it, which is not there.
func (d *disk) GetLog(index uint64, l *raft.Log) error {
	err := d.BoltStore.GetLog(index, l)
	if !errors.Is(err, raft.ErrLogNotFound) || d.snaps == nil || index <= 1 {
		return err
	}
	if first, e := d.FirstIndex(); e != nil || first != index+1 {
		return err
	}
	list, e := d.snaps.List()
	if e != nil || len(list) == 0 || list[0].Index != index {
		return err
	}
	*l = raft.Log{Index: index, Term: list[0].Term, Type: raft.LogNoop}
	return nil
}

// StoreLogs implements raft.LogStore. Entries that do not follow the last one
// follow a snapshot that was installed: what the log held before is in it, and
// is removed. After a crash in between the log is empty, and the snapshot there.
func (d *disk) StoreLogs(logs []*raft.Log) error {
	if err := d.beginAfterGap(logs); err != nil {
		return err
	}
	size := int64(0)
	for _, l := range logs {
		size += int64(len(l.Data)) + pageCost
	}
	if err := d.afford(size); err != nil {
		return err
	}
	if err := d.write(func() error { return d.BoltStore.StoreLogs(logs) }); err != nil {
		return err
	}
	d.stored(logs, size)
	return nil
}

func (d *disk) beginAfterGap(logs []*raft.Log) error {
	last, err := d.LastIndex()
	if err != nil || last == 0 || len(logs) == 0 || logs[0].Index <= last+1 {
		return err
	}
	first, err := d.FirstIndex()
	if err != nil {
		return err
	}
	return d.DeleteRange(first, last)
}

// DeleteRange implements raft.LogStore.
func (d *disk) DeleteRange(from, to uint64) error {
	return d.write(func() error { return d.BoltStore.DeleteRange(from, to) })
}

// Set implements raft.StableStore. It waits for room.
func (d *disk) Set(k, v []byte) error {
	return d.vote(func() error { return d.BoltStore.Set(k, v) })
}

// SetUint64 implements raft.StableStore. It waits for room.
func (d *disk) SetUint64(k []byte, v uint64) error {
	return d.vote(func() error { return d.BoltStore.SetUint64(k, v) })
}

func (d *disk) vote(f func() error) error {
	for {
		err := d.write(f)
		if full := (*DiskFull)(nil); !errors.As(err, &full) {
			return err
		}
		time.Sleep(voteRetry)
	}
}

// write makes a write, by giving up the reserve if need be.
func (d *disk) write(f func() error) error {
	err := f()
	if !room.IsFull(err) {
		return err
	}
	released := d.reserve.release()
	d.fill(err)
	if released {
		err = f()
	}
	if room.IsFull(err) {
		return &DiskFull{Dir: d.dir, Err: err}
	}
	return err
}

// fill notes that the disk is full.
func (d *disk) fill(why error) {
	d.mu.Lock()
	first := d.full == nil
	if first {
		d.full, d.spent = why, 0
	}
	d.mu.Unlock()
	if first && d.told != nil {
		d.told(true, &DiskFull{Dir: d.dir, Err: why})
	}
	d.signal()
}

// refuses says why the node takes no new work, nil if it does.
func (d *disk) refuses() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full == nil {
		return nil
	}
	return &DiskFull{Dir: d.dir, Err: d.full}
}

// afford refuses entries when a full disk has no room for them.
func (d *disk) afford(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full != nil && d.spent+size > d.reserve.size/4 {
		return &DiskFull{Dir: d.dir, Err: d.full}
	}
	return nil
}

func (d *disk) stored(logs []*raft.Log, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full != nil {
		d.spent += size
	}
	for _, l := range logs {
		d.last = l.Index
		d.sizes[l.Index%mostTrailing] = uint32(min(len(l.Data)+pageCost, 1<<31))
	}
	d.written += size
	d.signal()
}

func (d *disk) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// trailing returns how many of the newest entries make so many bytes, at least
// one.
func (d *disk) trailing(bytes int64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := uint64(0)
	for n < mostTrailing && n < d.last {
		size := int64(d.sizes[(d.last-n)%mostTrailing])
		if bytes -= size; size == 0 || bytes < 0 {
			break
		}
		n++
	}
	return max(1, n)
}

// known reads the sizes of the newest entries, up to so many bytes of them.
func (d *disk) known(bytes int64) error {
	first, err1 := d.FirstIndex()
	last, err2 := d.LastIndex()
	if err := errors.Join(err1, err2); err != nil || last == 0 {
		return err
	}
	d.last = last
	for i := last; i >= first && i > 0 && last-i < mostTrailing; i-- {
		var l raft.Log
		if err := d.GetLog(i, &l); err != nil {
			return fmt.Errorf("read entry %d: %w", i, err)
		}
		d.sizes[i%mostTrailing] = uint32(len(l.Data) + pageCost)
		if d.written += int64(len(l.Data)) + pageCost; d.written > bytes {
			break
		}
	}
	return nil
}

// due reports whether so many bytes were written since the last snapshot.
func (d *disk) due(bytes int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.written >= bytes
}

// snapped notes that a snapshot was taken.
func (d *disk) snapped() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written = 0
}

// relieve ends being full, if there is room by now.
func (d *disk) relieve() {
	if d.refuses() == nil && d.reserve.there() {
		return
	}
	if err := d.reserve.hold(); err != nil && d.inside() < d.reserve.size/2 {
		return
	}
	d.mu.Lock()
	was := d.full != nil
	d.full = nil
	d.mu.Unlock()
	if was && d.told != nil {
		d.told(false, nil)
	}
}

// inside is the room in the log's own file.
func (d *disk) inside() int64 {
	s := d.Stats()
	return int64(s.FreePageN) * int64(os.Getpagesize())
}
