// Package fleet is the leader's live view of hosts: gossip and streams, and
// the answers of selectors, as a deploy.Fleet value.
package fleet

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// State is the replica's own copy of the state.
type State interface {
	View(func(*deploy.State))
}

// Matcher answers whether a host may belong to a group of the application with this
// selector.
type Matcher func(app, selector string, h *deploy.Host) bool

// settle is how long a new leader leads before it calls a host unreachable
// whose stream it never saw: agents reconnect within this time.
const settle = 60 * time.Second

// View joins hints. Its methods may be called concurrently. It never changes
// recorded state: only Decide says that a host is unreachable. Gossip-dead and
// stream-gone together are reason enough at once; a host that only gossips, as
// anybody with the ring's key can in its name, is one when its stream has been
// gone for as long as its groups wait for a host that is lost.
//
// It costs what changed: a host is looked at when it, its stream or gossip of it
// changed, hosts without a stream once a second beside, as time alone may change
// their lot. Who is forgotten by the state is forgotten here.
type View struct {
	state   State
	members members

	mu      sync.Mutex
	changed chan struct{}
	gossip  map[string]bool            // host id -> alive in gossip, or seen to die there
	streams map[string]map[string]bool // coordinator -> host ids with a stream there
	gone    map[string]time.Time       // when the stream of a host was seen to go last, since this node leads
	since   time.Time                  // this node leads, zero when it does not
	away    map[string]bool            // hosts of the state without a stream
	look    map[string]bool            // hosts to be looked at again
	looked  time.Time                  // when everybody who is away was looked at last, zero to do it now
	down    []string                   // who is to be called unreachable, in order
}

// lookAgain is how often hosts without a stream are looked at though nothing changed.
const lookAgain = time.Second

// New returns a view in which nobody is alive yet.
func New(s State, m Matcher) *View {
	return &View{
		state: s, members: newMembers(m), changed: make(chan struct{}), gossip: map[string]bool{},
		streams: map[string]map[string]bool{}, gone: map[string]time.Time{}, away: map[string]bool{},
		look: map[string]bool{},
	}
}

// Changed returns a channel that is closed at the next change. Take it before
// Snapshot: then no change is missed.
func (v *View) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

func (v *View) signal() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// Reselect has every selector asked again, because what an application may have has
// changed.
func (v *View) Reselect() {
	v.members.forget()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.signal()
}

// Lead tells whether this node leads, from now on.
func (v *View) Lead(leads bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.since, v.looked, v.down = time.Time{}, time.Time{}, nil
	v.gone = map[string]time.Time{}
	if leads {
		v.since = time.Now()
	}
	v.signal()
}

// Gossip records that gossip sees a host, or no longer does.
func (v *View) Gossip(host string, alive bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old, heard := v.gossip[host]; heard && old == alive {
		return
	}
	v.gossip[host] = alive
	v.look[host] = true
	v.signal()
}

// Streams records changes of the hosts that have a stream at a coordinator;
// complete replaces what was known of it.
func (v *View) Streams(coordinator string, complete bool, connected, disconnected []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	set := v.streams[coordinator]
	if set == nil || complete {
		for h := range set {
			v.look[h] = true
		}
		set = map[string]bool{}
		v.streams[coordinator] = set
	}
	for _, h := range connected {
		set[h] = true
		v.look[h] = true
	}
	for _, h := range disconnected {
		delete(set, h)
		v.gone[h] = time.Now()
		v.look[h] = true
	}
	v.signal()
}

// Lost forgets the streams of a coordinator that no longer tells; its hosts
// count as seen to go.
func (v *View) Lost(coordinator string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for h := range v.streams[coordinator] {
		v.gone[h] = time.Now()
		v.look[h] = true
	}
	delete(v.streams, coordinator)
	v.signal()
}

// Status says what is known of a host now: connected, degraded (only one of
// gossip and stream), or unreachable; and which coordinator holds its stream.
func (v *View) Status(host string) (state, coordinator string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	coordinator = v.at(host)
	switch gossip := v.gossip[host]; {
	case coordinator != "" && gossip:
		return "connected", coordinator
	case coordinator != "" || gossip:
		return "degraded", coordinator
	}
	return "unreachable", ""
}

// At returns the coordinator that holds the host's stream, or "".
func (v *View) At(host string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.at(host)
}

