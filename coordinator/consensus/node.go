// Package consensus is one raft node: open, bootstrap, join, leadership,
// propose, barrier.
package consensus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Layer carries raft's connections; the caller brings mTLS.
type Layer interface {
	net.Listener
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// Options of Open.
type Options struct {
	Dir       string // holds raft.db and snapshots, 0700
	Name      string // id of this server, stable for its life
	Advertise string // address that other servers dial
	Layer     Layer
	FSM       raft.FSM
	Heartbeat time.Duration // how long a leader may be silent; 0 is 500 ms, other times follow it
	// CheckSnapshot and CheckEntry look at what is on disk before anything of it is
	// applied: the newest snapshot, the first and the last entry of the log. An
	// error of theirs is Open's. Nil looks at nothing.
	CheckSnapshot func(io.Reader) error
	CheckEntry    func([]byte) error
	// Replay is told the index of the last entry for the FSM on disk before raft
	// starts: what is applied up to it was applied before, by this node or by
	// others. Nil is not told.
	Replay func(last uint64)
	// Reserve is how many bytes are set aside for a full disk; 0 is none. Full is
	// told when the disk becomes full, and when there is room again; it must not
	// block.
	Reserve int64
	Full    func(full bool, why error)
	// SnapshotBytes is how many bytes of entries make a snapshot; 0 is 64 MiB. Half
	// as many stay in the log behind one.
	SnapshotBytes int64
	// Failed is told once that the disk hangs or fails, or that what is on it is not
	// what was written: raft hangs then, nothing can be handed over and Close may not
	// return. The process has to close every connection and end. It must not block.
	Failed func(why error)
	Log    io.Writer // raft's own log; nil keeps its last words alone, for a stop

	faulty func(logFile) logFile // of tests
}

// Node is one server of the raft cluster. All methods may be called
// concurrently.
type Node struct {
	raft      *raft.Raft
	store     *disk
	transport *raft.NetworkTransport
	advertise raft.ServerAddress
	name      raft.ServerID
	bytes     int64 // of entries that make a snapshot
	stop      chan struct{}
	keeping   sync.WaitGroup
	turns     turns
}

// Timeouts that gave a new leader's first commit in about 1 s on a busy
// 2-core machine (prototype, docs/architecture.md).
const (
	// Heartbeat is how long a leader may be silent, unless Options say otherwise.
	Heartbeat   = 500 * time.Millisecond // and election, and lease; a tenth of it the pause between commits
	maxAppend   = 512
	snapshots   = 2
	dialTimeout = 3 * time.Second
	lockWait    = 2 * time.Second // for a predecessor that is just ending
	// An hour of 2,000 hosts that deploy writes some 20 MB; replaying 64 takes a
	// second.
	snapshotBytes = 64 << 20
)

// Open opens or creates the node's state on disk. A new node is not part of a
// cluster until Bootstrap, or until a leader calls AddVoter for it.
func Open(o Options) (*Node, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create raft folder: %w", err)
	}
	d := newDisk(o.Dir)
	d.reserve, d.told, d.failing = reserveIn(o.Dir, o.Reserve), o.Full, o.Failed
	if err := d.open(); err != nil {
		return nil, err
	}
	if o.faulty != nil {
		d.logFile = o.faulty(d.logFile)
	}
	n, err := open(o, d)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.running.Store(true)
	d.every = max(lateLook, cmp.Or(o.Heartbeat, Heartbeat)/2)
	d.watching.Go(d.watch) // until the store is closed
	n.keeping.Go(n.keep)
	n.keeping.Go(n.observe)
	return n, nil
}

