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

// Encoding says how a part lies in its pack. The numbers are in the format.
type Encoding int64

// The encodings: the bytes as they are, and a zstd frame.
const (
	EncodingRaw  Encoding = 0
	EncodingZstd Encoding = 1
)

// PackRef is a pack that an index refers to, of so many bytes.
type PackRef struct {
	Sum  Sum
	Size int64
}

// Part is a stretch of a file: Size bytes that lie as Stored bytes at Offset
// of the index's pack number Pack. A file is the concatenation of its parts.
type Part struct {
	Pack           int
	Offset, Stored int64
	Size           int64
	Encoding       Encoding
}

// Index says where the content of a manifest lies in a store. It is no part
// of the revision's identity and is never trusted: what it leads to is
// hashed. It is immutable and may be used concurrently.
type Index struct {
	packs []PackRef
	parts map[Sum][]Part
}

// NewIndex is the index of parts that lie in packs. It leaves out packs that
// no part needs. It takes neither over.
func NewIndex(packs []PackRef, parts map[Sum][]Part) *Index {
	needed := make([]bool, len(packs))
	for _, list := range parts {
		for _, p := range list {
			needed[p.Pack] = true
		}
	}
	x := &Index{parts: make(map[Sum][]Part, len(parts))}
	number := make([]int, len(packs))
	for i, ref := range packs {
		if needed[i] {
			number[i] = len(x.packs)
			x.packs = append(x.packs, ref)
		}
	}
	for sum, list := range parts {
		moved := slices.Clone(list)
		for i := range moved {
			moved[i].Pack = number[moved[i].Pack]
		}
		x.parts[sum] = moved
	}
	return x
}

// check judges the parts of one file against its size, so that a hostile
// index can make a reader neither allocate nor read more than a sound one.
func (x *Index) check(size int64, parts []Part) error {
	for _, p := range parts {
		if p.Pack < 0 || p.Pack >= len(x.packs) {
			return fmt.Errorf("pack number %d of %d: %w", p.Pack, len(x.packs), ErrInvalid)
		}
		if !p.fits(x.packs[p.Pack].Size) || p.Size > size {
			return fmt.Errorf("a part of %d bytes as %d+%d in %s: out of bounds: %w", p.Size, p.Offset, p.Stored,
				x.packs[p.Pack].Sum, ErrInvalid)
		}
		size -= p.Size
	}
	if size != 0 {
		return fmt.Errorf("the parts lack %d bytes: %w", size, ErrInvalid)
	}
	return nil
}

func (p Part) fits(packSize int64) bool {
	if p.Size <= 0 || p.Size > MaxPart || p.Stored <= 0 || p.Offset < 0 || p.Offset > packSize-p.Stored {
		return false
	}
	switch p.Encoding {
	case EncodingRaw:
		return p.Stored == p.Size
	case EncodingZstd:
		return p.Stored <= p.Size // a frame that does not shrink is stored raw
	}
	return false
}

// Encode writes the index of m: a header, then the parts of each distinct
// content in the order of m, one JSON array a line.
func (x *Index) Encode(w io.Writer, m *Manifest) error {
	head := indexHeader{Format: indexFormat, Packs: make([]packLine, 0, len(x.packs))}
	for _, p := range x.packs {
		head.Packs = append(head.Packs, packLine{p.Sum.String(), p.Size})
	}
	enc := newLineEncoder(w)
	if err := enc.Encode(head); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	for e := range m.Contents() {
		line := make([][5]int64, 0, 1)
		for _, p := range x.parts[e.Sum] {
			line = append(line, [5]int64{int64(p.Pack), p.Offset, p.Stored, p.Size, int64(p.Encoding)})
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
	x := &Index{parts: make(map[Sum][]Part, m.files)}
	line := 1
	if err := x.parseHeader(in); err != nil {
		return nil, fmt.Errorf("parse index, line %d: %w", line, err)
	}
	for e := range m.Contents() {
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
		sum, err := ParseSum(p.SHA256)
		if err != nil {
			return fmt.Errorf("pack: %w", err)
		}
		x.packs = append(x.packs, PackRef{sum, p.Size})
	}
	return nil
}

func (x *Index) parseParts(in *bufio.Scanner, e Entry) error {
	var line [][]int64
	if err := scanJSON(in, &line); err != nil {
		return err
	}
	parts := make([]Part, 0, len(line))
	for _, n := range line {
		if len(n) != 5 {
			return fmt.Errorf("a part of %d numbers, want 5: %w", len(n), ErrInvalid)
		}
		parts = append(parts, Part{Pack: int(n[0]), Offset: n[1], Stored: n[2], Size: n[3], Encoding: Encoding(n[4])})
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

// Parts are those of a content, in their order, and whether the index knows
// it: an empty one has none. The caller must not change them.
func (x *Index) Parts(sum Sum) (parts []Part, known bool) {
	parts, known = x.parts[sum]
	return parts, known
}

// Packs are those that parts name by their place here. A pack that no kept
// revision's index lists is free to go. The caller must not change them.
func (x *Index) Packs() []PackRef { return x.packs }

// Stored is how many bytes of the packs the content takes.
func (x *Index) Stored() (n int64) {
	for _, parts := range x.parts {
		for _, p := range parts {
			n += p.Stored
		}
	}
	return n
}
