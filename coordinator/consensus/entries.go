package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

// entries are the newest of the log, as they were written. A leader reads each for every
// follower, and the last one twenty times a second for each while nothing happens: it
// asks them whether they have it.
type entries struct {
	mu   sync.RWMutex
	kept [entriesKept]*raft.Log // by index, modulo
}

const (
	entriesKept = 128
	entryBytes  = 64 << 10 // larger ones are read from disk
)

// get copies the entry, if it is here.
func (e *entries) get(index uint64, l *raft.Log) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	one := e.kept[index%entriesKept]
	if one == nil || one.Index != index {
		return false
	}
	*l = *one
	return true
}

// stored notes what is on disk now. Raft changes no entry that it has stored.
func (e *entries) stored(logs []*raft.Log) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range logs {
		one := l
		if len(l.Data) > entryBytes {
			one = nil
		}
		e.kept[l.Index%entriesKept] = one
	}
}

// forget is called before entries are deleted: what replaces them may be another.
func (e *entries) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.kept[:])
}