func open(o Options, store *disk) (*Node, error) {
	store.said = &lastWords{}
	out := io.Writer(store.said)
	if o.Log != nil {
		out = io.MultiWriter(o.Log, store.said)
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "raft", Output: out, Level: hclog.Info, JSONFormat: true})
	snaps, err := openShots(o.Dir, log)
	if err != nil {
		return nil, err
	}
	store.snaps = snaps
	if err := errors.Join(snaps.verify(), store.verify()); err != nil {
		return nil, fmt.Errorf("cannot use the state in %s: %w", o.Dir, err)
	}
	if err := o.check(store, snaps); err != nil {
		return nil, fmt.Errorf("cannot use the state in %s: %w", o.Dir, err)
	}
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer{Layer: o.Layer, addr: address(o.Advertise)}, MaxPool: 3, Timeout: 10 * time.Second, Logger: log,
	})
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(o.Name)
	pace := cmp.Or(o.Heartbeat, Heartbeat)
	// A leader steps down when it has not heard a quorum for the lease, and nobody
	// stands for election earlier than the heartbeat's time-out after the last one: a
	// shorter lease gains nothing, and loses the lead whenever the machine is busy.
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout, c.CommitTimeout = pace, pace, pace, pace/10
	c.MaxAppendEntries, c.BatchApplyCh = maxAppend, true
	c.SnapshotThreshold, c.TrailingLogs = 8192, mostTrailing
	c.NoLegacyTelemetry = true
	c.Logger = log
	if err := store.known(cmp.Or(o.SnapshotBytes, snapshotBytes)); err != nil {
		return nil, errors.Join(err, transport.Close())
	}
	if o.Replay != nil {
		last, err := lastCommand(store)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read the log's end: %w", err), transport.Close())
		}
		o.Replay(last)
	}
	r, err := raft.NewRaft(c, o.FSM, store, store, snaps, transport)
	if err != nil {
		err = fmt.Errorf("start raft in %s: %w; it said: %s", o.Dir, err, cmp.Or(store.said.newest(), "nothing"))
		return nil, errors.Join(err, transport.Close())
	}
	return &Node{
		raft: r, store: store, transport: transport, advertise: raft.ServerAddress(o.Advertise),
		name: c.LocalID, bytes: cmp.Or(o.SnapshotBytes, snapshotBytes), stop: make(chan struct{}),
		turns: turns{changed: make(chan struct{})},
	}, nil
}

// lastCommand returns the index of the last entry in the log that is for the FSM, 0
// for none. Behind it are a few of raft's own.
func lastCommand(store raft.LogStore) (uint64, error) {
	first, err1 := store.FirstIndex()
	last, err2 := store.LastIndex()
	if err := errors.Join(err1, err2); err != nil || first == 0 {
		return 0, err
	}
	for i := last; i >= first; i-- {
		var l raft.Log
		if err := store.GetLog(i, &l); err != nil {
			return 0, err
		}
		if l.Type == raft.LogCommand {
			return i, nil
		}
	}
	return 0, nil
}

// check asks whether what is on disk may be applied.
func (o *Options) check(store raft.LogStore, snaps raft.SnapshotStore) error {
	if o.CheckSnapshot != nil {
		if err := checkSnapshot(snaps, o.CheckSnapshot); err != nil {
			return err
		}
	}
	if o.CheckEntry == nil {
		return nil
	}
	first, err1 := store.FirstIndex()
	last, err2 := store.LastIndex()
	if err := errors.Join(err1, err2); err != nil || last == 0 {
		return err
	}
	for _, ends := range [2][3]uint64{{first, last, 1}, {last, first, ^uint64(0)}} {
		for i := ends[0]; ; i += ends[2] {
			var l raft.Log
			if err := store.GetLog(i, &l); err != nil {
				return fmt.Errorf("read entry %d: %w", i, err)
			}
			if l.Type == raft.LogCommand {
				if err := o.CheckEntry(l.Data); err != nil {
					return fmt.Errorf("entry %d: %w", i, err)
				}
				break
			}
			if i == ends[1] {
				break
			}
		}
	}
	return nil
}

func checkSnapshot(snaps raft.SnapshotStore, check func(io.Reader) error) error {
	list, err := snaps.List()
	if err != nil || len(list) == 0 {
		return err
	}
	_, r, err := snaps.Open(list[0].ID)
	if err != nil {
		return fmt.Errorf("open snapshot %s: %w", list[0].ID, err)
	}
	defer r.Close()
	return check(r)
}

// ErrHasState says that a node belongs to a cluster already.
var ErrHasState = errors.New("the node has state of a cluster")

