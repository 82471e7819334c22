package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/internal/room"
)

// Fetcher brings revisions into a [Cache]. Its fields must not change after
// the first call; calls may run concurrently. Its memory stays under 64 MB
// whatever the size of the files (four decoders of 4 MiB windows) for
// revisions of up to about 100,000 entries.
type Fetcher struct {
	// Opener reads the store. It should retry transfers by itself; the
	// fetcher only reads again what arrives truncated or damaged.
	Opener artifacts.Opener
	Cache  *Cache
	// Workers is the number of concurrent requests; 0 means 4.
	Workers int
	// Attempts is how often one file is tried without progress; 0 means 3.
	Attempts int
	// Bases are revisions on this host whose files spare a transfer.
	Bases []Basis
	// Move lets Stage move files out of the cache instead of copying them: each
	// file is then created once. What a later revision shares with this one
	// comes from Bases, or from the cache after [Cache.Refill].
	Move bool
	// MakeRoom, if set, is asked to end a shortage, as by [Cache.Evict], before a
	// staging fails by it. It reports whether it did.
	MakeRoom func(ctx context.Context, s *room.Shortage) bool
	// Progress, if set, is told after each file. Calls do not overlap; it must
	// not block.
	Progress func(Progress)

	mu       sync.Mutex
	verified map[artifacts.Sum]struct{} // put into the cache by this fetcher
}

// took notes a content whose digest was verified on its way into the cache.
func (f *Fetcher) took(sum artifacts.Sum) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.verified == nil {
		f.verified = map[artifacts.Sum]struct{}{}
	}
	f.verified[sum] = struct{}{}
}

// Progress is how far a fetch is. Files and bytes are those missing in the
// cache as it began; Received counts bytes off the wire.
type Progress struct {
	Files, TotalFiles int
	Bytes, TotalBytes int64
	Received          int64
}

// Manifest returns the verified manifest of d, from the cache if it is
// there, else from the store, and then keeps it in the cache.
func (f *Fetcher) Manifest(ctx context.Context, d artifacts.Digest) (*artifacts.Manifest, error) {
	m, err := f.Cache.Manifest(d)
	if err == nil {
		return m, nil
	}
	if errors.Is(err, artifacts.ErrInvalid) {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		m, err = artifacts.LoadManifest(ctx, f.Opener, d)
		if err == nil {
			return m, f.Cache.PutManifest(m)
		}
		if attempt >= f.attempts() || artifacts.IsPermanent(err) || ctx.Err() != nil {
			return nil, err
		}
	}
}

// Fetch makes sure that the cache has every file of revision d, and returns
// its manifest. It reads only what is missing, and asks the store for
// nothing if nothing is. Nothing is visible in the cache under its name
// before its digest is verified. On error, files that did arrive stay, so a
// second call continues. The error names file and pack.
func (f *Fetcher) Fetch(ctx context.Context, d artifacts.Digest) (*artifacts.Manifest, error) {
	m, err := f.Manifest(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("fetch revision: %w", err)
	}
	if err := f.fetch(ctx, m); err != nil {
		return nil, err
	}
	return m, nil
}

