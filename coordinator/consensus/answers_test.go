package consensus

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
)

// losing is a layer whose accepted connections break once, in place of an
// answer, when lose says so.
type losing struct {
	plain
	lose func() bool
}

func (l losing) Accept() (net.Conn, error) {
	c, err := l.plain.Accept()
	return losingConn{c, l.lose}, err
}

type losingConn struct {
	net.Conn
	lose func() bool
}

func (c losingConn) Write(b []byte) (int, error) {
	if c.lose() {
		return 0, errors.Join(errors.New("the line broke"), c.Close())
	}
	return c.Conn.Write(b)
}

// A follower that was sent a snapshot and the entries after it, and whose answer
// to those was lost, catches up, whatever its log held before.
func TestTheAnswerAfterASnapshotIsLost(t *testing.T) {
	for _, before := range []int{0, 5} {
		t.Run(fmt.Sprintf("%d entries before", before), func(t *testing.T) {
			const at = 21
			seed := t.TempDir()
			if err := Seed(seed, "a", "127.0.0.1:0", at, []byte("old")); err != nil {
				t.Fatal(err)
			}
			a, _ := openNode(t, seed, "a", "127.0.0.1:0")
			defer func() { _ = a.Close() }()
			leads(t, a)

			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var b *Node
			var lost atomic.Bool
			ready := make(chan struct{})
			layer := losing{plain{l}, func() bool {
				<-ready
				last, err := b.store.LastIndex()
				return err == nil && last > at && lost.CompareAndSwap(false, true)
			}}
			w := &words{}
			dir := t.TempDir()
			had(t, dir, before)
			b, err = Open(Options{Dir: dir, Name: "b", Advertise: l.Addr().String(), Layer: layer, FSM: w})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = b.Close() }()
			close(ready)
			propose(t, a, "one")
			if err := a.AddLearner(t.Context(), "b", l.Addr().String()); err != nil {
				t.Fatal(err)
			}
			propose(t, a, "two")
			until(t, "the follower has all", func() bool {
				return w.String() == "old one two" || w.snapshots() > 5
			})
			if n := w.snapshots(); n > 2 {
				t.Errorf("it was sent %d snapshots", n)
			}
			if !lost.Load() {
				t.Error("no answer was lost: the test shows nothing")
			}
			if first, err := b.store.FirstIndex(); err != nil || first != at+1 {
				t.Errorf("its log begins with %d (%v), not after the snapshot", first, err)
			}
		})
	}
}

// had gives a node's folder so many entries of a former leader.
func had(t *testing.T, dir string, n int) {
	t.Helper()
	d := newDisk(dir)
	if err := d.open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	for i := range n {
		l := &raft.Log{Index: uint64(i + 1), Term: 0, Data: []byte("x")}
		if err := d.StoreLog(l); err != nil {
			t.Fatal(err)
		}
	}
}

// A leader whose log is cut after a snapshot between two entries that it reads for a
// follower gets what stands for an entry. No follower takes it for one.
func TestWhatStandsForAnEntryIsNotStored(t *testing.T) {
	d := newDisk(t.TempDir())
	if err := d.open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	snaps, err := raft.NewFileSnapshotStore(d.dir, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.snaps = snaps
	const cut, last = 10, 20
	for i := uint64(1); i <= last; i++ {
		if err := d.StoreLog(&raft.Log{Index: i, Term: 3, Type: raft.LogCommand, Data: []byte("word")}); err != nil {
			t.Fatal(err)
		}
	}
	var read []*raft.Log
	for i := uint64(5); i <= last; i++ {
		if i == cut {
			_, transport := raft.NewInmemTransport("")
			sink, err := snaps.Create(1, cut, 3, raft.Configuration{}, 1, transport)
			if err := errors.Join(err, sink.Close(), d.DeleteRange(1, cut)); err != nil {
				t.Fatal(err)
			}
		}
		l := new(raft.Log)
		if err := d.GetLog(i, l); err != nil {
			t.Fatal(err)
		}
		read = append(read, l)
	}
	follower := newDisk(t.TempDir())
	if err := follower.open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = follower.Close() }()
	if err := follower.StoreLogs(read); err == nil {
		t.Error("a follower stored it")
	}
	if last, err := follower.LastIndex(); err != nil || last != 0 {
		t.Errorf("a follower has %d entries, %v", last, err)
	}
}
