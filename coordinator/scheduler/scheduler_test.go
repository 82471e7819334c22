package scheduler

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// world is state, fleet and log in one, on the bubble's clock.
type world struct {
	s        *deploy.State
	changed  chan struct{}
	base     deploy.Time
	ticks    int
	began    time.Time
	proposed int
	refuse   bool
	broken   error
	down     []string
	keep     bool // nobody is forgotten
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
		deploy.TargetsReported{Items: []deploy.Report{{
			Host: "h", App: "www", Counter: 1,
			Staged: []deploy.Digest{"sha256:1"},
		}}},
		deploy.DeploymentCreated{
			ID: "d", App: "www", Group: "prod", Revision: "sha256:1", RevName: "v1", Config: c,
			Waves: []deploy.Wave{{Name: "all", Hosts: []string{"h"}, BakeSpec: deploy.BakeSpec{BakeMin: time.Hour}}},
		},
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
func (w *world) Snapshot() deploy.Fleet     { return deploy.Fleet{Down: w.down} }

func (w *world) Forgets(*deploy.State, string) bool { return !w.keep }

// Now is what a leader says: the time of the last entry that it found, and what
// has passed since.
func (w *world) Now() deploy.Time { return w.base.Add(time.Since(w.began)) }

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
	out := w.s.ApplyEntry(w.s.Index+1, deploy.Entry{At: w.Now(), Events: events})
	for _, e := range events { // the one host does at once what it is granted
		if p, ok := e.(deploy.PermitsGranted); ok {
			w.s.ApplyEntry(w.s.Index+1, deploy.Entry{
				At: w.Now(),
				Events: []deploy.Event{deploy.TargetsReported{Items: []deploy.Report{{
					Host: "h", App: "www", Counter: 2, Gen: p.Items[0].Gen, Result: deploy.ResultDone,
					Running: p.Items[0].Goal, Health: deploy.HealthHealthy, Staged: []deploy.Digest{"sha256:1"},
				}}}},
			})
		}
	}
	return out, nil
}

func (w *world) Tick(context.Context) error {
	w.ticks++
	if w.broken != nil {
		return w.broken
	}
	w.s.ApplyEntry(w.s.Index+1, deploy.Entry{At: w.Now()})
	return nil
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

// TestWhoIsNotForgotten: what the fleet's view forbids is not proposed, and
// costs nothing.
func TestWhoIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if err := w.run(ctx); err != nil { // its deployment ends
			t.Fatal(err)
		}
		w.down, w.keep = []string{"h"}, true
		before := w.proposed
		for _, known := range []bool{true, false} {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
			if err := w.run(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			if (w.s.Hosts["h"] != nil) != known || w.proposed > before+5 {
				t.Errorf("known: %v, by %d entries", w.s.Hosts["h"] != nil, w.proposed-before)
			}
			w.keep = false
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

// TestAFailoverCostsASecond: the leader goes every minute or so, and somebody
// else leads two seconds later. The bake takes its hour, the time without a
// leader, and at most a tick a failover.
func TestAFailoverCostsASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := rand.New(rand.NewPCG(1, 2))
		start, without := time.Now(), time.Duration(0)
		failovers := 0
		for w.s.Deployments["d"].Status != deploy.DeploymentStatusSucceeded && time.Since(start) < 3*time.Hour {
			w.base, w.began = w.s.Now, time.Now() // the next leader knows the last entry and nothing else
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.Int64N(int64(2*time.Minute))))
			if err := w.run(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			if w.s.Deployments["d"].Status != deploy.DeploymentStatusSucceeded {
				time.Sleep(2 * time.Second)
				failovers, without = failovers+1, without+2*time.Second
			}
		}
		if failovers < 30 {
			t.Fatalf("%d failovers: the test proves nothing", failovers)
		}
		// The end may be seen up to one term late: the run goes on to its end.
		lost := time.Since(start) - time.Hour - without - 2*time.Minute
		if most := time.Duration(failovers) * time.Second; lost > most {
			t.Errorf("%d failovers cost %s beside the time without a leader, at most %s", failovers, lost, most)
		}
		if got := w.s.Deployments["d"]; got.EndedAt.Sub(got.Waves[0].BakeSince) < time.Hour {
			t.Errorf("the bake took %s of FSM time", got.EndedAt.Sub(got.Waves[0].BakeSince))
		}
	})
}

// TestNothingTicksWithoutADeadline: a cluster at rest writes nothing.
func TestNothingTicksWithoutADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if err := w.run(ctx); err != nil {
			t.Fatal(err)
		}
		w.ticks = 0
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := w.run(ctx); err != nil {
			t.Fatal(err)
		}
		if w.ticks > 0 {
			t.Errorf("%d ticks in an hour in which nothing runs", w.ticks)
		}
		// A freeze that ends in a month costs an entry a minute, not one a second.
		if refused, err := w.Propose(ctx, []deploy.Event{deploy.FreezeSet{
			App: "www", For: 30 * 24 * time.Hour,
		}}); err != nil || refused[0] != nil {
			t.Fatal(refused, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := w.run(ctx); err != nil {
			t.Fatal(err)
		}
		if w.ticks < 55 || w.ticks > 62 {
			t.Errorf("%d ticks in an hour of a freeze", w.ticks)
		}
	})
}
