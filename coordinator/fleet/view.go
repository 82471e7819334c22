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

// Matcher answers whether a host belongs to a group with this selector.
type Matcher func(selector string, h *deploy.Host) bool

// settle is how long a new leader leads before it calls a host unreachable
// whose stream it never saw: agents reconnect within this time.
const settle = 60 * time.Second

// View joins hints. Its methods may be called concurrently. It never changes
// recorded state: only Decide says that a host is unreachable. Gossip-dead and
// stream-gone together are reason enough at once; a host that only gossips, as
// anybody with the ring's key can in its name, is one when its stream has been
// gone for as long as its groups wait for a host that is lost.
type View struct {
	state State
	match Matcher

	mu      sync.Mutex
	changed chan struct{}
	gossip  map[string]bool            // host id -> alive in gossip, or seen to die there
	streams map[string]map[string]bool // coordinator -> host ids with a stream there
	gone    map[string]time.Time       // when the stream of a host was seen to go last, since this node leads
	since   time.Time                  // this node leads, zero when it does not
	shape   uint64
	joins   []deploy.Membership
	leaves  []deploy.Membership
}

// New returns a view in which nobody is alive yet.
func New(s State, m Matcher) *View {
	return &View{
		state: s, match: m, changed: make(chan struct{}), gossip: map[string]bool{},
		streams: map[string]map[string]bool{}, gone: map[string]time.Time{},
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

// Lead tells whether this node leads, from now on.
func (v *View) Lead(leads bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.since = time.Time{}
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
	v.signal()
}

// Streams records changes of the hosts that have a stream at a coordinator;
// complete replaces what was known of it.
func (v *View) Streams(coordinator string, complete bool, connected, disconnected []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	set := v.streams[coordinator]
	if set == nil || complete {
		set = map[string]bool{}
	}
	for _, h := range connected {
		set[h] = true
	}
	for _, h := range disconnected {
		delete(set, h)
		v.gone[h] = time.Now()
	}
	v.streams[coordinator] = set
	v.signal()
}

// Lost forgets the streams of a coordinator that no longer tells; its hosts
// count as seen to go.
func (v *View) Lost(coordinator string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for h := range v.streams[coordinator] {
		v.gone[h] = time.Now()
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
	for _, c := range slices.Sorted(maps.Keys(v.streams)) {
		if v.streams[c][host] {
			return c
		}
	}
	return ""
}

// Count returns how many hosts have a stream at the coordinator.
func (v *View) Count(coordinator string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.streams[coordinator])
}

// Snapshot returns the exceptions: who is down, who should join or leave a
// group. Selectors are asked again only after hosts or groups changed.
func (v *View) Snapshot() deploy.Fleet {
	var out deploy.Fleet
	v.state.View(func(s *deploy.State) { // the state's lock comes before ours, everywhere
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, id := range slices.Sorted(maps.Keys(s.Hosts)) {
			if v.down(s, s.Hosts[id]) {
				out.Down = append(out.Down, id)
			}
		}
		if s.MembershipIndex != v.shape || v.shape == 0 {
			v.membership(s)
			v.shape = s.MembershipIndex
		}
		for id, alive := range v.gossip {
			if !alive && s.Hosts[id] == nil { // whoever has the ring's key can tell of anybody
				delete(v.gossip, id)
			}
		}
		out.Joins, out.Leaves = v.joins, v.leaves
	})
	return out
}

// down reports whether a host is to be called unreachable.
func (v *View) down(s *deploy.State, h *deploy.Host) bool {
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

// membership asks every selector of every host.
func (v *View) membership(s *deploy.State) {
	v.joins, v.leaves = nil, nil
	for _, key := range slices.Sorted(maps.Keys(s.Groups)) {
		g := s.Groups[key]
		for _, id := range slices.Sorted(maps.Keys(s.Hosts)) {
			m := deploy.Membership{App: g.App, Group: g.Name, Host: id}
			switch matches := v.match(g.Selector, s.Hosts[id]); {
			case matches && s.Hosts[id].Targets[g.App] == nil:
				v.joins = append(v.joins, m)
			case !matches && g.Members[id]:
				v.leaves = append(v.leaves, m)
			}
		}
	}
}
