package bundle

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/groundswell/groundswell/artifacts"
)

// Pushed says what a push did.
type Pushed struct {
	Digest   artifacts.Digest
	Manifest *artifacts.Manifest
	// Files and Bytes are the revision's, unpacked.
	Files int
	Bytes int64
	// StoredBytes is what a host without any cache downloads.
	StoredBytes int64
	// UploadedBytes is what this push sent to the store.
	UploadedBytes int64
}

// Push packs src and stores it as a revision. It is idempotent, and a crash
// at any point leaves no revision that is incomplete: packs go first, the
// index next, the manifest last. A revision that the store holds already is
// not uploaded again.
func Push(ctx context.Context, s artifacts.Store, src Source, opt Options) (Pushed, error) {
	var err error
	if opt.Prev, err = present(ctx, s, opt.Prev); err != nil {
		return Pushed{}, err
	}
	p, err := Pack(ctx, src, opt)
	if err != nil {
		return Pushed{}, err
	}
	defer p.Close() // a leftover in the temporary folder is no failure of the push
	return p.Push(ctx, s)
}

// present drops the indexes that refer to packs which the store has lost, so
// that a new revision never depends on them.
func present(ctx context.Context, s artifacts.Store, prev []*artifacts.Index) ([]*artifacts.Index, error) {
	kept := make([]*artifacts.Index, 0, len(prev))
	for _, x := range prev {
		ok, err := stored(ctx, s, x)
		if err != nil {
			return nil, err
		}
		if ok {
			kept = append(kept, x)
		}
	}
	return kept, nil
}

// stored reports whether all packs of x lie in s in full length.
func stored(ctx context.Context, s artifacts.Store, x *artifacts.Index) (bool, error) {
	for _, p := range x.Packs() {
		ok, err := has(ctx, s, p)
		if err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func has(ctx context.Context, s artifacts.Store, p artifacts.PackRef) (bool, error) {
	size, err := s.Stat(ctx, artifacts.PackKey(p.Sum))
	if artifacts.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for pack %s: %w", p.Sum, err)
	}
	return size == p.Size, nil
}

// Push stores a packed bundle; see the function [Push].
func (p *Packed) Push(ctx context.Context, s artifacts.Store) (Pushed, error) {
	m := p.Manifest
	out := Pushed{Digest: m.Digest(), Manifest: m, Files: m.Files(), Bytes: m.Bytes()}
	manifest, index, err := p.encodeBoth()
	if err != nil {
		return out, err
	}
	out.StoredBytes = int64(len(manifest)+len(index)) + p.index.Stored()
	if old := p.complete(ctx, s); old != nil {
		out.StoredBytes = int64(len(manifest)+len(index)) + old.Stored()
		return out, nil
	}
	for _, f := range p.packs {
		n, err := upload(ctx, s, f)
		if err != nil {
			return out, err
		}
		out.UploadedBytes += n
	}
	for _, o := range []struct {
		key  string
		data []byte
	}{{artifacts.IndexKey(m.Digest()), index}, {artifacts.ManifestKey(m.Digest()), manifest}} {
		if err := s.Put(ctx, o.key, bytes.NewReader(o.data), int64(len(o.data))); err != nil {
			return out, fmt.Errorf("push revision %s: %w", m.Digest(), err)
		}
		out.UploadedBytes += int64(len(o.data))
	}
	return out, nil
}

// complete returns the index by which the store holds this revision already,
// or nil if anything about it is in doubt: then all is put again.
func (p *Packed) complete(ctx context.Context, s artifacts.Store) *artifacts.Index {
	x, err := artifacts.LoadIndex(ctx, s, p.Manifest.Digest())
	if err != nil {
		return nil
	}
	if ok, err := stored(ctx, s, x); err != nil || !ok {
		return nil
	}
	return x
}

func upload(ctx context.Context, s artifacts.Store, f packFile) (int64, error) {
	if ok, err := has(ctx, s, f.ref); err != nil || ok {
		return 0, err
	}
	in, err := os.Open(f.path)
	if err != nil {
		return 0, fmt.Errorf("push pack %s: %w", f.ref.Sum, err)
	}
	defer in.Close()
	if err := s.Put(ctx, artifacts.PackKey(f.ref.Sum), in, f.ref.Size); err != nil {
		return 0, fmt.Errorf("push pack %s: %w", f.ref.Sum, err)
	}
	return f.ref.Size, nil
}
