package coordinator

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// counts says why a certificate that the CA signed counts no more.
func (c *Coordinator) counts(p identity.Peer, key []byte) (err error) {
	c.store.ViewCluster(func(s *state.Cluster) { err = s.Admits(string(p.Role)+"/"+p.ID, key, p.BreakGlass) })
	if err != nil {
		return rpc.Errorf(rpc.KindUnauthorised, "%v", err)
	}
	return nil
}

// admit decides who is let in. A coordinator must be known: what its service
// gives away is the whole cluster.
func (c *Coordinator) admit(p identity.Peer, key []byte) error {
	if err := c.counts(p, key); err != nil {
		return err
	}
	if p.Role == identity.Coordinator {
		known, created := false, false
		c.store.ViewCluster(func(s *state.Cluster) {
			known, created = s.Owner("coordinator/"+p.ID, key), s.ID != ""
		})
		switch {
		case !created: // a replica that has not read its log yet
			return rpc.Errorf(rpc.KindUnavailable,
				"this coordinator does not know the cluster's members yet; try again")
		case !known:
			return rpc.Errorf(rpc.KindUnavailable, "%s is no coordinator of this cluster that this one knows", p.ID)
		}
	}
	if p.BreakGlass {
		c.noteBreakGlass(p, key)
	}
	return nil
}

// noteBreakGlass has the first use of a credential recorded. It does not wait:
// such a credential must work without a leader. What is not recorded now will
// be at its next use.
func (c *Coordinator) noteBreakGlass(p identity.Peer, key []byte) {
	use := state.BreakGlassUsed{Name: p.ID, Key: key, Coordinator: c.o.Name}
	known := false
	c.store.ViewCluster(func(s *state.Cluster) { known = s.BreakGlassKnown(key) })
	if known {
		return
	}
	select {
	case c.glass <- use:
	default:
	}
}

// recordBreakGlass puts first uses into the log, until ctx ends.
func (c *Coordinator) recordBreakGlass(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case use := <-c.glass:
			known := false
			c.store.ViewCluster(func(s *state.Cluster) { known = s.BreakGlassKnown(use.Key) })
			if known {
				continue
			}
			c.o.Log.Warn("a break-glass credential is used", "name", use.Name)
			short, cancel := context.WithTimeout(ctx, readBound)
			err := c.log.cluster(short, use)
			cancel()
			if err != nil && ctx.Err() == nil {
				c.o.Log.Warn("the use of a break-glass credential is not recorded yet", "name", use.Name, "error", err)
			}
		}
	}
}

