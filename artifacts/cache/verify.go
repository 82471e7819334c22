package cache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/groundswell/groundswell/artifacts"
)

// VerifyStored reads the whole revision d from the store, as a host without any
// cache would, and keeps nothing. It returns nil if every byte is right, else
// the error of the first bad file in path order, and of how many. Files that
// share a pack are read together; memory is bounded as in [Fetcher].
func VerifyStored(ctx context.Context, o artifacts.Opener, d artifacts.Digest) error {
	m, err := artifacts.LoadManifest(ctx, o, d)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	x, err := artifacts.LoadIndexOf(ctx, o, m)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	var wants []want
	for e := range m.Contents() {
		parts, _ := x.Parts(e.Sum)
		wants = append(wants, want{path: e.Path, sum: e.Sum, size: e.Size, parts: parts})
	}
	bad := &badFiles{}
	pull := &puller{
		opener: o, packs: x.Packs(), attempts: 1, read: new(atomic.Int64),
		sink: hashOnly, failed: bad.add, got: func(want) {},
	}
	if err := pull.run(ctx, plan(wants), 4); err != nil {
		return fmt.Errorf("verify %s: %w", d, err)
	}
	return bad.first(d)
}

func hashOnly(w want, r io.Reader) error {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return err
	}
	if got := artifacts.Sum(h.Sum(nil)); n != w.size || got != w.sum {
		return fmt.Errorf("%d bytes of sha256 %s: %w", n, got, artifacts.ErrDigestMismatch)
	}
	return nil
}

// badFiles collects failures instead of stopping at one, so that the answer
// does not depend on which worker was quicker. It keeps only the first.
type badFiles struct {
	mu    sync.Mutex
	count int
	list  []badFile
}

type badFile struct {
	path string
	err  error
}

func (b *badFiles) add(w want, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	b.list = append(b.list, badFile{w.path, err})
	first := slices.MinFunc(b.list, func(a, b badFile) int { return cmp.Compare(a.path, b.path) })
	b.list = append(b.list[:0], first)
	return nil
}

func (b *badFiles) first(d artifacts.Digest) error {
	if b.count == 0 {
		return nil
	}
	return fmt.Errorf("verify %s: %d bad files, the first: %w", d, b.count, b.list[0].err)
}
