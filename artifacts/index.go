package artifacts

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// indexFormat is the first thing in an index.
const indexFormat = "groundswell.index.v1"

// encoding says how a part lies in its pack. The numbers are in the format.
type encoding int64

const (
	encodingRaw  encoding = 0
	encodingZstd encoding = 1
)

// packRef is a pack an index refers to.
type packRef struct {
	sum  Sum
	size int64
}

// part is a stretch of a file: size bytes that lie as stored bytes at offset
// of packs[pack]. A file is the concatenation of its parts.
type part struct {
	pack           int
	offset, stored int64
	size           int64
	enc            encoding
}

// Index says where the content of a manifest lies in a store. It is no part
// of the revision's identity and is never trusted: what it leads to is
// hashed. It is immutable and may be used concurrently.
type Index struct {
	packs []packRef
	parts map[Sum][]part
}

// check judges the parts of one file against its size, so that a hostile
// index can make a reader neither allocate nor read more than a sound one.
func (x *Index) check(size int64, parts []part) error {
	for _, p := range parts {
		if p.pack < 0 || p.pack >= len(x.packs) {
			return fmt.Errorf("pack number %d of %d: %w", p.pack, len(x.packs), ErrInvalid)
		}
		if !p.fits(x.packs[p.pack].size) || p.size > size {
			return fmt.Errorf("a part of %d bytes as %d+%d in %s: out of bounds: %w", p.size, p.offset, p.stored,
				x.packs[p.pack].sum, ErrInvalid)
		}
		size -= p.size
	}
	if size != 0 {
		return fmt.Errorf("the parts lack %d bytes: %w", size, ErrInvalid)
	}
	return nil
}

func (p part) fits(packSize int64) bool {
	if p.size <= 0 || p.size > maxPart || p.stored <= 0 || p.offset < 0 || p.offset > packSize-p.stored {
		return false
	}
	switch p.enc {
	case encodingRaw:
		return p.stored == p.size
	case encodingZstd:
		return p.stored <= p.size // a frame that does not shrink is stored raw
	}
	return false
}

// encode writes the index of m: a header, then the parts of each distinct
// content in the order of m, one JSON array a line.
func (x *Index) encode(w io.Writer, m *Manifest) error {
	head := indexHeader{Format: indexFormat, Packs: make([]packLine, 0, len(x.packs))}
	for _, p := range x.packs {
		head.Packs = append(head.Packs, packLine{p.sum.String(), p.size})
	}
	enc := newLineEncoder(w)
	if err := enc.Encode(head); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	for e := range m.contents() {
		line := make([][5]int64, 0, 1)
		for _, p := range x.parts[e.Sum] {
			line = append(line, [5]int64{int64(p.pack), p.offset, p.stored, p.size, int64(p.enc)})
		}
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("write index: %w", err)
		}
	}
	return nil
}

type indexHeader struct {
	Format string     `json:"format"`
	Packs  []packLine `json:"packs"`
}

type packLine struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// maxIndexLine holds the parts of a file of the largest size (2,048 parts of
// at most 80 digits) and a header that names 40,000 packs at 100 bytes.
const maxIndexLine = 4 << 20

// parseIndex reads the index of m. Errors wrap [ErrInvalid] and name the
// line.
func parseIndex(r io.Reader, m *Manifest) (*Index, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), maxIndexLine)
	x := &Index{parts: make(map[Sum][]part, m.files)}
	line := 1
	if err := x.parseHeader(in); err != nil {
		return nil, fmt.Errorf("parse index, line %d: %w", line, err)
	}
	for e := range m.contents() {
		line++
		if err := x.parseParts(in, e); err != nil {
			return nil, fmt.Errorf("parse index, line %d, file %q: %w", line, e.Path, err)
		}
	}
	if in.Scan() {
		return nil, fmt.Errorf("parse index: text after line %d: %w", line, ErrInvalid)
	}
	return x, nil
}

func (x *Index) parseHeader(in *bufio.Scanner) error {
	var head indexHeader
	if err := scanJSON(in, &head); err != nil {
		return err
	}
	if head.Format != indexFormat {
		return fmt.Errorf("format %.80q, want %q: %w", head.Format, indexFormat, ErrInvalid)
	}
	for _, p := range head.Packs {
		sum, err := parseSum(p.SHA256)
		if err != nil {
			return fmt.Errorf("pack: %w", err)
		}
		x.packs = append(x.packs, packRef{sum, p.Size})
	}
	return nil
}

func (x *Index) parseParts(in *bufio.Scanner, e Entry) error {
	var line [][]int64
	if err := scanJSON(in, &line); err != nil {
		return err
	}
	parts := make([]part, 0, len(line))
	for _, n := range line {
		if len(n) != 5 {
			return fmt.Errorf("a part of %d numbers, want 5: %w", len(n), ErrInvalid)
		}
		parts = append(parts, part{pack: int(n[0]), offset: n[1], stored: n[2], size: n[3], enc: encoding(n[4])})
	}
	if err := x.check(e.Size, parts); err != nil {
		return err
	}
	x.parts[e.Sum] = parts
	return nil
}

func scanJSON(in *bufio.Scanner, v any) error {
	if !in.Scan() {
		if err := in.Err(); err != nil {
			return fmt.Errorf("%w: %w", err, ErrInvalid)
		}
		return fmt.Errorf("ends early: %w: %w", io.ErrUnexpectedEOF, ErrInvalid)
	}
	if err := json.Unmarshal(bytes.TrimSpace(in.Bytes()), v); err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return nil
}

// Packs returns the keys of the packs that the index refers to, for garbage
// collection of a store: a pack that no kept revision's index names is free.
func (x *Index) Packs() []string {
	keys := make(map[string]struct{}, len(x.packs))
	list := make([]string, 0, len(x.packs))
	for _, p := range x.packs {
		if _, dup := keys[PackKey(p.sum)]; !dup {
			keys[PackKey(p.sum)] = struct{}{}
			list = append(list, PackKey(p.sum))
		}
	}
	return list
}

// used returns x with only the packs that its parts need, numbered anew in
// the same order.
func (x *Index) used() *Index {
	needed := make([]bool, len(x.packs))
	for _, parts := range x.parts {
		for _, p := range parts {
			needed[p.pack] = true
		}
	}
	out := &Index{parts: make(map[Sum][]part, len(x.parts))}
	number := make([]int, len(x.packs))
	for i, ref := range x.packs {
		if needed[i] {
			number[i] = len(out.packs)
			out.packs = append(out.packs, ref)
		}
	}
	for sum, parts := range x.parts {
		moved := slices.Clone(parts)
		for i := range moved {
			moved[i].pack = number[moved[i].pack]
		}
		out.parts[sum] = moved
	}
	return out
}
