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
	select { // one of an earlier question
	case <-st.pong:
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, pongBound)
	defer cancel()
	select {
	case st.send <- &agentv1.Down{Message: &agentv1.Down_Ping{Ping: &agentv1.Ping{}}}:
	case <-st.done:
		return Instance{}, false
	case <-ctx.Done():
	}
	select {
	case <-st.pong:
		return st.who, true
	case <-st.done:
	case <-ctx.Done():
		st.stop()
	}
	return Instance{}, false
}
