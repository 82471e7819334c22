package sessions

import (
	"context"
	"errors"
	"fmt"

	"github.com/groundswell/groundswell/deploy"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// ErrNoStream says that a host has no stream at this replica.
var ErrNoStream = errors.New("the host has no session at this coordinator")

// logBuffer is how many chunks of hook output, of at most 32 KiB each, wait
// for a slow reader. A reader that falls further behind is cut off, because
// the same stream carries the host's reports.
const logBuffer = 256

// longestChunk bounds what a host may send at once, and with logBuffer what a
// slow reader may hold.
const longestChunk = 64 << 10

// errSlow and longChunk are why a reader is cut off.
var errSlow = errors.New("the reader was too slow; ask again, or read fewer events at once")

func longChunk(n int) error {
	return &deploy.Refusal{Reason: deploy.Invalid, Text: fmt.Sprintf(
		"the host sent %d bytes of output at once, of which %d are the limit: its agent is not ours, or damaged",
		n, longestChunk)}
}

// reader is who reads a host's output. Why is set before the channel is closed.
type reader struct {
	chunks chan *agentv1.LogChunk
	why    error
}

// Logs asks the host for hook output and calls each for every chunk until the
// host says end, each fails, or ctx ends.
func (s *Service) Logs(ctx context.Context, host string, r *agentv1.LogRequest,
	each func(*agentv1.LogChunk) error,
) error {
	s.mu.Lock()
	st := s.streams[host]
	s.logID++
	id := fmt.Sprintf("%s-%d", s.o.Name, s.logID)
	s.mu.Unlock()
	if st == nil {
		return ErrNoStream
	}
	chunks := &reader{chunks: make(chan *agentv1.LogChunk, logBuffer)}
	st.mu.Lock()
	st.logs[id] = chunks
	st.mu.Unlock()
	defer st.endLog(id)
	ask := &agentv1.Down{Message: &agentv1.Down_Log{Log: &agentv1.LogRequest{
		Id: id, App: r.App, Deployment: r.Deployment, Event: r.Event, Failed: r.Failed, Follow: r.Follow,
	}}}
	select {
	case st.send <- ask:
	case <-st.done:
		return ErrNoStream
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		select {
		case c, ok := <-chunks.chunks:
			if !ok {
				return chunks.why
			}
			if c.Error != "" {
				return &deploy.Refusal{Reason: deploy.NotFound, Text: c.Error}
			}
			if len(c.Data) > 0 {
				if err := each(c); err != nil {
					return err
				}
			}
			if c.End {
				return nil
			}
		case <-st.done:
			return fmt.Errorf("the session of host %s ended while its output was read", host)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endLog forgets a request and tells the host. A host that has not read what
// was asked before will not read this: its session ends.
func (s *stream) endLog(id string) {
	s.mu.Lock()
	delete(s.logs, id)
	s.mu.Unlock()
	select {
	case s.send <- &agentv1.Down{Message: &agentv1.Down_Log{Log: &agentv1.LogRequest{Id: id, Cancel: true}}}:
	case <-s.done:
	default:
		s.stop()
	}
}

// deliver hands a chunk to the request it answers; chunks of ended requests
// are dropped. It never blocks.
func (s *stream) deliver(c *agentv1.LogChunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.logs[c.Id]
	if r == nil {
		return
	}
	if r.why = errSlow; len(c.Data) > longestChunk {
		r.why = longChunk(len(c.Data))
	} else {
		select {
		case r.chunks <- c:
			return
		default:
		}
	}
	delete(s.logs, c.Id)
	close(r.chunks)
}
