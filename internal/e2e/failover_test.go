package e2e

import (
	"testing"
	"time"
)

// TestABakeOutlivesItsLeaders kills the leader again and again while a wave
// bakes: the bake takes its time, the time without a leader, and a second each.
func TestABakeOutlivesItsLeaders(t *testing.T) {
	long(t)
	const bake, kills = 20 * time.Second, 3
	w := start(t, 3, 3)
	w.app(`{capacity: {minHealthy: 50%}, waves: [{name: all, select: remainder, bake: {min: ` + bake.String() + `}}]}`)
	w.push("v1")
	w.dctl("deploy", "--app", "hello", "--rev", "v1", "--detach")
	w.bakes()
	began, without := time.Now(), time.Duration(0)
	for range kills {
		time.Sleep(2 * time.Second) // a quiet bake: nothing but ticks is written
		leader, err := w.fleet.Leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		if err := w.fleet.KillCoordinator(leader); err != nil {
			t.Fatal(err)
		}
		w.until(20*time.Second, "somebody else leads", func() bool {
			next, err := w.fleet.Leader(t.Context())
			return err == nil && next != leader
		})
		without += time.Since(killed)
		if err := w.fleet.RestartCoordinator(t.Context(), leader); err != nil {
			t.Fatal(err)
		}
	}
	w.until(2*bake, "the deployment is done", func() bool { return w.deployment().Deployment.Status == "succeeded" })
	took := time.Since(began)
	t.Logf("a bake of %s took %s with %d leaders killed, %s without one", bake, took, kills, without)
	// Seconds of slack are for a busy machine: before time was committed, such a
	// bake took three times as long.
	if most := bake + without + kills*time.Second + 5*time.Second; took > most {
		t.Errorf("took %s, at most %s", took, most)
	}
	if took < bake {
		t.Errorf("took %s: the bake was cut short", took)
	}
}
