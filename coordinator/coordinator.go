package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/control"
	"github.com/groundswell/groundswell/coordinator/enrol"
	"github.com/groundswell/groundswell/coordinator/fleet"
	"github.com/groundswell/groundswell/coordinator/gates"
	"github.com/groundswell/groundswell/coordinator/scheduler"
	"github.com/groundswell/groundswell/coordinator/sessions"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/gossip"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
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
	match     fleet.Matcher
	fleet     *fleet.View
	sessions  *sessions.Service
	presence  *presence
	activity  *activity
	ring      *gossip.Ring
	server    *rpc.Server
	glass     chan state.BreakGlassUsed // uses to record
	operators *membersService
	troubles  *troubles
	refusals  *refusals
	full      atomic.Bool // the disk
	members   *members
	stores    *stores
	raft      *raftLayer
	// ringChanges has its one place taken while keys of the ring on disk are brought in
	// line with the log, and while the log is asked.
	ringChanges chan struct{}
	failed      chan error                          // why this process has to end at once
	lostSince   atomic.Pointer[time.Time]           // this replica is cut off, see contact
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
		glass: make(chan state.BreakGlassUsed, 16), troubles: &troubles{why: map[string]string{}},
		refusals: newRefusals(o.Log, func(method string) bool {
			_, known := rows[method]
			return known || method == rpc.Handshake
		}),
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
	c.log = &replicated{node: c.node, store: c.store, leader: c.peers.leaderClient}
	c.batches = newBatches(c.log.propose)
	c.match = c.matcher()
	c.fleet = fleet.New(c.store, c.match)
	c.members = &members{store: c.store}
	c.sessions = c.newSessions()
	c.presence = newPresence(c)
	c.server = c.newServer()
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

func (c *Coordinator) newSessions() *sessions.Service {
	return sessions.New(sessions.Options{
		Name: c.o.Name, State: c.store, Log: c.log, Joins: c.batches, Sign: c.stores.sign, Epoch: c.epoch,
		Authorities: c.told.Load, Attributes: c.hostAttributes, Applied: c.log.applied,
		RingKeys: c.keys.ringKeys, CutOff: c.cutOffError, Begin: c.beginInstance, Speaks: c.speaks,
		Identify: func(ctx context.Context) (string, error) {
			p, ok := rpc.Caller(ctx)
			if !ok || p.Role != identity.Agent {
				return "", rpc.Errorf(rpc.KindForbidden, "only an agent has a session")
			}
			return p.ID, nil
		},
		Presence: func(host string, connected bool) {
			m := &peerv1.PresenceRequest{}
			if connected {
				m.Connected = []string{host}
			} else {
				m.Disconnected = []string{host}
			}
			c.fleet.Streams(c.o.Name, false, m.Connected, m.Disconnected)
			c.activity.ended(m.Disconnected)
			c.presence.tell(m)
		},
		Members: c.members.addresses,
		Limited: func(host, what string) {
			c.refusals.note("agent/"+host, agentv1.AgentService_Session_FullMethodName, what)
		},
		Progress: func(host string, p *agentv1.Progress) {
			c.activity.set(host, p)
			c.presence.tell(&peerv1.PresenceRequest{Progress: []*agentv1.Progress{p}, ProgressHosts: []string{host}})
		},
	})
}

func (c *Coordinator) newServer() *rpc.Server {
	server := rpc.NewServer(rpc.ServerOptions{
		Credential: c.keys.cred, Anonymous: true, Table: table(), IsLeader: c.log.leading, Forward: c.forward,
		Admit: c.admit, Applied: c.log.applied, Current: c.cutOffError, Refused: c.refusals.note,
		Panicked: func(method string, v any, stack []byte) {
			c.o.Log.Error("handler panicked", "method", method, "panic", fmt.Sprint(v), "stack", string(stack))
		},
	})
	enrolment := c.newEnrol()
	agentv1.RegisterEnrolmentServiceServer(server, enrolment)
	agentv1.RegisterAgentServiceServer(server,
		&agentService{Service: c.sessions, enrol: enrolment, mayRenew: c.mayRenew})
	peerv1.RegisterPeerServiceServer(server, &peerService{c: c, newest: map[string]uint64{}})
	c.operators = &membersService{Service: c.newControl(), c: c}
	controlv1.RegisterControlServiceServer(server, c.operators)
	healthv1.RegisterHealthServer(server, health.NewServer())
	return server
}

