package coordinator

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/coordinator/control"
	"github.com/groundswell/groundswell/coordinator/enrol"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// createToken opens a join token; its secret is in the answer only.
func (c *Coordinator) createToken(ctx context.Context, t control.TokenSpec) (control.Token, error) {
	if t.Role == "" {
		t.Role = string(identity.Agent)
	}
	if _, err := identity.ParseRole(t.Role); err != nil {
		return control.Token{}, rpc.Errorf(rpc.KindInvalid, "%v", err)
	}
	if t.Name != "" {
		if err := identity.CheckID(t.Name); err != nil {
			return control.Token{}, rpc.Errorf(rpc.KindInvalid, "%v", err)
		}
	}
	token := identity.NewToken(c.keys.authorities().Issuer().PEM)
	err := c.log.cluster(ctx, state.TokenCreated{
		Request: t.Request, ID: token.ID, Role: t.Role, Name: t.Name, Host: t.Host,
		Binds: t.Binds, Hash: state.HashToken(token.Secret), Life: int64(t.Life), Uses: int64(t.Uses),
	})
	if err != nil {
		return control.Token{}, err
	}
	var revoked string // whoever was revoked while the token was made does not hear its secret
	c.store.ViewCluster(func(s *state.Cluster) { revoked = s.Identities["operator/"+t.Request.Actor].Revoked })
	if revoked != "" {
		return control.Token{}, rpc.Errorf(rpc.KindUnauthorised, "operator/%s was revoked by %s", t.Request.Actor, revoked)
	}
	return control.Token{ID: token.ID, Secret: token.String(), Expires: time.Now().Add(t.Life)}, nil
}

// tokenUse is a use as the log has it.
func tokenUse(u enrol.Use, id string) state.TokenUsed {
	return state.TokenUsed{
		ID: u.Token.ID, Hash: state.HashToken(u.Token.Secret), Role: string(u.Role),
		Subject: string(u.Role) + "/" + id, Key: u.Key, Says: u.Says, Instance: u.Instance,
	}
}

// subject finds whom a token or a document makes of a key, and refuses before anything is
// proposed what Apply would refuse.
func (c *Coordinator) subject(u enrol.Use) (id string, err error) {
	now := c.log.Now()
	c.store.ViewCluster(func(s *state.Cluster) {
		var subject string
		if u.Origin != "" {
			_, id, _ = strings.Cut(s.OriginSubject(u.Origin, u.Key), "/")
			return
		}
		if subject, err = s.Subject(tokenUse(u, ""), now); err != nil || subject == "" {
			return
		}
		_, id, _ = strings.Cut(subject, "/")
	})
	return id, err
}

// audited is where a call comes from, as the audit has it.
func audited(ctx context.Context) string {
	return audit.Asked{Address: rpc.From(ctx)}.Cleaned().Address
}

// spend uses a token or a document up in the log, once it is sure that it would be
// taken.
func (c *Coordinator) spend(ctx context.Context, u enrol.Use, id string) (err error) {
	if u.Origin != "" {
		e := state.OriginEnrolled{
			Origin: u.Origin, Subject: string(u.Role) + "/" + id, Key: u.Key, Binds: u.Binds, Says: u.Says,
			Instance: u.Instance, Address: audited(ctx),
		}
		c.store.ViewCluster(func(s *state.Cluster) { err = s.MayEnrol(e) })
		if err != nil {
			return err
		}
		return c.batches.cluster(ctx, e)
	}
	use, now := tokenUse(u, id), c.log.Now()
	use.Address = audited(ctx)
	c.store.ViewCluster(func(s *state.Cluster) { err = s.MayUse(use, now) })
	if err != nil {
		return err
	}
	if u.Role == identity.Agent && c.cloneEnds(id, u.Key) {
		return c.log.both(ctx, deploy.HostsReleased{Hosts: []string{id}, Cause: "it has a new key"}, use)
	}
	return c.batches.cluster(ctx, use)
}

// cloneEnds reports whether a new key ends that two machines speak as a host, which
// is quarantined for it.
func (c *Coordinator) cloneEnds(host string, key []byte) (ends bool) {
	c.store.ViewCluster(func(s *state.Cluster) {
		ends = s.Cloned(host) != nil && !s.Owner("agent/"+host, key)
	})
	c.store.View(func(s *deploy.State) { ends = ends && s.Hosts[host] != nil && s.Hosts[host].Quarantine != "" })
	return ends
}

// membersService adds to the operators' API who belongs to the cluster.
type membersService struct {
	*control.Service
	c *Coordinator
}

// ListTokens shows the open join tokens; no secret.
func (s *membersService) ListTokens(
	context.Context, *controlv1.ListTokensRequest,
) (*controlv1.ListTokensResponse, error) {
	out, now := &controlv1.ListTokensResponse{}, s.c.log.Now()
	names := s.c.hostNames()
	s.c.store.ViewCluster(func(cl *state.Cluster) {
		for _, id := range slices.Sorted(maps.Keys(cl.Tokens)) {
			t := cl.Tokens[id]
			if t.Revoked != "" || t.Ends < now {
				continue
			}
			v := &controlv1.JoinToken{
				Id: id, Role: t.Role, Name: t.Name, Actor: t.Maker, Uses: t.Uses,
				LeftMs: time.Duration(t.Ends - now).Milliseconds(), UsedBy: slices.Sorted(maps.Values(t.Used)),
			}
			if t.Host != "" {
				v.Name = names(t.Host)
			}
			if t.Binds != nil {
				v.Name, v.Zone, v.Labels = cmp.Or(v.Name, t.Binds.Name), t.Binds.Zone, t.Binds.Labels
			}
			out.Tokens = append(out.Tokens, v)
		}
	})
	return out, nil
}

// hostNames returns what people call hosts, by id.
func (c *Coordinator) hostNames() func(id string) string {
	names := map[string]string{}
	c.store.View(func(st *deploy.State) {
		for id, h := range st.Hosts {
			names[id] = h.Name
		}
	})
	return func(id string) string {
		if n := names[id]; n != "" {
			return n
		}
		return id
	}
}

// RevokeToken closes a token, named by its id or the beginning of it.
func (s *membersService) RevokeToken(
	ctx context.Context, r *controlv1.RevokeTokenRequest,
) (*controlv1.RevokeTokenResponse, error) {
	var found []string
	s.c.store.ViewCluster(func(cl *state.Cluster) { found = cl.TokensFrom(r.Id) })
	if len(found) != 1 {
		return nil, rpc.Errorf(rpc.KindNotFound, "%d tokens begin with %q; see `dctl token list`", len(found), r.Id)
	}
	err := s.c.log.cluster(ctx, state.TokenRevoked{Request: s.c.request(ctx, r.Mutation), ID: found[0]})
	return &controlv1.RevokeTokenResponse{Index: s.c.index()}, err
}
