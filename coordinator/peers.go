package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/control"
	"github.com/groundswell/groundswell/coordinator/sessions"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// peers is how coordinators reach each other: connections by API address, kept
// open.
type peers struct {
	cred   *identity.Credential
	store  *state.Store
	node   *consensus.Node
	dialer []grpc.DialOption
	why    func() string // there is no leader

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func (p *peers) dial(api string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cc := p.conns[api]; cc != nil {
		return cc, nil
	}
	cc, err := rpc.Dial([]string{api}, p.cred.Client(), append([]grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mostForwarded)),
	}, p.dialer...)...)
	if err == nil {
		p.conns[api] = cc
	}
	return cc, err
}

// redialGrace is how long calls on a connection that is replaced may go on.
const redialGrace = 5 * time.Second

// redial replaces every connection: the next call makes a new one, those that are
// under way end on the old one.
func (p *peers) redial() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range slices.Sorted(maps.Keys(p.conns)) {
		old := p.conns[a]
		time.AfterFunc(redialGrace, func() { _ = old.Close() }) // what is closed serves nobody any more
		delete(p.conns, a)
	}
}

func (p *peers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, a := range slices.Sorted(maps.Keys(p.conns)) {
		errs = append(errs, p.conns[a].Close())
		delete(p.conns, a)
	}
	return errors.Join(errs...)
}

// members returns the coordinators by name.
func (p *peers) members() []state.Coordinator {
	var out []state.Coordinator
	p.store.ViewCluster(func(c *state.Cluster) {
		for _, n := range slices.Sorted(maps.Keys(c.Coordinators)) {
			out = append(out, c.Coordinators[n])
		}
	})
	return out
}

// leader returns a connection to the node that raft calls leader, and its name.
func (p *peers) leader() (cc *grpc.ClientConn, name string, err error) {
	name, _ = p.node.Leader()
	if name == "" {
		return nil, "", &consensus.NotLeader{Why: p.why()}
	}
	for _, m := range p.members() {
		if m.Name == name {
			cc, err := p.dial(m.API)
			return cc, name, err
		}
	}
	return nil, "", rpc.Errorf(rpc.KindUnavailable, "the leader %s has not said where its API is; try again", name)
}

func (p *peers) leaderClient() (peerv1.PeerServiceClient, string, error) {
	cc, name, err := p.leader()
	if err != nil {
		return nil, "", err
	}
	return peerv1.NewPeerServiceClient(cc), name, nil
}

// mostForwarded bounds an answer that is handed on, as dctl bounds what it reads: all
// tasks of a deployment to 30,000 hosts take 12 MiB.
const mostForwarded = 64 << 20

// Bounds of a call that a person made and this replica hands on.
const (
	// tryBound is how long a leader may take, though it leads on. Plans for large
	// fleets take a second.
	tryBound = 8 * time.Second
	// turnBound is how long a new leader may say that it is none yet.
	turnBound = 3 * time.Second
	turnPause = 50 * time.Millisecond
)

// forward sends a unary call to the leader. One whose leader changes before it
// answers, as that of a process which is stopped, is made again at the next leader
// if a person made it: it has an id, and takes effect once. Others are told.
func (p *peers) forward(ctx context.Context, method string, req any) (any, error) {
	if rpc.WasForwarded(ctx) {
		return nil, &consensus.NotLeader{} // leadership is on the move; the caller tries again
	}
	if !strings.HasPrefix(method, "/"+controlv1.ControlService_ServiceDesc.ServiceName+"/") {
		return p.try(ctx, method, req)
	}
	var turned time.Time // when the leader changed last
	for {
		bounded, cancel := context.WithTimeout(ctx, tryBound)
		out, err := p.try(bounded, method, req)
		cancel()
		if errors.Is(err, consensus.ErrDeposed) {
			turned = time.Now()
		}
		if rpc.Kind(err) != rpc.KindUnavailable || time.Since(turned) > turnBound || ctx.Err() != nil {
			return out, err
		}
		backoff.Pause(ctx, turnPause)
	}
}

// try makes one call at the leader of now.
func (p *peers) try(ctx context.Context, method string, req any) (any, error) {
	cc, name, err := p.leader()
	if err != nil {
		return nil, err
	}
	ctx, cancel := p.node.Under(ctx, name)
	defer cancel()
	out, err := rpc.Invoke(ctx, cc, method, req)
	return out, unanswered(ctx, name, err)
}

