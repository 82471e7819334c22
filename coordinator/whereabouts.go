package coordinator

import (
	"maps"
	"slices"
	"sync"

	"github.com/groundswell/groundswell/coordinator/state"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// members tells agents where the coordinators are. Every stream asks at every
// entry, so an answer is made once for each change. It may be used concurrently.
type members struct {
	store *state.Store

	mu   sync.Mutex
	of   map[string]state.Coordinator
	said *agentv1.Members
}

// addresses returns the same pointer while they are the same; nobody changes
// what it points to.
func (m *members) addresses() *agentv1.Members {
	var now map[string]state.Coordinator
	m.store.ViewCluster(func(s *state.Cluster) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.said == nil || !maps.Equal(m.of, s.Coordinators) {
			now = maps.Clone(s.Coordinators)
		}
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if now == nil && m.said != nil {
		return m.said
	}
	m.of, m.said = now, &agentv1.Members{}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		m.said.Agents = append(m.said.Agents, now[name].Agent)
		m.said.Seeds = append(m.said.Seeds, now[name].Gossip)
	}
	return m.said
}