// Bootstrap makes a new node the only voter of a new cluster. A node that has
// state stays what it is, and answers ErrHasState.
func (n *Node) Bootstrap() error {
	err := n.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		ID:      n.name,
		Address: n.advertise,
	}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("bootstrap cluster: %w", ErrHasState)
	}
	if err != nil {
		return fmt.Errorf("bootstrap cluster: %w", err)
	}
	return nil
}

// HasState reports whether the folder already belongs to a cluster.
func HasState(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "raft.db"))
	return err == nil
}

// NotLeader is the error of calls that only the leader answers.
type NotLeader struct {
	Leader string // address, "" when unknown
	Why    string // there is none
}

func (e *NotLeader) Error() string {
	if e.Leader == "" {
		if e.Why != "" {
			return "the cluster has no leader now: " + e.Why
		}
		return "the cluster has no leader now; try again"
	}
	return "this coordinator is not the leader, " + e.Leader + " is"
}

// Kind names the error for a transport.
func (e *NotLeader) Kind() string { return "unavailable" }

// Propose appends data to the log and returns what the FSM answered once a
// quorum has it on disk and this node has applied it. After an error of any
// other kind than *NotLeader the entry may or may not be committed.
func (n *Node) Propose(ctx context.Context, data []byte) (any, error) {
	if err := n.store.refuses(); err != nil {
		return nil, err
	}
	f := n.raft.Apply(data, timeout(ctx))
	if err := n.wait(ctx, f); err != nil {
		return nil, err
	}
	return f.Response(), nil
}

// Barrier returns when every entry that was committed before has been applied
// here. It succeeds on the leader only.
func (n *Node) Barrier(ctx context.Context) error {
	return n.wait(ctx, n.raft.Barrier(timeout(ctx)))
}

func timeout(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return max(time.Until(d), time.Millisecond)
	}
	return 10 * time.Second
}

// wait waits for a future without outliving the context.
func (n *Node) wait(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return n.explain(err)
	case <-ctx.Done():
		return fmt.Errorf("wait for the log: %w", ctx.Err())
	}
}

func (n *Node) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		addr, _ := n.raft.LeaderWithID()
		return &NotLeader{Leader: string(addr)}
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrAbortedByRestore),
		errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, raft.ErrEnqueueTimeout):
		return uncertain{err}
	}
	if full := n.store.refuses(); full != nil {
		return full
	}
	return fmt.Errorf("write the log: %w", err)
}

// uncertain says that the entry may or may not be committed. The same request,
// by its id, can be made again.
type uncertain struct{ error }

func (e uncertain) Error() string { return "the log changed hands: " + e.error.Error() }
func (e uncertain) Unwrap() error { return e.error }

// Kind names the error for a transport.
func (uncertain) Kind() string { return "unavailable" }

// Leadership delivers true when this node becomes leader and false when it
// ceases to be. Only one goroutine may read it.
func (n *Node) Leadership() <-chan bool { return n.raft.LeaderCh() }

// IsLeader reports whether this node believes to be the leader.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// Leader returns the leader's id and address, empty when unknown.
func (n *Node) Leader() (name, addr string) {
	a, id := n.raft.LeaderWithID()
	return string(id), string(a)
}

// Server is one member of the raft cluster.
type Server struct {
	Name, Address string
	Voter         bool
}

