package coordinator

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/membership"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// RemoveCoordinator takes a coordinator out of the cluster: out of raft first,
// so that what is asked again after a crash in between goes on, then out of the
// state, which ends its certificate and frees its name. A leader hands over
// first, and its successor removes it.
func (s *membersService) RemoveCoordinator(
	ctx context.Context, r *controlv1.RemoveCoordinatorRequest,
) (*controlv1.RemoveCoordinatorResponse, error) {
	c := s.c
	servers, err := c.servers(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.mayRemove(servers, r); err != nil {
		return nil, err
	}
	if r.Name == c.o.Name {
		if err := c.node.HandOver(); err != nil {
			return nil, rpc.Errorf(rpc.KindConflict, "%s leads and cannot be removed by itself: %v", r.Name, err)
		}
		return nil, &consensus.NotLeader{Why: c.o.Name + " has handed over, to be removed by its successor"}
	}
	if err := c.node.Remove(ctx, r.Name); err != nil {
		return nil, err
	}
	err = c.log.cluster(ctx, state.CoordinatorRemoved{Request: c.request(ctx, r.Mutation), Name: r.Name})
	if err != nil {
		return nil, err
	}
	c.o.Log.Info("a coordinator was removed", "name", r.Name)
	return &controlv1.RemoveCoordinatorResponse{Index: c.index()}, nil
}

// mayRemove guards the quorum. Force overrides it with a reason, but never for
// the only voter.
func (c *Coordinator) mayRemove(servers []membership.Server, r *controlv1.RemoveCoordinatorRequest) error {
	if !c.isMember(r.Name) && !slices.ContainsFunc(servers,
		func(s membership.Server) bool { return s.Name == r.Name }) {
		var names []string
		for _, s := range servers {
			names = append(names, s.Name)
		}
		return rpc.Errorf(rpc.KindNotFound, "no coordinator %s; there are %v", r.Name, names)
	}
	err := membership.MayRemove(servers, r.Name)
	switch {
	case err == nil:
		return nil
	case !r.Force || len(servers) == 1:
		return rpc.Errorf(rpc.KindConflict, "%v", err)
	case r.Mutation.GetReason() == "":
		return rpc.Errorf(rpc.KindInvalid, "--force needs a reason (-m): %v", err)
	}
	c.o.Log.Warn("a coordinator is removed against the guard of the quorum",
		"name", r.Name, "reason", r.Mutation.GetReason(), "guard", err)
	return nil
}

// isMember reports whether a coordinator of that name is in the state, removed
// or not: a removal whose answer was lost is asked for again.
func (c *Coordinator) isMember(name string) (known bool) {
	c.store.ViewCluster(func(s *state.Cluster) { _, known = s.Identities["coordinator/"+name] })
	return known
}

// DefaultDeadAfter is how long a voter may be silent before the others go on
// without it for good: a long weekend.
const DefaultDeadAfter = 72 * time.Hour

// deadCheck is how often the leader looks who answers, for removeLongDead.
const deadCheck = time.Minute

// removeLongDead removes a voter that nobody waits for any more, while this
// coordinator leads. Silence is counted from when it began to lead.
func (c *Coordinator) removeLongDead(ctx context.Context) error {
	seen := map[string]time.Time{}
	for begin := time.Now(); ; {
		backoff.Pause(ctx, deadCheck)
		if ctx.Err() != nil {
			return nil
		}
		servers, err := c.servers(ctx)
		if err != nil {
			return err
		}
		for i, s := range servers {
			if s.Alive {
				seen[s.Name] = time.Now()
			}
			last, ever := seen[s.Name]
			if !ever {
				last = begin
			}
			servers[i].Silent = time.Since(last)
		}
		name, dead := membership.LongDead(servers, cmp.Or(c.o.DeadAfter, DefaultDeadAfter))
		if !dead || membership.MayRemove(servers, name) != nil {
			continue
		}
		c.o.Log.Warn("a coordinator has been silent for too long and is removed", "name", name)
		if err := c.node.Remove(ctx, name); err != nil {
			return err
		}
		gone := deploy.Request{Actor: c.o.Name, Reason: "it has not answered for too long"}
		if err := c.log.cluster(ctx, state.CoordinatorRemoved{Request: gone, Name: name}); err != nil {
			return err
		}
	}
}
