package consensus

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/groundswell/groundswell/internal/loopdisk"
)

// cuttable is a layer that ends all its connections at once.
type cuttable struct {
	plain
	mu   sync.Mutex
	open []net.Conn
	cut  bool
}

func (c *cuttable) keep(conn net.Conn, err error) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.cut {
		err = errors.Join(net.ErrClosed, conn.Close())
	}
	if err != nil {
		return nil, err
	}
	c.open = append(c.open, conn)
	return conn, nil
}

func (c *cuttable) Accept() (net.Conn, error) { return c.keep(c.plain.Accept()) }
func (c *cuttable) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return c.keep(c.plain.Dial(ctx, addr))
}

func (c *cuttable) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for _, conn := range c.open {
		_ = conn.Close()
	}
	_ = c.Close()
}

// three starts a cluster; the disk of the first one, which leads, ends it, as a
// coordinator would.
func three(t *testing.T, first string) (nodes []*Node, failed chan error) {
	t.Helper()
	failed = make(chan error, 1)
	for i, name := range []string{"a", "b", "c"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cut := &cuttable{plain: plain{l}}
		o := Options{Dir: t.TempDir(), Name: name, Advertise: l.Addr().String(), Layer: cut, FSM: &words{}}
		if i == 0 {
			o.Dir = first
			o.Failed = func(err error) { cut.end(); failed <- err }
		}
		n, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	if err := nodes[0].Bootstrap(); err != nil {
		t.Fatal(err)
	}
	leads(t, nodes[0])
	for _, n := range nodes[1:] {
		if err := nodes[0].AddVoter(t.Context(), string(n.name), string(n.advertise)); err != nil {
			t.Fatal(err)
		}
	}
	propose(t, nodes[0], "one")
	return nodes, failed
}

// othersGoOn waits until one of them leads, and writes.
func othersGoOn(t *testing.T, nodes []*Node) {
	t.Helper()
	until(t, "nobody else leads", func() bool {
		for _, n := range nodes {
			if n.IsLeader() && n.Barrier(t.Context()) == nil {
				propose(t, n, "two")
				return true
			}
		}
		return false
	})
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestALeaderWhoseDiskHangs: an idle leader whose disk hangs does not stay leader.
func TestALeaderWhoseDiskHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	disk := loopdisk.Mount(t, dir)
	nodes, failed := three(t, filepath.Join(dir, "raft"))
	disk.Freeze()
	var late *DiskFailed
	select {
	case err := <-failed:
		if !errors.As(err, &late) || late.Dir != filepath.Join(dir, "raft") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody noticed that the disk hangs")
	}
	othersGoOn(t, nodes[1:])
	ready := make(chan error, 1)
	waits := make(chan struct{})
	go func() { ready <- Await(t.Context(), dir, func() { close(waits) }) }()
	select {
	case <-waits:
	case err := <-ready:
		t.Errorf("a start on a frozen disk did not wait: %v", err)
	}
	disk.Thaw()
	if err := <-ready; err != nil {
		t.Error(err)
	}
	if err := nodes[0].Close(); err != nil {
		t.Error(err) // what hung has come back
	}
}

// TestALeaderWhoseDiskFails: it ends with what the disk said, and raft does not
// panic.
func TestALeaderWhoseDiskFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	disk := loopdisk.Mount(t, dir)
	nodes, failed := three(t, filepath.Join(dir, "raft"))
	disk.Break()
	go func() { _, _ = nodes[0].Propose(context.Background(), []byte("lost")) }() // nobody answers
	select {
	case err := <-failed:
		var f *DiskFailed
		if !errors.As(err, &f) || !strings.Contains(err.Error(), "input/output error") ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody noticed that the disk fails")
	}
	othersGoOn(t, nodes[1:])
}

