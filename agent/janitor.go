package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/groundswell/groundswell/hooks"
)

// janitor frees what is not needed any more. It has no tick of its own while
// nothing happens: an idle agent costs no CPU.
type janitor struct {
	h    *host
	wake chan struct{}

	mu       sync.Mutex
	detached map[string]bool // applications whose hooks left processes writing
	noticed  map[string]bool // among them, those of the generation at work
	last     time.Time       // work ended
	relaxed  bool            // since then
	swept    bool            // since then
	pruned   bool            // since then
}

func newJanitor(h *host) *janitor {
	return &janitor{
		h: h, wake: make(chan struct{}, 1), last: time.Now(),
		detached: map[string]bool{}, noticed: map[string]bool{},
	}
}

// Times of the janitor.
const (
	trimEvery  = time.Second      // as hooks.Runner.Trim asks
	sweepEvery = time.Minute      // of hook runs and empty cgroups
	relaxAfter = 10 * time.Second // since work ended
	keepAsks   = 16               // finished runs of command probes
)

// leftRunning says that a hook of the application left a process behind that
// still writes to the hook's output.
func (j *janitor) leftRunning(app string) {
	j.mu.Lock()
	j.detached[app], j.noticed[app] = true, true
	j.mu.Unlock()
	signal(j.wake)
}

// worked says that a generation of the application was closed, or something
// was staged. A generation whose hooks left nothing behind has replaced what
// an older one left.
func (j *janitor) worked(app string) {
	j.mu.Lock()
	if !j.noticed[app] {
		delete(j.detached, app)
	}
	delete(j.noticed, app)
	j.last, j.relaxed, j.swept, j.pruned = time.Now(), false, false, false
	j.mu.Unlock()
	signal(j.wake)
}

// resume finds what hooks of a former life left behind.
func (j *janitor) resume(t *target) {
	for _, r := range t.runs() {
		if res, ok := t.ended(r); ok && res.Notice != "" {
			j.leftRunning(t.app)
		}
	}
}

// run works until ctx ends.
func (j *janitor) run(ctx context.Context) error {
	for {
		timer := time.NewTimer(j.next())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-j.wake:
			timer.Stop()
		case <-timer.C:
			if err := j.work(ctx); err != nil {
				j.h.o.Log.Warn("left-overs not cleaned up", "error", err)
			}
		}
	}
}

// next is the time to the next thing to do; an hour stands for never.
func (j *janitor) next() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	due := time.Hour
	at := func(after time.Duration, done bool) {
		if !done {
			due = min(due, max(0, time.Until(j.last.Add(after))))
		}
	}
	at(relaxAfter, j.relaxed)
	at(sweepEvery, j.swept)
	at(j.h.o.PruneAfter, j.pruned)
	if len(j.detached) > 0 {
		due = min(due, trimEvery)
	}
	return due
}

// work does what is due.
func (j *janitor) work(ctx context.Context) error {
	j.mu.Lock()
	quiet := time.Since(j.last)
	trim := len(j.detached) > 0
	due := func(after time.Duration, done *bool) bool {
		if *done || quiet < after {
			return false
		}
		*done = true
		return true
	}
	relax, sweep, prune := due(relaxAfter, &j.relaxed), due(sweepEvery, &j.swept), due(j.h.o.PruneAfter, &j.pruned)
	j.mu.Unlock()
	var errs []error
	if trim {
		errs = append(errs, j.h.runner.Trim())
	}
	if sweep {
		j.h.ballast.restore()
		errs = append(errs, j.h.runner.Sweep(j.h.o.KeepRuns), j.h.probeRunner.Sweep(keepAsks))
	}
	if prune {
		errs = append(errs, j.prune(ctx), j.refill(ctx))
	}
	if relax || prune {
		j.h.runner.Rest()
		j.h.o.Relax()
	}
	return errors.Join(errs...)
}

// ended is the result of a run, false while it is not known.
func (h *host) ended(r run) (hooks.Result, bool) {
	over, cancel := context.WithCancel(context.Background())
	cancel() // only look, never wait
	res, known, err := h.runner.Adopt(over, r.id)
	return res, known && err == nil && !res.Detached
}