// agentService joins sessions and the renewal of certificates.
type agentService struct {
	*sessions.Service
	enrol    *enrol.Service
	mayRenew func(context.Context) error
}

// Renew issues a new certificate for the caller.
func (s *agentService) Renew(ctx context.Context, r *agentv1.RenewRequest) (*agentv1.EnrolResponse, error) {
	if err := s.mayRenew(ctx); err != nil {
		return nil, err
	}
	return s.enrol.Renew(ctx, r)
}

// Split gives a copy of a machine an identity of its own.
func (s *agentService) Split(ctx context.Context, r *agentv1.SplitRequest) (*agentv1.EnrolResponse, error) {
	return s.enrol.Split(ctx, r)
}

func (c *Coordinator) newControl() *control.Service {
	return control.New(control.Options{
		State: c.store, Log: c.log, Fleet: c.fleet, Parse: parseApp, Match: c.match, Output: c.output,
		Activity: func(host, app string) (control.Activity, bool) {
			if c.fleet.At(host) == "" { // what it said last is not what it does
				return control.Activity{}, false
			}
			return c.activity.get(host, app)
		},
		Actor: func(ctx context.Context) string {
			p, _ := rpc.Caller(ctx)
			return p.ID
		},
		Groups: func(actor string) (out []string) {
			for _, group := range slices.Sorted(maps.Keys(c.o.Approvers)) {
				if slices.Contains(c.o.Approvers[group], actor) {
					out = append(out, group)
				}
			}
			return out
		},
		Approvers: func(group string) int { return len(c.o.Approvers[group]) },
		Token:     c.createToken, Person: c.person, Cluster: c.clusterStatus,
		Revoked: func(host string) (by string) {
			c.store.ViewCluster(func(s *state.Cluster) { by = s.Identities["agent/"+host].Revoked })
			return by
		},
	})
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
	g.Go(func() error { return c.watchContact(ctx) })
	g.Go(func() error { return c.compare(ctx) })
	g.Go(func() error { return c.recordBreakGlass(ctx) })
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

// leadership runs the scheduler while this node leads.
func (c *Coordinator) leadership(ctx context.Context) error {
	for leads := false; ; {
		if leads {
			leads = c.term(ctx)
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case leads = <-c.node.Leadership():
		}
	}
}

// term leads until raft has something else to say of it, or ctx ends, and
// returns what raft said.
func (c *Coordinator) term(ctx context.Context) (leads bool) {
	inner, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.lead(inner)
	}()
	select {
	case <-ctx.Done():
	case leads = <-c.node.Leadership():
	}
	cancel()
	<-done
	return leads
}

// lead decides until ctx ends. What fails is tried again: raft says when this
// node leads no longer.
func (c *Coordinator) lead(ctx context.Context) {
	defer c.fleet.Lead(false)
	defer c.log.resign()
	for ctx.Err() == nil {
		if err := c.log.lead(ctx); err != nil {
			c.o.Log.Warn("cannot take the lead yet", "error", err)
			backoff.Pause(ctx, 50*time.Millisecond)
			continue
		}
		if err := c.beginEpoch(ctx); err != nil {
			c.o.Log.Warn("cannot begin the new epoch yet", "error", err)
			backoff.Pause(ctx, 50*time.Millisecond)
			continue
		}
		c.o.Log.Info("leading", "term", c.node.Term())
		c.fleet.Lead(true)
		if err := c.decide(ctx); err != nil {
			c.o.Log.Warn("scheduler stopped", "error", err)
			pause := 50 * time.Millisecond
			if full := (*consensus.DiskFull)(nil); errors.As(err, &full) {
				pause = 2 * time.Second // it has been said, and a full disk holds few more lines
			}
			backoff.Pause(ctx, pause)
		}
	}
}

