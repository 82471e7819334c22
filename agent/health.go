package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/groundswell/groundswell/agent/probe"
	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/backoff"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// health is what is said of the application.
type health struct {
	known    bool // there is something to say
	state    agentv1.Health
	evidence string
}

func healthy(evidence string) health {
	return health{known: true, state: agentv1.Health_HEALTH_HEALTHY, evidence: evidence}
}

func unhealthy(evidence string) health {
	return health{known: true, state: agentv1.Health_HEALTH_UNHEALTHY, evidence: evidence}
}

// resumed is the health of a target after a restart of the agent.
func resumed(b task.Base, br checkpoint) health {
	switch {
	case b.World != nil || b.Result == task.ResultBroken:
		return unhealthy(br.reason())
	case b.Running == "":
		return health{known: true}
	case len(br.Probes) > 0:
		return health{}
	}
	return healthy("")
}

// closed is the health of a target as a generation has ended: every way to an
// undisturbed target has started and validated what runs. Where nothing was
// disturbed it stays what it was.
func closed(b task.Base, br checkpoint, before health) health {
	switch {
	case b.World != nil || b.Result == task.ResultBroken:
		return unhealthy(br.reason())
	case b.Running == "":
		return health{known: true}
	case b.Result == task.ResultDone:
		return healthy("")
	case b.Result == task.ResultFailed && br.Failure.disturbed():
		return healthy("")
	}
	return before
}

// reason is why a target is broken.
func (b checkpoint) reason() string {
	if b.Failure == nil {
		return "the way back was not finished"
	}
	return clip(fmt.Sprintf("%s %s: %s", b.Failure.Event, b.Failure.Script, b.Failure.Message), 512)
}

// disturbed says that the failure came after the application was touched.
func (f *failure) disturbed() bool { return f != nil && f.Event != hooks.DownloadBundle.String() }

// watch is what the observer looks at; it is replaced as a whole.
type watch struct {
	on      bool
	gates   []gate
	epoch   uint64
	since   time.Time
	answers []answer
	changed chan struct{} // closed when it is replaced
}

// answer is what one probe has come to, once decided.
type answer struct {
	decided bool
	answer  probe.Answer
	text    string
}

// calmAfter is how long a target is probed at the interval that was asked for
// since its last task; later no probe is asked more often than calmInterval,
// because a fleet that bakes for an hour must not be busy with probing.
const (
	calmAfter    = time.Minute
	calmInterval = time.Second
)

// watchOver begins or ends the watching of the target's health.
func (t *target) watchOver(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.checkpoint.Probes
	t.certain(on)
	if on == t.watch.on && (!on || slices.Equal(list, t.watch.gates)) {
		return
	}
	if t.watch.changed != nil {
		close(t.watch.changed)
	}
	t.watch = watch{
		on: on, gates: list, epoch: t.watch.epoch + 1, since: time.Now(),
		answers: make([]answer, len(list)), changed: make(chan struct{}),
	}
}

// certain says what can be said of an idle target without asking any probe.
// The caller holds mu.
func (t *target) certain(watched bool) {
	if t.health.known || t.removed || watched && len(t.checkpoint.Probes) > 0 {
		return
	}
	t.health = resumed(t.base, t.checkpoint)
	t.out.mark(t.app)
}

// observe watches the application's health until ctx ends: every probe by
// itself, and nothing at all while a task is at work or nothing runs.
func (t *target) observe(ctx context.Context) error {
	t.mu.Lock()
	if t.watch.changed == nil {
		t.watch.changed = make(chan struct{})
	}
	t.mu.Unlock()
	for ctx.Err() == nil {
		t.mu.Lock()
		w := t.watch
		t.mu.Unlock()
		if w.on {
			t.observeOne(ctx, w)
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
		}
	}
	return nil
}

func (t *target) observeOne(ctx context.Context, w watch) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i, g := range w.gates {
		wg.Go(func() { t.ask(ctx, w, i, g.expand(t.o.Env)) })
	}
	select {
	case <-w.changed:
	case <-ctx.Done():
	}
	cancel()
	wg.Wait()
}

// ask puts one probe's question over and over. A change counts after as many
// equal answers in a row as the probe says.
func (t *target) ask(ctx context.Context, w watch, i int, g gate) {
	for n, good, bad := 0, 0, 0; ; n++ {
		got, text := t.once(ctx, g, fmt.Sprintf("watch-%d-%d-%d", w.epoch, i, n))
		if ctx.Err() != nil {
			return
		}
		if got == probe.AnswerHealthy {
			good, bad = good+1, 0
		} else {
			good, bad = 0, bad+1
		}
		switch {
		case good >= g.Probe.Consecutive:
			t.answered(w.epoch, i, answer{true, got, ""})
		case bad >= g.Probe.Failures:
			t.answered(w.epoch, i, answer{true, got, g.evidence(text, g.Probe.Failures)})
		}
		every := g.Probe.Interval
		if time.Since(w.since) > calmAfter {
			every = max(every, calmInterval)
		}
		if !backoff.Pause(ctx, every) {
			return
		}
	}
}

// once asks a single time.
func (t *target) once(ctx context.Context, g gate, id string) (probe.Answer, string) {
	if g.Wrong != "" {
		return probe.AnswerUnknown, g.Wrong
	}
	out, err := t.prober.Once(ctx, g.Probe, t.probeTarget(id))
	if err != nil {
		return probe.AnswerUnknown, err.Error()
	}
	return out.Answer, out.Evidence[len(out.Evidence)-1].Text
}

// answered takes a probe's answer into the target's health: one unhealthy
// probe is enough, and all are needed to be healthy.
func (t *target) answered(epoch uint64, i int, a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := &t.watch
	if w.epoch != epoch || !w.on {
		return
	}
	w.answers[i] = a
	now, ok := combine(w.answers)
	if !ok || t.health.known && now.state == t.health.state {
		return
	}
	t.health = now
	t.out.mark(t.app)
}

// combine is the health that the probes' answers come to; false while that
// is open.
func combine(answers []answer) (health, bool) {
	out, ok := healthy(""), true
	for _, a := range answers {
		switch {
		case !a.decided:
			ok = false
		case a.answer == probe.AnswerUnhealthy:
			return unhealthy(a.text), true
		case a.answer == probe.AnswerUnknown:
			out = health{known: true, evidence: a.text}
		}
	}
	return out, ok
}
