package backoff

import (
	"context"
	"testing"
	"time"
)

// TestWaitsGrow: each wait lies within its jitter around 1.6 times the one
// before, never beyond the longest, and begins anew after a reset.
func TestWaitsGrow(t *testing.T) {
	for _, b := range []Backoff{{}, {First: time.Second, Longest: 3 * time.Second}, {First: time.Hour}} {
		first, longest := max(b.First, First), b.Longest
		if longest == 0 {
			longest = Longest
		}
		for range 2 {
			want := float64(min(first, longest))
			for i := range 40 {
				got := float64(b.NextBackOff())
				if got < want*(1-Jitter)-1 || got > want*(1+Jitter)+1 {
					t.Fatalf("%+v: wait %d is %s, about %s was due", b, i, time.Duration(got), time.Duration(want))
				}
				want = min(want*Factor, float64(longest))
			}
			b.Reset()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if (&Backoff{First: time.Hour, Longest: time.Hour}).Wait(ctx) {
		t.Error("it waited although nobody wants to")
	}
}
