package control

import (
	"cmp"
	"context"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/naming"
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
	if err := s.bind(ctx, r, &t); err != nil {
		return nil, err
	}
	out, err := s.o.Token(ctx, t)
	if err != nil {
		return nil, err
	}
	return &controlv1.CreateTokenResponse{
		Token: out.Secret, Id: out.ID, ExpiresMs: out.Expires.UnixMilli(), Index: s.index(), Returns: t.Host != "",
	}, nil
}

// bind says what a host is that joins with the token: a known one that comes back
// as itself, or a new one of that name. One that is here needs no token, and two
// processes must not get one identity.
func (s *Service) bind(ctx context.Context, r *controlv1.CreateTokenRequest, t *TokenSpec) error {
	if r.Host == "" && r.Zone == "" && len(r.Labels) == 0 {
		return nil
	}
	if r.Role != "" && r.Role != "agent" {
		return refuse(deploy.Invalid, "a token of role %s is for no host: it takes no host, zone or label", r.Role)
	}
	if err := naming.CheckHostWord(cmp.Or(r.Host, "any"), r.Zone, "", r.Labels); err != nil {
		return refuse(deploy.Invalid, "%v", err)
	}
	t.Binds = &deploy.Attributes{Zone: r.Zone, Labels: r.Labels}
	if r.Host == "" {
		return nil
	}
	if r.Uses > 1 {
		return refuse(deploy.Invalid, "a token that is for host %s has one use", r.Host)
	}
	var many error
	s.view(ctx, func(st seen) {
		if ids := st.Named(r.Host); len(ids) == 1 {
			t.Host = ids[0]
		} else if len(ids) > 1 {
			_, many = host(st, r.Host)
		}
	})
	if many != nil {
		return many
	}
	if t.Host == "" {
		t.Binds.Name = r.Host
		return nil
	}
	// the session of a key that was revoked just now is about to end
	if _, coordinator := s.o.Fleet.Status(t.Host); coordinator != "" && s.o.Revoked(t.Host) == "" {
		return refuse(deploy.Conflict, "host %s is connected to %s, so its identity is in use; "+
			"a new host needs another name", r.Host, coordinator)
	}
	return nil
}
