// Package enrol issues identities: join tokens in, certificates out.
package enrol

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/naming"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// Use is one use of a token, or of a third party's word: what for, and for whose
// key.
type Use struct {
	Token    identity.Token
	Origin   string             // of a machine that a third party vouches for; then there is no token
	Binds    *deploy.Attributes // what that third party says of it
	Role     identity.Role
	Key      []byte             // fingerprint
	Says     *deploy.Attributes // of a host, about itself
	Instance string             // of its agent
}

// Options of New. All functions may be called concurrently.
type Options struct {
	Authorities func() *identity.Authorities
	ClusterID   func() string
	GossipKey   func() []byte // all that are taken, the one that is used first
	// Subject says whom a use makes of the key: the id that is settled by the
	// token, or by a former answer that was lost; "" where the joiner is a new one
	// of its role. It refuses a use that cannot be, and changes nothing.
	Subject func(Use) (id string, err error)
	// Vouched asks the third party that signed a document whose machine that is. It
	// refuses one that lets nobody in.
	// Labels of what it says are nil where it says nothing of them.
	Vouched func(ctx context.Context, document, key []byte) (origin string, binds *deploy.Attributes, err error)
	// Owner reports whether an identity belongs to the key already.
	Owner func(role identity.Role, id string, key []byte) bool
	// Spend uses the token up in the log and gives the identity to the key, both
	// once however often it is asked; or refuses.
	Spend func(ctx context.Context, u Use, id string) error
	// SplitOff gives the key an identity of its own in the log, once however often
	// it is asked, if a person has split the machine off the host; or refuses.
	SplitOff func(ctx context.Context, host string, instances []string, name string, key []byte) (id string, err error)
	// Seeds and Coordinators are told to the newcomer.
	Seeds func() []string
	// Index is of the last entry applied here.
	Index        func() uint64
	Coordinators func() []string
	// Caller is who renews, and by which key.
	Caller func(context.Context) (who identity.Peer, key []byte, ok bool)
}

// Service implements enrolment, the one service without a client certificate.
type Service struct {
	agentv1.UnimplementedEnrolmentServiceServer
	o Options
}

// New returns the service.
func New(o Options) *Service { return &Service{o: o} }

// Roots returns the CA certificates, which the joiner compares with its token.
func (s *Service) Roots(context.Context, *agentv1.RootsRequest) (*agentv1.RootsResponse, error) {
	return &agentv1.RootsResponse{CaPem: s.o.Authorities().PEM()}, nil
}

// Enrol spends a token, or takes a document, and issues a certificate. The identity is in the log
// before the certificate leaves. Asked again with the same token and key, it
// answers the same identity and spends nothing: an answer may be lost.
func (s *Service) Enrol(ctx context.Context, r *agentv1.EnrolRequest) (*agentv1.EnrolResponse, error) {
	u, err := use(r)
	if err != nil {
		return nil, invalid{err}
	}
	if len(r.Document) > 0 {
		if u.Origin, u.Binds, err = s.o.Vouched(ctx, r.Document, u.Key); err != nil {
			return nil, err
		}
		if u.Binds.Labels != nil { // none are none, whatever the host says
			u.Says.Labels = u.Binds.Labels
		}
	}
	id, err := s.o.Subject(u)
	if err != nil {
		return nil, err
	}
	if id == "" {
		id = s.newcomer(u, r)
	}
	cert, err := s.o.Authorities().Issue(r.CsrDer, u.Role, id)
	if err != nil {
		return nil, invalid{err}
	}
	if err := s.o.Spend(ctx, u, id); err != nil {
		return nil, err
	}
	return s.answer(u.Role, id, cert), nil
}

