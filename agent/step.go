package agent

import (
	"context"
	"errors"
	"time"

	"github.com/groundswell/groundswell/agent/release"
	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/backoff"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// verdict is how a step ended for the journal. One that did not end has none:
// the step stays begun, and is taken up again by the next life of the agent.
type verdict struct {
	outcome task.Outcome
	failure *failure // of a failed step
}

func ends(o task.Outcome) verdict { return verdict{outcome: o} }

func failedBy(f *failure) verdict { return verdict{task.OutcomeFailed, f} }

// errRetargeted interrupts a step that a new generation makes pointless.
var errRetargeted = errors.New("a newer generation came")

// step does the next step and records it. The step is durable as begun before
// anything is done, and as ended before anything follows.
func (t *target) step(ctx context.Context, st task.State) error {
	s := st.Next
	if disturbs(s) {
		t.watchOver(false)
	}
	t.ran = nil
	begin := time.Now()
	if outcome, through := t.through(s); through {
		t.tellStep(s)
		t.seen(s, ends(outcome), begin)
		if err := t.journal.Through(t.app, s, outcome); err != nil {
			return err
		}
		if s.Kind == task.KindReport {
			t.finish(s)
		}
		return nil
	}
	if err := t.journal.Begin(t.app, s); err != nil {
		return err
	}
	v := t.do(ctx, s)
	if v == (verdict{}) {
		return nil
	}
	t.seen(s, v, begin)
	if err := t.explain(st, s, v); err != nil {
		return err
	}
	detail := ""
	if v.failure != nil {
		detail = v.failure.Message
	}
	return t.journal.End(t.app, v.outcome, detail)
}

// seen tells a local deployment what was done.
func (t *target) seen(s task.Step, v verdict, begin time.Time) {
	if t.saw != nil {
		t.saw(s, v, t.ran, time.Since(begin))
	}
}

// through answers how a step ends that does nothing outside this process: its
// record is all there is to do. Most lifecycle events have no script.
func (t *target) through(s task.Step) (task.Outcome, bool) {
	switch s.Kind {
	case task.KindAccept, task.KindReport:
		return task.OutcomeOK, true
	case task.KindHook:
		return task.OutcomeSkipped, !t.drives(s) && t.nothingToRun(s)
	case task.KindWait, task.KindStage, task.KindCheckIdle, task.KindInstall, task.KindProbe, task.KindUndo,
		task.KindSettle, task.KindVerify:
	}
	return 0, false
}

// disturbs says that the application may not serve during the step.
func disturbs(s task.Step) bool {
	switch s.Kind {
	case task.KindHook, task.KindInstall, task.KindUndo, task.KindProbe, task.KindSettle:
		return true
	case task.KindWait, task.KindStage, task.KindAccept, task.KindCheckIdle, task.KindReport, task.KindVerify:
	}
	return false
}

// explain logs a failure and keeps the first one of a generation: what
// follows is its consequence.
func (t *target) explain(st task.State, s task.Step, v verdict) error {
	if v.failure == nil {
		return nil
	}
	if s.Kind == task.KindVerify { // no failure: there is something to repair
		t.o.Log.Info("target is repaired", "app", t.app, "generation", s.Generation, "why", v.failure.Message)
		return nil
	}
	t.o.Log.Warn("step failed", "app", t.app, "generation", s.Generation, "event", v.failure.Event,
		"revision", s.Revision, "tolerated", s.Lenient, "script", v.failure.Script, "error", v.failure.Message)
	cramped := v.failure.full || t.ballast.released()
	first := !s.Lenient && st.Failure == nil && s.Kind != task.KindCheckIdle
	if !first && !cramped {
		return nil
	}
	return t.change(func(b *checkpoint) {
		b.Cramped = b.Cramped || cramped
		if first {
			b.Failure = v.failure
		}
	})
}

// finish makes a closed generation known.
func (t *target) finish(s task.Step) {
	base := t.journal.Target(t.app).State().Base
	t.mu.Lock()
	if s.Result == task.ResultRefused {
		t.health = healthy("it serves, or it cannot be told that it does not: a conditional permit is not enough")
	} else {
		t.health = closed(base, t.checkpoint, t.health)
	}
	t.mu.Unlock()
	t.o.Log.Info("generation closed", "app", t.app, "generation", s.Generation, "result", s.Result.String(), "running",
		s.Revision)
	t.publish(base)
	t.janitor.worked(t.app)
}

// do does a step by its kind.
func (t *target) do(ctx context.Context, s task.Step) verdict {
	t.tellStep(s)
	switch s.Kind {
	case task.KindStage:
		t.runner.Prepare()
		return t.stageStep(ctx, s)
	case task.KindCheckIdle:
		return t.checkIdle(ctx, s)
	case task.KindHook:
		if t.drives(s) {
			return t.moveTraffic(ctx, s)
		}
		return t.hook(ctx, s)
	case task.KindProbe:
		return t.validate(ctx, s)
	case task.KindInstall, task.KindUndo, task.KindSettle:
		return t.move(ctx, s)
	case task.KindVerify:
		return t.verify(s)
	case task.KindWait, task.KindAccept, task.KindReport:
	}
	return ends(task.OutcomeOK)
}

func (t *target) tellStep(s task.Step) {
	if s.Event != "" {
		t.tell(&agentv1.Progress{
			App: t.app, Generation: s.Generation, Deployment: t.checkpoint.Deployment, Event: s.Event,
			SinceMs: time.Now().UnixMilli(),
		})
	}
}

// move changes what is installed. It is short and is never cut off half way,
// also when the agent is told to stop.
func (t *target) move(ctx context.Context, s task.Step) verdict {
	t.files.Lock()
	defer t.files.Unlock()
	t.moving.Lock()
	defer t.moving.Unlock()
	begin, ctx := time.Now(), context.WithoutCancel(ctx)
	var err error
	switch s.Kind {
	case task.KindInstall:
		err = t.install(ctx, s)
	case task.KindUndo:
		err = t.releases.Undo(ctx, t.app)
	default:
		if err = t.releases.Settle(t.app); err == nil && t.local == nil {
			t.noteBaseline()
		}
	}
	if err != nil {
		if s.Kind == task.KindSettle {
			backoff.Pause(ctx, workPause) // it is asked for until it succeeds
		}
		return failedBy(ofStep(s, err, time.Since(begin)))
	}
	return ends(task.OutcomeOK)
}

func (t *target) install(ctx context.Context, s task.Step) error {
	q, err := t.request(s.Revision)
	if err != nil {
		return err
	}
	if t.local != nil {
		return t.local.install(ctx, t, q)
	}
	return t.installWithRoom(ctx, q)
}

// request asks to have a revision, or nothing, installed.
func (t *target) request(id string) (release.Request, error) {
	q := release.Request{App: t.app, To: id}
	if id == "" {
		return q, nil
	}
	q.Root = t.root(id)
	var err error
	q.Spec, err = hooks.Load(q.Root, t.checkpoint.Specs[id])
	return q, err
}

// root is the folder that counts as a revision's root.
func (t *target) root(id string) string {
	return hooks.Root(t.releases.Dir(t.app, id), t.checkpoint.Specs[id])
}

// interruptible returns a context that ends with cause errRetargeted when an
// assignment comes that the work must give way to.
func (t *target) interruptible(ctx context.Context, way func(*agentv1.Assignment) bool) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.interrupt = func(a *agentv1.Assignment) {
		if way(a) {
			cancel(errRetargeted)
		}
	}
	if t.latest != nil {
		t.interrupt(t.latest)
	}
	return ctx, func() {
		t.mu.Lock()
		t.interrupt = nil
		t.mu.Unlock()
		cancel(nil)
	}
}

// retargets says that an assignment replaces the work of a generation.
func retargets(generation uint64) func(*agentv1.Assignment) bool {
	return func(a *agentv1.Assignment) bool {
		return a.Generation > generation && a.Permit != agentv1.Permit_PERMIT_UNSPECIFIED
	}
}

// given tells a step that was interrupted by a newer generation, which ends
// it, from one that the agent's own end left begun.
func given(ctx context.Context, s task.Step) verdict {
	if errors.Is(context.Cause(ctx), errRetargeted) {
		return failedBy(ofStep(s, errRetargeted, 0))
	}
	return verdict{}
}
