package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/control"
	"github.com/groundswell/groundswell/coordinator/fleet"
	"github.com/groundswell/groundswell/coordinator/sessions"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/coordinator/traffic"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/gossip"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// Coordinator is one running coordinator.
type Coordinator struct {
	o         Options
	keys      *keys
	store     *state.Store
	node      *consensus.Node
	log       *replicated
	batches   *batches
	peers     *peers
	match     func(selector string, h *deploy.Host) bool
	fleet     *fleet.View
	sessions  *sessions.Service
	traffic   *traffic.Service
	presence  *presence
	activity  *activity
	ring      *gossip.Ring
	server    *rpc.Server
	glass     chan state.BreakGlassUsed // uses to record
	operators *membersService
	troubles  *troubles
	refusals  *refusals
	refusing  *refusedRequests
	full      atomic.Bool // the disk
	members   *members
	rulebook  rulebook
	needs     map[string]need
	former    *access.Document // of Options.Approvers; nil without any
	stores    *stores
	raft      *raftLayer
	// ringChanges has its one place taken while keys of the ring on disk are brought in
	// line with the log, and while the log is asked.
	ringChanges chan struct{}
	failed      chan error                          // why this process has to end at once
	past        *past                               // where ended deployments are moved; nil is nowhere
	lostSince   atomic.Pointer[time.Time]           // this replica is cut off, see contact
	looked      atomic.Pointer[time.Time]           // when watchContact looked last
	told        atomic.Pointer[agentv1.Authorities] // what agents are told of the CAs
	addr        Addresses
	lis         listeners
}

// listeners are open before anything is announced.
type listeners struct{ api, agents, raft net.Listener }

// Run runs a coordinator until ctx ends, then stops it in order: no new calls,
// leadership handed on, log closed. Where that cannot be, as on a disk that hangs,
// it closes every connection and returns why; what hangs then ends with the
// process.
func Run(ctx context.Context, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if err := o.checkFiles(); err != nil {
		return err
	}
	rows := table()
	c := &Coordinator{
		o: o, ringChanges: make(chan struct{}, 1), failed: make(chan error, 1),
		activity: &activity{last: map[string]map[string]control.Activity{}}, stores: newStores(o.Store),
		needs: needs(),
		glass: make(chan state.BreakGlassUsed, 16), troubles: &troubles{why: map[string]string{}},
		refusals: newRefusals(o.Log, func(method string) bool {
			_, known := rows[method]
			return known || method == rpc.Handshake
		}),
		refusing: newRefusedRequests(o.RefusedEvery),
	}
	if len(o.Approvers) > 0 {
		c.former, _ = access.Parse(access.OfApprovers(o.Approvers), accessFile) // Validate has read it
	}
	if err := c.open(ctx); err != nil {
		return errors.Join(err, c.close())
	}
	done := make(chan error, 1)
	go func() {
		err := c.run(ctx)
		done <- errors.Join(err, c.close())
	}()
	select {
	case err := <-done:
		return err
	case err := <-c.failed:
		c.abandon()
		select {
		case <-done:
		case <-time.After(abandonBound):
		}
		return err
	}
}

// abandonBound is how long the ends of connections are waited for, which are closed
// by then, and everything else that does not hang.
const abandonBound = time.Second

// abandon closes all that others could take for a coordinator that lives, raft's
// connections first, so that they elect another. It writes nothing, not even a
// line, and waits for nobody who may hang on the disk.
func (c *Coordinator) abandon() {
	var closing sync.WaitGroup
	for _, end := range []func(){
		func() { _ = c.raft.Close() }, func() { _ = c.lis.api.Close() }, func() { _ = c.lis.agents.Close() },
		c.server.Stop, func() { _ = c.ring.Close() },
	} {
		closing.Go(end)
	}
	done := make(chan struct{})
	go func() {
		closing.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(abandonBound):
	}
}

// endAtOnce has Run end. Only the first reason counts.
func (c *Coordinator) endAtOnce(why error) {
	select {
	case c.failed <- why:
	default:
	}
}

// open makes everything but the goroutines.
func (c *Coordinator) open(ctx context.Context) (err error) {
	err = consensus.Await(ctx, filepath.Join(c.o.Dir, "raft"), func() {
		c.o.Log.Warn("waiting for the disk: a write to it does not come back", "dir", c.o.Dir)
	})
	if err != nil {
		return err
	}
	if err := c.o.resume(); err != nil {
		return err
	}
	if c.keys, err = c.o.loadKeys(ctx); err != nil {
		return err
	}
	if err := c.listen(); err != nil {
		return err
	}
	if err := c.o.outvotedBefore(); err != nil {
		return err
	}
	c.store = state.New(c.o.rules())
	if c.o.tamper != nil {
		c.o.tamper(c.store)
	}
	c.store.Report = func(err error) { c.o.Log.Error("an invariant was broken; please report it", "error", err) }
	c.raft = c.newRaft()
	c.node, err = consensus.Open(consensus.Options{
		Dir: filepath.Join(c.o.Dir, "raft"), Name: c.o.Name, Advertise: c.addr.Raft,
		Layer: c.raft, FSM: c.store, Heartbeat: c.o.Heartbeat,
		Replay: func(last uint64) { c.store.Replayed = last }, Reserve: c.o.DiskReserve, Full: c.diskFull,
		Failed:        c.endAtOnce,
		CheckSnapshot: func(r io.Reader) error { return state.CheckSnapshot(r, c.o.rules()) },
		CheckEntry:    func(b []byte) error { return state.CheckEntry(b, c.o.rules()) },
	})
	if err != nil {
		return err
	}
	if c.o.Bootstrap {
		if err := c.node.Bootstrap(); err != nil && !errors.Is(err, consensus.ErrHasState) {
			return err
		}
	}
	c.peers = &peers{
		cred: c.keys.cred, dialer: c.o.dialer(), store: c.store, node: c.node,
		conns: map[string]*grpc.ClientConn{},
	}
	c.peers.why = (&noLeader{c: c}).why
	c.log = &replicated{node: c.node, store: c.store, leader: c.peers.leaderClient, passed: c.keepsUp}
	c.batches = newBatches(c.log.propose)
	c.match = c.matcher()
	c.fleet = fleet.New(c.store, within(c.match, func() *access.Document {
		doc, _ := c.rules()
		return doc
	}))
	c.members = &members{store: c.store}
	if err := c.openPast(ctx); err != nil {
		return err
	}
	c.sessions = c.newSessions()
	c.presence = newPresence(c)
	if c.traffic, err = c.newTraffic(); err != nil {
		return err
	}
	if c.server, err = c.newServer(); err != nil {
		return err
	}
	c.beginCutOff()
	return c.gossip()
}

