// Package gossip wraps memberlist for both programs: who is there, and where.
package gossip

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Member is one process in the ring, as it says of itself.
type Member struct {
	ID    string `json:"id"`            // host id, or name of a coordinator
	Role  string `json:"role"`          // agent | coordinator
	Agent string `json:"agt,omitempty"` // a coordinator's port for agents, host:port
	API   string `json:"api,omitempty"` // a coordinator's API, host:port
	Addr  string `json:"-"`             // of its gossip, host:port
}

// Options of Join.
type Options struct {
	Self  Member
	Bind  string   // host:port to listen on, TCP and UDP; port 0 takes a free one
	Keys  []byte   // of KeySize bytes each, the one that is used first; the ring is always encrypted
	Seeds []string // host:port of members to join
	// Changed is called when a member comes, changes or goes. It must not block.
	Changed func(m Member, alive bool)
	// Network carries the ring in memory; nil is UDP and TCP.
	Network *Network
	// Probe is how often a member is probed; 0 is 1 s.
	Probe time.Duration
}

// Ring is our membership. Methods may be called concurrently.
type Ring struct {
	list *memberlist.Memberlist
	keys *memberlist.Keyring
	o    Options

	ending sync.Mutex // Leave or Close
	ended  bool

	mu     sync.Mutex
	alive  map[string][]process // of role/id, the newest last
	closed bool
}

// process is a living process of a member.
type process struct {
	name string // in the ring, its own
	Member
}

// Open starts gossiping. Seeds that do not answer are no error: Rejoin tries
// them again.
func Open(o Options) (*Ring, error) {
	keys, err := split(o.Keys)
	if err != nil {
		return nil, err
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("keys of the gossip ring: %w", err)
	}
	host, portText, err := net.SplitHostPort(o.Bind)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: %w", o.Bind, err)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: %w", o.Bind, err)
	}
	meta, err := json.Marshal(o.Self)
	if err != nil || len(meta) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("gossip meta of %s has %d bytes, at most %d fit: %w", o.Self.ID, len(meta),
			memberlist.MetaMaxSize, err)
	}
	r := &Ring{o: o, keys: ring, alive: map[string][]process{}}
	c := memberlist.DefaultLANConfig()
	// A restarted process is a new name in the ring: it need not wait until the
	// old one, perhaps at another address, is given up.
	c.Name = o.Self.Role + "/" + o.Self.ID + "/" + rand.Text()[:8]
	c.BindAddr, c.BindPort, c.AdvertisePort = host, port, port
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		c.AdvertiseAddr = host
	}
	c.Keyring = ring
	c.EnableCompression = false
	// Half a second between rounds: the default of 200 ms was the largest single
	// cost of an idle agent, and a death is found by probes, not by rounds.
	c.GossipInterval = 500 * time.Millisecond
	c.SuspicionMult = 3
	if o.Probe > 0 {
		c.ProbeInterval = o.Probe
		c.ProbeTimeout = o.Probe / 2
	}
	c.Delegate = delegate(meta)
	c.Events = (*events)(r)
	c.Logger = log.New(io.Discard, "", 0)
	if o.Network != nil {
		if c.Transport, err = o.Network.open(host, port); err != nil {
			return nil, fmt.Errorf("listen for gossip on %s: %w", o.Bind, err)
		}
	} else {
		t, err := listen(host, port, c.Logger)
		if err != nil {
			return nil, fmt.Errorf("listen for gossip on %s: %w", o.Bind, err)
		}
		c.Transport = t
		c.BindPort, c.AdvertisePort = t.GetAutoBindPort(), t.GetAutoBindPort()
	}
	if r.list, err = memberlist.Create(c); err != nil {
		if c.Transport != nil {
			_ = c.Transport.Shutdown() // the other error says more
		}
		return nil, fmt.Errorf("listen for gossip on %s: %w", o.Bind, err)
	}
	r.Rejoin(o.Seeds)
	return r, nil
}

// KeySize is the length of a key.
const KeySize = 32

