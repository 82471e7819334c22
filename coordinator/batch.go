package coordinator

import (
	"context"

	"github.com/groundswell/groundswell/coordinator/batch"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
)

// batches make one entry of what many propose at the same time: who comes alone is
// proposed at once, who comes while an entry is on its way waits for it, together
// with all others that do. A fleet that joins or comes back writes as many entries
// as the log takes after each other, not as many as there are hosts. Facts of one
// entry are accepted or refused one by one.
type batches struct {
	propose func(context.Context, state.Entry) ([]error, error)
	queue   chan proposal
}

// proposal is what one caller proposes.
type proposal struct {
	entry state.Entry
	done  chan<- outcome // has room for it
}

type outcome struct {
	refusals []error
	err      error
}

// Bounds of one entry, as those of reports.
const (
	batchFacts = 512
	batchBytes = 1 << 20
)

func newBatches(propose func(context.Context, state.Entry) ([]error, error)) *batches {
	return &batches{propose: propose, queue: make(chan proposal, batchFacts)}
}

// Propose commits facts of deployments; it returns once they are applied here. After
// an error they may be committed or not.
func (b *batches) Propose(ctx context.Context, events []deploy.Event) ([]error, error) {
	return b.add(ctx, state.Entry{Entry: deploy.Entry{Events: events}})
}

// cluster is Propose for one fact about the cluster.
func (b *batches) cluster(ctx context.Context, e state.ClusterEvent) error {
	refusals, err := b.add(ctx, state.Entry{Cluster: []state.ClusterEvent{e}})
	if err != nil {
		return err
	}
	return refusals[0]
}

func (b *batches) add(ctx context.Context, e state.Entry) ([]error, error) {
	done := make(chan outcome, 1)
	select {
	case b.queue <- proposal{e, done}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case out := <-done:
		return out.refusals, out.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Run proposes until ctx ends; who waits then has an end of its own.
func (b *batches) Run(ctx context.Context) error {
	batch.Run(ctx, b.queue, batchFacts, fitting, func(all []proposal) { b.commit(ctx, all) })
	return nil
}

// fitting returns how many proposals, at least one, make one entry.
func fitting(all []proposal) int {
	facts, size := 0, 0
	for i, p := range all {
		facts += len(p.entry.Events) + len(p.entry.Cluster)
		if size += weight(p.entry); i > 0 && (facts > batchFacts || size > batchBytes) {
			return i
		}
	}
	return len(all)
}

// weight is about what facts take in the log: labels are what can be long.
func weight(e state.Entry) int {
	n := 256 * (len(e.Events) + len(e.Cluster))
	for _, f := range e.Events {
		if h, ok := f.(deploy.HostEnrolled); ok {
			n += labels(h.Labels) + labelsOf(h.Says)
		}
	}
	for _, f := range e.Cluster {
		switch f := f.(type) {
		case state.TokenUsed:
			n += labelsOf(f.Says)
		case state.OriginEnrolled:
			n += labelsOf(f.Says) + labelsOf(f.Binds)
		}
	}
	return n
}

func labelsOf(a *deploy.Attributes) int {
	if a == nil {
		return 0
	}
	return labels(a.Labels)
}

func labels(all map[string]string) (n int) {
	for k, v := range all {
		n += len(k) + len(v) + 8
	}
	return n
}

// commit proposes one entry and gives everybody the answers to his own facts.
func (b *batches) commit(ctx context.Context, all []proposal) {
	var e state.Entry
	for _, p := range all {
		e.Events, e.Cluster = append(e.Events, p.entry.Events...), append(e.Cluster, p.entry.Cluster...)
	}
	refusals, err := b.propose(ctx, e)
	events, cluster := refusals, refusals
	if err == nil {
		events, cluster = refusals[:len(e.Events)], refusals[len(e.Events):]
	}
	for _, p := range all {
		out := outcome{err: err}
		if n, c := len(p.entry.Events), len(p.entry.Cluster); err == nil {
			out.refusals = append(append(out.refusals, events[:n]...), cluster[:c]...)
			events, cluster = events[n:], cluster[c:]
		}
		p.done <- out
	}
}
