package rpc

import "net"

// turn is a connection that shakes hands. It computes while it has one of a few
// places, and gives its place back while it waits for the other end: half of the
// machine is left to those who have a session, and to raft, however many knock; and
// who says nothing holds nobody up. Thousands of handshakes that run at once would
// all end late, and every other goroutine would wait for each of them.
//
// One goroutine uses it until end.
type turn struct {
	net.Conn
	places chan struct{}
	over   bool
}

// takeTurn waits for a place.
func takeTurn(c net.Conn, places chan struct{}) *turn {
	places <- struct{}{}
	return &turn{Conn: c, places: places}
}

// end gives the place back; from here on the connection is as any other.
func (t *turn) end() {
	t.over = true
	<-t.places
}

// Read implements net.Conn.
func (t *turn) Read(b []byte) (int, error) { return t.waiting(t.Conn.Read, b) }

// Write implements net.Conn. Whoever reads nothing lets it wait.
func (t *turn) Write(b []byte) (int, error) { return t.waiting(t.Conn.Write, b) }

func (t *turn) waiting(f func([]byte) (int, error), b []byte) (int, error) {
	if t.over {
		return f(b)
	}
	<-t.places
	defer func() { t.places <- struct{}{} }()
	return f(b)
}
