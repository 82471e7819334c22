package agent

import (
	"context"
	"io"

	"golang.org/x/time/rate"

	"github.com/groundswell/groundswell/artifacts"
)

// limitChunk bounds one read of a limited fetch, and so its bursts.
const limitChunk = 64 << 10

// limited opens objects whose reads together take at most a number of bytes a
// second. It may be used concurrently.
type limited struct {
	artifacts.Opener
	rate *rate.Limiter
}

func limitTo(o artifacts.Opener, bytesPerSecond int64) artifacts.Opener {
	return &limited{o, rate.NewLimiter(rate.Limit(bytesPerSecond), limitChunk)}
}

func (l *limited) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := l.Opener.Open(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return &limitedReader{ReadCloser: r, ctx: ctx, rate: l.rate}, nil
}

type limitedReader struct {
	io.ReadCloser
	ctx  context.Context
	rate *rate.Limiter
}

func (r *limitedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), limitChunk)])
	if n > 0 {
		if wait := r.rate.WaitN(r.ctx, n); wait != nil {
			return n, wait
		}
	}
	return n, err
}