// recheck ends streams of those who are admitted no more, or may no more what they
// were let see, as soon as this replica knows, until ctx ends.
func (c *Coordinator) recheck(ctx context.Context) error {
	var last, lastAccess uint64
	for {
		changed := c.store.Changed()
		var now, access uint64
		c.store.ViewCluster(func(s *state.Cluster) { now, access = s.Ended, s.AccessIndex() })
		if now != last || access != lastAccess {
			c.server.Recheck()
		}
		if access != lastAccess {
			c.fleet.Reselect()
		}
		if now != last {
			c.raft.drop() // who is in no more does not come back
		}
		last, lastAccess = now, access
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// person says who the caller counts as where two people are asked for.
func (c *Coordinator) person(ctx context.Context) (name string, counts bool) {
	p, _ := rpc.Caller(ctx)
	if p.BreakGlass {
		return state.BreakGlassPerson, false
	}
	c.store.ViewCluster(func(s *state.Cluster) { name = s.Person(p.ID) })
	return name, true
}

// request turns a mutation into the log's form.
func (c *Coordinator) request(ctx context.Context, m *controlv1.Mutation) deploy.Request {
	p, _ := rpc.Caller(ctx)
	person, _ := c.person(ctx)
	return deploy.Request{ID: m.GetRequestId(), Actor: p.ID, Reason: m.GetReason(), Person: person}
}

// index returns the index of the last entry applied here.
func (c *Coordinator) index() (i uint64) {
	c.store.View(func(st *deploy.State) { i = st.Index })
	return i
}

// founders are the identities that bootstrap made.
func (c *Coordinator) founders() ([]state.Founder, error) {
	out := []state.Founder{{Identity: "coordinator/" + c.o.Name, Key: c.keys.cred.Fingerprint()}}
	operator, err := identity.Load(c.addr.Operator)
	if err != nil {
		return nil, err
	}
	return append(out, state.Founder{Identity: "operator/" + firstOperator, Key: operator.Fingerprint()}), nil
}

// ListPeople shows the operators, and the break-glass credentials that were
// used.
func (s *membersService) ListPeople(
	ctx context.Context, _ *controlv1.ListPeopleRequest,
) (*controlv1.ListPeopleResponse, error) {
	out := &controlv1.ListPeopleResponse{}
	self, _ := rpc.Caller(ctx)
	all := s.c.sight(ctx).SeesFleet()
	s.c.store.ViewCluster(func(cl *state.Cluster) {
		for _, key := range slices.Sorted(maps.Keys(cl.Identities)) {
			name, ok := strings.CutPrefix(key, "operator/")
			if !ok || !all && name != self.ID {
				continue
			}
			id := cl.Identities[key]
			out.People = append(out.People, &controlv1.Person{
				Name: name, MadeBy: id.Maker, ConfirmedBy: id.Confirmed, CountsAs: cl.Person(name),
				RevokedBy: id.Revoked, SinceMs: id.Wall,
			})
		}
		for _, key := range slices.Sorted(maps.Keys(cl.BreakGlass)) {
			if !all {
				break
			}
			use := cl.BreakGlass[key]
			out.People = append(out.People, &controlv1.Person{
				Name: use.Name, BreakGlass: true, UsedAt: use.Coordinator, RevokedBy: use.Revoked, SinceMs: use.Wall,
			})
		}
	})
	return out, nil
}

// ConfirmPerson vouches for an operator.
func (s *membersService) ConfirmPerson(
	ctx context.Context, r *controlv1.ConfirmPersonRequest,
) (*controlv1.ConfirmPersonResponse, error) {
	err := s.c.log.cluster(ctx, state.PersonConfirmed{Request: s.c.request(ctx, r.Mutation), Name: r.Name})
	return &controlv1.ConfirmPersonResponse{Index: s.c.index()}, err
}

// RevokeIdentity ends every certificate of a person or of a host, for good.
func (s *membersService) RevokeIdentity(
	ctx context.Context, r *controlv1.RevokeIdentityRequest,
) (*controlv1.RevokeIdentityResponse, error) {
	id := r.Name
	switch role, err := identity.ParseRole(r.Role); {
	case err != nil:
		return nil, rpc.Errorf(rpc.KindInvalid, "%v", err)
	case r.Unknown:
		if err := identity.CheckID(r.Name); err != nil {
			return nil, rpc.Errorf(rpc.KindInvalid, "%v", err)
		}
	case role == identity.Agent:
		if id, err = s.c.identityOf(r.Name); err != nil {
			return nil, err
		}
	case role == identity.Operator && !s.c.hasPerson(r.Name):
		return nil, rpc.Errorf(rpc.KindNotFound,
			"no operator %s; see `dctl access list`. One of whom a restored backup "+
				"does not know is revoked with --unknown", r.Name)
	}
	full := r.Role + "/" + id
	out, request := &controlv1.RevokeIdentityResponse{Identity: full}, s.c.request(ctx, r.Mutation)
	err := s.c.revokeWithTokens(ctx, state.IdentityRevoked{Request: request, Identity: full}, out)
	out.Index = s.c.index()
	s.c.store.View(func(st *deploy.State) { out.Counts = r.Role == string(identity.Agent) && st.Hosts[id] != nil })
	return out, err
}

// revokeWithTokens ends an identity, and what a person could come back by: the open
// tokens that it made are closed in the same entry, and those that came to the log
// before that entry once it is there. One that comes after it is never told to
// anybody, see createToken.
func (c *Coordinator) revokeWithTokens(
	ctx context.Context, e state.IdentityRevoked, out *controlv1.RevokeIdentityResponse,
) error {
	var refused error // before its tokens are closed in the same entry
	c.store.ViewCluster(func(s *state.Cluster) { refused = s.MayRevoke(e.Identity) })
	if refused != nil {
		return refused
	}
	facts := []state.ClusterEvent{e}
	for {
		var open []string
		c.store.ViewCluster(func(s *state.Cluster) { open, out.Made = s.MadeBy(e.Identity) })
		for _, id := range open {
			facts = append(facts, state.TokenRevoked{Request: e.Request, ID: id})
		}
		if len(facts) == 0 {
			return nil
		}
		refusals, err := c.log.propose(ctx, state.Entry{Cluster: facts})
		if err != nil {
			return err
		}
		if _, first := facts[0].(state.IdentityRevoked); first && refusals[0] != nil {
			return refusals[0]
		}
		out.Tokens, facts = out.Tokens+int32(len(open)), nil
	}
}

// identityOf resolves the name or id of a host that has an identity, whether it is
// among the hosts still or was forgotten.
func (c *Coordinator) identityOf(name string) (string, error) {
	id, err := c.hostID(name)
	if rpc.Kind(err) != rpc.KindNotFound {
		return id, err
	}
	var gone []string
	c.store.ViewCluster(func(cl *state.Cluster) { gone = cl.HostsNamed(name) })
	switch len(gone) {
	case 1:
		return gone[0], nil
	case 0:
		return "", rpc.Errorf(rpc.KindNotFound, "no host %s, and none that was forgotten; one of which a restored "+
			"backup does not know is revoked by its id with --unknown", name)
	}
	return "", rpc.Errorf(rpc.KindInvalid, "%d hosts that were forgotten were called %s; say which by its id: %s",
		len(gone), name, strings.Join(gone, ", "))
}

func (c *Coordinator) hasPerson(name string) (known bool) {
	c.store.ViewCluster(func(cl *state.Cluster) {
		_, known = cl.Identities["operator/"+name]
		for _, use := range cl.BreakGlass {
			known = known || use.Name == name
		}
	})
	return known
}

// hostID resolves what a person calls a host: its id, or the name of one.
func (c *Coordinator) hostID(name string) (string, error) {
	var found []string
	c.store.View(func(st *deploy.State) { found = st.Named(name) })
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", rpc.Errorf(rpc.KindNotFound, "no host %s; see `dctl hosts`", name)
	}
	return "", rpc.Errorf(rpc.KindInvalid, "%d hosts are called %s; say which by its id: %s",
		len(found), name, strings.Join(found, ", "))
}