func (c *Coordinator) listen() (err error) {
	if c.lis.raft, err = c.o.listen(c.o.Raft); err != nil {
		return fmt.Errorf("listen for raft: %w", err)
	}
	if c.lis.api, err = c.o.listen(c.o.API); err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	if c.lis.agents, err = c.o.listen(c.o.Agents); err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	c.addr = Addresses{
		Name: c.o.Name, API: c.o.advertised(c.lis.api.Addr()), Agents: c.o.advertised(c.lis.agents.Addr()),
		Raft: c.o.advertised(c.lis.raft.Addr()),
	}
	if c.o.Bootstrap {
		c.addr.Operator = filepath.Join(c.o.Dir, operatorDir)
	}
	return nil
}

func (c *Coordinator) newRaft() *raftLayer {
	server := c.keys.cred.Server(false)
	server.VerifyConnection = c.onlyCoordinators
	return newRaftLayer(c.lis.raft, server, c.keys.cred.Client(), c.o.dial)
}

func (c *Coordinator) gossip() (err error) {
	c.ring, err = gossip.Open(gossip.Options{
		Self: gossip.Member{ID: c.o.Name, Role: string(identity.Coordinator), Agent: c.addr.Agents, API: c.addr.API},
		Bind: c.o.Gossip, Keys: c.keys.ringKeys(), Network: c.o.Ring,
		Changed: func(m gossip.Member, alive bool) {
			if m.Role == string(identity.Agent) {
				c.fleet.Gossip(m.ID, alive)
				if !alive {
					c.sessions.Doubt(m.ID)
				}
			}
		},
	})
	if err == nil {
		c.addr.Gossip = c.ring.Addr()
	}
	return err
}

// run starts every goroutine and waits for all of them.
func (c *Coordinator) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range []net.Listener{c.lis.api, c.lis.agents} {
		g.Go(func() error {
			if err := c.server.Serve(l); ctx.Err() == nil {
				return err
			}
			return nil // it was stopped, perhaps before it began
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		_ = c.node.HandOver() // first: who calls now is sent to the next leader, and waits for no election
		c.stopServing()
		return nil
	})
	g.Go(func() error { return c.batches.Run(ctx) })
	g.Go(func() error { return c.sessions.Run(ctx) })
	g.Go(func() error { return c.presence.Run(ctx) })
	g.Go(func() error { return c.log.observe(ctx) })
	g.Go(func() error { return c.leadership(ctx) })
	g.Go(func() error { return c.announce(ctx) })
	g.Go(func() error { return c.seek(ctx) })
	g.Go(func() error { return c.keepRenewed(ctx) })
	g.Go(func() error { return c.followCAs(ctx) })
	g.Go(func() error { return c.followRingKeys(ctx) })
	g.Go(func() error { return c.recheck(ctx) })
	g.Go(func() error { return c.refuseApprovers(ctx) })
	g.Go(func() error { return c.watchContact(ctx) })
	g.Go(func() error { return c.compare(ctx) })
	g.Go(func() error { return c.recordBreakGlass(ctx) })
	g.Go(func() error { return c.recordRefusals(ctx) })
	g.Go(func() error { return c.exportAudit(ctx) })
	g.Go(func() error { return c.debug(ctx) })
	return g.Wait()
}

// stopServing lets short calls finish; streams are cut, their clients go to
// another coordinator.
func (c *Coordinator) stopServing() {
	done := make(chan struct{})
	go func() {
		c.server.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(200 * time.Millisecond):
		c.server.Stop()
		<-done
	}
}

func (c *Coordinator) close() error {
	var errs []error
	if c.ring != nil {
		if err := c.ring.Leave(); err != nil {
			c.o.Log.Info("the gossip ring was not closed", "error", err)
		}
	}
	if c.peers != nil {
		errs = append(errs, c.peers.close())
	}
	if c.node != nil {
		errs = append(errs, c.node.Close())
	}
	for _, l := range []net.Listener{c.lis.api, c.lis.agents, c.lis.raft} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// diskFull says that the disk became full, or has room again.
func (c *Coordinator) diskFull(full bool, why error) {
	c.full.Store(full)
	if full {
		c.o.Log.Error("the disk is full: nothing new is taken until there is room", "error", why)
		return
	}
	c.o.Log.Info("there is room on the disk again")
}
