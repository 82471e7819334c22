package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/durable"
	"github.com/groundswell/groundswell/internal/room"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// target is one application on this host. Two goroutines run it: one does the
// steps, one watches its health.
type target struct {
	*host
	app     string
	wake    chan struct{} // the assignment changed
	started int64         // tells the probes of this life from those of others

	// files is held by whoever stages, installs or prunes the application's
	// revisions. An assignment is in the journal before its revision is staged,
	// so who holds it sees what must stay. Whoever holds one only tries for
	// another.
	files sync.Mutex

	// Of the goroutine that does the steps.
	file      checkpointFile
	retryAt   time.Time // of staging that failed
	unbreakAt time.Time // not before, see unbreak
	drainAt   time.Time // not before, see drain
	drainTold bool      // the pools were asked in this life
	// the deployment without a coordinator, or nil
	local *localRun
	ran   []hooks.Result                                                       // scripts of the step that is done
	saw   func(s task.Step, v verdict, ran []hooks.Result, took time.Duration) // told of each step done; may be nil

	mu         sync.Mutex
	checkpoint checkpoint          // written by the steps' goroutine alone
	latest     *agentv1.Assignment // the newest of this life; nil before the first
	removed    bool                // the newest word is that the host does not belong to it
	interrupt  func(a *agentv1.Assignment)
	base       task.Base // as reported
	staged     []string  // digests
	edits      *edits    // of the last comparison, until it is taken
	health     health
	watch      watch
}

// retryStaging is how long after a failure, that was reported, staging is
// tried again while a coordinator still asks for it. What is on a way back
// asks for ever.
const retryStaging = 30 * time.Second

// receive takes a new assignment. It never blocks.
func (t *target) receive(a *agentv1.Assignment) {
	t.mu.Lock()
	first := t.latest == nil
	t.latest, t.removed = a, false
	if t.interrupt != nil {
		t.interrupt(a)
	}
	stale := a.Generation < t.base.Generation
	t.mu.Unlock()
	if first || stale || a.Report { // tell a coordinator that knows less
		t.out.mark(t.app)
	}
	signal(t.wake)
}

// remove takes the word that the host does not belong to the application any
// more. What runs goes on running, unwatched and unreported.
func (t *target) remove() {
	t.mu.Lock()
	t.latest, t.removed = nil, true
	t.health.known = false // unwatched, it gets old
	t.mu.Unlock()
	signal(t.wake)
}

// run does the target's work until ctx ends.
func (t *target) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.work(ctx) })
	g.Go(func() error { return t.observe(ctx) })
	return g.Wait()
}

// workPause is the time between attempts of what must not fail, such as
// writing the journal.
const workPause = 2 * time.Second

func (t *target) work(ctx context.Context) error {
	for ctx.Err() == nil {
		err := t.reconcile(ctx)
		if errors.Is(err, durable.ErrBroken) {
			return err // only a new process reads the journal again
		}
		if room.IsFull(err) && t.ballast.ease() {
			continue
		}
		if err != nil && ctx.Err() == nil {
			t.o.Log.Error("target is stuck and tries again", "app", t.app, "error", err)
			backoff.Pause(ctx, workPause)
		}
	}
	return nil
}

// reconcile does one step, or waits for something to do.
func (t *target) reconcile(ctx context.Context) error {
	t.ballast.ease()
	if err := t.take(); err != nil {
		return err
	}
	st := t.journal.Target(t.app).State()
	if st.Next.Kind != task.KindWait {
		return t.step(ctx, st)
	}
	if err := errors.Join(t.journal.Flush(), t.settle(st)); err != nil {
		return err
	}
	if again, err := t.unbreak(st); again || err != nil {
		return err
	}
	if again, err := t.drain(ctx); again || err != nil {
		return err
	}
	if id, key := t.wanted(); id != "" {
		return t.prefetch(ctx, id, key)
	}
	return t.idle(ctx, st)
}

// idle waits for a new assignment, for the time to try staging again, or for
// room on a full disk.
func (t *target) idle(ctx context.Context, st task.State) error {
	var retry <-chan time.Time
	wait := time.Until(t.retryAt)
	if drain := time.Until(t.drainAt); drain > 0 && (wait <= 0 || drain < wait) {
		wait = drain
	}
	if t.waitsForRoom(st) {
		wait = retryRoom
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		retry = timer.C
	}
	select {
	case <-ctx.Done():
	case <-t.wake:
	case <-retry:
	}
	return nil
}

