package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

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

// Allowed is that a caller may make a request.
type Allowed struct {
	// Context goes to the handler, if it is a unary one.
	Context context.Context //nolint:containedctx // it is handed on at once
	// Still says why the caller may no more what was allowed, nil if they may; it is
	// asked while a stream lasts.
	Still func() error
}

// Forward sends a unary call to the leader. It returns the reply, or an error
// of kind unavailable when there is no leader.
type Forward func(ctx context.Context, method string, req any) (any, error)

// ServerOptions of NewServer. All functions may be called concurrently.
type ServerOptions struct {
	Credential *identity.Credential
	Anonymous  bool // let callers without a certificate connect
	Table      Table
	// Admit says why the holder of a certificate that the CA signed is let in no
	// more; nil lets everybody in. Key is the certificate's fingerprint.
	Admit func(p identity.Peer, key []byte) error
	// May says whether the caller may make this request, where it is answered; nil lets
	// everybody whom the table lets. It is asked again of what a handler could not do
	// for KindStaleRights.
	May      func(ctx context.Context, method string, req any) (Allowed, error)
	IsLeader func() bool // nil: this server forwards nothing
	Forward  Forward
	// Applied waits until this replica has applied an entry; nil does not wait.
	Applied func(ctx context.Context, index uint64) error
	// Current says why this replica does not know what is true now, nil if it does:
	// people read nothing from it then, unless they say that it may be stale.
	Current  func() error
	Panicked func(method string, v any, stack []byte)
	// Refused is told of what a caller, an identity or an address, was refused
	// because it had its share; nil is not told. It must not block.
	Refused func(caller, method, why string)
	// Failed is told of every call that ends here with an error: refused by the table, by
	// Admit, by May or by its handler. Of a call that this server handed to the leader it
	// is not told, the leader's is. The request is nil where nothing of it was read. ctx
	// is that of the handler, where the call came so far. It must not block.
	Failed func(ctx context.Context, method string, req any, err error)
}

// Server is a gRPC server on which every call is authenticated, admitted,
// authorised by the table and, where the table says so, forwarded to the
// leader. A panic of a handler ends its call, not the process.
type Server struct {
	*grpc.Server
	s     *server
	doors *doors
}

// NewServer returns a server without services.
func NewServer(o ServerOptions) *Server {
	s := &server{o: o, live: map[*authorised]bool{}, meters: newMeters(o.Refused)}
	in := newDoors(credentials.NewTLS(o.Credential.Server(o.Anonymous)), s.meters)
	return &Server{s: s, doors: in, Server: grpc.NewServer(
		grpc.Creds(in), grpc.InTapHandle(s.meters.tap),
		grpc.ReadBufferSize(0), grpc.WriteBufferSize(4<<10),
		grpc.MaxConcurrentStreams(1000), grpc.MaxHeaderListSize(longestHeader), grpc.ConnectionTimeout(shakeBound),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: pingEvery, Timeout: pingTimeout, MaxConnectionIdle: idleBound,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingEvery / 2, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream),
	)}
}

// longestHeader bounds the metadata of a call; ours are below 1 KiB.
const longestHeader = 16 << 10

// Serve serves the connections of a listener until the server stops.
func (s *Server) Serve(l net.Listener) error { return s.Server.Serve(s.doors.counting(l)) }

// Recheck ends every stream whose caller is admitted no more.
func (s *Server) Recheck() { s.s.recheck() }

// Live is the caller of a stream that is open.
type Live struct {
	Peer identity.Peer
	CAs  []string // by which its connection was verified
	// Stale says that the caller takes what may be stale.
	Stale bool
}

// Live returns the callers of every open stream that came by themselves.
func (s *Server) Live() (out []Live) {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	for a := range s.s.live {
		if c, ok := a.ctx.Value(callerKey{}).(caller); ok && c.cas != nil {
			out = append(out, live(a.ctx, c))
		}
	}
	return out
}

