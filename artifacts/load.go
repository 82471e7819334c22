package artifacts

import (
	"context"
	"fmt"
	"io"
)

// LoadManifest reads the manifest of d from a store and verifies it; bytes
// of another digest are [ErrDigestMismatch].
func LoadManifest(ctx context.Context, o Opener, d Digest) (*Manifest, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	var m *Manifest
	err := readFrame(ctx, o, ManifestKey(d), func(r io.Reader) (err error) {
		m, err = ReadManifest(r, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load manifest %s: %w", d, err)
	}
	return m, nil
}

// ReadManifest reads the manifest of d and verifies it. One that does not parse
// is an [ErrDigestMismatch] too: what was pushed under d did parse, so these
// bytes are not it.
func ReadManifest(r io.Reader, d Digest) (*Manifest, error) {
	m, err := ParseManifest(r, Limits{})
	if err != nil {
		return nil, damaged(err)
	}
	if m.Digest() != d {
		return nil, fmt.Errorf("manifest has digest %s: %w", m.Digest(), ErrDigestMismatch)
	}
	return m, nil
}

// damaged marks err as a mismatch and hides ErrInvalid, which would forbid
// another try.
func damaged(err error) error { return fmt.Errorf("%w: %s", ErrDigestMismatch, err.Error()) }

// LoadIndex reads the index of d, and its manifest, from a store: what a
// push takes as a previous revision.
func LoadIndex(ctx context.Context, o Opener, d Digest) (*Index, error) {
	m, err := LoadManifest(ctx, o, d)
	if err != nil {
		return nil, err
	}
	return LoadIndexOf(ctx, o, m)
}

// LoadIndexOf is [LoadIndex] of a revision whose manifest is at hand.
func LoadIndexOf(ctx context.Context, o Opener, m *Manifest) (*Index, error) {
	var x *Index
	err := readFrame(ctx, o, IndexKey(m.Digest()), func(r io.Reader) (err error) {
		if x, err = parseIndex(r, m); err != nil {
			return damaged(err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load index of %s: %w", m.Digest(), err)
	}
	return x, nil
}

// maxText bounds what a manifest or index may unpack to: 200,000 entries of
// 1 KiB.
const maxText = 200 << 20

func readFrame(ctx context.Context, o Opener, key string, parse func(io.Reader) error) error {
	r, err := o.Open(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	dec, err := NewDecoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	in := &faults{r: r}
	if err := dec.Reset(in); err != nil {
		return err
	}
	err = parse(io.LimitReader(dec, maxText))
	if in.err != nil { // the transfer broke; what the parser thought of it says nothing
		return fmt.Errorf("read %s: %w", key, in.err)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	return nil
}

// faults remembers why its reader broke, which a decoder above may hide.
type faults struct {
	r   io.Reader
	err error
}

func (f *faults) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}
