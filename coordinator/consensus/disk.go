package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
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
//
// A disk that hangs or fails, or has changed what was written, ends the node, see
// watch and fail.
type disk struct {
	logFile
	dir     string
	snaps   raft.SnapshotStore // nil in tests of the log alone
	reserve *reserve
	told    func(full bool, why error)
	failing func(why error)
	said    *lastWords
	wake    chan struct{} // the disk became full, or much was written

	running  atomic.Bool // raft has the store
	underway underway
	every    time.Duration // a look at it, set before raft runs
	closed   chan struct{}
	watching sync.WaitGroup // watch and its probes

	newest entries

	mu      sync.Mutex
	failed  error  // why the node ends, nil when it does not
	full    error  // why, nil when it is not
	spent   int64  // by entries since then
	written int64  // bytes of entries since the last snapshot
	last    uint64 // index of the last entry
	sizes   [mostTrailing]uint32
}

// logFile is bbolt's file, or one on a disk that a test makes fail.
type logFile interface {
	raft.LogStore
	raft.StableStore
	Stats() bbolt.Stats
	Close() error
}

// newDisk returns the log in a folder, not open, without a reserve.
func newDisk(dir string) *disk {
	return &disk{dir: dir, reserve: reserveIn(dir, 0), wake: make(chan struct{}, 1), closed: make(chan struct{})}
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
	open := func() (err error) {
		if err := checkMetas(d.file()); err != nil {
			return err
		}
		d.logFile, err = raftboltdb.New(raftboltdb.Options{
			Path: d.file(), MsgpackUseNewTimeFormat: true, BoltOptions: &bbolt.Options{Timeout: lockWait},
		})
		return err
	}
	switch err := d.roomy(open); {
	case errors.Is(err, bbolt.ErrTimeout):
		return fmt.Errorf("open raft log %s (is another coordinator using it?): %w", d.file(), err)
	case errors.Is(err, bbolt.ErrInvalid), errors.Is(err, bbolt.ErrChecksum),
		errors.Is(err, bbolt.ErrVersionMismatch), errors.Is(err, errPages):
		return &Damaged{File: d.file(), What: "its own pages", Err: err}
	case err != nil:
		return fmt.Errorf("open raft log %s: %w", d.file(), err)
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
// be sent the same snapshot for ever (hashicorp/raft issue 86). It is marked: a
// leader whose log is cut while it reads may send it, and StoreLogs takes it for
// no entry.
func (d *disk) GetLog(index uint64, l *raft.Log) error {
	if d.newest.get(index, l) {
		return nil
	}
	err := guarded(func() error { return d.logFile.GetLog(index, l) })
	if err == nil {
		err = unsum(index, l)
	}
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return d.fail("read the log", d.damaged(index, err))
	}
	if err == nil || d.snaps == nil || index <= 1 {
		return err
	}
	if first, e := d.FirstIndex(); e != nil || first != index+1 {
		return err
	}
	list, e := d.snaps.List()
	if e != nil || len(list) == 0 || list[0].Index != index {
		return err
	}
	*l = raft.Log{Index: index, Term: list[0].Term, Type: raft.LogNoop, Extensions: inSnapshot}
	return nil
}

// inSnapshot marks what stands for an entry of which only the term is known.
var inSnapshot = []byte("in a snapshot")

// StoreLogs implements raft.LogStore. What stands for an entry is refused: the
// leader then finds that it lacks that one, and sends its snapshot. Entries that do not follow the last one
// follow a snapshot that was installed: what the log held before is in it, and
// is removed. After a crash in between the log is empty, and the snapshot there.
func (d *disk) StoreLogs(logs []*raft.Log) error {
	for _, l := range logs {
		if bytes.Equal(l.Extensions, inSnapshot) {
			return fmt.Errorf("the leader has entry %d in its snapshot alone", l.Index)
		}
	}
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
	if err := d.write(func() error { return d.logFile.StoreLogs(summed(logs)) }); err != nil {
		return err
	}
	d.stored(logs, size)
	d.newest.stored(logs)
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
	d.newest.forget()
	return d.write(func() error { return d.logFile.DeleteRange(from, to) })
}

// FirstIndex implements raft.LogStore.
func (d *disk) FirstIndex() (uint64, error) { return d.index(d.logFile.FirstIndex) }

// LastIndex implements raft.LogStore.
func (d *disk) LastIndex() (uint64, error) { return d.index(d.logFile.LastIndex) }

func (d *disk) index(read func() (uint64, error)) (i uint64, err error) {
	if err := guarded(func() (err error) { i, err = read(); return err }); err != nil {
		return 0, d.fail("read the log", &Damaged{File: d.file(), What: "the log's ends", Err: err})
	}
	return i, nil
}

// Set implements raft.StableStore. It waits for room. What is there already takes
// none: raft writes the term that it has read at each start, where nobody can stop
// a node that waits.
func (d *disk) Set(k, v []byte) error {
	if old, err := d.Get(k); err == nil && bytes.Equal(old, v) {
		return nil
	}
	v = append(bytes.Clone(v), sum(k, v)...)
	return d.vote(func() error { return d.logFile.Set(k, v) })
}

// SetUint64 implements raft.StableStore. It waits for room.
func (d *disk) SetUint64(k []byte, v uint64) error {
	return d.Set(k, binary.BigEndian.AppendUint64(nil, v))
}

// errNoKey is what raft takes for a key that is not there, by its text.
var errNoKey = raftboltdb.ErrKeyNotFound

// Get implements raft.StableStore.
func (d *disk) Get(k []byte) (v []byte, err error) {
	err = guarded(func() (err error) { v, err = d.logFile.Get(k); return err })
	if errors.Is(err, errNoKey) {
		return nil, errNoKey
	}
	n := len(v) - sumSize
	if err == nil && (n < 0 || !bytes.Equal(v[n:], sum(k, v[:n]))) {
		err = errors.New("its checksum is wrong")
	}
	if err != nil {
		return nil, d.fail("read a vote", &Damaged{File: d.file(), What: string(k), Err: err})
	}
	return v[:n], nil
}

// GetUint64 implements raft.StableStore.
func (d *disk) GetUint64(k []byte) (uint64, error) {
	v, err := d.Get(k)
	if err != nil || len(v) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

// Close closes the log. Raft writes nothing by then; a probe that hangs is waited
// for for a moment, and ends with the process.
func (d *disk) Close() error {
	close(d.closed)
	over := make(chan struct{})
	go func() {
		d.watching.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(silence):
	}
	return d.logFile.Close()
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

// write makes a write of raft's, by giving up the reserve if need be. Any other
// failure than a full disk ends the node.
func (d *disk) write(f func() error) error {
	err := d.roomy(f)
	if full := (*DiskFull)(nil); err == nil || errors.As(err, &full) {
		return err
	}
	return d.fail("write the log", err)
}

// roomy makes a write, by giving up the reserve if need be.
func (d *disk) roomy(f func() error) error {
	put := func() error {
		defer d.underway.begin()()
		return guarded(f)
	}
	err := put()
	if !room.IsFull(err) {
		return err
	}
	released := d.reserve.release()
	d.fill(err)
	if released {
		err = put()
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
	if d.failed != nil {
		return d.failed
	}
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
