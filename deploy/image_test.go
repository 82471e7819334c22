package deploy_test

import (
	"fmt"
	"testing"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/sim"
)

// album takes an image now and then, to be looked at when the state has gone on.
type album struct {
	t       *testing.T
	entries int
	images  []*deploy.Image
	wants   []string // what the state was
	looked  int
}

func (a *album) take(s *deploy.State) {
	if a.entries++; a.entries%7 == 0 {
		a.images, a.wants = append(a.images, s.Image()), append(a.wants, text(a.t, s))
	}
}

// look compares every image with what the state was.
func (a *album) look(what string) {
	a.t.Helper()
	for i, image := range a.images {
		if got := text(a.t, image.State()); got != a.wants[i] {
			a.t.Fatalf("%s: an image is not what the state was at %d, or changed with it:\n%s", what, 7*(i+1),
				difference(a.wants[i], got))
		}
	}
	a.looked += len(a.images)
	a.images, a.wants = nil, nil
}

func difference(want, got string) string {
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			from := max(0, i-200)
			return "- " + want[from:min(len(want), i+200)] + "\n+ " + got[from:min(len(got), i+200)]
		}
	}
	return "one is longer"
}

// TestAnImageStays: an image is the state as it was, also when facts of every kind
// were applied since: through every scenario, and simulated fleets that misbehave.
func TestAnImageStays(t *testing.T) {
	a := &album{t: t}
	for _, f := range scenarios(t) {
		s := sim.NewSession(1)
		s.World.Each = func() { a.take(s.World.State) }
		scenario(t, f, s)
		a.look(f)
	}
	eachHook = func(w *sim.World) { a.take(w.State) }
	defer func() { eachHook = nil }()
	for seed := uint64(1); seed <= 30; seed++ {
		if out := run(seed); out.err != nil {
			t.Fatalf("seed %d: %v", seed, out.err)
		}
		a.look(fmt.Sprint("seed ", seed))
	}
	if a.looked < 1000 {
		t.Errorf("only %d images were looked at", a.looked)
	}
	t.Logf("%d images", a.looked)
}
