package coordinator

import (
	"context"

	"github.com/oklog/ulid/v2"

	"github.com/groundswell/groundswell/coordinator/enrol"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
)

func newClusterID() string { return ulid.Make().String() }

func (c *Coordinator) newEnrol() *enrol.Service {
	return enrol.New(enrol.Options{
		Authorities: c.keys.authorities, GossipKey: c.keys.ringKeys,
		Caller: func(ctx context.Context) (identity.Peer, []byte, bool) {
			p, ok := rpc.Caller(ctx)
			return p, rpc.CallerKey(ctx), ok
		},
		ClusterID: func() (id string) {
			c.store.ViewCluster(func(s *state.Cluster) { id = s.ID })
			return id
		},
		Subject: c.subject, Spend: c.spend,
		Owner: func(role identity.Role, id string, key []byte) (owns bool) {
			c.store.ViewCluster(func(s *state.Cluster) { owns = s.Owner(string(role)+"/"+id, key) })
			return owns
		},
		Index:        c.index,
		SplitOff:     c.splitOff,
		Seeds:        func() []string { return c.each(func(m state.Coordinator) string { return m.Gossip }) },
		Coordinators: func() []string { return c.each(func(m state.Coordinator) string { return m.Agent }) },
	})
}

// each collects one address of every coordinator.
func (c *Coordinator) each(f func(state.Coordinator) string) []string {
	var out []string
	for _, m := range c.peers.members() {
		if a := f(m); a != "" {
			out = append(out, a)
		}
	}
	return out
}
