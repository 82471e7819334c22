package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// link is the connection of the session that is up, shared with whoever has a
// single question for a coordinator.
type link struct {
	mu   sync.Mutex
	conn *grpc.ClientConn
	up   chan struct{} // closed while conn is set
}

func newLink() *link { return &link{up: make(chan struct{})} }

func (l *link) set(cc *grpc.ClientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = cc
	close(l.up)
}

func (l *link) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.up = nil, make(chan struct{})
}

// connected is closed while there is a session, until the next one ends.
func (l *link) connected() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

// linkPatience is how long a question waits for a session: longer than a
// failover, so that staging is not failed by one.
const linkPatience = time.Minute

// client returns a client of the coordinator of the session, and waits for one.
func (l *link) client(ctx context.Context) (agentv1.AgentServiceClient, error) {
	ctx, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	for {
		l.mu.Lock()
		conn, up := l.conn, l.up
		l.mu.Unlock()
		if conn != nil {
			return agentv1.NewAgentServiceClient(conn), nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a session with a coordinator: %w", ctx.Err())
		}
	}
}

// connect keeps a session with one coordinator, until ctx ends. After a loss
// it goes to another one first.
func (a *Agent) connect(ctx context.Context) error {
	var r round
	var next *greeting  // of the coordinator that the host moves to
	var asked time.Time // for a token, see estranged
	for ctx.Err() == nil {
		at, err := next, error(nil)
		if next = nil; at == nil {
			address := r.pick(a.ring.coordinators())
			if at, err = a.greet(ctx, address); err != nil {
				if errors.Is(err, errSplitOff) {
					if err = a.split(ctx, address); errors.Is(err, errAnother) {
						return err
					}
				}
				a.o.Log.Warn("no session", "coordinator", address, "error", err)
				asked = a.estranged(err, asked)
				r.pause(a.ring.coordinators(), !rpc.Unreached(err)).Wait(ctx)
				continue
			}
		}
		next, err = a.session(ctx, at)
		if ctx.Err() != nil {
			break
		}
		a.o.Log.Warn("session ended", "coordinator", at.address, "error", err)
		r = round{tried: map[string]bool{at.address: true}}
		switch {
		case errors.Is(err, errReissued):
			r = round{} // the best one first
		case next == nil:
			r.between.Wait(ctx)
		}
	}
	if next != nil {
		next.close()
	}
	return nil
}
