// Package state is the replicated state of a coordinator: FSM, codec,
// snapshot, read view and change signal.
package state

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/groundswell/groundswell/deploy"
)

// Store is the FSM of one replica. Raft applies to it on one goroutine; every
// other method may be called concurrently.
//
// Crash safety: nothing here is durable. The log (bbolt, fsynced by raft before
// an entry is committed) and the snapshots hold everything; after a restart
// raft restores the newest snapshot and applies the rest of the log, and
// because Apply is deterministic the state is what it was.
type Store struct {
	mu      sync.RWMutex
	state   *deploy.State
	cluster *Cluster
	changed chan struct{} // closed and replaced at each applied entry
	watches watches
	windows windows
	frames  frames
	known   int // highest level of rules that this build applies

	// Report is called with every invariant that an entry breaks; any is a bug.
	// It is set before the store is used, must not block nor use the store.
	// Entries up to Replayed are old news: whoever applied them first has told.
	Report   func(error)
	Replayed uint64
	broken   int
}

// New returns an empty store that applies rules up to level known: what a build
// announces, deploy.RulesKnown.
func New(known int) *Store {
	s := &Store{state: deploy.NewState(), cluster: &Cluster{}, changed: make(chan struct{}), known: known}
	s.state.Violated = s.violated
	return s
}

// View runs f while no entry is applied. f must be a pure read, must not block
// and must keep no pointer into the state.
func (s *Store) View(f func(*deploy.State)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f(s.state)
}

// ViewCluster is View for the cluster's own state.
func (s *Store) ViewCluster(f func(*Cluster)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f(s.cluster)
}

// Changed returns a channel that is closed when the next entry with facts is applied.
// Take it before reading: then no change is missed.
func (s *Store) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

// WatchHost returns a channel that gets a value when what the host should do may have
// changed, or what every host is told of the cluster; stop ends that. Watch before
// reading: then no change is missed.
func (s *Store) WatchHost(host string) (changed <-chan struct{}, stop func()) {
	return s.watches.add(hostKey(host))
}

// WatchDeployment is WatchHost for the records of a deployment.
func (s *Store) WatchDeployment(id string) (changed <-chan struct{}, stop func()) {
	return s.watches.add(deploymentKey(id))
}

// Wait waits until the entry with this index is applied.
func (s *Store) Wait(ctx context.Context, index uint64) error {
	reached := s.watches.until(index)
	s.mu.RLock()
	now := s.state.Index
	s.mu.RUnlock()
	if now >= index {
		s.watches.reached(now)
	}
	select {
	case <-reached:
		return nil
	case <-ctx.Done():
		s.watches.forget(reached)
		return fmt.Errorf("wait for entry %d: %w", index, ctx.Err())
	}
}

// Applied is what Apply answers to the proposer: the index and one answer for
// each fact, deployment facts first.
type Applied struct {
	Index    uint64
	Refusals []error
}

// Err returns the first refusal, or nil.
func (a Applied) Err() error {
	for _, err := range a.Refusals {
		if err != nil {
			return err
		}
	}
	return nil
}

// violated counts a broken invariant. The replica goes on: all others apply the
// same, and stopping a fleet is worse than a wrong decision that is known.
func (s *Store) violated(err error) {
	if s.state.Index <= s.Replayed {
		return
	}
	s.broken++
	if s.Report != nil {
		s.Report(err)
	}
}

// Violations returns how many invariants entries have broken since this replica
// started.
func (s *Store) Violations() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.broken
}

// Apply implements raft.FSM. An entry that cannot be decoded, or is of rules
// that this build does not know, stops the replica: going on without it would
// let replicas disagree silently. CheckEntry says so before raft starts.
func (s *Store) Apply(l *raft.Log) any {
	e, err := Decode(l.Data)
	if err == nil {
		err = checkRules(e.Rules, s.known)
	}
	if err != nil {
		panic(fmt.Sprintf("internal error: log entry %d: %v", l.Index, err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.state.Index
	out := Applied{Index: l.Index, Refusals: s.applyFacts(l.Index, e)}
	if l.Index > before {
		s.windows.add(l.Index, l.Data, e, out, s.state)
	}
	s.watches.reached(l.Index)
	if l.Index <= before || len(out.Refusals) == 0 { // a tick changes nothing that anybody waits for
		return out
	}
	close(s.changed)
	s.changed = make(chan struct{})
	if slices.ContainsFunc(e.Cluster, hostsHear) {
		s.watches.wakeAll()
		return out
	}
	s.watches.wake(s.state.TouchedHosts(), s.state.TouchedDeployments())
	return out
}

// applyFacts applies what an entry holds; all of it is refused where a person may have
// been allowed it by an access document that is in force no more.
func (s *Store) applyFacts(index uint64, e Entry) []error {
	if index <= s.state.Index { // it is in the snapshot that was restored
		return make([]error, len(e.Events)+len(e.Cluster))
	}
	if stale := s.cluster.allows(e.AllowedBy); stale != nil {
		refusals := make([]error, len(e.Events)+len(e.Cluster))
		for i := range refusals {
			refusals[i] = stale
		}
		e.Events = nil
		s.state.ApplyEntry(index, e.Entry) // time goes on
		return refusals
	}
	return s.recorded(e, index, func() []error {
		refusals := s.state.ApplyEntry(index, e.Entry)
		for _, c := range e.Cluster {
			refusals = append(refusals, s.cluster.apply(c, moment{s.state.Now, s.state.Wall, e.Wall, index}))
		}
		return refusals
	})
}
