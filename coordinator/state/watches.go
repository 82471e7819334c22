package state

import (
	"container/heap"
	"maps"
	"slices"
	"sync"
)

// watches wake those who wait for one host, one deployment or one entry, and nobody
// else: an entry costs what it changed, however many wait. They may be used
// concurrently.
type watches struct {
	mu      sync.Mutex
	by      map[string]map[chan struct{}]bool // who waits, by what for
	entries entries
}

func hostKey(id string) string       { return "host/" + id }
func deploymentKey(id string) string { return "deployment/" + id }

// hostsHear reports whether every host is told of a fact of the cluster.
func hostsHear(e ClusterEvent) bool {
	switch e.(type) {
	case ClusterCreated, CoordinatorJoined, CoordinatorRemoved, EpochBegun, EpochActivated, AccessChanged:
		return true
	}
	return false
}

// add begins to wake for a key.
func (w *watches) add(key string) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = map[string]map[chan struct{}]bool{}
	}
	if w.by[key] == nil {
		w.by[key] = map[chan struct{}]bool{}
	}
	w.by[key][ch] = true
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.by[key], ch); len(w.by[key]) == 0 {
			delete(w.by, key)
		}
	}
}

func (w *watches) wake(hosts, deployments []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range hosts {
		signal(w.by[hostKey(h)])
	}
	for _, d := range deployments {
		signal(w.by[deploymentKey(d)])
	}
}

func (w *watches) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for all := range maps.Values(w.by) {
		signal(all)
	}
}

// signal never blocks: who has a value has not looked yet.
func signal(all map[chan struct{}]bool) {
	for ch := range all {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// until returns a channel that is closed once an entry is applied.
func (w *watches) until(index uint64) <-chan struct{} {
	ch := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	heap.Push(&w.entries, entry{index, ch})
	return ch
}

// reached says that everything up to an entry is applied.
func (w *watches) reached(index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.entries) > 0 && w.entries[0].index <= index {
		close(heap.Pop(&w.entries).(entry).applied)
	}
}

// forget ends a wait.
func (w *watches) forget(applied <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.IndexFunc(w.entries, func(e entry) bool { return e.applied == applied }); i >= 0 {
		heap.Remove(&w.entries, i)
	}
}

// entry is one that somebody waits for; entries are a heap of them.
type entry struct {
	index   uint64
	applied chan struct{}
}

type entries []entry

func (e entries) Len() int           { return len(e) }
func (e entries) Less(i, j int) bool { return e[i].index < e[j].index }
func (e entries) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *entries) Push(x any)        { *e = append(*e, x.(entry)) }
func (e *entries) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = slices.Delete(old, len(old)-1, len(old))
	return last
}
