package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/groundswell/groundswell/artifacts"
)

// Options tune [Pack] and [Push].
type Options struct {
	// Prev are indexes of revisions that the store holds, from [artifacts.LoadIndex].
	// Content that they know is referred to, not packed again.
	Prev []*artifacts.Index
	// TempDir is where packs are built; "" means the system's.
	TempDir string
}

// Packed is a bundle turned into a revision, not yet in any store. Close
// frees its temporary files.
type Packed struct {
	Manifest *artifacts.Manifest
	index    *artifacts.Index
	packs    []packFile
	dir      string
}

// Close removes the packs.
func (p *Packed) Close() error {
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("remove packed bundle: %w", err)
	}
	return nil
}

// packFile is a finished pack on disk.
type packFile struct {
	path string
	ref  artifacts.PackRef
}

// Pack reads src, refuses whatever a bundle must not hold (the error names
// the entry and wraps [artifacts.ErrInvalid]), and writes content that opt.Prev lacks
// to packs in temporary files. Memory is bounded by two parts of 16 MiB,
// disk by the compressed size.
func Pack(ctx context.Context, src Source, opt Options) (*Packed, error) {
	dir, err := os.MkdirTemp(opt.TempDir, "groundswell-pack-")
	if err != nil {
		return nil, fmt.Errorf("pack bundle %s: %w", src.Path, err)
	}
	out := &Packed{dir: dir}
	if err := out.fill(ctx, src, opt.Prev); err != nil {
		return nil, fmt.Errorf("pack: %w", errors.Join(err, out.Close()))
	}
	return out, nil
}

func (p *Packed) fill(ctx context.Context, src Source, prev []*artifacts.Index) error {
	enc, err := newEncoder()
	if err != nil {
		return err
	}
	w := &packWriter{dir: p.dir, parts: map[artifacts.Sum][]artifacts.Part{}, enc: enc}
	k := &packer{w: w, prev: prev, sums: map[string]artifacts.Sum{}}
	if err := src.walk(ctx, func(it item) error { return k.add(ctx, it) }); err != nil {
		return errors.Join(err, w.abort())
	}
	if err := w.finish(); err != nil {
		return err
	}
	if p.Manifest, err = k.manifest(src); err != nil {
		return fmt.Errorf("bundle %s: %w", src.Path, err)
	}
	p.index, p.packs = artifacts.NewIndex(w.packs, w.parts), w.files
	return nil
}

// packer turns items into entries and hands new content to a packWriter.
type packer struct {
	w       *packWriter
	prev    []*artifacts.Index
	entries []artifacts.Entry
	sums    map[string]artifacts.Sum
	part    []byte
}

func (k *packer) add(ctx context.Context, it item) error {
	if it.Type == artifacts.TypeFile {
		sum, err := k.content(ctx, it)
		if err != nil {
			return fmt.Errorf("entry %q: %w", it.Path, err)
		}
		it.Sum = sum
		k.sums[it.Path] = sum
	}
	k.entries = append(k.entries, it.Entry)
	return nil
}

func (k *packer) content(ctx context.Context, it item) (artifacts.Sum, error) {
	if it.sameAs != "" {
		return k.sums[it.sameAs], nil
	}
	sum, err := k.hash(ctx, it)
	if err != nil || it.Size == 0 {
		k.w.parts[sum] = nil
		return sum, err
	}
	if k.known(sum) {
		return sum, nil
	}
	if it.Size <= artifacts.MaxPart { // hash left the whole file in k.part
		return sum, k.w.add(sum, k.part)
	}
	return sum, k.large(ctx, it, sum)
}

// hash reads the file once. A file of at most one part stays in k.part, so
// that it is not read again.
func (k *packer) hash(ctx context.Context, it item) (sum artifacts.Sum, err error) {
	h := sha256.New()
	err = k.eachPart(ctx, it, func(data []byte) error {
		h.Write(data)
		return nil
	})
	return artifacts.Sum(h.Sum(nil)), err
}