// End ends the streams of such callers, for their clients to connect again.
func (s *Server) End(of func(Live) bool, why error) {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	for a := range s.s.live {
		if c, ok := a.ctx.Value(callerKey{}).(caller); ok && c.cas != nil && of(live(a.ctx, c)) {
			a.end(ended{why})
		}
	}
}

func live(ctx context.Context, c caller) Live {
	return Live{Peer: c.Peer, CAs: c.cas, Stale: mayBeStale(ctx)}
}

type server struct {
	o      ServerOptions
	meters *meters

	mu   sync.Mutex
	live map[*authorised]bool
}

// caller is who made a call, and by which key.
type caller struct {
	identity.Peer
	key []byte
	cas []string // by which the connection was verified; nil where a coordinator names the caller
}

type callerKey struct{}

// Caller returns who made the call: for a forwarded one, who made it first.
func Caller(ctx context.Context) (identity.Peer, bool) {
	c, ok := ctx.Value(callerKey{}).(caller)
	return c.Peer, ok
}

// CallerKey returns the fingerprint of the key that the caller has shown.
func CallerKey(ctx context.Context) []byte {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c.key
}

// CallerCAs names the CAs by which the caller's connection was verified; none of a
// call that was forwarded.
func CallerCAs(ctx context.Context) []string {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c.cas
}

// WithCaller returns a context in which p is the caller, for calls within the
// process and for tests.
func WithCaller(ctx context.Context, p identity.Peer) context.Context {
	return context.WithValue(ctx, callerKey{}, caller{Peer: p})
}

// Metadata keys under which a follower names the caller of a forwarded call.
// They are believed from coordinators only.
const (
	forwardedBy  = "groundswell-forwarded"
	callerRole   = "groundswell-caller-role"
	callerID     = "groundswell-caller-id"
	callerPrint  = "groundswell-caller-key-bin"
	callerBroken = "groundswell-caller-break-glass"
	callerFrom   = "groundswell-caller-address"
)

// From returns the address from which a call was made: for a forwarded one that from
// which the follower had it. It has no port; "" is unknown.
func From(ctx context.Context) string {
	if c, known := connected(ctx); known && c.Role == identity.Coordinator {
		md, _ := metadata.FromIncomingContext(ctx)
		if at := md.Get(callerFrom); len(at) == 1 {
			return at[0]
		}
	}
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	at, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return at.Addr().Unmap().WithZone("").String()
}

// authorise answers who calls and whether the table allows it. The context that it returns
// knows the caller, as far as there is one, also with an error.
func (s *server) authorise(ctx context.Context, method string) (context.Context, Rule, error) {
	rule, ok := s.o.Table[method]
	if !ok {
		return ctx, Rule{}, Errorf(KindForbidden, "no rule allows %s", method)
	}
	who, known := connected(ctx)
	if !known {
		if rule.Anonymous {
			return ctx, rule, nil
		}
		return ctx, Rule{}, Errorf(KindUnauthorised, "%s needs a client certificate; log in or enrol first", method)
	}
	direct := who
	if who.Role == identity.Coordinator {
		if p, ok := forwarded(ctx); ok {
			who = p
		}
	}
	ctx = context.WithValue(ctx, callerKey{}, who)
	if err := s.trusts(direct); err != nil { // also of a call that the leader answers, who does not see it
		return ctx, Rule{}, err
	}
	if !s.forwards(rule) { // else the leader admits, who knows everybody first
		err := s.admit(direct)
		if err == nil {
			err = s.admit(who)
		}
		if err != nil {
			return ctx, Rule{}, err
		}
	}
	if rule.Anonymous || slices.Contains(rule.Roles, who.Role) {
		return ctx, rule, nil
	}
	return ctx, Rule{}, Errorf(KindForbidden, "%s %s may not call %s", who.Role, who.ID, method)
}

// forwards reports whether a call is for the leader and this is another one.
func (s *server) forwards(rule Rule) bool {
	return rule.Leader && s.o.IsLeader != nil && !s.o.IsLeader()
}

