// Package scheduler is the leader's loop: wake, decide, propose. It has no
// policy; it is the only place where time and state meet.
package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// State is the replica's own copy of the state.
type State interface {
	View(func(*deploy.State))
	Changed() <-chan struct{}
}

// Fleet is the leader's view of the fleet.
type Fleet interface {
	Snapshot() deploy.Fleet
	// Forgets reports whether a host that is unreachable may be forgotten.
	Forgets(s *deploy.State, host string) bool
	Changed() <-chan struct{}
}

// Log stamps and commits facts.
type Log interface {
	// Propose returns once the facts are applied here, with their refusals.
	Propose(ctx context.Context, events []deploy.Event) ([]error, error)
	// Tick commits FSM time and nothing else; nobody is woken by it.
	Tick(ctx context.Context) error
	// Now is FSM time by this leader's monotonic clock.
	Now() deploy.Time
}

// Scheduler decides for the whole cluster while its node leads.
type Scheduler struct {
	State State
	Fleet Fleet
	Log   Log
}

// Pauses of the loop. Nothing waits on them in normal work: they bound how
// fast it repeats a decision that Apply drops, and how late it notices what
// has no signal (a host that becomes lost by the passing of time alone).
const (
	retryPause = 50 * time.Millisecond
	idle       = 5 * time.Second
)

// Run decides until ctx ends or the log is lost; it returns nil in the first
// case. The caller has passed a barrier. One Run at a time: no two decisions race.
func (s *Scheduler) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		changed, moved := s.State.Changed(), s.Fleet.Changed()
		fleet, now := s.Fleet.Snapshot(), s.Log.Now()
		var events []deploy.Event
		wait := idle
		// A leader that goes takes the time since the last entry with it. So while a
		// deadline runs, the time is committed every tick: a failover costs the time
		// without a leader and this much. Old is how long ago the last entry was stamped.
		old, tick := time.Duration(0), idle
		s.State.View(func(st *deploy.State) {
			events = slices.DeleteFunc(deploy.Decide(st, fleet, now), func(e deploy.Event) bool {
				left, ok := e.(deploy.HostLeft)
				return ok && !s.Fleet.Forgets(st, left.Host)
			})
			if at, within, ok := deploy.NextWake(st, now); ok {
				old, tick = now.Sub(st.Now), within
				wait = min(wait, max(at.Sub(now), retryPause), max(tick-old, retryPause))
			}
		})
		if len(events) == 0 && old >= tick {
			if err := s.Log.Tick(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("commit the time: %w", err)
			}
			continue
		}
		if len(events) == 0 {
			pause(ctx, wait, changed, moved)
			continue
		}
		refusals, err := s.Log.Propose(ctx, events)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("propose %d facts: %w", len(events), err)
		}
		if allRefused(refusals) {
			pause(ctx, retryPause, nil, moved)
		}
	}
	return nil
}

// allRefused reports whether nothing of an entry was accepted: the state that
// was decided on is gone, or a rule of Decide and its guard disagree. Either
// way the loop must not spin.
func allRefused(errs []error) bool {
	for _, err := range errs {
		if err == nil {
			return false
		}
	}
	return true
}

func pause(ctx context.Context, d time.Duration, changed, moved <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-moved:
	case <-t.C:
	}
}
