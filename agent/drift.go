package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/groundswell/groundswell/agent/release"
	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/internal/backoff"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// What a comparison in the background may take: with 2 ms a path and 2 MiB a
// second it is below one percent of a core (a path costs some 10 µs, a MiB of
// SHA-256 some 3 ms), and 30,000 files take a minute. Content is read once
// after a deployment, then only of files whose stamps have changed.
const (
	comparePath  = 2 * time.Millisecond // a path
	compareBytes = 2 << 20              // a second
	compareNap   = 50 * time.Millisecond
)

// edits is a comparison's answer about a generation.
type edits struct {
	generation uint64
	found      release.Edits
}

// compare looks, again and again, whether installed files were edited.
func (h *host) compare(ctx context.Context) error {
	for h.o.CompareEvery > 0 && backoff.Pause(ctx, h.o.CompareEvery*9/10+rand.N(h.o.CompareEvery/5+1)) {
		for _, app := range h.apps() {
			t := h.target(app)
			if err := t.compare(ctx); err != nil && ctx.Err() == nil {
				h.o.Log.Warn("installed files not compared", "app", app, "error", err)
			}
		}
	}
	return nil
}

// errBusy ends a comparison whose answer would mean nothing.
var errBusy = errors.New("a deployment has begun")

// atRest is the generation of a target whose application runs and is not worked
// on; 0 is none.
func (t *target) atRest() uint64 {
	t.mu.Lock()
	removed := t.removed
	t.mu.Unlock()
	st := t.journal.Target(t.app).State()
	if removed || st.Next.Kind != task.KindWait || st.Base.Running == "" || st.Base.World != nil ||
		st.Base.Result == task.ResultBroken {
		return 0
	}
	return st.Base.Generation
}

// compare looks once, slowly. The answer is handed to the goroutine that does
// the steps.
func (t *target) compare(ctx context.Context) error {
	generation := t.atRest()
	if generation == 0 {
		return nil
	}
	debt := time.Duration(0)
	c, err := t.releases.Compare(t.app, func(n int) error {
		debt += comparePath + time.Duration(n)*time.Second/compareBytes
		if debt < compareNap {
			return nil
		}
		backoff.Pause(ctx, debt)
		debt = 0
		if t.atRest() != generation {
			return errBusy
		}
		return ctx.Err()
	})
	unknown := errors.Is(err, release.ErrNoBaseline)
	if errors.Is(err, errBusy) || err != nil && !unknown {
		return unlessBusy(err)
	}
	if !t.files.TryLock() { // another comparison follows
		return nil
	}
	defer t.files.Unlock()
	if t.atRest() != generation {
		return nil
	}
	if unknown { // the journal was lost, or an older agent installed it
		return t.releases.NoteBaseline(t.app)
	}
	t.mu.Lock()
	t.edits = &edits{generation, c.Edits}
	t.mu.Unlock()
	signal(t.wake)
	return t.releases.Learn(t.app, c)
}

func unlessBusy(err error) error {
	if errors.Is(err, errBusy) {
		return nil
	}
	return err
}

// edited takes what a comparison has found into the checkpoint, if it is about what
// runs still, and reports whether that is news.
func (t *target) edited(b *checkpoint, st task.State) bool {
	t.mu.Lock()
	found := t.edits
	t.edits = nil
	t.mu.Unlock()
	if found == nil || found.generation != st.Base.Generation {
		return false
	}
	text := editsText(found.found)
	news := text != editsText(b.Edits)
	b.Edits = found.found
	if news {
		t.o.Log.Warn("installed files compared with what the last hook left", "app", t.app, "edited",
			found.found.Files, "files", found.found.Paths)
	}
	return news
}

// noteBaseline notes what the last hook left. Without it a later comparison
// notes it: nothing is held up.
func (t *target) noteBaseline() {
	err := t.change(func(b *checkpoint) { b.Edits = release.Edits{} })
	if err == nil {
		if err = t.releases.NoteBaseline(t.app); err != nil {
			err = errors.Join(err, t.releases.ForgetBaseline(t.app))
		}
	}
	if err != nil {
		t.o.Log.Warn("what the last hook left is not noted", "app", t.app, "error", err)
	}
}

// verify answers OK if the target needs no repair: its application is healthy
// and its files are what the last hook left. Else it says why it does.
func (t *target) verify(s task.Step) verdict {
	begin := time.Now()
	t.mu.Lock()
	h := t.health
	t.mu.Unlock()
	t.files.Lock()
	defer t.files.Unlock()
	c, err := t.releases.Compare(t.app, func(int) error { return nil })
	switch {
	case err == nil && c.Edits.Files > 0:
		err = errors.New(editsText(c.Edits))
	case err == nil && h.known && h.state == agentv1.Health_HEALTH_UNHEALTHY:
		err = fmt.Errorf("it is unhealthy: %s", h.evidence)
	}
	if err != nil {
		return failedBy(ofStep(s, err, time.Since(begin)))
	}
	return ends(task.OutcomeOK)
}

func editsText(e release.Edits) string {
	if e.Files == 0 {
		return ""
	}
	return fmt.Sprintf("%d installed files are not what the last hook left: %s", e.Files, strings.Join(e.Paths, ", "))
}

// proto is what is reported; nil for no edit.
func editsProto(e release.Edits) *agentv1.Edits {
	if e.Files == 0 {
		return nil
	}
	out := &agentv1.Edits{Files: int32(min(e.Files, 1<<30))}
	for _, p := range e.Paths {
		out.Paths = append(out.Paths, clip(p, pathTold))
	}
	return out
}

// pathTold bounds a path in a report, in bytes.
const pathTold = 256