func use(r *agentv1.EnrolRequest) (u Use, err error) {
	switch {
	case len(r.Document) == 0:
		if u.Token, err = identity.ParseToken(r.Token); err != nil {
			return u, err
		}
	case r.Token != "":
		return u, errors.New("a joiner shows a token or an identity document, not both")
	case r.Role != string(identity.Agent):
		return u, fmt.Errorf("an identity document makes hosts; for the role %s use a join token", r.Role)
	}
	if u.Role, err = identity.ParseRole(r.Role); err != nil {
		return u, fmt.Errorf("what the joiner wants to be: %w", err)
	}
	if u.Role == identity.Agent {
		if err = naming.CheckHostWord(r.Name, r.Zone, r.Region, r.Labels); err != nil {
			return u, fmt.Errorf("what the host says of itself: %w", err)
		}
		if err = naming.Check("instance", r.Instance); err != nil {
			return u, err
		}
		u.Instance = r.Instance
		u.Says = &deploy.Attributes{Name: r.Name, Zone: r.Zone, Region: r.Region, Labels: r.Labels}
	}
	u.Key, err = identity.RequestFingerprint(r.CsrDer)
	return u, err
}

// newcomer names one whom the token does not name. A host is never named by
// itself, it could name another; but one that still has the key of its former
// identity, whose certificate ended while it was switched off, gets that back.
func (s *Service) newcomer(u Use, r *agentv1.EnrolRequest) string {
	switch {
	case u.Role == identity.Coordinator:
		return r.Name
	case r.HostId != "" && s.o.Owner(u.Role, r.HostId, u.Key):
		return r.HostId
	}
	return ulid.Make().String()
}

// Split gives a machine that shares its identity with another one of its own, for
// a key of its own. The log knows it before the certificate leaves.
func (s *Service) Split(ctx context.Context, r *agentv1.SplitRequest) (*agentv1.EnrolResponse, error) {
	p, _, ok := s.o.Caller(ctx)
	if !ok {
		return nil, invalid{errors.New("only a host with a certificate can be split off")}
	}
	if err := naming.CheckHost(r.Name); err != nil {
		return nil, invalid{err}
	}
	key, err := identity.RequestFingerprint(r.CsrDer)
	if err != nil {
		return nil, invalid{err}
	}
	id, err := s.o.SplitOff(ctx, p.ID, r.Instances, r.Name, key)
	if err != nil {
		return nil, err
	}
	cert, err := s.o.Authorities().Issue(r.CsrDer, identity.Agent, id)
	if err != nil {
		return nil, invalid{err}
	}
	return s.answer(identity.Agent, id, cert), nil
}

// Renew issues a new certificate for the identity that calls, and for the key
// that it has shown: a stolen certificate makes no second key.
func (s *Service) Renew(ctx context.Context, r *agentv1.RenewRequest) (*agentv1.EnrolResponse, error) {
	p, key, ok := s.o.Caller(ctx)
	if !ok {
		return nil, invalid{errors.New("only a client with a certificate can renew it")}
	}
	if p.BreakGlass {
		return nil, invalid{errors.New(
			"a break-glass credential is not renewed; make another on a coordinator's machine")}
	}
	asked, err := identity.RequestFingerprint(r.CsrDer)
	if err != nil {
		return nil, invalid{err}
	}
	if !bytes.Equal(asked, key) {
		return nil, invalid{errors.New(
			"a renewal is for the key that the caller has; for another key enrol with a token")}
	}
	cert, err := s.o.Authorities().Issue(r.CsrDer, p.Role, p.ID)
	if err != nil {
		return nil, invalid{err}
	}
	return s.answer(p.Role, p.ID, cert), nil
}

// answer tells an agent or a coordinator the ring's key, an operator not.
func (s *Service) answer(role identity.Role, id string, cert []byte) *agentv1.EnrolResponse {
	out := &agentv1.EnrolResponse{
		HostId: id, CertificatePem: cert, CaPem: s.o.Authorities().PEM(), Coordinators: s.o.Coordinators(),
		ClusterId: s.o.ClusterID(), Index: s.o.Index(),
	}
	if role != identity.Operator {
		out.GossipKey, out.GossipSeeds = s.o.GossipKey(), s.o.Seeds()
	}
	return out
}

// invalid marks an error of the request.
type invalid struct{ error }

func (invalid) Kind() string { return "invalid" }
