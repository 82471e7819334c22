package rpc

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/bucket"
	"github.com/groundswell/groundswell/internal/identity"
)

// allowance is what one caller may have of a server.
type allowance struct {
	calls bucket.Limit // streams count once
	bytes bucket.Limit // of the requests of unary calls
	open  int          // calls at once
	conns int          // connections at once
}

// What callers may have, by role; "" is who shows no certificate, counted by
// address. Coordinators hold the CA's key and have no limit.
//
// An agent has one session, asks for a URL for each object that it fetches (a
// revision is some hundred packs and blobs, four at a time), and renews twice a
// month. Its session ends and begins anew at most ten times a second, by its
// backoff, and a connection that was cut without a word is noticed within 15 s.
//
// A person's programs share an identity: `dctl` asks twice a second while it
// watches, and one of a hundred pipelines that do so stays below.
//
// 2,000 hosts behind one address that enrol in one moment make 4,000 calls of
// 1 KiB, two at a time each; those beyond what may be open at once come again
// by their backoff.
var allowances = map[identity.Role]allowance{
	identity.Agent: {
		calls: bucket.Limit{PerSecond: 100, Burst: 2000}, bytes: bucket.Limit{PerSecond: 256 << 10, Burst: 4 << 20},
		open: 64, conns: 32,
	},
	identity.Operator: {
		calls: bucket.Limit{PerSecond: 200, Burst: 2000}, bytes: bucket.Limit{PerSecond: 1 << 20, Burst: 32 << 20},
		open: 512, conns: 256,
	},
	"": {
		calls: bucket.Limit{PerSecond: 50, Burst: 4000}, bytes: bucket.Limit{PerSecond: 256 << 10, Burst: 8 << 20},
		open: 256, conns: 2048,
	},
}

// strangerBound is how long a call of one without a certificate may take,
// together with sending it.
const strangerBound = 15 * time.Second

// meters hold what callers have taken. They may be used concurrently.
type meters struct {
	refused func(caller, method, why string)
	calls   map[identity.Role]*bucket.Buckets
	bytes   map[identity.Role]*bucket.Buckets
	open    counts
}

func newMeters(refused func(caller, method, why string)) *meters {
	if refused == nil {
		refused = func(string, string, string) {}
	}
	m := &meters{
		refused: refused, calls: map[identity.Role]*bucket.Buckets{}, bytes: map[identity.Role]*bucket.Buckets{},
		open: counts{n: map[string]int{}},
	}
	for role, a := range allowances {
		m.calls[role], m.bytes[role] = bucket.New(a.calls), bucket.New(a.bytes)
	}
	return m
}

// payer is whom a call is charged to: an identity, or an address. It is free
// for coordinators.
func payer(ctx context.Context) (role identity.Role, key string, free bool) {
	if c, known := connected(ctx); known {
		return c.Role, string(c.Role) + "/" + c.ID, c.Role == identity.Coordinator
	}
	if p, ok := peer.FromContext(ctx); ok {
		return "", address(p.Addr), false
	}
	return "", "address unknown", false
}

// address names where a stranger comes from: of IPv6 the network, which one
// machine has whole.
func address(a net.Addr) string {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return "address " + a.String()
	}
	ip := at.Addr().Unmap()
	if ip.Is6() {
		if net, err := ip.WithZone("").Prefix(64); err == nil {
			return "address " + net.String()
		}
	}
	return "address " + ip.String()
}

// tap charges a call before anything of it is read.
func (m *meters) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	role, key, free := payer(ctx)
	if free {
		return ctx, nil
	}
	why := ""
	switch {
	case !m.calls[role].Allow(key, 1):
		why = "too many calls"
	case m.bytes[role].Owes(key):
		why = "too many bytes"
	case !m.open.enter(key, allowances[role].open):
		why = "too many calls at once"
	}
	if why != "" {
		m.refused(key, info.FullMethodName, why)
		dawdle(ctx)
		return nil, toStatus(Errorf(KindTooMany, "%s from %s; wait a little and come again", why, key))
	}
	context.AfterFunc(ctx, func() { m.open.leave(key) })
	if role == "" {
		bounded, cancel := context.WithTimeout(ctx, strangerBound)
		context.AfterFunc(ctx, cancel)
		return bounded, nil
	}
	return ctx, nil
}

// dawdle lets who was refused wait. It holds the reader of that connection, so
// that no other call of it is read meanwhile: else refusing would cost as much
// as the caller likes.
func dawdle(ctx context.Context) {
	backoff.Pause(ctx, dawdling)
}

const dawdling = 100 * time.Millisecond

// weigh charges what a unary call has sent, which was read already: who owes,
// makes no further call. What nobody without a certificate has to say is refused
// here, before a follower hands it to the leader.
func (m *meters) weigh(ctx context.Context, method string, req any) error {
	role, key, free := payer(ctx)
	msg, ok := req.(proto.Message)
	if !ok || free {
		return nil
	}
	size := proto.Size(msg)
	m.bytes[role].Charge(key, size)
	if role == "" && size > longestEnrolment {
		m.refused(key, method, "too long")
		return Errorf(KindInvalid, "a request of %d bytes without a certificate; an enrolment has at most %d", size,
			longestEnrolment)
	}
	return nil
}

