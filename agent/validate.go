package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/groundswell/groundswell/agent/probe"
	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/backoff"
)

// warmUp is the time between attempts until a probe has first succeeded: an
// application that was just started is let on as soon as it answers. The time
// that it has for that is as the probe says: that of its failures in a row.
const warmUp = 50 * time.Millisecond

// validate asks all probes of the application until each has passed, or one
// has failed.
func (t *target) validate(ctx context.Context, s task.Step) verdict {
	ctx, done := t.interruptible(ctx, retargets(s.Generation))
	defer done()
	begin := time.Now()
	limited, cancel := t.withinLimit(ctx, s)
	defer cancel()
	g, asking := errgroup.WithContext(limited)
	for i, p := range t.checkpoint.Probes {
		g.Go(func() error { return t.pass(asking, s, p.expand(t.o.Env), i) })
	}
	err := g.Wait()
	switch {
	case err == nil:
		return ends(task.OutcomeOK)
	case ctx.Err() != nil:
		return given(ctx, s)
	}
	f := ofStep(s, err, time.Since(begin))
	f.Code = int(hooks.CodeFailed)
	var p *probeError
	if errors.As(err, &p) {
		f.Script = "probe " + p.name
	}
	return failedBy(f)
}

func (t *target) withinLimit(ctx context.Context, s task.Step) (context.Context, context.CancelFunc) {
	if t.checkpoint.Limit <= 0 || s.Rollback {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, t.checkpoint.Started.Add(t.checkpoint.Limit))
}

// probeError is a probe that did not pass.
type probeError struct{ name, text string }

func (e *probeError) Error() string { return e.text }

// pass asks one probe: often until the first success, then at its interval.
func (t *target) pass(ctx context.Context, s task.Step, g gate, i int) error {
	if g.Wrong != "" {
		return &probeError{g.Name, g.Wrong}
	}
	first, rest := g.Probe, g.Probe
	first.Consecutive, first.Interval = 1, min(warmUp, g.Probe.Interval)
	first.Patience = time.Duration(g.Probe.Failures-1) * g.Probe.Interval
	if err := t.passPart(ctx, s, g, first, fmt.Sprintf("%s-%d-a", s.ID(), i)); err != nil {
		return err
	}
	if rest.Consecutive--; rest.Consecutive == 0 {
		return nil
	}
	if !backoff.Pause(ctx, rest.Interval) {
		return ctx.Err()
	}
	return t.passPart(ctx, s, g, rest, fmt.Sprintf("%s-%d-b", s.ID(), i))
}

func (t *target) passPart(ctx context.Context, s task.Step, g gate, p probe.Probe, id string) error {
	out, err := t.prober.Run(ctx, p, t.probeTargetOf(s.Revision, id))
	switch {
	case err != nil:
		return &probeError{g.Name, err.Error()}
	case out.Answer == probe.AnswerHealthy:
		return nil
	case ctx.Err() != nil:
		return &probeError{g.Name, fmt.Sprintf("%s: not passed when the task's time was over", g.what())}
	}
	return &probeError{g.Name, g.evidence(out.Evidence[len(out.Evidence)-1].Text, out.Attempts)}
}

// checkIdle answers OK only if the application is surely not serving: nothing
// of it is installed, a probe says so, or, where there is no probe, this agent
// itself took it out of service and did not bring it back. All else, and
// every doubt, refuses.
func (t *target) checkIdle(ctx context.Context, s task.Step) verdict {
	st := t.journal.Target(t.app).State()
	if st.Installed == "" || len(t.checkpoint.Probes) == 0 && st.Disturbed {
		return ends(task.OutcomeOK)
	}
	for i, g := range t.checkpoint.Probes {
		got, _ := t.once(ctx, g.expand(t.o.Env), fmt.Sprintf("%s-%d-%d", s.ID(), i, time.Now().UnixNano()))
		if got == probe.AnswerUnhealthy {
			return ends(task.OutcomeOK)
		}
	}
	if ctx.Err() != nil {
		return verdict{}
	}
	return ends(task.OutcomeUnknown)
}
