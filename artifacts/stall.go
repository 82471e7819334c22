package artifacts

import (
	"context"
	"fmt"
	"io"
	"time"
)

// stallReader cancels a body that is silent for too long. A transfer may
// take hours if it moves, but must not hang.
type stallReader struct {
	ctx    context.Context // of the request that the body belongs to
	cancel context.CancelCauseFunc
	body   io.ReadCloser
	limit  time.Duration
	timer  *time.Timer
}

func newStallReader(ctx context.Context, cancel context.CancelCauseFunc, body io.ReadCloser,
	limit time.Duration,
) *stallReader {
	stalled := func() { cancel(fmt.Errorf("no byte arrived for %s", limit)) }
	return &stallReader{ctx: ctx, cancel: cancel, body: body, limit: limit, timer: time.AfterFunc(limit, stalled)}
}

func (s *stallReader) Read(p []byte) (int, error) {
	s.timer.Reset(s.limit)
	n, err := s.body.Read(p)
	s.timer.Stop() // a slow consumer is no stall
	if err != nil && err != io.EOF && s.ctx.Err() != nil {
		err = context.Cause(s.ctx)
	}
	return n, err
}

// Close frees the connection.
func (s *stallReader) Close() error {
	s.timer.Stop()
	s.cancel(nil)
	return s.body.Close()
}
