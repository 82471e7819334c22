package coordinator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/groundswell/groundswell/coordinator/sessions"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// How a copied disk is found out. A process of an agent that is new to the log
// is written there first; then every replica that can be reached is asked, once it
// has applied that entry, whether another process of the host lives there. From
// the entry on no replica lets the former process in that has it, and one that
// let it in before is asked after that: between the two nobody is missed. That
// nobody was found is written down too, and only then is the new process welcomed,
// and gets work: whoever cuts the connection in between is asked about again. A
// replica that does not answer in time is taken for dead: what has a session there,
// behind a partition, is found out when it comes back.
//
// A process that does not remember the one before it comes from an older disk, or
// from a copy of it whose original may just have lost its connection. That one
// has foundPatience to come back.
const (
	foundPatience = 20 * time.Second
	askBound      = 5 * time.Second // a machine has 3 s to answer, see sessions
)

// speaks returns the instance that speaks for the host, by what is applied here; ""
// if it was not cleared yet.
func (c *Coordinator) speaks(host string) string {
	if now, cleared, _ := c.instance(host); cleared {
		return now.Instance
	}
	return ""
}

func (c *Coordinator) instance(host string, of ...string) (now state.Machine, cleared, splitOff bool) {
	c.store.ViewCluster(func(s *state.Cluster) { now, cleared, splitOff = s.Instance(host, of...) })
	return now, cleared, splitOff
}

