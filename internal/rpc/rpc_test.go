package rpc

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/groundswell/groundswell/internal/identity"
)

func TestKindsSurviveTheWire(t *testing.T) {
	for _, kind := range []string{
		KindNotFound, KindInvalid, KindConflict, KindExists, KindUnavailable, KindUnauthorised, KindForbidden,
		KindTimeout, KindTooMany, KindInternal,
	} {
		err := toStatus(fmt.Errorf("while asking: %w", Errorf(kind, "no %s", "luck")))
		if Kind(err) != kind || Text(err) != "while asking: no luck" {
			t.Errorf("%s came back as %s: %s", kind, Kind(err), Text(err))
		}
	}
	if Kind(toStatus(errors.New("plain"))) != KindInternal {
		t.Error("an error without a kind is internal")
	}
	if !Canceled(toStatus(context.Canceled)) || toStatus(nil) != nil {
		t.Error("cancelled and nil")
	}
}

func unary(s *server, ctx context.Context, method string, h grpc.UnaryHandler) error {
	_, err := s.unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, h)
	return err
}

func TestDeniedByDefault(t *testing.T) {
	s := &server{meters: newMeters(nil), o: ServerOptions{Table: Table{
		"/open":   {Anonymous: true},
		"/closed": {Roles: []identity.Role{identity.Operator}},
	}}}
	never := func(context.Context, any) (any, error) { t.Error("a denied call was made"); return nil, nil }
	if err := unary(s, t.Context(), "/unknown", never); Kind(err) != KindForbidden {
		t.Errorf("a method without a row: %v", err)
	}
	if err := unary(s, t.Context(), "/closed", never); Kind(err) != KindUnauthorised {
		t.Errorf("a call without a certificate: %v", err)
	}
	// Metadata alone makes nobody a coordinator's caller.
	forged := metadata.NewIncomingContext(t.Context(), metadata.Pairs(callerRole, "operator", callerID, "mallory"))
	if err := unary(s, forged, "/closed", never); Kind(err) != KindUnauthorised {
		t.Errorf("a forged caller: %v", err)
	}
	made := false
	if err := unary(s, forged, "/open", func(ctx context.Context, _ any) (any, error) {
		if p, ok := Caller(ctx); ok {
			t.Errorf("an anonymous caller is %v", p)
		}
		made = true
		return nil, nil
	}); err != nil || !made {
		t.Errorf("an open method: %v", err)
	}
}

func TestAPanicEndsItsCall(t *testing.T) {
	told := ""
	s := &server{meters: newMeters(nil), o: ServerOptions{
		Table:    Table{"/open": {Anonymous: true}},
		Panicked: func(method string, _ any, stack []byte) { told = fmt.Sprint(method, len(stack) > 0) },
	}}
	err := unary(s, t.Context(), "/open", func(context.Context, any) (any, error) { panic("oops") })
	if Kind(err) != KindInternal || told != "/opentrue" {
		t.Errorf("%v, told %q", err, told)
	}
}

func TestFollowersForward(t *testing.T) {
	s := &server{meters: newMeters(nil), o: ServerOptions{
		Table: Table{"/lead": {Anonymous: true, Leader: true}}, IsLeader: func() bool { return false },
		Forward: func(_ context.Context, method string, _ any) (any, error) { return method, nil },
	}}
	out, err := s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/lead"},
		func(context.Context, any) (any, error) {
			t.Error("a follower answered itself")
			return nil, nil
		})
	if err != nil || out != "/lead" {
		t.Errorf("%v, %v", out, err)
	}
}

func TestReplyTypes(t *testing.T) {
	for _, m := range []string{"", "/", "/no.such.Service/Method", "no slash"} {
		if _, err := reply(m); err == nil {
			t.Errorf("method %q has a reply", m)
		}
	}
}