// TestLateIsCountedInLooks: a process that did not run has not looked, so no disk
// is late for it.
func TestLateIsCountedInLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan error, 1)
		d := newDisk(t.TempDir())
		d.failing = func(err error) { told <- err }
		end := d.underway.begin()
		time.Sleep(time.Hour) // nobody looked
		if oldest, _ := d.underway.look(); oldest != 1 {
			t.Errorf("after one look the write is %d looks old", oldest)
		}
		end()
		if oldest, _ := d.underway.look(); oldest != 0 {
			t.Errorf("a write that came back is %d looks old", oldest)
		}
		d.every = lateLook
		go d.watch()
		time.Sleep(time.Minute)
		if _, err := os.Stat(filepath.Join(d.dir, probeFile)); err != nil {
			t.Errorf("nothing was written for a minute, and nothing was probed: %v", err)
		}
		began := time.Now()
		d.underway.begin()
		if err := <-told; err == nil || time.Since(began) > 8*time.Second || time.Since(began) < 6*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		close(d.closed)
	})
}

// faulty is a log on a disk whose writes a test has fail, or hang.
type faulty struct {
	logFile
	write func(vote bool) error
}

func (f faulty) StoreLogs(l []*raft.Log) error {
	if err := f.write(false); err != nil {
		return err
	}
	return f.logFile.StoreLogs(l)
}

func (f faulty) Set(k, v []byte) error {
	if err := f.write(true); err != nil {
		return err
	}
	return f.logFile.Set(k, v)
}

// TestAWriteThatHangs: the probes come back, raft's own write does not.
func TestAWriteThatHangs(t *testing.T) {
	t.Parallel()
	var hang atomic.Bool
	release := make(chan struct{})
	defer close(release)
	failed := make(chan error, 1)
	n := openWith(t, Options{
		Dir: t.TempDir(), Failed: func(err error) { failed <- err },
		faulty: func(l logFile) logFile {
			return faulty{l, func(bool) error {
				if hang.Load() {
					<-release
				}
				return nil
			}}
		},
	})
	leads(t, n)
	hang.Store(true)
	go func() { _, _ = n.Propose(context.Background(), []byte("x")) }()
	until(t, "who waits for his disk hears nothing", func() bool {
		at, _ := n.Heard()
		return time.Since(at) > time.Second
	})
	select {
	case err := <-failed:
		if !strings.Contains(err.Error(), "has not come back for 7") {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("nobody noticed that a write hangs")
	}
}

// slow is an FSM whose snapshot takes its time.
type slow struct {
	newest
	began, goOn chan struct{}
}

func (s *slow) Snapshot() (raft.FSMSnapshot, error) {
	close(s.began)
	<-s.goOn
	return s.newest.Snapshot()
}

// TestAStopWhileAVoteWaits: a node whose vote finds no room stops all the same,
// though a snapshot waits for raft, which waits for the vote.
func TestAStopWhileAVoteWaits(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	waits := make(chan struct{}, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fsm := &slow{began: make(chan struct{}), goOn: make(chan struct{})}
	n, err := Open(Options{
		Dir: t.TempDir(), Name: "a", Advertise: l.Addr().String(), Layer: plain{l}, FSM: fsm,
		faulty: func(l logFile) logFile {
			return faulty{l, func(vote bool) error {
				if !full.Load() {
					return nil
				}
				if vote {
					select {
					case waits <- struct{}{}:
					default:
					}
				}
				return syscall.ENOSPC
			}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	leads(t, n)
	propose(t, n, "one")
	full.Store(true)
	if _, err := n.Propose(t.Context(), []byte("two")); err == nil {
		t.Fatal("a full disk took an entry")
	}
	<-fsm.began
	<-waits // it leads no more, and stands for election
	close(fsm.goOn)
	done := make(chan error, 1)
	go func() { done <- n.Close() }()
	select {
	case err := <-done:
		if full := (*DiskFull)(nil); !errors.As(err, &full) {
			t.Errorf("it stopped with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it does not stop")
	}
}
