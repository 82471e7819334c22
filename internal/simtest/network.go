package simtest

import (
	"context"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/test/bufconn"
)

// buffer is what a connection holds before its writer waits.
const buffer = 64 << 10

// network is TCP in memory: addresses, listeners, connections. Its methods may
// be called concurrently.
type network struct {
	mu    sync.Mutex
	ports map[string]*listener
	cut   map[string]bool // addresses that nobody reaches
	open  map[string][]net.Conn
}

func newNetwork() *network {
	return &network{ports: map[string]*listener{}, cut: map[string]bool{}, open: map[string][]net.Conn{}}
}

// sever makes an address one that nobody reaches, and ends connections to it; or
// mends that.
func (n *network) sever(addr string, cut bool) {
	n.mu.Lock()
	open := n.open[addr]
	n.cut[addr], n.open[addr] = cut, nil
	n.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // it may have ended before
	}
}

// listener is one open port.
type listener struct {
	*bufconn.Listener
	net  *network
	addr string
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return address(l.addr) }

// Close implements net.Listener.
func (l *listener) Close() error {
	l.net.mu.Lock()
	if l.net.ports[l.addr] == l {
		delete(l.net.ports, l.addr)
	}
	l.net.mu.Unlock()
	return l.Listener.Close()
}

// Listen opens a port.
func (n *network) Listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[addr] != nil {
		return nil, fmt.Errorf("listen on %s: address in use", addr)
	}
	l := &listener{Listener: bufconn.Listen(buffer), net: n, addr: addr}
	n.ports[addr] = l
	return l, nil
}

// Dial connects to a port.
func (n *network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l, cut := n.ports[addr], n.cut[addr]
	n.mu.Unlock()
	if l == nil || cut {
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	}
	c, err := l.DialContext(ctx)
	if err == nil {
		n.mu.Lock()
		n.open[addr] = append(n.open[addr], c)
		n.mu.Unlock()
	}
	return c, err
}
