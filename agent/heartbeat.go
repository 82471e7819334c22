package agent

import (
	"context"
	"time"

	"github.com/groundswell/groundswell/internal/backoff"
)

// beat tells a watchdog that the agent is alive, until ctx ends: that its
// targets answer and its journal can be asked. An agent that hangs, on a lock
// or a disk, says nothing and is started again.
func (a *Agent) beat(ctx context.Context) error {
	if a.o.BeatEvery <= 0 {
		return nil
	}
	for backoff.Pause(ctx, a.o.BeatEvery) {
		for _, app := range a.apps() {
			if t := a.target(app); t != nil {
				t.report()
			}
		}
		if err := a.journal.Flush(); err == nil {
			a.o.Beat()
		}
	}
	return nil
}

// preferEvery is how often a session looks whether a better coordinator is
// back; jitter keeps a fleet from moving in one moment.
const preferEvery = time.Minute

// prefer ends a session when the coordinator that this host belongs to is
// alive again and another one serves it: else all hosts stay where a failover
// has put them, and the load with them. It moves only when nothing is at work,
// and only once that coordinator has welcomed it: what gossip says moves nobody.
// Outer is the context that the next session lives in.
func (s *session) prefer(ctx, outer context.Context, address string) error {
	for s.a.o.jitter(ctx) {
		best := s.a.ring.best()
		if best == "" || best == address || s.a.busy() {
			continue
		}
		next, err := s.a.greetBeside(ctx, outer, best)
		if err != nil {
			s.a.o.Log.Debug("the coordinator that this host belongs to does not welcome it yet", "coordinator", best,
				"error", err)
			continue
		}
		return s.move(next)
	}
	return nil
}

// move ends the session for the sake of another that has welcomed the host.
func (s *session) move(next *greeting) error {
	s.moving.Lock()
	defer s.moving.Unlock()
	if s.next != nil { // of two that did, the first
		next.close()
		return errMoved
	}
	s.next = next
	return errMoved
}

// seek looks for another coordinator while this one says that it does not know
// what is true, and stays until one has welcomed the host: without a majority none
// would, and a session that stands still is better than none.
func (s *session) seek(ctx, outer context.Context, address string) error {
	var b backoff.Backoff
	stale := false
	for {
		var again <-chan time.Time
		if stale {
			again = time.After(b.NextBackOff())
		}
		select {
		case <-ctx.Done():
			return nil
		case stale = <-s.stale:
			b.Reset()
			if stale {
				s.a.o.Log.Warn("the coordinator has lost the others; looking for another one")
			}
		case <-again:
			for _, other := range s.a.ring.coordinators() {
				if other == address {
					continue
				}
				next, err := s.a.greetBeside(ctx, outer, other)
				if err == nil {
					return s.move(next)
				}
				s.a.o.Log.Debug("no other coordinator has welcomed this host yet", "coordinator", other, "error", err)
			}
		}
	}
}

// best is the coordinator that rendezvous hashing gives this host among those
// that gossip says are alive; "" if none is.
func (r *ring) best() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	alive := r.living()
	if len(alive) == 0 {
		return ""
	}
	return r.rank(alive)[0]
}

// busy says that a generation is open on some target.
func (h *host) busy() bool {
	for _, app := range h.apps() {
		if st := h.journal.Target(app).State(); st.Open {
			return true
		}
	}
	return false
}
