package rpc

import (
	"net"
	"sync/atomic"
)

// turns are the places for handshakes that compute, and how many wait for one.
type turns struct {
	places chan struct{}
	line   atomic.Int32
}

// longestLine is how many may wait for a place. Who comes then is sent away before
// anything is computed for him, and comes again after a pause of his own: in a line
// of thousands everybody's patience would end before his turn, and the work that was
// done for him be lost. 256 take a third of a second of a core, some seconds where
// the machine is busy; a client waits 5.
const longestLine = 256

// counting gives a listener its line for the places that all share.
func (d *doors) counting(l net.Listener) net.Listener {
	return counting{Listener: l, turns: &turns{places: d.places}}
}

// full reports whether the line is too long for another one.
func (t *turns) full() bool { return t.line.Load() >= longestLine }

func (t *turns) take() {
	t.line.Add(1)
	t.places <- struct{}{}
	t.line.Add(-1)
}

func (t *turns) give() { <-t.places }

// turn is a connection that shakes hands. It computes while it has one of a few
// places, and gives its place back while it waits for the other end: half of the
// machine is left to those who have a session, and to raft, however many knock; and
// who says nothing holds nobody up. Thousands of handshakes that run at once would
// all end late, and every other goroutine would wait for each of them.
//
// One goroutine uses it until end.
type turn struct {
	net.Conn
	turns *turns
	over  bool
}

// takeTurn waits for a place.
func takeTurn(c net.Conn, t *turns) *turn {
	t.take()
	return &turn{Conn: c, turns: t}
}

// end gives the place back; from here on the connection is as any other.
func (t *turn) end() {
	t.over = true
	t.turns.give()
}

// Read implements net.Conn.
func (t *turn) Read(b []byte) (int, error) { return t.waiting(t.Conn.Read, b) }

// Write implements net.Conn. Whoever reads nothing lets it wait.
func (t *turn) Write(b []byte) (int, error) { return t.waiting(t.Conn.Write, b) }

func (t *turn) waiting(f func([]byte) (int, error), b []byte) (int, error) {
	if t.over {
		return f(b)
	}
	t.turns.give()
	defer t.turns.take()
	return f(b)
}
