package consensus

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/groundswell/groundswell/internal/room"
)

// newest is an FSM that keeps how much it was told, and no more.
type newest struct{ n int }

func (f *newest) Apply(l *raft.Log) any               { f.n += len(l.Data); return f.n }
func (f *newest) Snapshot() (raft.FSMSnapshot, error) { return shot("x"), nil }
func (f *newest) Restore(r io.ReadCloser) error       { return r.Close() }

func openWith(t *testing.T, o Options) *Node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Name, o.Advertise, o.Layer, o.FSM = "a", l.Addr().String(), plain{l}, &newest{}
	n, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Bootstrap(); err != nil && !errors.Is(err, ErrHasState) {
		t.Fatal(err)
	}
	return n
}

// until polls with a deadline.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// TestSnapshotsByBytes: a log of large entries is cut by its size, long before
// their number is large.
func TestSnapshotsByBytes(t *testing.T) {
	dir := t.TempDir()
	n := openWith(t, Options{Dir: dir, SnapshotBytes: 1 << 20})
	leads(t, n)
	entry := make([]byte, 64<<10)
	first := func() uint64 {
		i, err := n.store.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	for range 4 {
		before := first()
		for range 32 { // 2 MiB
			if _, err := n.Propose(t.Context(), entry); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "no snapshot after twice as many bytes", func() bool { return first() > before })
	}
	last, err := n.store.LastIndex()
	if err != nil || last-first() > 64 {
		t.Errorf("entries %d to %d stay, of 64 KiB, with half a MiB to keep: %v", first(), last, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = openWith(t, Options{Dir: dir, SnapshotBytes: 1 << 20})
	if got := n.store.trailing(512 << 10); got < 2 || got > 9 {
		t.Errorf("after a restart %d entries of 64 KiB are half a MiB", got)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAFullDisk runs itself in a mount namespace, on a file system of 24 MiB.
func TestAFullDisk(t *testing.T) {
	const in = "CONSENSUS_FULL_DISK"
	if dir := os.Getenv(in); dir != "" {
		onFullDisk(t, dir)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), in+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("only root may mount a small file system")
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// onFullDisk: another program fills the disk. The node refuses work and says
// why, outlives restarts, and goes on by itself once there is room, with what was
// acknowledged and its reserve.
func onFullDisk(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	told := make(chan bool, 100)
	o := Options{
		Dir: filepath.Join(dir, "raft"), Reserve: 4 << 20, SnapshotBytes: 2 << 20,
		Full: func(full bool, _ error) { told <- full },
	}
	n := openWith(t, o)
	leads(t, n)
	if !n.store.reserve.there() {
		t.Fatal("no reserve")
	}
	hog := filepath.Join(dir, "hog")
	fillUp(t, hog)
	entry, acknowledged := make([]byte, 64<<10), 0
	var err error
	for range 1000 {
		if _, err = n.Propose(t.Context(), entry); err != nil {
			break
		}
		acknowledged++
	}
	var full *DiskFull
	if !errors.As(err, &full) || full.Dir != o.Dir {
		t.Fatalf("after %d entries on a full disk: %v", acknowledged, err)
	}
	if !<-told {
		t.Error("nobody was told")
	}
	until(t, "the log did not shrink", func() bool { return !n.store.due(o.SnapshotBytes) })
	fillUp(t, hog) // it takes what the reserve gave up, as a log that grows does
	if n.store.reserve.there() {
		t.Error("the reserve is back on a full disk")
	}

	// A restart on a full disk: it leads, and refuses.
	index := n.Applied()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = openWith(t, o)
	leads(t, n)
	until(t, "what was acknowledged is there", func() bool { return n.Applied() >= index })
	if n.store.inside() < o.Reserve/2 {
		if _, err := n.Propose(t.Context(), entry); !errors.As(err, &full) {
			t.Errorf("after a restart: %v", err)
		}
	}

	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	until(t, "it does not come back", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := n.Propose(ctx, entry)
		return err == nil && n.store.reserve.there()
	})
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// fillUp appends to a file until there is no room.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4 << 10} {
		for {
			if _, err := f.Write(make([]byte, size)); err != nil {
				if !room.IsFull(err) {
					t.Fatal(err)
				}
				break
			}
		}
	}
}
