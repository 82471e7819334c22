package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/hooks"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// drained is how far the host is out of the pools of an application because a person
// drained it, or called it back. It is on disk before a pool is asked; without one the
// host was never drained.
type drained struct {
	Key   uint64 // of the word that it follows
	Back  bool   `json:",omitempty"` // it was called back
	Done  bool   `json:",omitempty"` // it is where it was told to be: out of every pool of Pools, or back in all
	Pools string `json:",omitempty"` // see traffic.word
}

// retryDrain is how long after a pool that could not be asked the next try comes.
const retryDrain = 5 * time.Second

// drain takes the host out of every pool, or puts it back, as it was told last. Nothing
// is stopped by it, no hook runs, and each call may be made twice: after a crash it begins
// again. It gives way to a permit, whose own steps ask the pools.
func (t *target) drain(ctx context.Context) (again bool, err error) {
	t.mu.Lock()
	a, is := t.latest, t.checkpoint.Drained
	if a == nil && t.removed && is != nil && !is.Back { // nobody will call it back
		a = &agentv1.Assignment{OutKey: is.Key}
	}
	t.mu.Unlock()
	if a == nil || !t.drainDue(is, a, t.checkpoint.Traffic.word()) || time.Now().Before(t.drainAt) {
		return false, nil
	}
	t.drainTold = true
	next := &drained{Key: a.OutKey, Back: !a.Out}
	if is == nil || is.Key != next.Key || is.Done {
		if err := t.change(func(b *checkpoint) { b.Drained = next }); err != nil {
			return false, err
		}
		t.out.mark(t.app)
	}
	ctx, done := t.interruptible(ctx, func(b *agentv1.Assignment) bool {
		return b.OutKey != a.OutKey || b.Out != a.Out || retargets(t.checkpoint.Generation)(b)
	})
	defer done()
	word := t.checkpoint.Traffic.word()
	if failed := t.leaveOrEnter(ctx, a.Out); failed != nil {
		if ctx.Err() != nil {
			return false, nil
		}
		t.o.Log.Warn("the host is drained, or put back, and a pool does not follow; it is asked again", "app", t.app,
			"out", a.Out, "error", failed)
		t.drainAt = time.Now().Add(retryDrain)
		return false, nil
	}
	t.drainAt = time.Time{}
	err = t.change(func(b *checkpoint) {
		b.Drained = &drained{Key: a.OutKey, Done: true, Pools: word}
		if !a.Out {
			b.Drained = &drained{Key: a.OutKey, Back: true, Done: true}
		}
	})
	t.out.mark(t.app)
	return true, err
}

// drainDue reports whether the host is elsewhere than it was told to be. The pools of a
// group may change while it is out, and a reboot may have let it in: it is taken out
// once in each life of the agent.
func (t *target) drainDue(is *drained, a *agentv1.Assignment, pools string) bool {
	switch {
	case is == nil:
		return a.Out || a.OutKey > 0
	case is.Key != a.OutKey || is.Back == a.Out || !is.Done:
		return true
	}
	return a.Out && (is.Pools != pools || !t.drainTold)
}

// leaveOrEnter asks every pool in its order.
func (t *target) leaveOrEnter(ctx context.Context, out bool) error {
	tr, err := t.pools(out)
	if err != nil {
		return err
	}
	s := task.Step{
		Event: hooks.AllowTraffic.String(), Rollback: true, // as it was found
		Generation: t.journal.Target(t.app).State().Base.Generation,
	}
	if out {
		s.Event, s.Rollback = hooks.BlockTraffic.String(), false
	}
	for _, p := range tr.Pools {
		if err := t.movePool(ctx, s, tr, p, out); err != nil {
			t.tell(&agentv1.Progress{
				App: t.app, Generation: s.Generation, Event: s.Event, Script: clip(p.name()+": "+err.Error(), 200),
				SinceMs: time.Now().UnixMilli(),
			})
			return fmt.Errorf("%s: %w", p.name(), err)
		}
	}
	return nil
}

// staysOut reports whether the host is to stay out of its pools though its application
// serves again.
func (t *target) staysOut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.latest != nil {
		return t.latest.Out
	}
	is := t.checkpoint.Drained
	return is != nil && !is.Back
}

// answer says how far the host is, for a report.
func (d *drained) answer() (agentv1.Out, uint64) {
	switch {
	case d == nil:
		return agentv1.Out_OUT_UNSPECIFIED, 0
	case !d.Done:
		return agentv1.Out_OUT_MOVING, d.Key
	case d.Back:
		return agentv1.Out_OUT_UNSPECIFIED, d.Key
	}
	return agentv1.Out_OUT_DONE, d.Key
}