func (f *Fetcher) fetch(ctx context.Context, m *artifacts.Manifest) error {
	err := f.fromBases(ctx, m)
	if err == nil {
		err = f.contents(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("fetch revision %s: %w", m.Digest(), err)
	}
	return nil
}

func (f *Fetcher) contents(ctx context.Context, m *artifacts.Manifest) error {
	var wants []want
	var bytes int64
	for e := range m.Contents() {
		if !f.Cache.Has(e.Sum, e.Size) {
			wants = append(wants, want{path: e.Path, sum: e.Sum, size: e.Size})
			bytes += e.Size
		}
	}
	if len(wants) == 0 {
		return nil
	}
	if err := room.Check(f.Cache.dir, bytes, len(wants)); err != nil {
		return err
	}
	x, err := f.index(ctx, m)
	if err != nil {
		return err
	}
	for i := range wants {
		wants[i].parts, _ = x.Parts(wants[i].sum)
	}
	return f.pull(ctx, x, wants, Progress{TotalFiles: len(wants), TotalBytes: bytes})
}

func (f *Fetcher) index(ctx context.Context, m *artifacts.Manifest) (*artifacts.Index, error) {
	for attempt := 1; ; attempt++ {
		x, err := artifacts.LoadIndexOf(ctx, f.Opener, m)
		if err == nil || attempt >= f.attempts() || artifacts.IsPermanent(err) || ctx.Err() != nil {
			return x, err
		}
	}
}

func (f *Fetcher) pull(ctx context.Context, x *artifacts.Index, wants []want, p Progress) error {
	var mu sync.Mutex
	var read atomic.Int64
	pull := &puller{
		opener: f.Opener, packs: x.Packs(), attempts: f.attempts(), read: &read,
		sink:   func(w want, r io.Reader) error { return f.Cache.Put(w.sum, w.size, r) },
		failed: func(_ want, err error) error { return err },
		got: func(w want) {
			f.took(w.sum)
			mu.Lock()
			defer mu.Unlock()
			p.Files, p.Bytes, p.Received = p.Files+1, p.Bytes+w.size, read.Load()
			if f.Progress != nil {
				f.Progress(p)
			}
		},
	}
	return pull.run(ctx, plan(wants), f.workers())
}

func (f *Fetcher) attempts() int { return orDefault(f.Attempts, 3) }
func (f *Fetcher) workers() int  { return orDefault(f.Workers, 4) }

func orDefault(n, d int) int {
	if n > 0 {
		return n
	}
	return d
}

// stageTries is how often a cache entry may turn out damaged, or the disk full,
// before Stage gives up.
const stageTries = 3

// Stage fetches revision d and unpacks it to dest, a path that must not
// exist. While it runs nothing that it needs leaves the cache for another
// staging. A cache entry that turns out damaged, or was lost, is fetched
// again; no such error is permanent. On error dest does not exist.
func (f *Fetcher) Stage(ctx context.Context, d artifacts.Digest, dest string) (*artifacts.Manifest, error) {
	m, err := f.Manifest(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("fetch revision: %w", err)
	}
	defer f.Cache.claims.claim(m)()
	for try := 1; ; try++ {
		again, err := f.stage(ctx, m, dest)
		if err == nil {
			return m, nil
		}
		if again = again || f.madeRoom(ctx, m, err); !again || try == stageTries {
			return nil, err
		}
	}
}

// stage is one try; again says that another may end better.
func (f *Fetcher) stage(ctx context.Context, m *artifacts.Manifest, dest string) (again bool, err error) {
	if err := f.fetch(ctx, m); err != nil {
		return false, err
	}
	err = f.Cache.unpack(ctx, m, dest, f.mover(m))
	switch {
	case errors.Is(err, artifacts.ErrNotFound):
		f.forget()
		// of the cache, not of the store: nothing that lasts
		return true, fmt.Errorf("%w: %s", artifacts.ErrDigestMismatch, err.Error())
	case errors.Is(err, artifacts.ErrDigestMismatch):
		f.forget()
		return true, err
	}
	return false, err
}

// madeRoom reports whether room was made after err.
func (f *Fetcher) madeRoom(ctx context.Context, m *artifacts.Manifest, err error) bool {
	if f.MakeRoom == nil || !errors.Is(err, artifacts.ErrNoSpace) {
		return false
	}
	var s *room.Shortage
	if !errors.As(err, &s) { // the kernel says no numbers
		s = &room.Shortage{Dir: f.Cache.dir, Bytes: m.Bytes(), Files: m.Len()}
	}
	return f.MakeRoom(ctx, s)
}

// forget drops what was verified before: an entry has changed since.
func (f *Fetcher) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verified = nil
}

func (f *Fetcher) mover(m *artifacts.Manifest) *mover {
	if !f.Move {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return newMover(m, maps.Clone(f.verified))
}
