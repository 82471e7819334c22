package sessions

import (
	"context"
	"time"

	"github.com/groundswell/groundswell/deploy"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// batchItems bounds the reports of one entry.
const batchItems = 1024

// report is one report on its way into the log.
type report struct {
	item   deploy.Report
	stream *stream
}

// accept queues the reports of one message; it blocks while the log is slow,
// which slows the agent down in turn.
func (s *Service) accept(ctx context.Context, st *stream, m *agentv1.Reports) {
	for _, r := range m.Items {
		select {
		case s.batch <- report{item: decode(st.host, r), stream: st}:
		case <-ctx.Done():
			return
		}
	}
}

// Run proposes reports until ctx ends: at once when no entry of ours is in
// flight, else together with what arrives until that entry is committed. So
// nothing waits on a tick, and a busy log gets large entries.
func (s *Service) Run(ctx context.Context) error {
	var pending []report
	committed := make(chan struct{}, 1)
	busy := false
	for {
		if len(pending) > 0 && !busy {
			items := s.more(pending)
			pending, busy = nil, true
			go func() {
				s.commit(ctx, items)
				committed <- struct{}{}
			}()
		}
		in := s.batch
		if len(pending) >= batchItems {
			in = nil
		}
		select {
		case r := <-in:
			pending = append(pending, r)
		case <-committed:
			busy = false
		case <-ctx.Done():
			if busy {
				<-committed
			}
			return nil
		}
	}
}

// more adds what is queued already.
func (s *Service) more(items []report) []report {
	for len(items) < batchItems {
		select {
		case r := <-s.batch:
			items = append(items, r)
		default:
			return items
		}
	}
	return items
}

// commit proposes one entry and acknowledges it. While there is no leader it
// tries again: reports repeat harmlessly. Reports that could not be committed
// in time are not acknowledged: the stream ends and the agent, which keeps
// them, reports anew to whoever it finds.
func (s *Service) commit(ctx context.Context, items []report) {
	e := deploy.TargetsReported{}
	done := map[*stream]uint64{}
	for _, r := range items {
		e.Items = append(e.Items, r.item)
		done[r.stream] = max(done[r.stream], r.item.Counter)
	}
	err := s.persist(ctx, e)
	for st, counter := range done {
		if err != nil {
			st.stop()
			continue
		}
		st.push(&agentv1.Down{Message: &agentv1.Down_Acknowledged{Acknowledged: &agentv1.Acknowledged{Counter: counter}}})
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
		t := time.NewTimer(commitPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}