// longestEnrolment is many times a token, a name and a signing request.
const longestEnrolment = 16 << 10

// counts says how many of something each key has now.
type counts struct {
	mu  sync.Mutex
	n   map[string]int
	all int
}

// enter counts one more, unless the key has so many.
func (c *counts) enter(key string, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n[key] >= most {
		return false
	}
	c.n[key]++
	c.all++
	return true
}

func (c *counts) leave(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.n[key]--; c.n[key] <= 0 {
		delete(c.n, key)
	}
}

func (c *counts) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

// doors lets connections in: so many that shake hands, from an address and
// all together, and then so many of an identity.
type doors struct {
	credentials.TransportCredentials
	m      *meters
	knocks *bucket.Buckets // handshakes by address
	shake  *counts         // handshakes under way by address
	conns  *counts         // connections by identity, strangers by address
	most   *counts         // connections of strangers, and of others
	room   Room
	places chan struct{} // one for each handshake that computes, of all listeners
}

// Bounds of a port, beside its Room.
const (
	mostShaking = 2048 // handshakes of one address at once: 2,000 hosts behind one come back in one moment
	mostAll     = 4096 // of all addresses: 12 KiB each while nothing was said
)

// knocking bounds the handshakes of one address: 2,000 hosts behind it come back
// in one moment, twice, and then in ten seconds each. A handshake costs a third
// of a millisecond: 200 a second are a fifteenth of a core.
var knocking = bucket.Limit{PerSecond: 200, Burst: 4000}

// shakeBound ends a handshake that is not done by then, and the first words of
// HTTP/2 after it.
const shakeBound = 10 * time.Second

// idleBound ends a connection without a call: an agent always has one.
const idleBound = 5 * time.Minute

func newDoors(c credentials.TransportCredentials, m *meters) *doors {
	files, err := OpenFiles()
	if err != nil {
		files = FewestFiles
	}
	return &doors{
		room: RoomIn(files), places: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		TransportCredentials: c, m: m, knocks: bucket.New(knocking),
		shake: &counts{n: map[string]int{}}, conns: &counts{n: map[string]int{}}, most: &counts{n: map[string]int{}},
	}
}

// Clone implements credentials.TransportCredentials: the doors are the same.
func (d *doors) Clone() credentials.TransportCredentials {
	c := *d
	c.TransportCredentials = d.TransportCredentials.Clone()
	return &c
}

// ServerHandshake shakes hands with a caller, within the bounds.
func (d *doors) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	at := address(raw.RemoteAddr())
	line := raw.(*counted).line
	switch {
	case !d.knocks.Allow(at, 1):
		return nil, nil, d.refuse(at, "too many handshakes")
	case line.full() || d.shake.total() >= mostAll || !d.shake.enter(at, mostShaking):
		return nil, nil, d.refuse(at, "too many handshakes at once")
	}
	shaking := takePlace(raw, line)
	conn, info, err := d.TransportCredentials.ServerHandshake(shaking)
	shaking.end()
	d.shake.leave(at)
	if err != nil {
		return nil, nil, err
	}
	role, key, free := payer(peer.NewContext(context.Background(), &peer.Peer{Addr: raw.RemoteAddr(), AuthInfo: info}))
	if free {
		return conn, info, nil
	}
	all, room := "known", d.room.Known
	if role == "" {
		all, room = "strangers", d.room.Strangers
	}
	if !d.conns.enter(key, allowances[role].conns) {
		_ = conn.Close()
		return nil, nil, d.refuse(key, "too many connections")
	}
	if !d.most.enter(all, room) {
		d.conns.leave(key)
		_ = conn.Close()
		return nil, nil, d.refuse(key, "too many connections of all")
	}
	raw.(*counted).until(func() { d.conns.leave(key); d.most.leave(all) })
	return conn, info, nil
}

// Handshake stands for the method where a connection was refused.
const Handshake = "handshake"

func (d *doors) refuse(key, why string) error {
	d.m.refused(key, Handshake, why)
	return Errorf(KindTooMany, "%s from %s", why, key)
}

// counted is a connection that is counted until it is closed. It is the one that
// the listener gave: gRPC closes no other if it gives up between the handshake and
// the first words of HTTP/2.
type counted struct {
	net.Conn
	line *line // of its listener

	mu     sync.Mutex
	closed bool
	leave  func()
}

// until has leave called once the connection is closed.
func (c *counted) until(leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		leave()
		return
	}
	c.leave = leave
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.mu.Lock()
	leave := c.leave
	c.closed, c.leave = true, nil
	c.mu.Unlock()
	if leave != nil {
		leave()
	}
	return c.Conn.Close()
}

// counting is a listener whose connections can be counted. It has a line of its own: a
// fleet that comes back by one port does not keep coordinators from the other.
type counting struct {
	net.Listener
	line *line
}

// Accept implements net.Listener.
func (l counting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &counted{Conn: conn, line: l.line}, nil
}
