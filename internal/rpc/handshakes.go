package rpc

import (
	"net"
	"sync/atomic"
)

// line is the places for handshakes that compute, and how many wait for one.
type line struct {
	places  chan struct{}
	waiting atomic.Int32
}

// longestLine is how many may wait for a place. Who comes then is sent away before
// anything is computed for him, and comes again after a pause of his own: in a line
// of thousands everybody's patience would end before his turn, and the work that was
// done for him be lost. 256 take a third of a second of a core, some seconds where
// the machine is busy; a client waits 5.
const longestLine = 256

// counting gives a listener its line for the places that all share.
func (d *doors) counting(l net.Listener) net.Listener {
	return counting{Listener: l, line: &line{places: d.places}}
}

// full reports whether the line is too long for another one.
func (l *line) full() bool { return l.waiting.Load() >= longestLine }

func (l *line) take() {
	l.waiting.Add(1)
	l.places <- struct{}{}
	l.waiting.Add(-1)
}

func (l *line) give() { <-l.places }

// handshaking is a connection that shakes hands. It computes while it has one of a few
// places, and gives its place back while it waits for the other end: half of the
// machine is left to those who have a session, and to raft, however many knock; and
// who says nothing holds nobody up. Thousands of handshakes that run at once would
// all end late, and every other goroutine would wait for each of them.
//
// One goroutine uses it until end.
type handshaking struct {
	net.Conn
	line *line
	over bool
}

// takePlace waits for a place.
func takePlace(c net.Conn, l *line) *handshaking {
	l.take()
	return &handshaking{Conn: c, line: l}
}

// end gives the place back; from here on the connection is as any other.
func (h *handshaking) end() {
	h.over = true
	h.line.give()
}

// Read implements net.Conn.
func (h *handshaking) Read(b []byte) (int, error) { return h.giving(h.Conn.Read, b) }

// Write implements net.Conn. Whoever reads nothing lets it wait.
func (h *handshaking) Write(b []byte) (int, error) { return h.giving(h.Conn.Write, b) }

// giving gives the place to others while f waits for the other end.
func (h *handshaking) giving(f func([]byte) (int, error), b []byte) (int, error) {
	if h.over {
		return f(b)
	}
	h.line.give()
	defer h.line.take()
	return f(b)
}
