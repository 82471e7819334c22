package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/rpc"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// replicated appends facts to the log: here when this node leads, else
// through the leader. It is the only stamper of FSM time.
//
// FSM time under one leader is the state's time at its barrier plus monotonic
// time since; under the next leader it goes on from the last entry, which is at
// most a tick old while a deadline runs (see scheduler). So it never jumps with
// a wall clock, an hour without a leader expires nothing, and a change of leader
// costs the time without one and a second.
type replicated struct {
	node   *consensus.Node
	store  *state.Store
	leader func() (client peerv1.PeerServiceClient, name string, err error)
	passed func() // a barrier: everything that was committed before is applied here

	mu    sync.Mutex
	leads bool // and has passed its barrier
	base  deploy.Time
	since time.Time
}

// lead takes over: everything committed before is applied here.
func (l *replicated) lead(ctx context.Context) error {
	if err := l.node.Barrier(ctx); err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	l.passed()
	base := l.fsmTime()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.base, l.since, l.leads = base, time.Now(), true
	return nil
}

// fsmTime reads the state before l.mu is taken, never under it: views ask for
// Now while they hold the state's lock.
func (l *replicated) fsmTime() (now deploy.Time) {
	l.store.View(func(s *deploy.State) { now = s.Now })
	return now
}

func (l *replicated) resign() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leads = false
}

// leading reports whether this node leads and has passed its barrier.
func (l *replicated) leading() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leads && l.node.IsLeader()
}

// Now returns FSM time at the leader; a follower answers the last entry's
// time plus what has passed here since, good for showing and nothing else.
func (l *replicated) Now() deploy.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.base.Add(time.Since(l.since))
}

// observe keeps a follower's idea of FSM time until ctx ends.
func (l *replicated) observe(ctx context.Context) error {
	for {
		changed := l.store.Changed()
		l.follow(l.fsmTime())
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *replicated) follow(now deploy.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.leads {
		l.base, l.since = now, time.Now()
	}
}

// Propose commits facts of deployments; it returns once they are applied here.
func (l *replicated) Propose(ctx context.Context, events []deploy.Event) ([]error, error) {
	return l.propose(ctx, state.Entry{Entry: deploy.Entry{Events: events}})
}

// Tick commits the time. At a node that leads no longer it does nothing: the next
// leader's ticks count.
func (l *replicated) Tick(ctx context.Context) error {
	if !l.leading() {
		return nil
	}
	_, err := l.commit(ctx, state.Entry{})
	return err
}

// cluster commits one fact about the cluster itself.
func (l *replicated) cluster(ctx context.Context, e state.ClusterEvent) error {
	refusals, err := l.propose(ctx, state.Entry{Cluster: []state.ClusterEvent{e}})
	if err != nil {
		return err
	}
	return refusals[0]
}

// both commits a fact of the fleet and one about the cluster in one entry.
func (l *replicated) both(ctx context.Context, e deploy.Event, c state.ClusterEvent) error {
	refusals, err := l.propose(ctx, state.Entry{
		Entry: deploy.Entry{Events: []deploy.Event{e}}, Cluster: []state.ClusterEvent{c},
	})
	return errors.Join(append(refusals, err)...)
}

// propose appends an entry; one that a person asked for carries by which document they
// may have it, and who asked.
func (l *replicated) propose(ctx context.Context, e state.Entry) (refusals []error, err error) {
	asking := askingOf(ctx)
	l.store.View(func(s *deploy.State) {
		if s.Rules >= accessRules {
			e.AllowedBy = allowedBy(ctx)
		}
		if s.Rules >= state.AuditRules && asking != nil {
			e.Asked = asking.of(e)
		}
	})
	if l.leading() {
		var applied state.Applied
		applied, err = l.commit(ctx, e)
		refusals = applied.Refusals
	} else {
		refusals, err = l.forward(ctx, e)
	}
	if e.Asked != nil && err == nil && !slices.ContainsFunc(refusals, func(err error) bool {
		return rpc.Kind(err) == rpc.KindStaleRights
	}) {
		asking.recorded.Store(true)
	}
	return refusals, err
}

// commit stamps and appends an entry at the leader.
func (l *replicated) commit(ctx context.Context, e state.Entry) (state.Applied, error) {
	e.At, e.Wall = l.Now(), time.Now().UnixMilli()
	l.store.View(func(s *deploy.State) { e.Rules = s.Rules })
	data, err := state.Encode(e)
	if err != nil {
		return state.Applied{}, err
	}
	out, err := l.node.Propose(ctx, data)
	if err != nil {
		return state.Applied{}, err
	}
	return out.(state.Applied), nil
}

// forward hands an entry to the leader and waits until it is applied here, so
// that who proposed reads what was written.
func (l *replicated) forward(ctx context.Context, e state.Entry) ([]error, error) {
	data, err := state.Encode(e)
	if err != nil {
		return nil, err
	}
	leader, name, err := l.leader()
	if err != nil {
		return nil, err
	}
	under, cancel := l.node.Under(ctx, name)
	defer cancel()
	out, err := leader.Propose(under, &peerv1.ProposeRequest{Entry: data})
	if err = unanswered(under, name, err); err != nil {
		return nil, rpc.Errorf(rpc.Kind(err), "forward %d facts to the leader: %s", len(e.Events)+len(e.Cluster),
			rpc.Text(err))
	}
	refusals := make([]error, len(e.Events)+len(e.Cluster))
	for i, r := range out.Refusals {
		if i < len(refusals) && r.Kind != "" {
			refusals[i] = &deploy.Refusal{Reason: deploy.RefusalKind(r.Kind), Text: r.Text}
		}
	}
	return refusals, l.applied(ctx, out.Index)
}

// applied waits until the entry with this index is applied here.
func (l *replicated) applied(ctx context.Context, index uint64) error {
	return l.store.Wait(ctx, index)
}
