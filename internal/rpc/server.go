package rpc

import (
	"context"
	"fmt"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/groundswell/groundswell/internal/identity"
)

// Rule is a row of the authorisation table: who may call a method, and whether
// only the leader answers it.
type Rule struct {
	Roles     []identity.Role
	Anonymous bool // callers without a certificate may call: enrolment only
	Leader    bool // followers forward it
}

// Table is the authorisation table, by full method name. A method without a
// row is denied.
type Table map[string]Rule

// Forward sends a unary call to the leader. It returns the reply, or an error
// of kind unavailable when there is no leader.
type Forward func(ctx context.Context, method string, req any) (any, error)

// ServerOptions of NewServer.
type ServerOptions struct {
	Credential *identity.Credential
	Anonymous  bool // let callers without a certificate connect
	Table      Table
	IsLeader   func() bool // nil: this server forwards nothing
	Forward    Forward
	Panicked   func(method string, v any, stack []byte)
}

// NewServer returns a server on which every call is authenticated, authorised
// by the table and, where the table says so, forwarded to the leader. A panic
// of a handler ends its call, not the process.
func NewServer(o ServerOptions) *grpc.Server {
	s := &server{o: o}
	return grpc.NewServer(
		grpc.Creds(credentials.NewTLS(o.Credential.Server(o.Anonymous))),
		grpc.ReadBufferSize(0), grpc.WriteBufferSize(4<<10),
		grpc.MaxConcurrentStreams(1000),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingEvery / 2, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream),
	)
}

type server struct{ o ServerOptions }

type callerKey struct{}

// Caller returns who made the call: for a forwarded one, who made it first.
func Caller(ctx context.Context) (identity.Peer, bool) {
	p, ok := ctx.Value(callerKey{}).(identity.Peer)
	return p, ok
}

// WithCaller returns a context in which p is the caller, for calls within the
// process and for tests.
func WithCaller(ctx context.Context, p identity.Peer) context.Context {
	return context.WithValue(ctx, callerKey{}, p)
}

// Metadata keys under which a follower names the caller of a forwarded call.
// They are believed from coordinators only.
const (
	callerRole = "groundswell-caller-role"
	callerID   = "groundswell-caller-id"
)

// authorise answers who calls and whether the table allows it.
func (s *server) authorise(ctx context.Context, method string) (context.Context, Rule, error) {
	rule, ok := s.o.Table[method]
	if !ok {
		return nil, Rule{}, Errorf(KindForbidden, "no rule allows %s", method)
	}
	direct, known := connected(ctx)
	if !known {
		if rule.Anonymous {
			return ctx, rule, nil
		}
		return nil, Rule{}, Errorf(KindUnauthorised, "%s needs a client certificate; log in or enrol first", method)
	}
	caller := direct
	if direct.Role == identity.Coordinator {
		if p, ok := forwarded(ctx); ok {
			caller = p
		}
	}
	for _, r := range rule.Roles {
		if r == caller.Role {
			return WithCaller(ctx, caller), rule, nil
		}
	}
	if rule.Anonymous {
		return WithCaller(ctx, caller), rule, nil
	}
	return nil, Rule{}, Errorf(KindForbidden, "%s %s may not call %s", caller.Role, caller.ID, method)
}

// connected returns the identity of the connection's verified certificate.
func connected(ctx context.Context) (identity.Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity.Peer{}, false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return identity.Peer{}, false
	}
	who, err := identity.PeerOf(info.State.VerifiedChains[0][0])
	return who, err == nil
}

func forwarded(ctx context.Context) (identity.Peer, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	role, id := md.Get(callerRole), md.Get(callerID)
	if len(role) != 1 || len(id) != 1 {
		return identity.Peer{}, false
	}
	r, err := identity.ParseRole(role[0])
	return identity.Peer{Role: r, ID: id[0]}, err == nil
}

func (s *server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
	defer s.recovered(info.FullMethod, &err)
	ctx, rule, err := s.authorise(ctx, info.FullMethod)
	if err != nil {
		return nil, toStatus(err)
	}
	if rule.Leader && s.o.IsLeader != nil && !s.o.IsLeader() {
		out, err = s.o.Forward(outgoing(ctx), info.FullMethod, req)
		return out, toStatus(err)
	}
	out, err = next(ctx, req)
	return out, toStatus(err)
}

// outgoing names the caller to the leader. A call that was forwarded already is
// not forwarded again.
func outgoing(ctx context.Context) context.Context {
	p, ok := Caller(ctx)
	if !ok {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, callerRole, string(p.Role), callerID, p.ID)
}

// WasForwarded reports whether a follower sent this call.
func WasForwarded(ctx context.Context) bool {
	_, ok := forwarded(ctx)
	return ok
}

func (s *server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer s.recovered(info.FullMethod, &err)
	ctx, _, err := s.authorise(ss.Context(), info.FullMethod)
	if err != nil {
		return toStatus(err)
	}
	return toStatus(next(srv, &authorised{ServerStream: ss, ctx: ctx}))
}

type authorised struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc's own way to change a stream's context
}

func (a *authorised) Context() context.Context { return a.ctx }

func (s *server) recovered(method string, err *error) {
	if v := recover(); v != nil {
		if s.o.Panicked != nil {
			s.o.Panicked(method, v, debug.Stack())
		}
		*err = toStatus(fmt.Errorf("internal error in %s: %v", method, v))
	}
}