// unanswered explains the error of a call to a leader that ended without one of
// its own.
func unanswered(ctx context.Context, leader string, err error) error {
	switch cause := context.Cause(ctx); {
	case err == nil || cause == nil:
		return err
	case errors.Is(cause, consensus.ErrDeposed):
		return &deposed{leader}
	case errors.Is(cause, context.DeadlineExceeded):
		return rpc.Errorf(rpc.KindUnavailable, "the leader %s has not answered in time; try again", leader)
	}
	return err
}

// deposed says that a leader had not answered when it led no more.
type deposed struct{ leader string }

func (e *deposed) Error() string {
	return fmt.Sprintf("%s led no more before it answered, and may have done what was asked; try again", e.leader)
}

// Kind names the error for a transport.
func (e *deposed) Kind() string { return rpc.KindUnavailable }

// Unwrap returns what it is an instance of.
func (e *deposed) Unwrap() error { return consensus.ErrDeposed }

// readBound is how long the answer to a forwarded mutation waits for this
// replica to have it too.
const readBound = 5 * time.Second

// forward answers a call by the leader's word, once what it wrote can be read
// here: who creates a deployment at a follower can watch it there.
func (c *Coordinator) forward(ctx context.Context, method string, req any) (any, error) {
	out, err := c.peers.forward(ctx, method, req)
	if r, ok := req.(*controlv1.ClusterStatusRequest); ok && err != nil {
		return c.operators.ClusterStatus(ctx, r) // as far as this one knows, with who is missing
	}
	if m, ok := out.(interface{ GetIndex() uint64 }); ok && err == nil {
		ctx, cancel := context.WithTimeout(ctx, readBound)
		defer cancel()
		_ = c.log.applied(ctx, m.GetIndex()) // the answer is true all the same
	}
	return out, err
}

// peerService serves the other coordinators.
type peerService struct {
	peerv1.UnimplementedPeerServiceServer
	c *Coordinator

	mu     sync.Mutex
	newest map[string]uint64 // coordinator -> number of its newest presence stream
}

// presenceBegan numbers a new presence stream of a coordinator.
func (s *peerService) presenceBegan(name string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest[name]++
	return s.newest[name]
}

// presenceEnded forgets the streams of a coordinator when its newest presence stream
// ends; the end of an older one, noticed late, means nothing.
func (s *peerService) presenceEnded(name string, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest[name] == n {
		s.c.fleet.Lost(name)
	}
}

// Propose commits a follower's entry.
func (s *peerService) Propose(ctx context.Context, r *peerv1.ProposeRequest) (*peerv1.ProposeResponse, error) {
	if !s.c.log.leading() {
		name, _ := s.c.node.Leader()
		return nil, &consensus.NotLeader{Leader: name}
	}
	e, err := state.Decode(r.Entry)
	if err != nil {
		return nil, err
	}
	applied, err := s.c.log.commit(ctx, e)
	if err != nil {
		return nil, err
	}
	out := &peerv1.ProposeResponse{Index: applied.Index}
	for _, err := range applied.Refusals {
		p := &peerv1.Refusal{}
		if err != nil {
			p.Kind, p.Text = rpc.Kind(err), err.Error()
		}
		out.Refusals = append(out.Refusals, p)
	}
	return out, nil
}

// Presence learns which hosts have a stream at a follower, until it goes.
func (s *peerService) Presence(in peerv1.PeerService_PresenceServer) error {
	caller, _ := rpc.Caller(in.Context())
	name := caller.ID // never the message's word for it
	n := s.presenceBegan(name)
	defer s.presenceEnded(name, n)
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Complete || len(m.Connected)+len(m.Disconnected) > 0 {
			s.c.fleet.Streams(name, m.Complete, m.Connected, m.Disconnected)
			s.c.activity.ended(m.Disconnected)
		}
		for i, p := range m.Progress {
			if i < len(m.ProgressHosts) {
				s.c.activity.set(m.ProgressHosts[i], p)
			}
		}
	}
}

// Keys hands a newcomer, whose certificate says coordinator, what every
// coordinator holds.
func (s *peerService) Keys(context.Context, *peerv1.KeysRequest) (*peerv1.KeysResponse, error) {
	key, err := s.c.keys.authorities().KeysPEM()
	if err != nil {
		return nil, err
	}
	return &peerv1.KeysResponse{CaKeyPem: key, GossipKey: s.c.keys.ringKeys()}, nil
}

// Logs reads hook output of a host that has its stream here.
func (s *peerService) Logs(r *peerv1.LogsRequest, out peerv1.PeerService_LogsServer) error {
	err := s.c.sessions.Logs(out.Context(), r.Host, r.Request, out.Send)
	if errors.Is(err, sessions.ErrNoStream) {
		return rpc.Errorf(rpc.KindNotFound, "%v", err)
	}
	return err
}

