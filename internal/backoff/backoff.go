// Package backoff says how long to wait before the next try of what failed for
// a passing reason. Everything here that tries again waits by it.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Factor is how much longer each wait is than the one before, Jitter how much of
// it, either way, is left to chance, so that a fleet does not come back in step.
const (
	Factor = 1.6
	Jitter = 0.5
)

// The bounds of a zero Backoff.
const (
	First   = 100 * time.Millisecond
	Longest = 5 * time.Second
)

// Backoff spaces the tries of one piece of work. The zero value is ready; one
// goroutine uses it.
type Backoff struct {
	First, Longest time.Duration // zero takes the default of that name

	next time.Duration
}

// NextBackOff is the next wait, before chance has its part at most Longest.
func (b *Backoff) NextBackOff() time.Duration {
	first, longest := b.First, b.Longest
	if first <= 0 {
		first = First
	}
	if longest <= 0 {
		longest = Longest
	}
	if b.next == 0 {
		b.next = first
	}
	d := min(b.next, longest)
	b.next = min(longest, time.Duration(float64(d)*Factor))
	return time.Duration(float64(d) * (1 - Jitter + 2*Jitter*rand.Float64()))
}

// Reset makes the next wait the first again.
func (b *Backoff) Reset() { b.next = 0 }

// Wait waits for the next try and reports whether ctx let it.
func (b *Backoff) Wait(ctx context.Context) bool { return Pause(ctx, b.NextBackOff()) }

// Pause waits and reports whether ctx let it.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
