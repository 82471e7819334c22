package scheduler

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// world is state, fleet and log in one, on the bubble's clock.
type world struct {
	s        *deploy.State
	changed  chan struct{}
	began    time.Time
	proposed int
	refuse   bool
	broken   error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{s: deploy.NewState(), changed: make(chan struct{}), began: time.Now()}
	c, _ := deploy.Builtin("all-at-once")
	c.Waves[0].BakeMin = time.Hour
	w.apply(t,
		deploy.GroupDefined{App: "www", Group: "prod", Config: c},
		deploy.HostEnrolled{Host: "h", Name: "h", Zone: "z"},
		deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h"}},
		deploy.RevisionRegistered{App: "www", Name: "v1", Digest: "sha256:1"},
		deploy.TargetsReported{Items: []deploy.Report{{Host: "h", App: "www", Counter: 1, Running: "sha256:1", Health: deploy.HealthHealthy, Staged: []deploy.Digest{"sha256:1"}}}},
		deploy.DeploymentCreated{ID: "d", App: "www", Group: "prod", Revision: "sha256:1", RevName: "v1", Config: c, Waves: []deploy.Wave{{Name: "all", Hosts: []string{"h"}, BakeSpec: deploy.BakeSpec{BakeMin: time.Hour}}}},
	)
	return w
}

func (w *world) apply(t *testing.T, events ...deploy.Event) {
	t.Helper()
	for _, err := range w.s.ApplyEntry(w.s.Index+1, deploy.Entry{At: w.Now(), Events: events}) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) View(f func(*deploy.State)) { f(w.s) }
func (w *world) Changed() <-chan struct{}   { return w.changed }
func (w *world) Snapshot() deploy.Fleet     { return deploy.Fleet{} }
func (w *world) Now() deploy.Time           { return deploy.Time(time.Since(w.began)) }

func (w *world) Propose(_ context.Context, events []deploy.Event) ([]error, error) {
	w.proposed++
	if w.broken != nil {
		return nil, w.broken
	}
	if w.refuse {
		out := make([]error, len(events))
		for i := range out {
			out[i] = errors.New("refused")
		}
		return out, nil
	}
	return w.s.ApplyEntry(w.s.Index+1, deploy.Entry{At: w.Now(), Events: events}), nil
}

func (w *world) run(ctx context.Context) error {
	return (&Scheduler{State: w, Fleet: w, Log: w}).Run(ctx)
}

func TestDecidesUntilTheEndOfTheBake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if err := w.run(ctx); err != nil {
			t.Fatal(err)
		}
		d := w.s.Deployments["d"]
		if d.Status != deploy.DeploymentStatusSucceeded {
			t.Fatalf("ended %s: %s", d.Status, d.Cause)
		}
		if took := d.EndedAt.Sub(d.CreatedAt); took < time.Hour || took > time.Hour+time.Second {
			t.Errorf("a bake of 1 h took %s", took)
		}
		if w.proposed > 10 {
			t.Errorf("%d entries for one host", w.proposed)
		}
	})
}

func TestDoesNotSpinWhenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.refuse = true
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := w.run(ctx); err != nil {
			t.Fatal(err)
		}
		if most := int(10*time.Second/retryPause) + 1; w.proposed > most || w.proposed < 2 {
			t.Errorf("%d proposals in 10 s, at most %d", w.proposed, most)
		}
	})
}

func TestALostLogEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.broken = errors.New("no leader")
		if err := w.run(t.Context()); !errors.Is(err, w.broken) {
			t.Errorf("ended with %v", err)
		}
	})
}
