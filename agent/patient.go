package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/cache"
	"github.com/groundswell/groundswell/internal/backoff"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// patient repeats what a store or coordinator that is away for a moment could
// not answer. Breaks in the middle of an object are the fetcher's.
type patient struct {
	artifacts.Opener
	slow *slowness
	long time.Duration // 0 for a store that repeats by itself
}

const (
	patientFor     = 30 * time.Second
	patientLongest = 5 * time.Second
)

// Open implements artifacts.Opener.
func (p patient) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b := backoff.Backoff{Longest: patientLongest}
	for end := time.Now().Add(p.long); ; {
		body, err := p.Opener.Open(ctx, key, offset, length)
		p.slow.answered(err)
		if err == nil || artifacts.IsPermanent(err) || time.Now().After(end) {
			return body, err
		}
		if !b.Wait(ctx) {
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

// slowness is what is to be said of a staging that takes long. Its methods may
// be called concurrently.
type slowness struct {
	mu    sync.Mutex
	far   cache.Progress
	err   error // of the store's newest answer
	since time.Time
}

// moved takes how far the fetch is.
func (s *slowness) moved(p cache.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.far = p
}

// answered takes the store's newest answer.
func (s *slowness) answered(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.err == nil {
		s.since = time.Now()
	}
	s.err = err
}

// watch warns, as often as the options say, until stop is called, which waits
// for it.
func (s *slowness) watch(t *target, id string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	begin := time.Now()
	group.Go(func() {
		for backoff.Pause(ctx, t.o.SlowStaging) {
			s.warn(t, t.called(id), time.Since(begin))
		}
	})
	return func() { cancel(); group.Wait() }
}

// called is the name of a revision, by the newest assignment: staging may begin before
// the checkpoint has learnt it.
func (t *target) called(id string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range []*agentv1.Revision{t.latest.GetStage(), t.latest.GetGoal()} {
		if r.GetName() != "" && revisionID(r.Digest) == id {
			return r.Name
		}
	}
	return t.checkpoint.name(id)
}

func (s *slowness) warn(t *target, revision string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := t.o.Log.With("app", t.app, "revision", revision, "for", took.Round(time.Second).String(),
		"files", s.far.Files, "of_files", s.far.TotalFiles, "bytes", s.far.Bytes, "of_bytes", s.far.TotalBytes)
	if s.err == nil {
		log.Warn("staging is not done yet")
		return
	}
	log.Warn("staging stands still: the store does not answer", "since", s.since.Format(time.RFC3339), "error", s.err)
}