// beginInstance lets a process of a host's agent speak for it.
func (c *Coordinator) beginInstance(ctx context.Context, host string, who sessions.Instance) error {
	known := append(slices.Clone(who.Former), who.ID)
	was, cleared, splitOff := c.instance(host, known...)
	switch {
	case splitOff:
		return rpc.Errorf(rpc.KindSplit, "this machine was split off its host, and enrols as another one")
	case was.Instance == who.ID && cleared:
		return nil
	case was.Instance != "" && !slices.Contains(known, was.Instance):
		c.o.Log.Warn("a host comes with an older disk, or is a copy; its other self has time to come back",
			"host", host, "from", who.Address, "patience", foundPatience)
		select {
		case <-time.After(foundPatience):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	me := state.Machine{Instance: who.ID, Address: who.Address}
	if err := c.batches.cluster(ctx, state.InstanceBegan{Host: host, Was: was.Instance, Machine: me}); err != nil {
		return err
	}
	other, lives := c.livingElsewhere(ctx, host, who.ID)
	if !lives {
		return c.batches.cluster(ctx, state.InstanceCleared{Host: host, Instance: who.ID})
	}
	first := state.Machine{Instance: other.ID, Address: other.Address}
	c.o.Log.Error("two machines speak as one host: a copied disk; neither gets work", "host", host,
		"first", first.Address, "second", me.Address)
	name := host
	c.store.View(func(s *deploy.State) {
		if h := s.Hosts[host]; h != nil {
			name = h.Name
		}
	})
	err := c.log.both(ctx, deploy.HostsQuarantined{Hosts: []string{host}, Cause: fmt.Sprintf(
		"two machines speak as this host, from %s and %s; `dctl hosts split %s --keep ADDRESS`", first.Address, me.Address,
		name)},
		state.HostCloned{Host: host, First: first, Second: me})
	if err != nil && rpc.Kind(err) != rpc.KindConflict { // it is known, or the quarantine stands already
		return err
	}
	return c.admitHost(host)
}

// admitHost says why the host is not let in.
func (c *Coordinator) admitHost(host string) (err error) {
	c.store.ViewCluster(func(s *state.Cluster) {
		if s.Cloned(host) != nil {
			err = s.Admits("agent/"+host, nil, false)
		}
	})
	if err == nil {
		err = rpc.Errorf(rpc.KindUnavailable, "another machine spoke as this host in this moment; connect again")
	}
	return err
}

// livingElsewhere asks every replica, this one too, for another living instance.
func (c *Coordinator) livingElsewhere(ctx context.Context, host, but string) (sessions.Instance, bool) {
	index, found := c.index(), make(chan sessions.Instance, 64)
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	var g errgroup.Group
	for _, m := range c.peers.members() {
		g.Go(func() error {
			if m.Name == c.o.Name {
				if other, lives := c.sessions.Living(ctx, host, but); lives {
					found <- other
				}
				return nil
			}
			other, err := c.askLiving(ctx, m, &peerv1.LivingRequest{Host: host, Instance: but, Index: index})
			if err != nil {
				<-ctx.Done() // by then it has ended its sessions, see cutOff
			} else if other.ID != "" {
				found <- other
			}
			return nil
		})
	}
	_ = g.Wait() // none fails
	select {
	case other := <-found:
		return other, true
	default:
		return sessions.Instance{}, false
	}
}

func (c *Coordinator) askLiving(
	ctx context.Context, m state.Coordinator, r *peerv1.LivingRequest,
) (sessions.Instance, error) {
	cc, err := c.peers.dial(m.API)
	if err != nil {
		return sessions.Instance{}, err
	}
	out, err := peerv1.NewPeerServiceClient(cc).Living(ctx, r)
	return sessions.Instance{ID: out.GetInstance(), Address: out.GetAddress()}, err
}

// Living says whether another instance of a host lives at this replica.
func (s *peerService) Living(ctx context.Context, r *peerv1.LivingRequest) (*peerv1.LivingResponse, error) {
	if err := s.c.log.applied(ctx, r.Index); err != nil {
		return nil, err
	}
	other, _ := s.c.sessions.Living(ctx, r.Host, r.Instance)
	return &peerv1.LivingResponse{Instance: other.ID, Address: other.Address}, nil
}

// SplitHost lets one of two machines keep the identity that they share. The host may
// have been forgotten meanwhile: neither had a session.
func (s *membersService) SplitHost(
	ctx context.Context, r *controlv1.SplitHostRequest,
) (*controlv1.SplitHostResponse, error) {
	id, err := s.c.identityOf(r.Host)
	if err != nil {
		return nil, err
	}
	var clone *state.Clone
	again := false
	s.c.store.ViewCluster(func(cl *state.Cluster) {
		clone = cl.Cloned(id)
		is := cl.Identities["agent/"+id]
		again = r.Keep != "" && is.Address == r.Keep && len(is.Split) > 0
	})
	switch {
	case clone == nil && again: // it is split, the answer was lost
		return &controlv1.SplitHostResponse{Index: s.c.index(), Kept: r.Keep}, nil
	case clone == nil:
		return nil, rpc.Errorf(rpc.KindConflict, "no two machines speak as host %s", r.Host)
	}
	keep, other := clone.First, clone.Second
	switch r.Keep {
	case keep.Address:
	case other.Address:
		keep, other = other, keep
	default:
		return nil, rpc.Errorf(rpc.KindInvalid,
			"say which machine keeps the identity of %s, by its address: %s, which "+
				"spoke for it before the other came, or %s", r.Host, keep.Address, other.Address)
	}
	req := s.c.request(ctx, r.Mutation)
	split := state.HostSplit{Request: req, Host: id, Keep: keep.Instance}
	quarantined := false
	s.c.store.View(func(st *deploy.State) { quarantined = st.Hosts[id] != nil && st.Hosts[id].Quarantine != "" })
	if quarantined {
		err = s.c.log.both(ctx, deploy.HostsReleased{Request: req, Hosts: []string{id}, Cause: "split"}, split)
	} else {
		err = s.c.log.cluster(ctx, split)
	}
	return &controlv1.SplitHostResponse{Index: s.c.index(), Kept: keep.Address, Split: other.Address}, err
}

// splitOff gives a machine that a person has split off its host an identity.
func (c *Coordinator) splitOff(
	ctx context.Context, host string, instances []string, name string, key []byte,
) (id string, err error) {
	c.store.ViewCluster(func(s *state.Cluster) { id, err = s.SplitID(host, instances, key) })
	if err != nil || id != "" {
		return id, err
	}
	id = ulid.Make().String()
	taken := false
	c.store.View(func(s *deploy.State) { taken = s.Names[name] != "" })
	if taken { // a copy is called like its original
		name = fmt.Sprintf("%s-%s", name, strings.ToLower(id[len(id)-4:]))
	}
	return id, c.log.cluster(ctx, state.SplitEnrolled{
		Host: host, Instances: instances, ID: id, Name: name, Key: key, Address: audited(ctx),
	})
}
