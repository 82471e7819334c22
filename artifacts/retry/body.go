package retry

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/groundswell/groundswell/artifacts"
)

// maxBreaks is how often a body may break without a byte in between: more
// means that the server cannot send what comes next.
const maxBreaks = 5

// body is a range that is opened again from where it broke. Objects are
// immutable, so the rest is the rest of the same bytes.
type body struct {
	opt  Options
	ctx  context.Context //nolint:containedctx // of the Open it belongs to
	key  string
	open func(offset, length int64) (io.ReadCloser, error)

	in     io.ReadCloser
	at     int64
	left   int64 // -1: to the end
	breaks int
}

func (b *body) connect() error {
	in, err := again(b.ctx, b.opt, "open "+b.key, func() (io.ReadCloser, error) { return b.open(b.at, b.left) })
	b.in = in
	return err
}

func (b *body) Read(p []byte) (int, error) {
	for {
		if b.left == 0 {
			return 0, io.EOF
		}
		n, err := b.in.Read(p)
		b.advance(n)
		if n > 0 || err == nil {
			return n, nil // an error that came with bytes comes again
		}
		if err == io.EOF && b.left < 0 {
			return 0, io.EOF
		}
		if err = b.again(err); err != nil {
			return 0, err
		}
	}
}

func (b *body) advance(n int) {
	b.at += int64(n)
	if b.left > 0 {
		b.left = max(b.left-int64(n), 0)
	}
	if n > 0 {
		b.breaks = 0
	}
}

// again replaces the broken connection, or says why not.
func (b *body) again(cause error) error {
	b.breaks++
	if b.breaks > maxBreaks || artifacts.IsPermanent(cause) || b.ctx.Err() != nil {
		return fmt.Errorf("read %s at byte %d: %w", b.key, b.at, cause)
	}
	b.in.Close() // it is broken; what closing says adds nothing
	if err := b.connect(); err != nil {
		b.in = io.NopCloser(failing{err})
		return errors.Join(err, cause)
	}
	return nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Close implements io.Closer.
func (b *body) Close() error { return b.in.Close() }