// trusts refuses a connection of before: a new one shows a new certificate, or is
// not let in.
func (s *server) trusts(c caller) error {
	if c.cas == nil || s.o.Credential.Trusts(c.cas) {
		return nil
	}
	return Errorf(KindUnavailable, "the CA that issued the certificate of %s %s is trusted no more; connect again",
		c.Role, c.ID)
}

func (s *server) admit(c caller) error {
	if err := s.trusts(c); err != nil {
		return err
	}
	if s.o.Admit == nil {
		return nil
	}
	return s.o.Admit(c.Peer, c.key)
}

// connected returns the identity of the connection's verified certificate.
func connected(ctx context.Context) (caller, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return caller{}, false
	}
	leaf := info.State.VerifiedChains[0][0]
	who, err := identity.PeerOf(leaf)
	return caller{
		Peer: who, key: identity.Fingerprint(leaf),
		cas: identity.RootsOf(info.State.VerifiedChains),
	}, err == nil
}

func forwarded(ctx context.Context) (caller, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	role, id, key := md.Get(callerRole), md.Get(callerID), md.Get(callerPrint)
	if len(role) != 1 || len(id) != 1 || len(key) != 1 {
		return caller{}, false
	}
	r, err := identity.ParseRole(role[0])
	p := identity.Peer{Role: r, ID: id[0], BreakGlass: len(md.Get(callerBroken)) > 0}
	return caller{Peer: p, key: []byte(key[0])}, err == nil
}

func (s *server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo,
	next grpc.UnaryHandler,
) (out any, err error) {
	defer s.recovered(info.FullMethod, &err)
	if err := s.meters.weigh(ctx, info.FullMethod, req); err != nil {
		return nil, toStatus(err)
	}
	ctx, rule, err := s.authorise(ctx, info.FullMethod)
	if err != nil {
		s.failed(ctx, info.FullMethod, req, err)
		return nil, toStatus(err)
	}
	if s.forwards(rule) {
		out, err = s.o.Forward(outgoing(ctx), info.FullMethod, req)
		return out, toStatus(err)
	}
	if err := s.caughtUp(ctx, rule); err != nil {
		return nil, toStatus(err)
	}
	out, err = s.answer(ctx, info.FullMethod, req, next)
	return out, toStatus(err)
}

// mostTries bounds how often a request is made again because rights change under it.
const mostTries = 5

// answer has the handler answer, once the caller may have that.
func (s *server) answer(ctx context.Context, method string, req any, next grpc.UnaryHandler) (out any, err error) {
	asked := ctx
	defer func() { s.failed(asked, method, req, err) }()
	if s.o.May == nil {
		return next(ctx, req)
	}
	for n := 1; ; n++ {
		var allowed Allowed
		if allowed, err = s.o.May(ctx, method, req); allowed.Context != nil {
			asked = allowed.Context
		}
		if err != nil {
			return nil, err
		}
		out, err = next(allowed.Context, req)
		if err == nil || n == mostTries || Kind(err) != KindStaleRights {
			return out, err
		}
	}
}

// failed tells of a call that ended with an error.
func (s *server) failed(ctx context.Context, method string, req any, err error) {
	if err != nil && s.o.Failed != nil {
		s.o.Failed(ctx, method, req, err)
	}
}

// readBound is how long a request waits for the index that it carries.
const readBound = 5 * time.Second

// caughtUp waits until this replica has what the caller has seen elsewhere, and
// refuses people's reads while it does not know what is true.
func (s *server) caughtUp(ctx context.Context, rule Rule) error {
	who, _ := Caller(ctx)
	if s.o.Current != nil && !rule.Leader && who.Role == identity.Operator && !mayBeStale(ctx) {
		if err := s.o.Current(); err != nil {
			return err
		}
	}
	index := wanted(ctx)
	if index == 0 || s.o.Applied == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readBound)
	defer cancel()
	if err := s.o.Applied(ctx, index); err != nil {
		return Errorf(KindUnavailable,
			"this coordinator lags behind what you have seen elsewhere: %v; ask another", err)
	}
	return nil
}

