package sessions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/groundswell/groundswell/coordinator/batch"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/backoff"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// Bounds of one entry of reports. A follower hands its entries to the leader
// in one message, of which 4 MiB is the limit.
const (
	batchItems = 1024
	batchBytes = 1 << 20
)

// report is one report on its way into the log.
type report struct {
	item   deploy.Report
	stream *stream
	// void says that the state would drop it: it is acknowledged in its turn, and
	// not proposed.
	void bool
}

// accept queues the reports of one message; it blocks while the log is slow,
// which slows the agent down in turn.
func (s *Service) accept(ctx context.Context, st *stream, m *agentv1.Reports) error {
	for _, r := range m.GetItems() {
		x := report{item: decode(st.host, r), stream: st}
		var err error
		if x.void, err = s.drops(st, &x.item); err != nil {
			return err
		}
		if !x.void {
			if err := s.slow(ctx, s.limits.reportBytes, st.host, x.size(), "bytes of reports"); err != nil {
				return err
			}
		}
		select {
		case s.batch <- x:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// drops reports whether the state would drop a report: it is not new, or about
// an application that the host is no target of. The latter is asked for again
// should the host become one. The note comes before the look: who looks later
// than this and finds a target, finds the note.
func (s *Service) drops(st *stream, r *deploy.Report) (drop bool, err error) {
	app, noted, target := r.App, st.note(r.App), false
	s.o.State.View(func(state *deploy.State) {
		h, t := state.Hosts[r.Host], state.Target(r.Host, r.App)
		target = t != nil
		switch {
		case h == nil:
			drop = true
		case t == nil:
			err = wild("counter of reports", r.Counter, h.Counter)
			// It says that the host is back, and nothing else.
			drop = !h.Unreachable || r.Counter <= h.Counter || !st.returns(time.Now())
			*r = deploy.Report{Host: r.Host, App: "", Counter: r.Counter}
		default:
			drop = r.Counter <= t.Counter
			err = errors.Join(wild("counter of reports", r.Counter, h.Counter),
				wild("generation of "+r.App, r.Gen, t.Gen))
		}
	})
	switch {
	case target && noted:
		st.forget(app)
	case !target && !noted:
		err = &deploy.Refusal{Reason: deploy.Invalid, Text: fmt.Sprintf(
			"reports about more than %d applications that the host is no target of", mostUnheard)}
	}
	if drop || err != nil {
		s.o.Limited(st.host, "reports that nobody waits for")
	}
	return drop, err
}

// Run proposes reports until ctx ends, those that come while an entry is on its
// way together.
func (s *Service) Run(ctx context.Context) error {
	batch.Run(ctx, s.batch, batchItems, fitting, func(all []report) { s.commit(ctx, all) })
	return nil
}

// fitting returns how many of the reports, at least one, make one entry.
func fitting(all []report) int {
	size := 0
	for i := range all {
		if size += all[i].size(); size > batchBytes {
			return max(1, i)
		}
	}
	return len(all)
}

// size is about what the report takes in the log.
func (r *report) size() int {
	n := 64 + len(r.item.Host) + len(r.item.App) + len(r.item.Running) + len(r.item.StageFailed) + len(r.item.Evidence) +
		len(r.item.StageKey)
	for _, d := range r.item.Staged {
		n += len(d) + 4
	}
	if e := r.item.Edits; e != nil {
		for _, p := range e.Paths {
			n += len(p) + 4
		}
	}
	if f := r.item.Failure; f != nil {
		n += 64 + len(f.Event) + len(f.Script) + len(f.Exit) + len(f.Message) + len(f.Tail)
	}
	return n
}

// commit proposes one entry and acknowledges it. While there is no leader it
// tries again: reports repeat harmlessly. Reports that could not be committed
// in time are not acknowledged: the stream ends and the agent, which keeps
// them, reports anew to whoever it finds.
func (s *Service) commit(ctx context.Context, items []report) {
	e := deploy.TargetsReported{}
	done, proposed := map[*stream]uint64{}, map[*stream]bool{}
	for _, r := range items {
		if !r.void {
			e.Items = append(e.Items, r.item)
			proposed[r.stream] = true
		}
		done[r.stream] = max(done[r.stream], r.item.Counter)
	}
	var err error
	if len(e.Items) > 0 {
		err = s.persist(ctx, e)
	}
	for st, counter := range done {
		if err != nil && proposed[st] {
			st.stop()
			continue
		}
		st.acknowledge(counter)
	}
}

// How long an entry of reports is tried, and how often: an election takes
// about a second.
const (
	commitLimit = 10 * time.Second
	commitPause = 50 * time.Millisecond
)

func (s *Service) persist(ctx context.Context, e deploy.Event) error {
	ctx, cancel := context.WithTimeout(ctx, commitLimit)
	defer cancel()
	for {
		_, err := s.o.Log.Propose(ctx, []deploy.Event{e})
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !backoff.Pause(ctx, commitPause) {
			return err
		}
	}
}
