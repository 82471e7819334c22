package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/groundswell/groundswell/artifacts"
)

// waitingStore is a store whose every call ends when it has come no further for
// --timeout: a transfer may take hours if it moves, and a store that is dead is
// named. Its methods may be called concurrently.
type waitingStore struct {
	artifacts.Store
	c    *cli
	name string // the URL, without a secret
}

// errSilent is why a call was ended.
var errSilent = errors.New("the store is silent")

// Put implements [artifacts.Store].
func (s waitingStore) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	ctx, call := s.begin(ctx)
	defer call.end()
	moving := &movingReader{in: r, call: call}
	if _, ok := r.(io.Seeker); !ok {
		return call.explain(s.Store.Put(ctx, key, struct{ io.Reader }{moving}, size)) // nor can we
	}
	return call.explain(s.Store.Put(ctx, key, moving, size))
}

// Stat implements [artifacts.Store].
func (s waitingStore) Stat(ctx context.Context, key string) (int64, error) {
	ctx, call := s.begin(ctx)
	defer call.end()
	size, err := s.Store.Stat(ctx, key)
	return size, call.explain(err)
}

// Open implements [artifacts.Opener]; the reads of its body may take as long
// each.
func (s waitingStore) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	ctx, call := s.begin(ctx)
	body, err := s.Store.Open(ctx, key, offset, length)
	if err != nil {
		call.end()
		return nil, call.explain(err)
	}
	return &movingBody{movingReader{in: body, call: call}, body}, nil
}

// begin starts the clock of one call.
func (s waitingStore) begin(ctx context.Context) (context.Context, *storeCall) {
	limit := time.Duration(s.c.flags.timeout)
	ctx, cancel := context.WithCancelCause(ctx)
	call := &storeCall{s: s, ctx: ctx, cancel: cancel, limit: limit}
	call.timer = time.AfterFunc(limit, func() { cancel(errSilent) })
	call.said = s.c.saying("waiting for the store " + s.name)
	return ctx, call
}

// storeCall is one call of a store under way.
type storeCall struct {
	s      waitingStore
	ctx    context.Context //nolint:containedctx // of the call that this is
	cancel context.CancelCauseFunc
	limit  time.Duration
	timer  *time.Timer
	said   func()
}

// moved says that the call got further.
func (c *storeCall) moved() { c.timer.Reset(c.limit) }

func (c *storeCall) end() {
	c.timer.Stop()
	c.said()
	c.cancel(nil)
}

// explain replaces what the end of the context made of an error.
func (c *storeCall) explain(err error) error {
	if err == nil || !errors.Is(context.Cause(c.ctx), errSilent) {
		return err
	}
	why := ""
	if cause := rootCause(err); cause != context.Canceled.Error() {
		why = ": " + cause
	}
	return &exitError{code: exitOther, text: fmt.Sprintf(
		"the store %s gave no sign of life for %s (--timeout)%s", c.s.name,
		c.limit, why)}
}

// rootCause is the last thing that went wrong, without what every layer adds.
func rootCause(err error) string {
	for {
		var next error
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			next = e.Unwrap()
		case interface{ Unwrap() []error }:
			all := e.Unwrap()
			next = all[len(all)-1]
		}
		if next == nil || next.Error() == "" {
			return err.Error()
		}
		err = next
	}
}

// movingReader counts as progress what is read for the first time: a call that
// is repeated reads the same again.
type movingReader struct {
	in       io.Reader
	call     *storeCall
	at, most int64
}

func (m *movingReader) Read(p []byte) (int, error) {
	n, err := m.in.Read(p)
	if m.at += int64(n); m.at > m.most {
		m.most = m.at
		m.call.moved()
	}
	return n, err
}

// Seek lets a decorator repeat the call.
func (m *movingReader) Seek(offset int64, whence int) (int64, error) {
	s, ok := m.in.(io.Seeker)
	if !ok {
		return 0, errors.New("seek: the reader cannot")
	}
	at, err := s.Seek(offset, whence)
	m.at = at
	return at, err
}

type movingBody struct {
	movingReader
	body io.Closer
}

func (m *movingBody) Read(p []byte) (int, error) {
	n, err := m.movingReader.Read(p)
	if err != nil && err != io.EOF {
		err = m.call.explain(err)
	}
	return n, err
}

// Close frees the connection.
func (m *movingBody) Close() error {
	m.call.end()
	return m.body.Close()
}
