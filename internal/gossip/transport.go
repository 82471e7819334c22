package gossip

import (
	"fmt"
	"log"
	"net"
	"sync"

	"github.com/hashicorp/memberlist"
)

// Bounds of the TCP port. A member makes a connection every 30 s for as long as
// two states take to be exchanged, and one for a probe whose UDP was lost: 2,000
// members have some ten open at once. Each ends after 10 s, whatever is said.
const (
	mostStreams   = 512
	mostOfAddress = 128
)

// capped is the usual transport of memberlist, which takes so many connections
// at once, and so many of an address.
type capped struct {
	*memberlist.NetTransport
	streams chan net.Conn
	stop    chan struct{}
	closed  chan struct{} // the listeners are
	once    sync.Once
	running sync.WaitGroup

	mu   sync.Mutex
	all  int
	open map[string]int // by address
}

// portTries is how often a free port is sought that TCP and UDP both have.
const portTries = 10

// listen opens the transport; port 0 takes a free one.
func listen(host string, port int, log *log.Logger) (*capped, error) {
	var err error
	for range portTries {
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{host}, BindPort: port, Logger: log,
		})
		if err == nil {
			c := &capped{
				NetTransport: t, streams: make(chan net.Conn), stop: make(chan struct{}), closed: make(chan struct{}),
				open: map[string]int{},
			}
			c.running.Go(c.run)
			return c, nil
		}
		if port != 0 {
			break
		}
	}
	return nil, fmt.Errorf("open TCP and UDP: %w", err)
}

// run hands connections over, and closes those beyond the bounds. Once it is told to
// stop it closes all that come until the listeners are closed: they wait for whoever
// takes what they accepted, and Shutdown waits for them.
func (c *capped) run() {
	c.serve()
	for {
		select {
		case conn := <-c.NetTransport.StreamCh():
			_ = conn.Close()
		case <-c.closed:
			return
		}
	}
}

func (c *capped) serve() {
	for {
		select {
		case <-c.stop:
			return
		case conn := <-c.NetTransport.StreamCh():
			s := &stream{Conn: conn, at: host(conn.RemoteAddr()), of: c}
			if !c.enter(s.at) {
				_ = conn.Close()
				continue
			}
			select {
			case c.streams <- s:
			case <-c.stop:
				_ = s.Close()
				return
			}
		}
	}
}

func host(a net.Addr) string {
	h, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return h
}

func (c *capped) enter(at string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= mostStreams || c.open[at] >= mostOfAddress {
		return false
	}
	c.all++
	c.open[at]++
	return true
}

func (c *capped) leave(at string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.open[at]--; c.open[at] == 0 {
		delete(c.open, at)
	}
}

// StreamCh implements memberlist.Transport.
func (c *capped) StreamCh() <-chan net.Conn { return c.streams }

// Shutdown implements memberlist.Transport. It may be called again.
func (c *capped) Shutdown() (err error) {
	c.once.Do(func() {
		close(c.stop)
		err = c.NetTransport.Shutdown()
		close(c.closed)
		c.running.Wait()
	})
	return err
}

// stream is counted until it is closed.
type stream struct {
	net.Conn
	at   string
	of   *capped
	once sync.Once
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.once.Do(func() { s.of.leave(s.at) })
	return s.Conn.Close()
}