// known reports whether the content lies in a pack already, of this bundle
// or an earlier revision, and takes over the reference.
func (k *packer) known(sum artifacts.Sum) bool {
	if _, ok := k.w.parts[sum]; ok {
		return true
	}
	for _, prev := range k.prev {
		if parts, ok := prev.Parts(sum); ok {
			k.w.refer(sum, prev, parts)
			return true
		}
	}
	return false
}

// large packs a file part by part, hashing again: a directory may have
// changed since.
func (k *packer) large(ctx context.Context, it item, want artifacts.Sum) error {
	h := sha256.New()
	err := k.eachPart(ctx, it, func(data []byte) error {
		h.Write(data)
		return k.w.add(want, data)
	})
	if err == nil && artifacts.Sum(h.Sum(nil)) != want {
		err = errors.New("changed while it was packed: pack again when nothing writes to it")
	}
	return err
}

func (k *packer) eachPart(ctx context.Context, it item, do func([]byte) error) error {
	r, err := it.open()
	if err != nil {
		return err
	}
	defer r.Close()
	in := artifacts.SizedReader(r, it.Size, "content")
	k.part = slices.Grow(k.part[:0], int(min(it.Size, artifacts.MaxPart)))
	for left := it.Size; left > 0; left -= int64(len(k.part)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		k.part = k.part[:min(left, artifacts.MaxPart)]
		if _, err := io.ReadFull(in, k.part); err != nil {
			return short(err)
		}
		if err := do(k.part); err != nil {
			return err
		}
	}
	if n, err := in.Read(make([]byte, 1)); n != 0 || err != io.EOF { // archives check their sums at the end
		return fmt.Errorf("at its end: %w", err)
	}
	return nil
}

// manifest drops the top directory if it is only a wrapper and adds the
// directories that an archive left unsaid.
func (k *packer) manifest(src Source) (*artifacts.Manifest, error) {
	return src.manifest(k.entries, src.strips(k.entries))
}

// manifest is the tree of the entries without the top directory, which is ""
// or ends in a slash. It takes the entries over.
func (s Source) manifest(found []artifacts.Entry, top string) (*artifacts.Manifest, error) {
	entries := found[:0]
	for _, e := range found {
		if e.Path = trimTop(e.Path, top); e.Path != "" {
			entries = append(entries, e)
		}
	}
	slices.SortStableFunc(entries, func(a, b artifacts.Entry) int { return strings.Compare(a.Path, b.Path) })
	kept := entries[:0]
	for _, e := range entries {
		last := len(kept) - 1
		switch {
		case last < 0 || kept[last].Path != e.Path:
			kept = append(kept, e)
		case (kept[last].Type == artifacts.TypeDir) != (e.Type == artifacts.TypeDir):
			return nil, fmt.Errorf("entry %q: is a directory and a %s: %w", e.Path, otherKind(kept[last], e),
				artifacts.ErrInvalid)
		default:
			kept[last] = e // the last one counts, as for tar and unzip
		}
	}
	return artifacts.NewManifest(append(kept, unlisted(kept)...), s.Limits)
}

// otherKind is what one of two entries is that is no directory.
func otherKind(a, b artifacts.Entry) artifacts.EntryType {
	if a.Type == artifacts.TypeDir {
		return b.Type
	}
	return a.Type
}

func trimTop(p, top string) string {
	if top != "" && p+"/" == top {
		return ""
	}
	return p[len(top):]
}

// unlisted are the directories that sorted entries leave unsaid.
func unlisted(sorted []artifacts.Entry) (dirs []artifacts.Entry) {
	added := map[string]bool{}
	for _, e := range sorted {
		for dir := path.Dir(e.Path); dir != "." && !added[dir]; dir = path.Dir(dir) {
			if listed(sorted, dir) {
				break
			}
			added[dir] = true
			dirs = append(dirs, artifacts.Entry{Path: dir, Type: artifacts.TypeDir})
		}
	}
	return dirs
}

