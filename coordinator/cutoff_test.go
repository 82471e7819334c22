package coordinator

import (
	"testing"
	"time"
)

// TestWhenAReplicaIsLost: without contact, or behind what it knows to be committed;
// one that catches up a little is not.
func TestWhenAReplicaIsLost(t *testing.T) {
	begin := time.Unix(1000, 0)
	var at time.Time
	var committed, applied uint64
	k := &contact{
		began: begin, applied: func() uint64 { return applied }, heard: func() (time.Time, uint64) {
			return at,
				committed
		},
	}
	for i, x := range []struct {
		now, at            int // seconds after begin; at is never for less than 0
		committed, applied uint64
		lost               int
	}{
		{1, -1, 0, 0, 1},  // never heard of a leader, counted from the start
		{2, 2, 10, 0, 0},  // heard, and behind since now
		{5, 5, 20, 0, 3},  // nothing was applied for 3 s
		{6, 6, 20, 9, 4},  // 10 was committed 4 s ago
		{7, 7, 20, 10, 0}, // that is applied; 20 is waited for from now on
		{9, 9, 30, 15, 2},
		{10, 10, 30, 30, 0},
		{20, 20, 30, 30, 0}, // idle
		{24, 20, 30, 30, 4}, // silent
		{25, 25, 30, 30, 0},
	} {
		at = time.Time{}
		if x.at >= 0 {
			at = begin.Add(time.Duration(x.at) * time.Second)
		}
		committed, applied = x.committed, x.applied
		if got := k.lost(begin.Add(time.Duration(x.now) * time.Second)); got != time.Duration(x.lost)*time.Second {
			t.Errorf("%d: %+v is lost for %s", i, x, got)
		}
	}
}

// TestAReplicaThatStoodStill: a heartbeat that waits for a process says nothing about
// the time in which it was not run.
func TestAReplicaThatStoodStill(t *testing.T) {
	begin := time.Unix(1000, 0)
	at := begin
	k := &contact{
		began: begin, looked: begin, applied: func() uint64 { return 1 },
		heard: func() (time.Time, uint64) { return at, 1 },
	}
	for _, x := range []struct{ now, at, lost int }{
		{1, 1, 1}, {2, 2, 1}, {9, 9, 7}, {10, 10, 1}, {12, 10, 2}, {14, 14, 4}, {15, 15, 1},
	} {
		at = begin.Add(time.Duration(x.at) * time.Second)
		if got := k.next(begin.Add(time.Duration(x.now) * time.Second)); got != time.Duration(x.lost)*time.Second {
			t.Errorf("%+v is lost for %s", x, got)
		}
	}
}
