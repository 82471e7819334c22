package coordinator

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/groundswell/groundswell/coordinator/ec2"
	"github.com/groundswell/groundswell/coordinator/enrol"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/naming"
	"github.com/groundswell/groundswell/internal/rpc"
)

func newClusterID() string { return ulid.Make().String() }

func (c *Coordinator) newEnrol() (*enrol.Service, error) {
	aws, err := ec2.New(c.o.EC2)
	if err != nil {
		return nil, err
	}
	if c.o.EC2.On() {
		c.o.Log.Warn("instances of EC2 may join by their identity documents; that was tried with documents of our own, "+
			"nobody has tried it at AWS yet", "accounts", c.o.EC2.Accounts)
	}
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
		Vouched: func(ctx context.Context, document, key []byte) (string, *deploy.Attributes, error) {
			return c.vouched(ctx, aws, document, key)
		},
		Owner: func(role identity.Role, id string, key []byte) (owns bool) {
			c.store.ViewCluster(func(s *state.Cluster) { owns = s.Owner(string(role)+"/"+id, key) })
			return owns
		},
		Index:        c.index,
		SplitOff:     c.splitOff,
		Seeds:        func() []string { return c.each(func(m state.Coordinator) string { return m.Gossip }) },
		Coordinators: func() []string { return c.each(func(m state.Coordinator) string { return m.Agent }) },
	}), nil
}

// vouched asks AWS whose machine shows a document, and what it is: its zone and
// region, and its tags where the coordinators read them.
func (c *Coordinator) vouched(
	ctx context.Context, aws *ec2.Verifier, document, key []byte,
) (string, *deploy.Attributes, error) {
	i, err := aws.Verify(document, time.Now())
	if err != nil {
		return "", nil, err
	}
	var was string // whoever enrolled already is told so before AWS is asked anything
	c.store.ViewCluster(func(s *state.Cluster) {
		if was = s.OriginSubject(i.Origin(), key); was == "" {
			err = s.MayEnrol(state.OriginEnrolled{Origin: i.Origin(), Subject: "agent/" + newClusterID(), Key: key})
		}
	})
	if err != nil {
		return "", nil, err
	}
	is := &deploy.Attributes{Zone: i.Zone, Region: i.Region}
	if aws.ReadsTags() && was == "" {
		if is.Labels, err = aws.Tags(ctx, i); err != nil {
			return "", nil, err
		}
		if err := naming.CheckLabels(is.Labels); err != nil {
			return "", nil, rpc.Errorf(rpc.KindInvalid, "the tags of %s cannot be labels: %v", i.ID, err)
		}
	}
	return i.Origin(), is, nil
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
