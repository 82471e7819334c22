// Package enrol issues identities: join tokens in, certificates out.
package enrol

import (
	"context"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// Options of New. All functions may be called concurrently.
type Options struct {
	CA        *identity.CA
	ClusterID func() string
	GossipKey []byte
	// Role says what an open token is for, and the name of the operator that it
	// makes; an unknown one is an error.
	Role func(tokenID string) (role identity.Role, name string, err error)
	// Spend uses the token up, once, in the log; or refuses.
	Spend func(ctx context.Context, t identity.Token, role identity.Role, subject string) error
	// Seeds and Coordinators are told to the newcomer.
	Seeds        func() []string
	Coordinators func() []string
	// Caller is who renews.
	Caller func(context.Context) (identity.Peer, bool)
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
	return &agentv1.RootsResponse{CaPem: s.o.CA.PEM}, nil
}

// Enrol spends a token and issues a certificate for a new identity. The token
// is spent before the certificate leaves: a lost answer costs a token, never
// gives two identities.
func (s *Service) Enrol(ctx context.Context, r *agentv1.EnrolRequest) (*agentv1.EnrolResponse, error) {
	t, err := identity.ParseToken(r.Token)
	if err != nil {
		return nil, invalid{err}
	}
	role, name, err := s.o.Role(t.ID)
	if err != nil {
		return nil, err
	}
	id := r.Name
	switch role { // never the joiner's choice: it could name another host, or person
	case identity.Agent:
		id = ulid.Make().String()
	case identity.Operator:
		id = name
	case identity.Coordinator:
	}
	cert, err := s.o.CA.Issue(r.CsrDer, role, id)
	if err != nil {
		return nil, invalid{err}
	}
	if err := s.o.Spend(ctx, t, role, string(role)+"/"+id); err != nil {
		return nil, err
	}
	return s.answer(role, id, cert), nil
}

// Renew issues a new certificate for the identity that calls.
func (s *Service) Renew(ctx context.Context, r *agentv1.RenewRequest) (*agentv1.EnrolResponse, error) {
	p, ok := s.o.Caller(ctx)
	if !ok {
		return nil, invalid{fmt.Errorf("only a client with a certificate can renew it")}
	}
	cert, err := s.o.CA.Issue(r.CsrDer, p.Role, p.ID)
	if err != nil {
		return nil, invalid{err}
	}
	return s.answer(p.Role, p.ID, cert), nil
}

// answer tells an agent or a coordinator the ring's key, an operator not.
func (s *Service) answer(role identity.Role, id string, cert []byte) *agentv1.EnrolResponse {
	out := &agentv1.EnrolResponse{
		HostId: id, CertificatePem: cert, CaPem: s.o.CA.PEM, Coordinators: s.o.Coordinators(), ClusterId: s.o.ClusterID(),
	}
	if role != identity.Operator {
		out.GossipKey, out.GossipSeeds = s.o.GossipKey, s.o.Seeds()
	}
	return out
}

// invalid marks an error of the request.
type invalid struct{ error }

func (invalid) Kind() string { return "invalid" }
