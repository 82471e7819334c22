package rpc

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/identity"
)

// TestMayIsAskedAgain: a handler that could not do what was allowed is called with what
// is allowed now, and what is refused then is the answer.
func TestMayIsAskedAgain(t *testing.T) {
	type key struct{}
	asked, done := 0, 0
	s := &server{meters: newMeters(nil), o: ServerOptions{
		Table: Table{"/do": {Anonymous: true}},
		May: func(ctx context.Context, method string, _ any) (Allowed, error) {
			if asked++; asked == 3 {
				return Allowed{}, Errorf(KindForbidden, "not %s any more", method)
			}
			return Allowed{Context: context.WithValue(ctx, key{}, asked)}, nil
		},
	}}
	handler := func(ctx context.Context, _ any) (any, error) {
		if done++; ctx.Value(key{}) != done {
			t.Errorf("call %d is allowed by %v", done, ctx.Value(key{}))
		}
		return nil, errors.Join(nil, Errorf(KindStaleRights, "another document"))
	}
	if err := unary(s, t.Context(), "/do", handler); Kind(err) != KindForbidden || asked != 3 || done != 2 {
		t.Errorf("%v, asked %d times, called %d times", err, asked, done)
	}
	asked, done = 3, 3
	if err := unary(s, t.Context(), "/do", handler); Kind(err) != KindUnavailable || asked != 3+mostTries {
		t.Errorf("rights that never rest: %v after %d tries", err, asked-3)
	}
	asked = 2
	if err := unary(s, t.Context(), "/do", func(context.Context, any) (any, error) {
		t.Error("a forbidden call was made")
		return nil, nil
	}); Kind(err) != KindForbidden {
		t.Error(err)
	}
}

// fakeStream is a server's end that receives empty messages.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (f fakeStream) Context() context.Context { return f.ctx }
func (f fakeStream) RecvMsg(any) error        { return nil }

// TestAStreamEndsWithTheRight: at its first message, at a change that came in between,
// and while it lasts.
func TestAStreamEndsWithTheRight(t *testing.T) {
	var first, still error
	ctx := context.WithValue(t.Context(), callerKey{}, caller{Peer: identity.Peer{Role: identity.Operator, ID: "ann"}})
	s := &server{meters: newMeters(nil), live: map[*authorised]bool{}, o: ServerOptions{
		Table: Table{"/watch": {Anonymous: true}},
		May: func(context.Context, string, any) (Allowed, error) {
			return Allowed{Still: func() error { return still }}, first
		},
	}}
	run := func(handler grpc.StreamHandler) error {
		return s.stream(nil, fakeStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: "/watch"}, handler)
	}
	receives := func(_ any, ss grpc.ServerStream) error { return ss.RecvMsg(nil) }
	if err := run(receives); err != nil {
		t.Errorf("an allowed stream: %v", err)
	}
	first = Errorf(KindForbidden, "never")
	if err := run(receives); Kind(err) != KindForbidden {
		t.Errorf("a forbidden stream: %v", err)
	}
	first, still = nil, Errorf(KindForbidden, "no more")
	if err := run(receives); Kind(err) != KindForbidden {
		t.Errorf("a right that ended while it was asked for: %v", err)
	}
	still = nil
	err := run(func(_ any, ss grpc.ServerStream) error {
		if err := ss.RecvMsg(nil); err != nil {
			return err
		}
		s.recheck() // nothing has changed
		if ss.Context().Err() != nil {
			t.Error("a stream ended though its caller may have it")
		}
		still = Errorf(KindForbidden, "no more")
		s.recheck()
		<-ss.Context().Done()
		return nil
	})
	if Kind(err) != KindForbidden || Text(err) != "no more" {
		t.Errorf("a right that ended: %v", err)
	}
}
