package sessions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/naming"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// Instance is one process of a host's agent.
type Instance struct {
	ID      string   // random, its own
	Former  []string // of processes before it on that machine, as it remembers them
	Address string   // that it calls from
}

// anotherSpeaks refuses a process that is not the one that speaks for its host.
var anotherSpeaks = &deploy.Refusal{
	Reason: deploy.Conflict, Text: "another process of this host's agent speaks for it now; connect again",
}

// mostFormer bounds what a host says that it remembers; an agent remembers 64.
const mostFormer = 128

func checkInstances(h *agentv1.Hello) error {
	if h.Instance == "" {
		return errors.New("the agent's instance is missing")
	}
	if len(h.Former) > mostFormer {
		return fmt.Errorf("%d former instances are more than %d", len(h.Former), mostFormer)
	}
	for _, i := range append([]string{h.Instance}, h.Former...) {
		if err := naming.Check("instance", i); err != nil {
			return err
		}
	}
	return nil
}

// caller is the address that a stream comes from.
func caller(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

// pongBound is how long a machine has to answer. A process that was stopped for
// longer counts as gone; what it does when it wakes meets the permit's fence.
const pongBound = 3 * time.Second

// Living returns the instance of the host that has a stream here, is not the one
// that asks, and answers. A stream on which nobody answers is ended.
func (s *Service) Living(ctx context.Context, host, but string) (other Instance, lives bool) {
	s.mu.Lock()
	st := s.streams[host]
	s.mu.Unlock()
	if st == nil || st.who.ID == but {
		return Instance{}, false
	}
	if !st.answers(ctx) {
		return Instance{}, false
	}
	return st.who, true
}

// Doubt has the machine that holds the host's stream here answer: gossip says that
// it is dead, and a process that was stopped keeps its stream. It does not block;
// a stream on which nobody answers is ended within twice pongBound.
func (s *Service) Doubt(host string) {
	s.mu.Lock()
	st := s.streams[host]
	s.mu.Unlock()
	if st != nil {
		go st.answers(context.Background())
	}
}

// answers reports whether the machine answers in time; one question at a time. A
// stream on which nobody answers is ended.
func (s *stream) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*pongBound)
	defer cancel()
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-s.done:
		return false
	case <-ctx.Done():
		return false // the stream is ended by who asks already
	}
	select { // one of an earlier question
	case <-s.pong:
	default:
	}
	ctx, stop := context.WithTimeout(ctx, pongBound)
	defer stop()
	select {
	case s.send <- &agentv1.Down{Message: &agentv1.Down_Ping{Ping: &agentv1.Ping{}}}:
	case <-s.done:
		return false
	case <-ctx.Done():
	}
	select {
	case <-s.pong:
		return true
	case <-s.done:
	case <-ctx.Done():
		s.stop()
	}
	return false
}
