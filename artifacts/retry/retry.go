// Package retry repeats the calls of an artifact store that failed for a
// passing reason.
package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/groundswell/groundswell/artifacts"
	waits "github.com/groundswell/groundswell/internal/backoff"
)

// Options tune [New]; zero fields take the defaults named at each.
type Options struct {
	// First is the wait before the first repetition, 200 ms by default; each
	// further one is 1.6 times as long, with a jitter of half.
	First time.Duration
	// Longest bounds one wait, 15 s by default.
	Longest time.Duration
	// GiveUp bounds all attempts of one call, 2 minutes by default, if its
	// context has no deadline; with one, that deadline is the bound.
	GiveUp time.Duration
}

// New returns s with every call repeated until it succeeds, fails for a
// reason that [artifacts.IsPermanent] calls permanent, or time is up. A
// reader of Open that breaks goes on where it broke. Put is repeated only if
// its reader is an [io.Seeker]. The result presigns if s does.
func New(s artifacts.Store, o Options) artifacts.Store {
	r := &store{next: s, opt: o.withDefaults()}
	if p, ok := s.(artifacts.Presigner); ok {
		return &presigner{store: r, Presigner: p}
	}
	return r
}

func (o Options) withDefaults() Options {
	o.First = orDefault(o.First, 200*time.Millisecond)
	o.Longest = orDefault(o.Longest, 15*time.Second)
	o.GiveUp = orDefault(o.GiveUp, 2*time.Minute)
	return o
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

type presigner struct {
	*store
	artifacts.Presigner
}

type store struct {
	next artifacts.Store
	opt  Options
}

// Put implements [artifacts.Store].
func (s *store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	seeker, canSeek := r.(io.Seeker)
	if !canSeek {
		return s.next.Put(ctx, key, r, size)
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("put %s: find the start of the content: %w", key, err)
	}
	_, err = again(ctx, s.opt, "put "+key, func() (struct{}, error) {
		if _, err := seeker.Seek(start, io.SeekStart); err != nil {
			return struct{}{}, artifacts.Permanent(err)
		}
		return struct{}{}, s.next.Put(ctx, key, r, size)
	})
	return err
}

// Open implements [artifacts.Opener].
func (s *store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b := &body{
		opt: s.opt, ctx: ctx, key: key, at: offset, left: length,
		open: func(offset, length int64) (io.ReadCloser, error) { return s.next.Open(ctx, key, offset, length) },
	}
	if err := b.connect(); err != nil {
		return nil, err
	}
	return b, nil
}

// Stat implements [artifacts.Store].
func (s *store) Stat(ctx context.Context, key string) (int64, error) {
	return again(ctx, s.opt, "stat "+key, func() (int64, error) { return s.next.Stat(ctx, key) })
}

// Delete implements [artifacts.Store].
func (s *store) Delete(ctx context.Context, key string) error {
	_, err := again(ctx, s.opt, "delete "+key, func() (struct{}, error) { return struct{}{}, s.next.Delete(ctx, key) })
	return err
}

// again runs do until it succeeds or trying is pointless. A permanent error
// comes back as it is; another names the number of attempts.
func again[T any](ctx context.Context, o Options, what string, do func() (T, error)) (T, error) {
	var last error
	tries := 0
	out, err := backoff.Retry(ctx, func() (T, error) {
		tries++
		out, err := do()
		if last == nil || ctx.Err() == nil { // that the caller gave up says nothing of the store
			last = err
		}
		if err != nil && artifacts.IsPermanent(err) {
			return out, backoff.Permanent(err)
		}
		return out, err
	}, backoff.WithBackOff(o.waits()), backoff.WithMaxElapsedTime(o.bound(ctx)))
	switch {
	case err == nil:
		return out, nil
	case last != nil && artifacts.IsPermanent(last):
		return out, last
	case last == nil || errors.Is(err, last):
		return out, fmt.Errorf("%s: gave up after %d attempts: %w", what, tries, err)
	}
	return out, fmt.Errorf("%s: gave up after %d attempts (%w): %w", what, tries, err, last)
}

func (o Options) waits() backoff.BackOff { return &waits.Backoff{First: o.First, Longest: o.Longest} }

// bound is 0, which means none, where ctx sets the deadline.
func (o Options) bound(ctx context.Context) time.Duration {
	if _, ok := ctx.Deadline(); ok {
		return 0
	}
	return o.GiveUp
}