func listed(sorted []artifacts.Entry, path string) bool {
	_, found := slices.BinarySearchFunc(sorted, path, func(e artifacts.Entry, p string) int {
		return strings.Compare(e.Path, p)
	})
	return found
}

// maxPack is where a pack is closed: large enough that small files share few
// objects, small enough to upload again.
const maxPack = 64 << 20

// packWriter appends parts to the open pack and closes it when it is full.
type packWriter struct {
	dir   string
	files []packFile
	packs []artifacts.PackRef // those of files, the open one, and those of earlier revisions
	parts map[artifacts.Sum][]artifacts.Part
	enc   *zstd.Encoder
	frame []byte

	open *os.File
	size int64
	sum  hash.Hash
	// number is the open pack's place in packs.
	number int
	// taken maps a pack of an earlier index to its place in this one.
	taken map[artifacts.PackRef]int
}

// add packs data as the next part of the file with that sum.
func (w *packWriter) add(sum artifacts.Sum, data []byte) error {
	frame, enc := compress(w.enc, data, w.frame)
	if enc == artifacts.EncodingZstd {
		w.frame = frame
	}
	if w.open != nil && w.size+int64(len(frame)) > maxPack {
		if err := w.finish(); err != nil {
			return err
		}
	}
	if err := w.ensureOpen(); err != nil {
		return err
	}
	if _, err := io.MultiWriter(w.open, w.sum).Write(frame); err != nil {
		return fmt.Errorf("write pack: %w", err)
	}
	w.parts[sum] = append(w.parts[sum], artifacts.Part{
		Pack: w.number, Offset: w.size, Stored: int64(len(frame)), Size: int64(len(data)), Encoding: enc,
	})
	w.size += int64(len(frame))
	return nil
}

func (w *packWriter) ensureOpen() error {
	if w.open != nil {
		return nil
	}
	f, err := os.CreateTemp(w.dir, "pack-")
	if err != nil {
		return fmt.Errorf("create pack: %w", err)
	}
	w.open, w.size, w.sum, w.number = f, 0, sha256.New(), len(w.packs)
	w.packs = append(w.packs, artifacts.PackRef{})
	return nil
}

// finish closes the open pack and gives it its name.
func (w *packWriter) finish() error {
	if w.open == nil {
		return nil
	}
	f := w.open
	w.open = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close pack: %w", err)
	}
	ref := artifacts.PackRef{Sum: artifacts.Sum(w.sum.Sum(nil)), Size: w.size}
	w.packs[w.number] = ref
	w.files = append(w.files, packFile{f.Name(), ref})
	return nil
}

func (w *packWriter) abort() error {
	if w.open == nil {
		return nil
	}
	return w.open.Close()
}

// refer takes over where an earlier index says the content lies.
func (w *packWriter) refer(sum artifacts.Sum, from *artifacts.Index, parts []artifacts.Part) {
	if w.taken == nil {
		w.taken = map[artifacts.PackRef]int{}
	}
	own := make([]artifacts.Part, len(parts))
	for i, p := range parts {
		ref := from.Packs()[p.Pack]
		n, ok := w.taken[ref]
		if !ok {
			n = len(w.packs)
			w.taken[ref] = n
			w.packs = append(w.packs, ref)
		}
		own[i] = p
		own[i].Pack = n
	}
	w.parts[sum] = own
}

// encodeBoth returns the objects of the manifest and its index.
func (p *Packed) encodeBoth() (manifest, index []byte, err error) {
	if manifest, err = compressed(p.Manifest.Encode); err != nil {
		return nil, nil, err
	}
	index, err = compressed(func(w io.Writer) error {
		var buf bytes.Buffer
		if err := p.index.Encode(&buf, p.Manifest); err != nil {
			return err
		}
		_, err := buf.WriteTo(w)
		return err
	})
	return manifest, index, err
}
