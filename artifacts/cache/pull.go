package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/groundswell/groundswell/artifacts"
)

// sink takes the content of one want. It reads r to its end and returns
// ErrDigestMismatch unless the content is the wanted one.
type sink func(w want, r io.Reader) error

// puller reads jobs from a store into a sink.
type puller struct {
	opener   artifacts.Opener
	packs    []artifacts.PackRef
	attempts int
	sink     sink
	// got is told of every want that the sink accepted; stored counts bytes
	// read for it.
	got func(w want)
	// failed decides what a job's last error means: return it to stop all.
	failed func(w want, err error) error
	// read counts bytes of ranges.
	read *atomic.Int64
}

// run works off jobs with so many workers and returns the first error that
// failed let through. No worker outlives it.
func (p *puller) run(ctx context.Context, jobs []job, workers int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan job)
	var group sync.WaitGroup
	for range min(workers, len(jobs)) {
		group.Go(func() {
			if err := p.worker(ctx, queue); err != nil {
				cancel(err)
			}
		})
	}
	feed(ctx, queue, jobs)
	group.Wait()
	return context.Cause(ctx)
}

func feed(ctx context.Context, queue chan<- job, jobs []job) {
	defer close(queue)
	for _, j := range jobs {
		select {
		case queue <- j:
		case <-ctx.Done():
			return
		}
	}
}

func (p *puller) worker(ctx context.Context, queue <-chan job) error {
	dec, err := artifacts.NewDecoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	for j := range queue {
		if err := p.job(ctx, dec, j); err != nil {
			return err
		}
	}
	return nil
}

// job tries j up to p.attempts times, each time only what is still missing.
// Attempts that brought at least one file do not count: they made progress.
func (p *puller) job(ctx context.Context, dec *zstd.Decoder, j job) error {
	for attempt := 1; len(j) > 0; attempt++ {
		done, err := p.try(ctx, dec, j)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if done > 0 {
			attempt = 0
		}
		j = j[done:]
		if attempt < p.attempts && !artifacts.IsPermanent(err) {
			continue
		}
		err = fmt.Errorf("file %q (sha256 %s) from %s: attempt %d: %w", j[0].path, j[0].sum, p.where(j[0]),
			max(attempt, 1), err)
		if err = p.failed(j[0], err); err != nil {
			return err
		}
		j, attempt = j[1:], 0
	}
	return nil
}

func (p *puller) where(w want) string {
	if len(w.parts) == 0 {
		return "nowhere"
	}
	return artifacts.PackKey(p.packs[w.parts[0].Pack].Sum)
}

// try reads the wants of j in order and says how many were done before err.
func (p *puller) try(ctx context.Context, dec *zstd.Decoder, j job) (done int, err error) {
	if len(j[0].parts) != 1 {
		return 0, p.whole(ctx, dec, j[0])
	}
	first, last := j[0].parts[0], j[len(j)-1].parts[0]
	in, err := p.open(ctx, first.Pack, first.Offset, last.Offset+last.Stored-first.Offset)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	at := first.Offset
	for _, w := range j {
		if _, err := io.CopyN(io.Discard, in, w.parts[0].Offset-at); err == io.EOF {
			return done, io.ErrUnexpectedEOF
		} else if err != nil {
			return done, err
		}
		at = w.parts[0].Offset + w.parts[0].Stored
		if err := p.give(w, &frames{dec: dec, next: oneFrame(in, w.parts[0])}); err != nil {
			return done, err
		}
		done++
	}
	return done, nil
}

// whole reads a file of several parts, or of none, one range a part.
func (p *puller) whole(ctx context.Context, dec *zstd.Decoder, w want) error {
	todo := w.parts
	r := &frames{dec: dec, next: func() (io.ReadCloser, artifacts.Part, error) {
		if len(todo) == 0 {
			return nil, artifacts.Part{}, io.EOF
		}
		next := todo[0]
		todo = todo[1:]
		in, err := p.open(ctx, next.Pack, next.Offset, next.Stored)
		return in, next, err
	}}
	defer r.close()
	return p.give(w, r)
}

func (p *puller) give(w want, r *frames) error {
	err := p.sink(w, r)
	if r.err != nil { // why the content was wrong
		return r.err
	}
	if err != nil {
		return err
	}
	p.got(w)
	return nil
}

func (p *puller) open(ctx context.Context, pack int, offset, length int64) (io.ReadCloser, error) {
	key := artifacts.PackKey(p.packs[pack].Sum)
	in, err := p.opener.Open(ctx, key, offset, length)
	if err != nil {
		return nil, fmt.Errorf("open %s at %d+%d: %w", key, offset, length, err)
	}
	return &counted{ReadCloser: in, n: p.read}, nil
}

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func oneFrame(in io.Reader, p artifacts.Part) func() (io.ReadCloser, artifacts.Part, error) {
	used := false
	return func() (io.ReadCloser, artifacts.Part, error) {
		if used {
			return nil, artifacts.Part{}, io.EOF
		}
		used = true
		return io.NopCloser(in), p, nil
	}
}

// frames joins the decoded parts of a file. Each part is read through a
// limit of its exact stored length and must yield its exact size.
type frames struct {
	dec  *zstd.Decoder
	next func() (io.ReadCloser, artifacts.Part, error)
	in   io.ReadCloser
	raw  *io.LimitedReader
	cur  io.Reader
	left int64
	err  error
}

func (f *frames) Read(p []byte) (int, error) {
	for f.left == 0 {
		if err := f.advance(); err != nil {
			return 0, err
		}
	}
	n, err := f.cur.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	if err == io.EOF && f.left == 0 {
		err = nil
	}
	if err != nil {
		return n, f.fail(err)
	}
	return n, nil
}

func (f *frames) fail(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	f.err = fmt.Errorf("read frame: %w", err)
	return f.err
}

// advance finishes the part that is read and opens the next.
func (f *frames) advance() error {
	if err := f.finish(); err != nil {
		return f.fail(err)
	}
	in, p, err := f.next()
	if err == io.EOF {
		return io.EOF
	}
	if err != nil {
		f.err = err
		return err
	}
	f.in, f.left = in, p.Size
	f.raw = &io.LimitedReader{R: in, N: p.Stored}
	f.cur = f.raw
	if p.Encoding == artifacts.EncodingZstd {
		if err := f.dec.Reset(f.raw); err != nil {
			return f.fail(err)
		}
		f.cur = f.dec
	}
	return nil
}

// finish makes sure that the part ends where the index says: neither more
// content nor unread bytes, so that the next part begins at its place.
func (f *frames) finish() error {
	if f.cur == nil {
		return nil
	}
	var more [1]byte
	if n, err := f.cur.Read(more[:]); n != 0 || err != io.EOF {
		return fmt.Errorf("more than its size, or damaged at the end (%v): %w", err, artifacts.ErrDigestMismatch)
	}
	if f.raw.N != 0 {
		return fmt.Errorf("%d bytes after its end: %w", f.raw.N, artifacts.ErrDigestMismatch)
	}
	f.cur = nil
	return f.in.Close()
}

func (f *frames) close() {
	if f.in != nil {
		f.in.Close()
	}
}