// outgoing names the caller to the leader. A call that was forwarded already is
// not forwarded again.
func outgoing(ctx context.Context) context.Context {
	ctx = metadata.AppendToOutgoingContext(ctx, forwardedBy, "1", callerFrom, From(ctx))
	c, ok := ctx.Value(callerKey{}).(caller)
	if !ok {
		return ctx
	}
	if c.BreakGlass {
		ctx = metadata.AppendToOutgoingContext(ctx, callerBroken, "1")
	}
	return metadata.AppendToOutgoingContext(ctx, callerRole, string(c.Role), callerID, c.ID, callerPrint, string(c.key))
}

// WasForwarded reports whether a follower sent this call.
func WasForwarded(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	return len(md.Get(forwardedBy)) > 0
}

// stream runs a handler until it returns, or its caller is admitted no more:
// returning from here is what ends the stream, and with it the handler.
func (s *server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, rule, err := s.authorise(ss.Context(), info.FullMethod)
	if err != nil {
		s.failed(ctx, info.FullMethod, nil, err)
		return toStatus(err)
	}
	if err := s.caughtUp(ctx, rule); err != nil {
		return toStatus(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &authorised{ServerStream: ss, s: s, method: info.FullMethod, ctx: ctx, end: cancel}
	s.track(a, true)
	defer s.track(a, false)
	if c, ok := ctx.Value(callerKey{}).(caller); ok { // recheck may have run before
		if err := s.admit(c); err != nil {
			return toStatus(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }()
		defer s.recovered(info.FullMethod, &err)
		err = next(srv, a)
	}()
	over := false
	select {
	case err = <-done:
		over = true
	case <-ctx.Done():
	}
	var out ended
	switch {
	case errors.As(context.Cause(ctx), &out): // whatever the handler makes of it
		err = out.error
	case !over:
		err = <-done // the client went; the handler sees that too
	}
	return toStatus(err)
}

// ended is the cause by which a stream ends whose caller is admitted no more.
type ended struct{ error }

func (s *server) track(a *authorised, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if live {
		s.live[a] = true
	} else {
		delete(s.live, a)
	}
}

func (s *server) recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.live {
		c, ok := a.ctx.Value(callerKey{}).(caller)
		if !ok {
			continue
		}
		err := s.admit(c)
		if err == nil && a.still != nil {
			err = a.still()
		}
		if err != nil {
			a.end(ended{err})
		}
	}
}

type authorised struct {
	grpc.ServerStream
	s      *server
	method string
	ctx    context.Context //nolint:containedctx // grpc's own way to change a stream's context
	end    context.CancelCauseFunc
	asked  bool         // its first message was allowed; of the handler's goroutine
	still  func() error // under s.mu; what was allowed, and may be no more
}

func (a *authorised) Context() context.Context { return a.ctx }

// RecvMsg lets the first message through only if the caller may have what it asks for.
func (a *authorised) RecvMsg(m any) error {
	if err := a.ServerStream.RecvMsg(m); err != nil || a.asked || a.s.o.May == nil {
		return err
	}
	a.asked = true
	allowed, err := a.s.o.May(a.ctx, a.method, m)
	if err != nil {
		if allowed.Context == nil {
			allowed.Context = a.ctx
		}
		a.s.failed(allowed.Context, a.method, m, err)
		return err
	}
	a.s.mu.Lock()
	a.still = allowed.Still
	a.s.mu.Unlock()
	if allowed.Still == nil {
		return nil
	}
	return allowed.Still() // a change that recheck saw before is seen here
}

func (s *server) recovered(method string, err *error) {
	if v := recover(); v != nil {
		if s.o.Panicked != nil {
			s.o.Panicked(method, v, debug.Stack())
		}
		*err = toStatus(fmt.Errorf("internal error in %s: %v", method, v))
	}
}