// split takes keys that lie one behind the other apart.
func split(all []byte) (keys [][]byte, err error) {
	if len(all) == 0 || len(all)%KeySize != 0 {
		return nil, fmt.Errorf("keys of the gossip ring: %d bytes are not keys of %d bytes each, and there is no ring "+
			"without one", len(all), KeySize)
	}
	for k := range slices.Chunk(all, KeySize) {
		keys = append(keys, k)
	}
	return keys, nil
}

// SetKeys uses the first of these keys from now on, and takes messages under any of
// them and no other.
func (r *Ring) SetKeys(all []byte) error {
	keys, err := split(all)
	if err != nil {
		return err
	}
	for _, k := range keys {
		err = errors.Join(err, r.keys.AddKey(k))
	}
	if err = errors.Join(err, r.keys.UseKey(keys[0])); err != nil {
		return fmt.Errorf("keys of the gossip ring: %w", err)
	}
	for _, old := range slices.Clone(r.keys.GetKeys()) {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			err = errors.Join(err, r.keys.RemoveKey(old))
		}
	}
	return err
}

// Rejoin contacts up to three of the seeds and returns how many answered.
func (r *Ring) Rejoin(seeds []string) int {
	n := 0
	for _, s := range seeds {
		if n == 3 {
			break
		}
		if k, err := r.list.Join([]string{s}); err == nil {
			n += k
		}
	}
	return n
}

// Addr returns the address that others can use as a seed.
func (r *Ring) Addr() string { return r.list.LocalNode().Address() }

// Members returns the members that are alive, ourselves included. A member
// whose old process was not given up yet is listed once, as the newest.
func (r *Ring) Members() []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Member, 0, len(r.alive))
	for _, all := range r.alive {
		out = append(out, all[len(all)-1].Member)
	}
	return out
}

// Leave tells the others that we go on purpose, and stops. It takes a second at
// most: who has not heard it by then finds out, so that is no error.
func (r *Ring) Leave() error {
	r.ending.Lock()
	defer r.ending.Unlock()
	if !r.ended { // memberlist panics
		_ = r.list.Leave(time.Second) // its one error is that time
	}
	return r.end()
}

// Close stops without a word, as a crash would.
func (r *Ring) Close() error {
	r.ending.Lock()
	defer r.ending.Unlock()
	return r.end()
}

func (r *Ring) end() error {
	r.ended = true
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	if err := r.list.Shutdown(); err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

func member(n *memberlist.Node) (Member, error) {
	var m Member
	if err := json.Unmarshal(n.Meta, &m); err != nil {
		return Member{}, fmt.Errorf("read gossip meta of %s: %w", n.Name, err)
	}
	m.Addr = n.Address()
	return m, nil
}

// events passes memberlist's notices on.
type events Ring

func (e *events) notify(n *memberlist.Node, alive bool) {
	m, err := member(n)
	if err != nil {
		return
	}
	if now, tell := e.track(m, n.Name, alive); tell && e.o.Changed != nil {
		e.o.Changed(m, now)
	}
}

// track remembers the processes of a member: it is alive while one of them is.
// What memberlist answers itself is shared with its own goroutines.
func (e *events) track(m Member, name string, alive bool) (now, tell bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := m.Role + "/" + m.ID
	all := slices.DeleteFunc(e.alive[key], func(p process) bool { return p.name == name })
	if alive {
		all = append(all, process{name, m})
	}
	if e.alive[key] = all; len(all) == 0 {
		delete(e.alive, key)
	}
	return len(all) > 0, !e.closed
}

func (e *events) NotifyJoin(n *memberlist.Node)   { e.notify(n, true) }
func (e *events) NotifyUpdate(n *memberlist.Node) { e.notify(n, true) }
func (e *events) NotifyLeave(n *memberlist.Node)  { e.notify(n, false) }

// delegate carries our meta; the ring replicates nothing else.
type delegate []byte

func (d delegate) NodeMeta(int) []byte           { return d }
func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}
