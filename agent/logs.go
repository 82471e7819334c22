package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/backoff"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// logReaders answers the requests of one session for the output of hooks. It
// is for the goroutine that receives; each request has one of its own.
type logReaders struct {
	host    *host
	out     chan<- *agentv1.LogChunk
	group   *errgroup.Group
	cancels map[string]context.CancelFunc
}

// handle begins or cancels a request.
func (l *logReaders) handle(ctx context.Context, r *agentv1.LogRequest) {
	if cancel := l.cancels[r.Id]; cancel != nil {
		cancel()
		delete(l.cancels, r.Id)
	}
	if r.Cancel {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	l.cancels[r.Id] = cancel
	reader := &logReader{host: l.host, request: r, out: l.out}
	l.group.Go(func() error { reader.run(ctx); return nil })
}

// logReader answers one request.
type logReader struct {
	*host
	request *agentv1.LogRequest
	out     chan<- *agentv1.LogChunk
}

// chunkSize bounds the data of one message, so that output never holds a
// stream for long.
const chunkSize = 32 << 10

// followEvery is how often a followed deployment is looked at, under what a
// person notices. It costs only while somebody follows.
const followEvery = 100 * time.Millisecond

func (l *logReader) run(ctx context.Context) {
	end := &agentv1.LogChunk{Id: l.request.Id, End: true}
	if err := l.read(ctx); err != nil {
		end.Error = err.Error()
	}
	l.send(ctx, end)
}

// send hands a chunk to the session; a slow stream slows the reader down.
func (l *logReader) send(ctx context.Context, c *agentv1.LogChunk) bool {
	select {
	case l.out <- c:
		return true
	case <-ctx.Done():
		return false
	}
}

// read sends the output of all runs that were asked for, in order. Following,
// it goes on until the deployment has ended on this host.
func (l *logReader) read(ctx context.Context) error {
	t := l.target(l.request.App)
	if t == nil {
		return fmt.Errorf("this host has no application %s", l.request.App)
	}
	offsets, done := map[string]int64{}, map[string]bool{}
	for {
		generations, known := t.generations(l.request.Deployment)
		tastes := t.tastes(l.request.Deployment)
		known = known || len(tastes) > 0
		over := known && !t.working()
		for _, r := range append(tastes, t.runs()...) {
			ours := r.generation == 0 || slices.Contains(generations, r.generation)
			if !done[r.id] && ours && l.asked(r) {
				done[r.id] = l.readRun(ctx, r, offsets)
			}
		}
		switch {
		case !l.request.Follow && !known:
			return fmt.Errorf("this host has no output of deployment %s", l.request.Deployment)
		case !l.request.Follow || over || !backoff.Pause(ctx, followEvery):
			return nil
		}
	}
}

func (l *logReader) asked(r run) bool {
	return l.request.Event == "" || l.request.Event == r.event
}

// readRun sends what a run's log has beyond the offset, and answers whether
// the run has ended and all of it was sent.
func (l *logReader) readRun(ctx context.Context, r run, offsets map[string]int64) bool {
	res, over := l.ended(r)
	if l.request.Failed && (!over || res.OK()) {
		return over
	}
	log := l.o.path("hooks", r.id, "log")
	if res.Log != "" {
		log = res.Log
	}
	for {
		data, next, err := hooks.ReadLog(log, offsets[r.id], chunkSize)
		if err != nil || len(data) == 0 {
			return over
		}
		offsets[r.id] = next
		if !l.send(ctx, &agentv1.LogChunk{Id: l.request.Id, Data: data, Event: r.event, Script: res.Script}) {
			return true
		}
	}
}

// generations lists those of a deployment on this target, of the newest one
// if none is named. It answers false for a deployment that is not known here.
func (t *target) generations(deployment string) ([]uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.checkpoint.Episodes
	if deployment == "" && len(all) > 0 {
		deployment = all[len(all)-1].Deployment
	}
	var out []uint64
	for _, e := range all {
		if e.Deployment == deployment {
			out = append(out, e.Generation)
		}
	}
	return out, len(out) > 0
}

// working reports whether a generation is open or about to be.
func (t *target) working() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.checkpoint.Generation > t.base.Generation || t.base.Result == 0 && t.base.Generation > 0
}
