package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

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
	var b backoff
	tried := map[string]bool{}
	for ctx.Err() == nil {
		address := a.pick(tried)
		tried[address] = true
		welcomed, err := a.session(ctx, address)
		if ctx.Err() != nil {
			return nil
		}
		a.o.Log.Warn("session ended", "coordinator", address, "welcomed", welcomed, "error", err)
		if welcomed {
			b.reset()
			tried = map[string]bool{address: true}
		}
		if errors.Is(err, errMoved) || errors.Is(err, errReissued) {
			tried = map[string]bool{} // the best one first
			continue
		}
		b.wait(ctx)
	}
	return nil
}

// pick returns the best address that was not tried in this round.
func (a *Agent) pick(tried map[string]bool) string {
	all := a.ring.coordinators()
	for _, address := range all {
		if !tried[address] {
			return address
		}
	}
	clear(tried)
	if len(all) == 0 {
		return ""
	}
	return all[0]
}
