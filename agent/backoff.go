package agent

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff spaces attempts: 100 ms, each 1.6 times the one before, at most
// longest, each with a jitter of half, so that a fleet does not come back in
// step. The zero value of longest is 5 s.
type backoff struct {
	longest time.Duration
	next    time.Duration
}

const (
	backoffFirst   = 100 * time.Millisecond
	backoffLongest = 5 * time.Second
)

// wait sleeps and reports whether ctx let it.
func (b *backoff) wait(ctx context.Context) bool {
	return pause(ctx, b.delay())
}

// delay is the next wait.
func (b *backoff) delay() time.Duration {
	longest := b.longest
	if longest == 0 {
		longest = backoffLongest
	}
	if b.next == 0 {
		b.next = backoffFirst
	}
	d := b.next
	b.next = min(longest, d*16/10)
	return d/2 + rand.N(d)
}

func (b *backoff) reset() { b.next = 0 }

// pause waits and reports whether ctx let it.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