// take records an assignment of a higher generation: the fence. One without a
// permit waits until what was permitted before is finished, and is then
// acknowledged as idle; it asks for nothing, so its goal is not even fetched.
func (t *target) take() error {
	t.mu.Lock()
	a, b := t.latest, t.checkpoint
	t.mu.Unlock()
	if a == nil {
		return nil
	}
	st := t.journal.Target(t.app).State()
	if a.Generation <= max(st.Base.Generation, st.Assignment.Generation) {
		return nil
	}
	idle := a.Permit == agentv1.Permit_PERMIT_UNSPECIFIED
	if idle && st.Next.Kind != task.KindWait {
		return nil
	}
	b.begin(a, time.Now())
	if err := t.remember(b); err != nil {
		return err
	}
	goal := ""
	if a.Goal != nil && !idle {
		goal = revisionID(a.Goal.Digest)
	}
	return t.journal.Assign(task.Assignment{
		Generation: a.Generation, Permit: task.Permit(a.Permit), App: t.app, Deployment: a.Deployment, Goal: goal,
		StopFails: a.StopFailureFails, Revert: a.Rollback, SkipProbe: len(a.Probes) == 0, Verify: a.Repair,
		Traffic: b.Traffic != nil || len(b.Outages) > 0, Pools: b.Traffic.word(),
	})
}

// remember replaces the checkpoint, on disk first.
func (t *target) remember(b checkpoint) error {
	if err := t.file.save(b); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.checkpoint = b
	return nil
}

// change edits the checkpoint.
func (t *target) change(edit func(*checkpoint)) error {
	t.mu.Lock()
	b := t.checkpoint
	t.mu.Unlock()
	edit(&b)
	return t.remember(b)
}

// settle brings checkpoint, report and watch up to date with a target that has
// nothing to do.
func (t *target) settle(st task.State) error {
	t.mu.Lock()
	a, removed := t.latest, t.removed
	t.mu.Unlock()
	news := false
	err := t.change(func(b *checkpoint) {
		news = t.edited(b, st)
		switch {
		case removed:
			b.Removed = true
		case a != nil:
			b.learn(a)
		}
	})
	t.publish(st.Base)
	if news {
		t.out.mark(t.app)
	}
	t.watchOver(!removed && st.Base.Running != "" && st.Base.World == nil)
	return err
}

// publish changes what is reported, and marks it if it changed.
func (t *target) publish(base task.Base) {
	staged := t.onDisk()
	t.mu.Lock()
	changed := base.Generation != t.base.Generation || base.Result != t.base.Result || base.Running != t.base.Running ||
		!slices.Equal(staged, t.staged)
	t.base, t.staged = base, staged
	t.mu.Unlock()
	if changed {
		t.out.mark(t.app)
	}
}

// onDisk lists the digests of the complete releases, sorted.
func (t *target) onDisk() []string {
	all, err := t.releases.List(t.app)
	if err != nil {
		t.o.Log.Warn("releases not listed", "app", t.app, "error", err)
	}
	out := make([]string, 0, len(all))
	for _, r := range all {
		out = append(out, digestOf(r.ID))
	}
	slices.Sort(out)
	return out
}

// adopt begins the history of a target whose journal was lost: what is
// installed is what runs.
func (t *target) adopt() error {
	if slices.Contains(t.journal.Apps(), t.app) {
		return nil
	}
	current, err := t.releases.Current(t.app)
	if err != nil || current == "" {
		return err
	}
	return t.journal.Adopt(t.app, current)
}

// resume makes the state of a target that was just read from disk. With
// probes nothing is said of its health until they have been asked again.
func (t *target) resume() {
	st := t.journal.Target(t.app).State()
	t.base, t.staged, t.removed = st.Base, t.onDisk(), t.checkpoint.Removed
	t.health = resumed(st.Base, t.checkpoint)
}

// report is the target's whole state, or nil while there is nothing to say: it
// is removed, or not yet known to be healthy or not.
func (t *target) report() *agentv1.Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed || !t.health.known {
		return nil
	}
	r := &agentv1.Report{
		App: t.app, Generation: t.base.Generation, Result: agentv1.Result(t.base.Result),
		Running: digestOf(t.base.Running),
		Health:  t.health.state, Evidence: t.health.evidence, Staged: t.staged, Edits: editsProto(t.checkpoint.Edits),
		StageKey: t.checkpoint.Tasted,
	}
	r.Out, r.OutKey = t.checkpoint.Drained.answer()
	if t.base.Result == task.ResultFailed || t.base.Result == task.ResultBroken {
		r.Failure = t.checkpoint.Failure.proto()
	}
	if st := t.checkpoint.Staging; st != nil && (t.latest == nil || t.latest.StageKey == st.Key) {
		// newer than the generation's
		r.StageFailed, r.Failure, r.StageKey = digestOf(st.Revision), st.Failure.proto(), st.Key
	}
	return r
}
