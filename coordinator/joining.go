package coordinator

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/groundswell/groundswell/coordinator/membership"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// Join makes the caller a learner once each of its addresses was reached from
// here, and a voter once it has caught up. It is asked again until then; the
// answer says what it waits for.
func (s *peerService) Join(ctx context.Context, r *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	caller, _ := rpc.Caller(ctx)
	m := state.Coordinator{
		Name: caller.ID, Raft: r.RaftAddress, API: r.ApiAddress, Agent: r.AgentAddress, Gossip: r.GossipAddress,
	}
	out, err := s.join(ctx, m)
	switch {
	case err != nil:
		s.c.troubles.set(m.Name, rpc.Text(err))
	default:
		s.c.troubles.set(m.Name, out.Trouble)
	}
	return out, err
}

func (s *peerService) join(ctx context.Context, m state.Coordinator) (*peerv1.JoinResponse, error) {
	if err := s.c.reach(ctx, m); err != nil {
		return nil, rpc.Errorf(rpc.KindConflict, "%s cannot reach %s: %v; nothing was changed. "+
			"Is its --advertise right, and are its ports open?", s.c.o.Name, m.Name, err)
	}
	servers, err := s.c.node.Servers()
	if err != nil {
		return nil, err
	}
	for _, server := range servers {
		if server.Name == m.Name && server.Voter {
			return &peerv1.JoinResponse{Voter: true}, s.c.moved(ctx, m, server.Address)
		}
	}
	if err := s.c.node.AddLearner(ctx, m.Name, m.Raft); err != nil {
		return nil, err
	}
	d, err := s.c.ask(ctx, m)
	switch leader := s.c.node.Applied(); {
	case err != nil:
		return &peerv1.JoinResponse{Trouble: fmt.Sprintf("it does not answer yet: %s", rpc.Text(err))}, nil
	case !membership.CaughtUp(d.Applied, leader):
		return &peerv1.JoinResponse{Trouble: fmt.Sprintf("it has %d of %d entries", d.Applied, leader)}, nil
	}
	if err := s.c.node.AddVoter(ctx, m.Name, m.Raft); err != nil {
		return nil, err
	}
	s.c.o.Log.Info("a coordinator is a voter now", "name", m.Name, "raft", m.Raft)
	return &peerv1.JoinResponse{Voter: true}, nil
}

// troubles is why newcomers are no voters yet, as this leader has told them. It
// is soft. Methods may be called concurrently.
type troubles struct {
	mu  sync.Mutex
	why map[string]string
}

// set notes why, "" for no trouble.
func (t *troubles) set(name, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if why == "" {
		delete(t.why, name)
	} else if len(t.why) < mostTroubles || t.why[name] != "" {
		t.why[name] = why
	}
}

// mostTroubles bounds what is remembered; newcomers come one by one.
const mostTroubles = 32

// all returns a copy.
func (t *troubles) all() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.why)
}

// moved tells raft the new address of a voter.
func (c *Coordinator) moved(ctx context.Context, m state.Coordinator, old string) error {
	if m.Raft == old {
		return nil
	}
	c.o.Log.Info("a coordinator has another address", "name", m.Name, "raft", m.Raft, "former", old)
	return c.node.AddVoter(ctx, m.Name, m.Raft)
}

// reachBound is how long a newcomer's ports are tried.
const reachBound = 3 * time.Second

// reach connects to every address of a newcomer: that who answers there is it,
// its certificate says.
func (c *Coordinator) reach(ctx context.Context, m state.Coordinator) error {
	ctx, cancel := context.WithTimeout(ctx, reachBound)
	defer cancel()
	for port, addr := range map[string]string{"raft": m.Raft, "API": m.API, "agents": m.Agent} {
		if err := c.answers(ctx, addr, m.Name); err != nil {
			return fmt.Errorf("%s at %s: %w", port, addr, err)
		}
	}
	if c.ring.Rejoin([]string{m.Gossip}) == 0 {
		return fmt.Errorf("gossip at %s: no answer", m.Gossip)
	}
	return nil
}

// answers shakes hands with a coordinator and looks who it is.
func (c *Coordinator) answers(ctx context.Context, addr, name string) error {
	plain, err := c.o.dial(ctx, addr)
	if err != nil {
		return err
	}
	conf := c.keys.cred.Client()
	conf.NextProtos = []string{"h2"} // what gRPC wants to hear; raft does not care
	conn := tls.Client(plain, conf)
	defer func() { _ = conn.Close() }()
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	who, err := identity.PeerOf(conn.ConnectionState().PeerCertificates[0])
	if err != nil {
		return err
	}
	if who.ID != name {
		return fmt.Errorf("%s answers there", who.ID)
	}
	return nil
}

// ask asks one coordinator how it is.
func (c *Coordinator) ask(ctx context.Context, m state.Coordinator) (*peerv1.DescribeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, describeBound)
	defer cancel()
	cc, err := c.peers.dial(m.API)
	if err != nil {
		return nil, err
	}
	return peerv1.NewPeerServiceClient(cc).Describe(ctx, &peerv1.DescribeRequest{})
}

// joinPause is the time between two tries of a newcomer.
const joinPause = 200 * time.Millisecond

// join makes this coordinator a voter at its address, and waits for that.
func (c *Coordinator) join(ctx context.Context) error {
	for said := ""; ; {
		why, err := c.joinOnce(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && why == "" {
			return nil
		}
		if err != nil {
			why = rpc.Text(err)
		}
		if why != said {
			c.o.Log.Info("no voter yet", "why", why)
			said = why
		}
		backoff.Pause(ctx, joinPause)
	}
}

// joinOnce asks the leader; why is what the join waits for, "" for nothing.
func (c *Coordinator) joinOnce(ctx context.Context) (why string, err error) {
	if voter, here := c.node.VoterAt(); voter && here {
		return "", nil
	}
	if c.log.leading() { // alone, at another address than before
		return "", c.node.AddVoter(ctx, c.o.Name, c.addr.Raft)
	}
	at := c.o.Join
	for _, m := range c.peers.members() {
		if m.Name != c.o.Name {
			at = append(at[:len(at):len(at)], m.API)
		}
	}
	if len(at) == 0 {
		return "there is no leader yet", nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cc, err := rpc.Dial(at, c.keys.cred.Client(), c.o.dialer()...)
	if err != nil {
		return "", err
	}
	defer cc.Close()
	out, err := peerv1.NewPeerServiceClient(cc).Join(ctx, &peerv1.JoinRequest{
		RaftAddress: c.addr.Raft, ApiAddress: c.addr.API, AgentAddress: c.addr.Agents, GossipAddress: c.addr.Gossip,
	})
	if err != nil || out.Voter {
		return "", err
	}
	return "waiting: " + out.Trouble, nil
}
