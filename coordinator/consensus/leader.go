package consensus

import (
	"context"
	"errors"
	"sync"

	"github.com/hashicorp/raft"
)

// ErrDeposed is why a context of Under ended: its leader leads no more, as far as
// this node knows.
var ErrDeposed = errors.New("the leader has changed")

// turns tells of changes of the leader.
type turns struct {
	mu      sync.Mutex
	changed chan struct{} // closed at the next one
}

func (t *turns) next() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

func (t *turns) turn() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.changed)
	t.changed = make(chan struct{})
}

// observe tells of changes until the node is closed.
func (n *Node) observe() {
	seen := make(chan raft.Observation, 1) // what does not fit is the same news
	o := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		return leader
	})
	n.raft.RegisterObserver(o)
	defer n.raft.DeregisterObserver(o)
	for {
		select {
		case <-n.stop:
			return
		case <-seen:
			n.turns.turn()
		}
	}
}

// Led returns a channel that is closed when the leader changes next. Take it before
// Leader: then no change is missed.
func (n *Node) Led() <-chan struct{} { return n.turns.next() }

// Under returns a context that ends, with ErrDeposed as its cause, once the leader
// of this name leads no more. Who waits for a leader's answer waits no longer than
// others need to elect the next one.
func (n *Node) Under(ctx context.Context, leader string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for {
			changed := n.Led()
			if name, _ := n.Leader(); name != leader {
				cancel(ErrDeposed)
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}
