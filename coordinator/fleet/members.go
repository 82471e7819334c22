package fleet

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/groundswell/groundswell/deploy"
)

// members keeps what selectors answered, and who should join or leave a group by it.
// A selector is asked of a host once, until either changes.
type members struct {
	match Matcher

	mu     sync.Mutex // one snapshot at a time
	index  uint64     // of the state that was looked at
	asked  bool       // at all
	groups map[string]group
	hosts  map[string]*answers
	todo   map[string]bool // hosts that should join or leave something
}

// group is what is to be known of a group.
type group struct{ app, name, selector string }

// answers are those of one host.
type answers struct {
	host    deploy.Host     // what selectors look at
	groups  map[string]bool // keys of groups whose selector matches
	targets map[string]string
	joins   []deploy.Membership
	leaves  []deploy.Membership
}

func newMembers(m Matcher) members {
	return members{match: m, groups: map[string]group{}, hosts: map[string]*answers{}, todo: map[string]bool{}}
}

// news is what changed in the state, copied.
type news struct {
	hosts  map[string]*deploy.Host      // nil is gone
	apps   map[string]map[string]string // host -> application -> group
	groups map[string]*group            // nil is gone
	whole  bool                         // everything else is gone
}

// snapshot asks what must be asked, and returns who should join or leave, by group and
// host, and the hosts that have changed since the last time.
func (m *members) snapshot(state State) (joins, leaves []deploy.Membership, moved []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var n news
	state.View(func(s *deploy.State) { n = m.news(s) })
	m.take(n)
	for id := range m.todo {
		joins, leaves = append(joins, m.hosts[id].joins...), append(leaves, m.hosts[id].leaves...)
	}
	order := func(a, b deploy.Membership) int {
		return cmp.Or(cmp.Compare(deploy.GroupKey(a.App, a.Group), deploy.GroupKey(b.App, b.Group)),
			cmp.Compare(a.Host, b.Host))
	}
	slices.SortFunc(joins, order)
	slices.SortFunc(leaves, order)
	return joins, leaves, slices.Collect(maps.Keys(n.hosts))
}

// forget has everything asked again at the next snapshot.
func (m *members) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = false
}

// news copies what changed since the last time; all there is where that is not known.
func (m *members) news(s *deploy.State) news {
	n := news{hosts: map[string]*deploy.Host{}, apps: map[string]map[string]string{}, groups: map[string]*group{}}
	hosts, groups, known := s.MovedSince(m.index)
	if !known || !m.asked {
		n.whole = true
		hosts, groups = slices.Collect(maps.Keys(s.Hosts)), slices.Collect(maps.Keys(s.Groups))
		for id := range m.hosts {
			n.hosts[id] = nil
		}
		for key := range m.groups {
			n.groups[key] = nil
		}
	}
	m.index, m.asked = s.Index, true
	for _, id := range hosts {
		n.hosts[id] = nil
		if h := s.Hosts[id]; h != nil {
			n.hosts[id] = &deploy.Host{
				ID: h.ID, Name: h.Name, Zone: h.Zone, Region: h.Region, Labels: maps.Clone(h.Labels), Version: h.Version,
			}
			n.apps[id] = map[string]string{}
			for app, t := range h.Targets {
				n.apps[id][app] = t.Group
			}
		}
	}
	for _, key := range groups {
		n.groups[key] = nil
		if g := s.Groups[key]; g != nil {
			n.groups[key] = &group{g.App, g.Name, g.Selector}
		}
	}
	return n
}

// take asks selectors, and works out who should join or leave.
func (m *members) take(n news) {
	for id, h := range n.hosts {
		m.takeHost(id, h, n.apps[id])
	}
	for key, g := range n.groups {
		m.takeGroup(key, g)
	}
	if len(n.groups) > 0 {
		for id := range m.hosts {
			m.due(id)
		}
		return
	}
	for id := range n.hosts {
		m.due(id)
	}
}

func (m *members) takeHost(id string, h *deploy.Host, targets map[string]string) {
	if h == nil {
		delete(m.hosts, id)
		delete(m.todo, id)
		return
	}
	a := m.hosts[id]
	if a == nil || !same(&a.host, h) {
		a = &answers{host: *h, groups: map[string]bool{}}
		m.hosts[id] = a
		for key, g := range m.groups {
			if m.match(g.app, g.selector, &a.host) {
				a.groups[key] = true
			}
		}
	}
	a.targets = targets
}

// same reports whether a host says the same of itself.
func same(a, b *deploy.Host) bool {
	return a.Name == b.Name && a.Zone == b.Zone && a.Region == b.Region && a.Version == b.Version &&
		maps.Equal(a.Labels, b.Labels)
}

func (m *members) takeGroup(key string, g *group) {
	if g == nil {
		delete(m.groups, key)
		for _, a := range m.hosts {
			delete(a.groups, key)
		}
		return
	}
	m.groups[key] = *g
	for _, a := range m.hosts {
		if delete(a.groups, key); m.match(g.app, g.selector, &a.host) {
			a.groups[key] = true
		}
	}
}

// due works out what a host should join and leave.
func (m *members) due(id string) {
	a := m.hosts[id]
	if a == nil {
		return
	}
	a.joins, a.leaves = nil, nil
	for key := range a.groups {
		if g := m.groups[key]; a.targets[g.app] == "" {
			a.joins = append(a.joins, deploy.Membership{App: g.app, Group: g.name, Host: id})
		}
	}
	for app, name := range a.targets {
		key := deploy.GroupKey(app, name)
		if _, known := m.groups[key]; known && !a.groups[key] {
			a.leaves = append(a.leaves, deploy.Membership{App: app, Group: name, Host: id})
		}
	}
	if delete(m.todo, id); len(a.joins)+len(a.leaves) > 0 {
		m.todo[id] = true
	}
}
