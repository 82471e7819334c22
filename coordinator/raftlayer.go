package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/groundswell/groundswell/internal/identity"
)

// onlyCoordinators refuses raft connections of agents and operators, whose
// certificates the same CA signed. It does not ask the state who is a member: a
// replica that lags learns who has succeeded a member under its name through
// this very connection. Raft itself heeds nobody outside its configuration.
func onlyCoordinators(s tls.ConnectionState) error {
	p, err := identity.PeerOf(s.PeerCertificates[0])
	if err != nil {
		return err
	}
	if p.Role != identity.Coordinator {
		return fmt.Errorf("%s %s is no coordinator", p.Role, p.ID)
	}
	return nil
}

// raftLayer carries raft over mutual TLS. Raft leaves the connections that it
// accepted open when it stops; closing the layer closes them.
type raftLayer struct {
	net.Listener
	conf *tls.Config
	dial func(ctx context.Context, address string) (net.Conn, error)

	mu       sync.Mutex
	accepted map[net.Conn]bool // nil once closed
}

func newRaftLayer(
	l net.Listener, conf *tls.Config, dial func(ctx context.Context, address string) (net.Conn, error),
) *raftLayer {
	return &raftLayer{Listener: l, conf: conf, dial: dial, accepted: map[net.Conn]bool{}}
}

// Dial implements consensus.Layer.
func (l *raftLayer) Dial(ctx context.Context, addr string) (net.Conn, error) {
	plain, err := l.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(plain, l.conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("shake hands for raft with %s: %w", addr, err), plain.Close())
	}
	return conn, nil
}

// Accept implements net.Listener.
func (l *raftLayer) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accepted == nil {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	c := &acceptedConn{Conn: conn, layer: l}
	l.accepted[c] = true
	return c, nil
}

// drop closes the connections that were accepted; raft makes new ones, which show
// the certificates of now.
func (l *raftLayer) drop() {
	l.mu.Lock()
	all := slices.Collect(maps.Keys(l.accepted))
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close() // the other end sees it
	}
}

// Close implements net.Listener.
func (l *raftLayer) Close() error {
	l.mu.Lock()
	all := l.accepted
	l.accepted = nil
	l.mu.Unlock()
	for c := range all {
		_ = c.Close() // the other end sees it
	}
	return l.Listener.Close()
}

type acceptedConn struct {
	net.Conn
	layer *raftLayer
}

// Close implements net.Conn.
func (c *acceptedConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.accepted, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}
