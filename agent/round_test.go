package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/backoff"
)

// Every coordinator is tried in each round, soon after the one before; only
// between rounds is the wait longer and longer, up to its bound.
func TestRoundsOfCoordinators(t *testing.T) {
	all := []string{"c1:1", "c2:1", "c3:1"}
	var r round
	var last time.Duration
	for n := range 20 {
		var got []string
		for i := range all {
			got = append(got, r.pick(all))
			wait := r.pause(all, false).NextBackOff()
			if i < 2 && wait > 2*backoff.First {
				t.Errorf("round %d waits %s before the next coordinator", n, wait)
			}
			last = wait
		}
		if slices.Sort(got); !slices.Equal(got, all) {
			t.Errorf("round %d tried %v", n, got)
		}
	}
	if last < backoff.Longest/2 || last > 2*backoff.Longest {
		t.Errorf("after twenty rounds it waits %s", last)
	}
	r = round{}
	for range 12 {
		r.pick(all)
		last = r.pause(all, true).NextBackOff()
	}
	if last < backoff.Longest/2 {
		t.Errorf("after twelve that answer and welcome nobody it waits %s", last)
	}
	r = round{tried: map[string]bool{"c1:1": true}} // its session ended
	if first := r.pick(all); first != "c2:1" {
		t.Errorf("after a loss it turns to %s", first)
	}
	if got := r.pick(nil); got != "" {
		t.Errorf("of none it picks %q", got)
	}
}
