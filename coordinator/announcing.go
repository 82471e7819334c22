package coordinator

import (
	"context"
	"time"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
)

// announce makes this coordinator a member of the cluster and its addresses
// known, then reports ready. It goes on until the log holds them.
func (c *Coordinator) announce(ctx context.Context) error {
	for said := ""; ctx.Err() == nil; {
		err := c.announceOnce(ctx)
		if err == nil {
			if err := c.o.started(); err != nil {
				return err
			}
			c.awaitCurrent(ctx)
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

// firstCurrent is how long a coordinator that is announced waits to know what is true
// before it says that it is ready. One without a majority is ready all the same, and
// says so to who asks it something.
const firstCurrent = 2 * time.Second

func (c *Coordinator) awaitCurrent(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, firstCurrent)
	defer cancel()
	for c.cutOffError() != nil && backoff.Pause(ctx, 10*time.Millisecond) {
	}
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
