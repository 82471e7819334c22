package coordinator

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/membership"
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
	out := &peerv1.DescribeResponse{
		Name: c.o.Name, Applied: c.node.Applied(), CertificateEndsMs: c.keys.cred.Ends().UnixMilli(),
		Version: Version(),
		Ca:      c.keys.authorities().Issuer().ID(), Behind: c.behindHere(), Build: build(),
	}
	for _, w := range c.store.Windows() {
		out.Windows = append(out.Windows, &peerv1.Window{Number: w.Number, Sum: w.Sum})
	}
	return out
}

// describeBound is how long a coordinator is asked how it is.
const describeBound = time.Second

// describeAll asks every coordinator how it is, at once. Who does not answer is
// not in the result.
func (c *Coordinator) describeAll(
	ctx context.Context, members []state.Coordinator,
) map[string]*peerv1.DescribeResponse {
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
			d, err := c.ask(ctx, m)
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
		Leader: leader, Term: c.node.Term(), Version: Version(),
		CaEndsMs: c.keys.authorities().Issuer().Ends().UnixMilli(), HistoryTrouble: c.pastTrouble(),
	}
	c.store.ViewCluster(func(s *state.Cluster) { out.ClusterId, out.Epoch, out.Held = s.ID, s.Epoch, s.Held })
	c.store.View(func(s *deploy.State) { out.Rules = int32(s.Rules) })
	doc, index := c.rules()
	out.AccessIndex, out.EverybodyAdmin = index, doc == nil || slices.Contains(doc.Admins(), access.All)
	members := map[string]state.Coordinator{}
	for _, m := range c.peers.members() {
		members[m.Name] = m
	}
	said, voters, troubles := c.describeAll(ctx, c.peers.members()), 0, c.troubles.all()
	for _, s := range servers {
		v := &controlv1.Coordinator{
			Name: s.Name, Address: members[s.Name].API, RaftAddress: s.Address, Leader: s.Name == leader,
			Voter:   s.Voter,
			Streams: int32(c.fleet.Count(s.Name)), Rules: int32(members[s.Name].Rules),
		}
		if !s.Voter {
			v.Trouble = troubles[s.Name]
		}
		delete(troubles, s.Name)
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
	for _, name := range slices.Sorted(maps.Keys(troubles)) { // newcomers that were not let in
		out.Coordinators = append(out.Coordinators, &controlv1.Coordinator{Name: name, Trouble: troubles[name]})
	}
	c.describeCAs(out, said)
	out.Quorum = int32(membership.Quorum(voters))
	return out, nil
}

// servers are the coordinators as raft has them, and whether they answer now.
func (c *Coordinator) servers(ctx context.Context) ([]membership.Server, error) {
	all, err := c.node.Servers()
	if err != nil {
		return nil, err
	}
	said := c.describeAll(ctx, c.peers.members())
	var out []membership.Server
	for _, s := range all {
		out = append(out, membership.Server{Name: s.Name, Voter: s.Voter, Alive: said[s.Name] != nil})
	}
	return out, nil
}

// noLeader says why there is none. Callers ask again and again while there is
// none, so the answer of a moment ago serves.
type noLeader struct {
	c  *Coordinator
	mu sync.Mutex
	at time.Time

	text string
}

func (n *noLeader) why() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.at) < 2*describeBound {
		return n.text
	}
	ctx, cancel := context.WithTimeout(context.Background(), describeBound)
	defer cancel()
	servers, err := n.c.servers(ctx)
	if err != nil {
		return err.Error()
	}
	n.text, n.at = membership.NoLeader(servers), time.Now()
	return n.text
}