// output reads hook output wherever the host's stream is.
func (c *Coordinator) output(ctx context.Context, host string, q control.LogQuery,
	each func(control.HookOutput) error,
) error {
	r := &agentv1.LogRequest{App: q.App, Deployment: q.Deployment, Event: q.Event, Failed: q.Failed, Follow: q.Follow}
	send := func(m *agentv1.LogChunk) error {
		return each(control.HookOutput{Event: m.Event, Script: m.Script, Data: m.Data})
	}
	err := c.sessions.Logs(ctx, host, r, send)
	if !errors.Is(err, sessions.ErrNoStream) {
		return err
	}
	for _, m := range c.peers.members() {
		if m.Name == c.o.Name {
			continue
		}
		err := c.remoteOutput(ctx, m.API, &peerv1.LogsRequest{Host: host, Request: r}, send)
		if kind := rpc.Kind(err); err == nil || kind != rpc.KindNotFound && kind != rpc.KindUnavailable {
			return err
		}
	}
	name := host
	c.store.View(func(s *deploy.State) {
		if h := s.Hosts[host]; h != nil {
			name = h.Name
		}
	})
	return rpc.Errorf(rpc.KindUnavailable, "host %s has no session at any coordinator, so its output cannot be read "+
		"now; the reason of a failure is in `dctl status`", name)
}

func (c *Coordinator) remoteOutput(ctx context.Context, api string, r *peerv1.LogsRequest,
	send func(*agentv1.LogChunk) error,
) error {
	cc, err := c.peers.dial(api)
	if err != nil {
		return err
	}
	in, err := peerv1.NewPeerServiceClient(cc).Logs(ctx, r)
	if err != nil {
		return err
	}
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := send(m); err != nil {
			return err
		}
	}
}

// presence tells the leader about our streams until ctx ends. Its queue is
// bounded: when it overflows, everything is told anew.
type presence struct {
	c     *Coordinator
	queue chan *peerv1.PresenceRequest
	again chan struct{} // the queue overflowed
}

func newPresence(c *Coordinator) *presence {
	return &presence{c: c, queue: make(chan *peerv1.PresenceRequest, 4096), again: make(chan struct{}, 1)}
}

// tell queues a change; it never blocks.
func (p *presence) tell(m *peerv1.PresenceRequest) {
	select {
	case p.queue <- m:
	default:
		select {
		case p.again <- struct{}{}:
		default:
		}
	}
}

// Run keeps a stream to whoever leads.
func (p *presence) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		leader, _ := p.c.node.Leader()
		if leader != "" && leader != p.c.o.Name {
			_ = p.follow(ctx, leader) // it ends with every change of leader
		} else {
			p.drain(ctx, 200*time.Millisecond)
			continue
		}
		p.drain(ctx, 100*time.Millisecond)
	}
	return nil
}

// drain drops changes while there is nobody to tell: follow starts anew.
func (p *presence) drain(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-p.queue:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (p *presence) follow(ctx context.Context, leader string) error {
	client, _, err := p.c.peers.leaderClient()
	if err != nil {
		return err
	}
	return p.tellThrough(ctx, client, func() bool {
		now, _ := p.c.node.Leader()
		return now == leader
	})
}

// tellThrough tells one coordinator, while it leads, until its stream ends.
func (p *presence) tellThrough(ctx context.Context, client peerv1.PeerServiceClient, leads func() bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out, err := client.Presence(ctx)
	if err != nil {
		return fmt.Errorf("tell the leader about streams: %w", err)
	}
	if err := out.Send(p.all()); err != nil {
		return err
	}
	ended := make(chan error, 1) // a leader that refuses says so to who listens alone
	go func() {
		_, err := out.Recv()
		ended <- err
	}()
	defer func() { cancel(); <-ended }()
	check := time.NewTicker(200 * time.Millisecond)
	defer check.Stop()
	for {
		select {
		case err := <-ended:
			ended <- err
			return err
		case m := <-p.queue:
			err = out.Send(m)
		case <-p.again:
			p.forget() // older than what is told now
			err = out.Send(p.all())
		case <-check.C:
			if !leads() {
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// forget empties the queue.
func (p *presence) forget() {
	for {
		select {
		case <-p.queue:
		default:
			return
		}
	}
}

func (p *presence) all() *peerv1.PresenceRequest {
	return &peerv1.PresenceRequest{Complete: true, Connected: p.c.sessions.Connected()}
}