// decide runs what only a leader runs: the scheduler, and beside it who asks
// the gates. Either ends the other.
func (c *Coordinator) decide(ctx context.Context) error {
	c.activated(ctx)
	observer, err := gates.New(c.o.Gates)
	if err != nil {
		return err
	}
	observer.Changed = c.store.Changed
	observer.Due = func() (due []deploy.Question, wait time.Duration) {
		now := c.log.Now()
		c.store.View(func(st *deploy.State) { due, wait = deploy.Questions(st, now) })
		return due, wait
	}
	observer.Log = observations{c.log}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		s := &scheduler.Scheduler{State: c.store, Fleet: c.fleet, Log: c.log}
		return s.Run(ctx)
	})
	g.Go(func() error { return observer.Run(ctx) })
	g.Go(func() error { return c.removeLongDead(ctx) })
	g.Go(func() error { return c.raiseRules(ctx) })
	g.Go(func() error { return c.moveCAs(ctx) })
	g.Go(func() error { return c.moveRingKeys(ctx) })
	return g.Wait()
}

// observations appends what gates answered; an answer that nobody waits for any
// more is refused by the log, which is no error.
type observations struct{ log *replicated }

func (o observations) Propose(ctx context.Context, events []deploy.Event) error {
	_, err := o.log.Propose(ctx, events)
	return err
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

// announce makes this coordinator a member of the cluster and its addresses
// known, then reports ready. It goes on until the log holds them.
func (c *Coordinator) announce(ctx context.Context) error {
	for said := ""; ctx.Err() == nil; {
		err := c.announceOnce(ctx)
		if err == nil {
			if err := c.o.started(); err != nil {
				return err
			}
			if c.o.Ready != nil {
				c.o.Ready(c.addr)
			}
			return nil
		}
		if text := err.Error(); text != said && ctx.Err() == nil {
			c.o.Log.Info("not announced yet", "error", err)
			said = text
		}
		backoff.Pause(ctx, 50*time.Millisecond)
	}
	return nil
}

func (c *Coordinator) announceOnce(ctx context.Context) error {
	if err := c.join(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	self := c.self()
	known, created := false, false
	c.store.ViewCluster(func(s *state.Cluster) {
		known, created = s.Coordinators[c.o.Name] == state.Coordinator(self), s.ID != ""
	})
	if !created && c.o.Bootstrap {
		founders, err := c.founders()
		if err != nil {
			return err
		}
		err = c.log.cluster(ctx, state.ClusterCreated{
			ID: newClusterID(), CA: c.keys.authorities().PEM(),
			Founders: founders,
		})
		if err != nil && rpc.Kind(err) != rpc.KindExists {
			return err
		}
	}
	if known {
		return nil
	}
	return c.log.cluster(ctx, self)
}

// self is how this coordinator announces itself.
func (c *Coordinator) self() state.CoordinatorJoined {
	return state.CoordinatorJoined{
		Name: c.o.Name, Raft: c.addr.Raft, API: c.addr.API, Agent: c.addr.Agents, Gossip: c.addr.Gossip,
		Rules: c.o.rules(), CA: c.casNow().holds, Ring: c.ringNow().holds,
	}
}

// seek keeps the gossip ring joined to the other coordinators: a ring that was
// cut in two grows together again.
func (c *Coordinator) seek(ctx context.Context) error {
	for ctx.Err() == nil {
		have := map[string]bool{c.o.Name: true}
		for _, m := range c.ring.Members() {
			have[m.ID] = have[m.ID] || m.Role == string(identity.Coordinator)
		}
		for _, m := range c.peers.members() {
			if !have[m.Name] {
				c.ring.Rejoin([]string{m.Gossip})
			}
		}
		backoff.Pause(ctx, 2*time.Second)
	}
	return nil
}