func (v *View) at(host string) string {
	first := ""
	for c, hosts := range v.streams { // the first by name
		if hosts[host] && (first == "" || c < first) {
			first = c
		}
	}
	return first
}

// Count returns how many hosts have a stream at the coordinator.
func (v *View) Count(coordinator string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.streams[coordinator])
}

// Snapshot returns the exceptions: who is down, who should join or leave a
// group. Selectors are asked again only of hosts that changed, or by groups that
// did, and not under the state's lock. One Snapshot at a time.
func (v *View) Snapshot() deploy.Fleet {
	var out deploy.Fleet
	var moved []string
	out.Joins, out.Leaves, moved = v.members.snapshot(v.state)
	v.state.View(func(s *deploy.State) { // the state's lock comes before ours, everywhere
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, id := range moved {
			v.look[id] = true
		}
		v.lookAround(s)
		out.Down = v.down
	})
	return out
}

// lookAround looks at the hosts of which something changed, and at everybody who is
// away if that is due.
func (v *View) lookAround(s *deploy.State) {
	if time.Since(v.looked) >= lookAgain {
		v.looked = time.Now()
		maps.Copy(v.look, v.away)
	}
	if len(v.look) == 0 {
		return
	}
	down := slices.Clone(v.down) // whoever has the old one keeps it
	for id := range v.look {
		v.lookAt(s, id)
		h := s.Hosts[id]
		at, was := slices.BinarySearch(down, id)
		switch is := h != nil && v.away[id] && v.isDown(s, h); {
		case is && !was:
			down = slices.Insert(down, at, id)
		case was && !is:
			down = slices.Delete(down, at, at+1)
		}
	}
	clear(v.look)
	v.down = down
}

// lookAt keeps who is away, and forgets what the state does not know.
func (v *View) lookAt(s *deploy.State, id string) {
	connected := v.at(id) != ""
	if connected {
		delete(v.gone, id)
	}
	if s.Hosts[id] != nil && !connected {
		v.away[id] = true
		return
	}
	delete(v.away, id)
	if s.Hosts[id] == nil && !connected {
		delete(v.gone, id)
		if !v.gossip[id] { // whoever has the ring's key can tell of anybody
			delete(v.gossip, id)
		}
	}
}

// isDown reports whether a host is to be called unreachable.
func (v *View) isDown(s *deploy.State, h *deploy.Host) bool {
	if v.since.IsZero() || v.at(h.ID) != "" {
		return false
	}
	gone, seen := v.gone[h.ID]
	if !seen {
		gone = v.since.Add(settle)
	}
	switch alive, heard := v.gossip[h.ID]; {
	case alive:
		return time.Since(gone) >= lostAfter(s, h)
	case heard && seen:
		return true
	}
	// Gossip has not told of it yet, or nobody of its stream: a coordinator that has
	// just started hears of a fleet by and by, and must not blame hosts for that.
	return time.Since(v.since) >= settle
}

// lostAfter is the longest time that a group of the host waits for it.
func lostAfter(s *deploy.State, h *deploy.Host) time.Duration {
	var longest time.Duration
	for _, t := range h.Targets {
		if g := s.Groups[deploy.GroupKey(t.App, t.Group)]; g != nil {
			longest = max(longest, g.Config.Timeouts.LostAfter)
		}
	}
	return cmp.Or(longest, usuallyLost)
}

// usuallyLost is the default of lostAfter.
const usuallyLost = 5 * time.Minute

// mostAway is how much of a group, in percent, may be away while hosts of it
// are forgotten: beyond it something else has happened than machines that went.
// One host may always.
const mostAway = 10

// Forgets reports whether a host that is unreachable may be forgotten: gossip
// does not see it either, and hardly anybody else of its groups is away.
func (v *View) Forgets(s *deploy.State, host string) bool {
	v.mu.Lock()
	gossips := v.gossip[host]
	v.mu.Unlock()
	h := s.Hosts[host]
	if gossips || h == nil {
		return false
	}
	for _, t := range h.Targets {
		away, all := 0, 0
		if g := s.Groups[deploy.GroupKey(t.App, t.Group)]; g != nil {
			for id := range g.Members {
				all++
				if other := s.Hosts[id]; other != nil && other.Unreachable {
					away++
				}
			}
		}
		if away > max(1, all*mostAway/100) {
			return false
		}
	}
	return true
}
