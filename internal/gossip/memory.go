package gossip

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Network carries gossip in memory, for rings in one process and in
// testing/synctest bubbles. It loses what real networks lose: packets to who is
// gone, and to who is not fast enough. Its methods may be called concurrently.
type Network struct {
	mu      sync.Mutex
	port    int
	members map[string]*memory
}

// NewNetwork returns a network without members.
func NewNetwork() *Network { return &Network{members: map[string]*memory{}} }

// queue is how many packets and connections wait for a member.
const queue = 256

// memory is the transport of one member.
type memory struct {
	net     *Network
	ip      net.IP
	port    int
	packets chan *memberlist.Packet
	streams chan net.Conn
}

// open makes the transport of a member; port 0 takes a free one.
func (n *Network) open(host string, port int) (*memory, error) {
	ip := net.ParseIP(host)
	if ip == nil {
		return nil, fmt.Errorf("%q is no address of a network in memory", host)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == 0 {
		n.port++
		port = 40000 + n.port
	}
	m := &memory{
		net: n, ip: ip, port: port,
		packets: make(chan *memberlist.Packet, queue), streams: make(chan net.Conn, queue),
	}
	if n.members[m.addr()] != nil {
		return nil, fmt.Errorf("address %s is in use", m.addr())
	}
	n.members[m.addr()] = m
	return m, nil
}

func (n *Network) at(addr string) *memory {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members[addr]
}

func (m *memory) addr() string { return net.JoinHostPort(m.ip.String(), strconv.Itoa(m.port)) }

// FinalAdvertiseAddr implements memberlist.Transport.
func (m *memory) FinalAdvertiseAddr(string, int) (net.IP, int, error) { return m.ip, m.port, nil }

// WriteTo implements memberlist.Transport; it never blocks.
func (m *memory) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	if to := m.net.at(addr); to != nil {
		from := &net.UDPAddr{IP: m.ip, Port: m.port}
		select {
		case to.packets <- &memberlist.Packet{Buf: append([]byte{}, b...), From: from, Timestamp: now}:
		default:
		}
	}
	return now, nil
}

// PacketCh implements memberlist.Transport.
func (m *memory) PacketCh() <-chan *memberlist.Packet { return m.packets }

// DialTimeout implements memberlist.Transport.
func (m *memory) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	to := m.net.at(addr)
	if to == nil {
		return nil, fmt.Errorf("dial %s: nobody is there", addr)
	}
	ours, theirs := net.Pipe()
	select {
	case to.streams <- theirs:
		return ours, nil
	default:
		return nil, errors.Join(fmt.Errorf("dial %s: too many wait", addr), ours.Close(), theirs.Close())
	}
}

// StreamCh implements memberlist.Transport.
func (m *memory) StreamCh() <-chan net.Conn { return m.streams }

// Shutdown implements memberlist.Transport: nothing reaches the member any more.
func (m *memory) Shutdown() error {
	m.net.mu.Lock()
	delete(m.net.members, m.addr())
	m.net.mu.Unlock()
	for {
		select {
		case c := <-m.streams:
			_ = c.Close() // whoever dialled sees it
		default:
			return nil
		}
	}
}
