// Package fleet is the leader's live view of hosts: gossip and streams, and
// the answers of selectors, as a deploy.Fleet value.
package fleet

import (
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
// recorded state: gossip-dead and stream-gone together make a host
// unreachable, and only Decide says so.
type View struct {
	state State
	match Matcher

	mu      sync.Mutex
	changed chan struct{}
	gossip  map[string]bool            // host id -> alive in gossip
	streams map[string]map[string]bool // coordinator -> host ids with a stream there
	gone    map[string]bool            // hosts whose stream was seen to go since this node leads
	since   time.Time                  // this node leads, zero when it does not
	shape   uint64
	joins   []deploy.Membership
	leaves  []deploy.Membership
}

// New returns a view in which nobody is alive yet.
func New(s State, m Matcher) *View {
	return &View{
		state: s, match: m, changed: make(chan struct{}), gossip: map[string]bool{},
		streams: map[string]map[string]bool{}, gone: map[string]bool{},
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
	v.gone = map[string]bool{}
	if leads {
		v.since = time.Now()
	}
	v.signal()
}

// Gossip records that gossip sees a host, or no longer does.
func (v *View) Gossip(host string, alive bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gossip[host] == alive {
		return
	}
	if alive {
		v.gossip[host] = true
	} else {
		delete(v.gossip, host)
	}
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
		v.gone[h] = true
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
		v.gone[h] = true
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
		settled := !v.since.IsZero() && time.Since(v.since) >= settle
		for _, id := range slices.Sorted(maps.Keys(s.Hosts)) {
			if !v.gossip[id] && v.at(id) == "" && (settled || v.gone[id]) {
				out.Down = append(out.Down, id)
			}
		}
		if s.MembershipIndex != v.shape || v.shape == 0 {
			v.membership(s)
			v.shape = s.MembershipIndex
		}
		out.Joins, out.Leaves = v.joins, v.leaves
	})
	return out
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