// Servers returns the members of the newest configuration.
func (n *Node) Servers() ([]Server, error) {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("read raft configuration: %w", err)
	}
	var out []Server
	for _, s := range f.Configuration().Servers {
		out = append(out, Server{Name: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return out, nil
}

// VoterAt reports whether the newest configuration that this node knows has it
// as a voter, at its address.
func (n *Node) VoterAt() (voter, address bool) {
	servers, err := n.Servers()
	if err != nil {
		return false, false
	}
	for _, s := range servers {
		if s.Name == string(n.name) {
			return s.Voter, s.Address == string(n.advertise)
		}
	}
	return false, false
}

// AddLearner makes the server one that gets the log and has no vote; leader
// only, idempotent. A voter stays one.
func (n *Node) AddLearner(ctx context.Context, name, addr string) error {
	err := n.wait(ctx, n.raft.AddNonvoter(raft.ServerID(name), raft.ServerAddress(addr), 0, timeout(ctx)))
	if err != nil {
		return fmt.Errorf("add coordinator %s at %s: %w", name, addr, err)
	}
	return nil
}

// Remove takes the server out of the cluster; leader only, idempotent.
func (n *Node) Remove(ctx context.Context, name string) error {
	if err := n.wait(ctx, n.raft.RemoveServer(raft.ServerID(name), 0, timeout(ctx))); err != nil {
		return fmt.Errorf("remove coordinator %s: %w", name, err)
	}
	return nil
}

// HandOver gives leadership to another voter, if this node leads and there is
// one. It returns once raft has tried; a transfer that is under way is as good.
func (n *Node) HandOver() error {
	if !n.IsLeader() {
		return nil
	}
	err := n.raft.LeadershipTransfer().Error()
	if err != nil && !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return fmt.Errorf("hand leadership over: %w", err)
	}
	return nil
}

// AddVoter makes the server a voter; leader only, idempotent.
func (n *Node) AddVoter(ctx context.Context, name, addr string) error {
	err := n.wait(ctx, n.raft.AddVoter(raft.ServerID(name), raft.ServerAddress(addr), 0, timeout(ctx)))
	if err != nil {
		return fmt.Errorf("add coordinator %s at %s: %w", name, addr, err)
	}
	return nil
}

// Applied returns the index of the last entry that the FSM applied.
func (n *Node) Applied() uint64 { return n.raft.AppliedIndex() }

// Heard says when a leader was heard of last, and up to which index the log was
// known to be committed then. At the leader that is now. A node that waits for its
// disk hears nothing: heartbeats come, and no entry.
func (n *Node) Heard() (at time.Time, committed uint64) {
	at, committed = n.raft.LastContact(), n.raft.CommitIndex()
	if n.IsLeader() {
		at = time.Now()
	}
	if since := n.store.waitsSince(); !since.IsZero() && since.Before(at) {
		at = since
	}
	return at, committed
}

// Term returns the current term.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// ErrMembersChange is why there is no snapshot for a moment: a change of members
// has reached the log and not the state.
var ErrMembersChange = errors.New("the members of the cluster are just changing")

// Snapshot takes a snapshot now.
func (n *Node) Snapshot() error {
	err := n.raft.Snapshot().Error()
	switch {
	case errors.Is(err, raft.ErrNothingNewToSnapshot): // the newest one has all
	case err != nil && strings.Contains(err.Error(), "wait until the configuration entry"): // raft has no name for it
		return fmt.Errorf("take snapshot: %w", ErrMembersChange)
	case err != nil:
		return fmt.Errorf("take snapshot: %w", err)
	}
	n.store.snapped()
	return nil
}

// Newest is the newest snapshot on disk: the index of the last entry in it, and
// its size in bytes.
func (n *Node) Newest() (index uint64, size int64, err error) {
	list, err := n.store.snaps.List()
	if err != nil || len(list) == 0 {
		return 0, 0, fmt.Errorf("there is no snapshot: %w", errors.Join(err, raft.ErrNothingNewToSnapshot))
	}
	return list[0].Index, list[0].Size, nil
}

// Close stops the node; a leader hands its leadership on first, if it can. On a
// disk that is full or fails it may not come to an end in order: raft is then left
// as it is, with the log open, to end with the process.
func (n *Node) Close() error {
	_ = n.HandOver() // a lone node has nobody to hand it to
	close(n.stop)
	if err := n.shutdown(); err != nil {
		return errors.Join(err, n.transport.Close())
	}
	n.keeping.Wait() // a snapshot under way has ended with raft
	return errors.Join(n.transport.Close(), n.store.Close())
}

// shutdown stops raft. A vote that waits for room on a full disk is never cast,
// and a write on a disk that hangs does not return: raft is left to them.
func (n *Node) shutdown() error {
	done := make(chan error, 1)
	go func() { done <- n.raft.Shutdown().Error() }()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(shutdownLimit):
			if err := n.store.refuses(); err != nil {
				return fmt.Errorf("stop raft: %w", err)
			}
		}
	}
}

const shutdownLimit = 5 * time.Second

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// layer fits Layer to raft.StreamLayer.
type layer struct {
	Layer
	addr address
}

func (l layer) Addr() net.Addr { return l.addr }

func (l layer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		timeout = dialTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.Layer.Dial(ctx, string(addr))
}
