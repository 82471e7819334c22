package deploy_test

import (
	"fmt"
	"testing"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/sim"
)

// TestCountersAgreeWithASlowCount compares the counters that every change moves
// with a count by hand, after every entry of random simulations.
func TestCountersAgreeWithASlowCount(t *testing.T) {
	counted := 0
	eachHook = func(w *sim.World) {
		if err := deploy.CountSlowly(w.State); err != nil {
			panic(fmt.Sprintf("entry %d: %v", w.Entries, err))
		}
		counted++
	}
	defer func() { eachHook = nil }()
	for seed := uint64(1); seed <= 15; seed++ {
		one(t, seed)
	}
	if counted < 1000 {
		t.Errorf("%d entries were counted: the test is vacuous", counted)
	}
}

func one(t *testing.T, seed uint64) {
	t.Helper()
	defer func() {
		if v := recover(); v != nil {
			t.Fatalf("seed %d, %v", seed, v)
		}
	}()
	run(seed)
}
