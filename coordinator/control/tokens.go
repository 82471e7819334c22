package control

import (
	"context"
	"time"

	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Bounds of join tokens.
const (
	longestToken = 7 * 24 * time.Hour
	mostUses     = 10000
)

// CreateToken opens a join token. The secret is in the answer only.
func (s *Service) CreateToken(
	ctx context.Context, r *controlv1.CreateTokenRequest,
) (*controlv1.CreateTokenResponse, error) {
	t := TokenSpec{
		Request: s.request(ctx, r.Mutation), Role: r.Role, Life: time.Hour, Uses: max(1, int(r.Uses)), Name: r.Name,
	}
	if r.TtlMs != 0 {
		t.Life = time.Duration(r.TtlMs) * time.Millisecond
	}
	if r.TtlMs < 0 || r.TtlMs > longestToken.Milliseconds() {
		return nil, refuse(deploy.Invalid, "a token lives at most 7 days, not %d ms", r.TtlMs)
	}
	if r.Uses < 0 || r.Uses > mostUses {
		return nil, refuse(deploy.Invalid, "a token has 1 to 10,000 uses, not %d", r.Uses)
	}
	if (r.Role == "operator") != (r.Name != "") {
		return nil, refuse(deploy.Invalid,
			"a token of role operator names the person that it is for, and no other does; "+
				"use --role operator --name NAME")
	}
	if r.Role == "operator" && r.Uses > 1 {
		return nil, refuse(deploy.Invalid, "a token of an operator has one use: it makes one person's credential")
	}
	var err error
	if t.Host, err = s.returning(r); err != nil {
		return nil, err
	}
	out, err := s.o.Token(ctx, t)
	if err != nil {
		return nil, err
	}
	return &controlv1.CreateTokenResponse{
		Token: out.Secret, Id: out.ID, ExpiresMs: out.Expires.UnixMilli(), Index: s.index(),
	}, nil
}

// returning finds the known host that a token brings back. One that is here
// needs none, and two processes must not get one identity.
func (s *Service) returning(r *controlv1.CreateTokenRequest) (id string, err error) {
	if r.Host == "" {
		return "", nil
	}
	if r.Role != "" && r.Role != "agent" || r.Uses > 1 {
		return "", refuse(deploy.Invalid, "a token that brings host %s back is of role agent and has one use", r.Host)
	}
	s.o.State.View(func(st *deploy.State) {
		var h *deploy.Host
		if h, err = host(st, r.Host); err == nil {
			id = h.ID
		}
	})
	if err != nil {
		return "", err
	}
	if _, coordinator := s.o.Fleet.Status(id); coordinator != "" {
		return "", refuse(deploy.Conflict, "host %s is connected to %s, so its identity is in use; "+
			"a new host needs a token without --host", r.Host, coordinator)
	}
	return id, nil
}
