package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// words is an FSM that keeps every entry.
type words struct {
	mu       sync.Mutex
	list     []string
	restored int // how many snapshots it was given
}

func (w *words) Apply(l *raft.Log) any {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, string(l.Data))
	return len(w.list)
}

func (w *words) Snapshot() (raft.FSMSnapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return shot(strings.Join(w.list, " ")), nil
}

func (w *words) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = strings.Fields(string(b))
	w.restored++
	return errors.Join(err, r.Close())
}

func (w *words) snapshots() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.restored
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.list, " ")
}

type shot string

func (s shot) Persist(sink raft.SnapshotSink) error {
	_, err := io.WriteString(sink, string(s))
	return errors.Join(err, sink.Close())
}
func (shot) Release() {}

// plain is a layer without TLS.
type plain struct{ net.Listener }

func (plain) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

func openNode(t *testing.T, dir, name, addr string) (*Node, *words) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	w := &words{}
	n, err := Open(Options{Dir: dir, Name: name, Advertise: l.Addr().String(), Layer: plain{l}, FSM: w})
	if err != nil {
		t.Fatal(err)
	}
	return n, w
}

// leads waits until the node leads, which raft tells.
func leads(t *testing.T, n *Node) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case yes := <-n.Leadership():
			if yes {
				return
			}
		case <-limit:
			t.Fatal("nobody leads")
		}
	}
}

func propose(t *testing.T, n *Node, word string) {
	t.Helper()
	if _, err := n.Propose(t.Context(), []byte(word)); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotAndLogSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	n, _ := openNode(t, dir, "a", "127.0.0.1:0")
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	if err := n.Bootstrap(); err == nil {
		t.Error("a cluster was bootstrapped twice")
	}
	leads(t, n)
	for i := range 5 {
		propose(t, n, fmt.Sprint("w", i))
	}
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	propose(t, n, "after")
	addr := string(n.advertise)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n, w := openNode(t, dir, "a", addr)
	defer n.Close()
	leads(t, n)
	if err := n.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.String(); got != "w0 w1 w2 w3 w4 after" || w.restored != 1 {
		t.Errorf("after a restart: %q, from %d snapshots", got, w.restored)
	}
}

// TestADamagedSnapshotIsRefused: a node does not go on from an older one, behind
// which entries are missing.
func TestADamagedSnapshotIsRefused(t *testing.T) {
	dir := t.TempDir()
	n, _ := openNode(t, dir, "a", "127.0.0.1:0")
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	leads(t, n)
	for _, w := range []string{"one", "two"} {
		propose(t, n, w)
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin"))
	if err != nil || len(all) != 2 {
		t.Fatalf("snapshots are %v, %v", all, err)
	}
	if err := os.WriteFile(slices.Max(all), []byte("one two?"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Options{
		Dir: dir, Name: "a", Advertise: "127.0.0.1:1", FSM: &words{},
		CheckSnapshot: func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err },
	})
	if err == nil || !strings.Contains(err.Error(), "cannot use the state in "+dir) {
		t.Errorf("a damaged snapshot: %v", err)
	}
}

func TestThreeNodesAgreeAndFailOver(t *testing.T) {
	nodes, fsms := map[string]*Node{}, map[string]*words{}
	for _, name := range []string{"a", "b", "c"} {
		nodes[name], fsms[name] = openNode(t, t.TempDir(), name, "127.0.0.1:0")
	}
	if err := nodes["a"].Bootstrap(); err != nil {
		t.Fatal(err)
	}
	leads(t, nodes["a"])
	for _, name := range []string{"b", "c", "c"} { // adding is idempotent
		if err := nodes["a"].AddVoter(t.Context(), name, string(nodes[name].advertise)); err != nil {
			t.Fatal(err)
		}
	}
	propose(t, nodes["a"], "one")
	var not *NotLeader
	if _, err := nodes["b"].Propose(t.Context(), []byte("no")); !errors.As(err, &not) {
		t.Errorf("a follower took a proposal: %v", err)
	}
	if err := nodes["a"].Close(); err != nil {
		t.Fatal(err)
	}
	leader := "b"
	select {
	case <-nodes["b"].Leadership():
	case <-nodes["c"].Leadership():
		leader = "c"
	case <-time.After(20 * time.Second):
		t.Fatal("no new leader")
	}
	propose(t, nodes[leader], "two")
	if err := nodes[leader].Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fsms[leader].String(); got != "one two" {
		t.Errorf("the new leader has %q", got)
	}
	for _, name := range []string{"b", "c"} {
		if err := nodes[name].Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestASecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	n, _ := openNode(t, dir, "a", "127.0.0.1:0")
	defer n.Close()
	done := make(chan error, 1)
	go func() {
		_, err := Open(Options{Dir: dir, Name: "a", Advertise: "127.0.0.1:1", FSM: &words{}})
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "another coordinator") {
			t.Errorf("two processes on one folder: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the second one waits for ever instead of saying why")
	}
}
