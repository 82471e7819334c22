package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/identity"
)

// onlyCoordinators refuses raft connections of agents and operators, whose
// certificates the same CA signed, and coordinators whose identity was revoked, as
// of one that was removed: raft heeds whoever appends, in its configuration or not.
// One of whom nothing is known is let in: a replica that lags learns who has
// succeeded a member under its name through this very connection.
func (c *Coordinator) onlyCoordinators(s tls.ConnectionState) error {
	leaf := s.PeerCertificates[0]
	p, err := identity.PeerOf(leaf)
	if err != nil {
		return err
	}
	if p.Role != identity.Coordinator {
		return fmt.Errorf("%s %s is no coordinator", p.Role, p.ID)
	}
	revoked := ""
	c.store.ViewCluster(func(cl *state.Cluster) {
		revoked = cl.Revoked("coordinator/"+p.ID,
			identity.Fingerprint(leaf))
	})
	if revoked != "" {
		return fmt.Errorf("%s was removed by %s", p.ID, revoked)
	}
	return nil
}

// raftLayer carries raft over mutual TLS. Raft gets connections that have
// shaken hands; it leaves those that it accepted open when it stops, and closing
// the layer closes them, and those that it has dialled.
type raftLayer struct {
	net.Listener
	server, client *tls.Config
	dial           func(ctx context.Context, address string) (net.Conn, error)
	ready          chan net.Conn
	shaking        chan struct{} // a place for each handshake under way
	running        sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]bool // whether it was accepted; nil once closed
}

// Bounds of the raft port. Two coordinators hold four connections each; places
// that are taken are free again when their handshake ends.
const (
	raftShake    = 5 * time.Second
	raftShaking  = 64
	raftAccepted = 256
)

func newRaftLayer(l net.Listener, server, client *tls.Config,
	dial func(ctx context.Context, address string) (net.Conn, error),
) *raftLayer {
	r := &raftLayer{
		Listener: l, server: server, client: client, dial: dial, ready: make(chan net.Conn),
		shaking: make(chan struct{}, raftShaking), open: map[net.Conn]bool{},
	}
	r.running.Go(r.run)
	return r
}

// Dial implements consensus.Layer.
func (l *raftLayer) Dial(ctx context.Context, addr string) (net.Conn, error) {
	plain, err := l.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(plain, l.client)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("shake hands for raft with %s: %w", addr, err), plain.Close())
	}
	c := &keptConn{Conn: conn, layer: l}
	if !l.keep(c, false) {
		return nil, errors.Join(fmt.Errorf("dial %s for raft: %w", addr, net.ErrClosed), plain.Close())
	}
	return c, nil
}

// run takes connections until the listener is closed. Who finds no place is
// sent away and dials again.
func (l *raftLayer) run() {
	defer close(l.ready)
	var shakes sync.WaitGroup
	defer shakes.Wait()
	for {
		conn, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of files, perhaps; the others go on
			time.Sleep(acceptPause)
			if !l.living() {
				return
			}
			continue
		}
		select {
		case l.shaking <- struct{}{}:
			shakes.Go(func() {
				defer func() { <-l.shaking }()
				l.shake(conn)
			})
		default:
			_ = conn.Close()
		}
	}
}

// acceptPause is how long a listener that failed is left alone.
const acceptPause = 50 * time.Millisecond

// shake hands a connection to raft once its other end has proved to be a
// coordinator.
func (l *raftLayer) shake(plain net.Conn) {
	c := &keptConn{Conn: tls.Server(plain, l.server), layer: l}
	if !l.keep(c, true) {
		_ = plain.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), raftShake)
	defer cancel()
	if err := c.Conn.(*tls.Conn).HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return
	}
	select {
	case l.ready <- c:
	case <-ctx.Done(): // raft does not take it
		_ = c.Close()
	}
}

// keep counts a connection, unless too many were accepted or the layer is closed.
func (l *raftLayer) keep(c net.Conn, accepted bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil || accepted && len(l.open) >= raftAccepted {
		return false
	}
	l.open[c] = accepted
	return true
}

func (l *raftLayer) living() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open != nil
}

// Accept implements net.Listener.
func (l *raftLayer) Accept() (net.Conn, error) {
	conn, ok := <-l.ready
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

// drop closes the connections that were accepted; raft makes new ones, which show
// the certificates of now.
func (l *raftLayer) drop() {
	l.mu.Lock()
	all := maps.Clone(l.open)
	l.mu.Unlock()
	for c, accepted := range all {
		if accepted {
			_ = c.Close() // the other end sees it
		}
	}
}

// Close implements net.Listener.
func (l *raftLayer) Close() error {
	l.mu.Lock()
	all := l.open
	l.open = nil
	l.mu.Unlock()
	err := l.Listener.Close()
	for c := range all {
		_ = c.Close() // the other end sees it
	}
	for c := range l.ready { // what was about to be handed over
		_ = c.Close()
	}
	l.running.Wait()
	return err
}

type keptConn struct {
	net.Conn
	layer *raftLayer
}

// Close implements net.Conn.
func (c *keptConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.open, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}
