package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// Describe says how this coordinator is.
func (s *peerService) Describe(context.Context, *peerv1.DescribeRequest) (*peerv1.DescribeResponse, error) {
	return s.c.describe(), nil
}

func (c *Coordinator) describe() *peerv1.DescribeResponse {
	return &peerv1.DescribeResponse{
		Name: c.o.Name, Applied: c.node.Applied(), CertificateEndsMs: c.keys.cred.Ends().UnixMilli(), Version: Version(),
	}
}

// describeBound is how long a coordinator is asked how it is.
const describeBound = time.Second

// describeAll asks every coordinator how it is, at once. Who does not answer is
// not in the result.
func (c *Coordinator) describeAll(ctx context.Context, members []state.Coordinator) map[string]*peerv1.DescribeResponse {
	ctx, cancel := context.WithTimeout(ctx, describeBound)
	defer cancel()
	out := map[string]*peerv1.DescribeResponse{c.o.Name: c.describe()}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range members {
		if m.Name == c.o.Name {
			continue
		}
		wg.Go(func() {
			cc, err := c.peers.dial(m.API)
			if err != nil {
				return
			}
			d, err := peerv1.NewPeerServiceClient(cc).Describe(ctx, &peerv1.DescribeRequest{})
			if err != nil || d.Name != m.Name {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[m.Name] = d
		})
	}
	wg.Wait()
	return out
}

// clusterStatus describes the coordinators as the leader knows them.
func (c *Coordinator) clusterStatus(ctx context.Context) (*controlv1.ClusterStatusResponse, error) {
	servers, err := c.node.Servers()
	if err != nil {
		return nil, err
	}
	leader, _ := c.node.Leader()
	out := &controlv1.ClusterStatusResponse{
		Leader: leader, Term: c.node.Term(), Version: Version(), CaEndsMs: c.keys.ca.Ends().UnixMilli(),
	}
	c.store.ViewCluster(func(s *state.Cluster) { out.ClusterId = s.ID })
	c.store.View(func(s *deploy.State) { out.Rules = int32(s.Rules) })
	members := map[string]state.Coordinator{}
	for _, m := range c.peers.members() {
		members[m.Name] = m
	}
	said, voters := c.describeAll(ctx, c.peers.members()), 0
	for _, s := range servers {
		v := &controlv1.Coordinator{
			Name: s.Name, Address: members[s.Name].API, RaftAddress: s.Address, Leader: s.Name == leader, Voter: s.Voter,
			Streams: int32(c.fleet.Count(s.Name)), Rules: int32(members[s.Name].Rules),
		}
		d := said[s.Name]
		if v.Alive = d != nil; v.Alive {
			v.Applied, v.CertificateEndsMs, v.Version = d.Applied, d.CertificateEndsMs, d.Version
		}
		if s.Voter {
			voters++
			if d == nil {
				out.Missing = append(out.Missing, s.Name)
			}
		}
		out.Coordinators = append(out.Coordinators, v)
	}
	out.Quorum = int32(voters/2 + 1)
	return out, nil
}
