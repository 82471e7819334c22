package artifacts

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// manifestFormat is the first thing in a manifest. A change of the encoding
// changes this name, and with it every digest.
const manifestFormat = "groundswell.manifest.v1"

// Manifest lists what one revision holds. It is immutable, always valid and
// canonical: equal content has equal bytes, whatever archive it came from.
// It may be used concurrently.
type Manifest struct {
	entries []Entry
	digest  Digest
	bytes   int64
	files   int
}

// NewManifest sorts entries, which it takes over, and checks them as one tree
// within lim. An error names the entry that breaks a rule and wraps
// [ErrInvalid].
func NewManifest(entries []Entry, lim Limits) (*Manifest, error) {
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	if err := checkTree(entries, lim); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m := &Manifest{entries: entries}
	m.count()
	h := sha256.New()
	if err := m.Encode(h); err != nil {
		return nil, err
	}
	m.digest = Sum(h.Sum(nil)).Digest()
	return m, nil
}

func (m *Manifest) count() {
	for _, e := range m.entries {
		m.bytes += e.Size
		if e.Type == TypeFile {
			m.files++
		}
	}
}

// Digest is the revision's identity.
func (m *Manifest) Digest() Digest { return m.digest }

// Bytes is the size of all files, unpacked.
func (m *Manifest) Bytes() int64 { return m.bytes }

// Files is the number of regular files.
func (m *Manifest) Files() int { return m.files }

// Len is the number of entries of all types.
func (m *Manifest) Len() int { return len(m.entries) }

// All yields the entries in the order of their paths; a directory comes
// before what it holds.
func (m *Manifest) All() iter.Seq[Entry] { return slices.Values(m.entries) }

// Lookup returns the entry of that path.
func (m *Manifest) Lookup(path string) (Entry, bool) { return find(m.entries, path) }

// Contents yields one file entry for each distinct content, in path order:
// the order in which an index lists them.
func (m *Manifest) Contents() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		seen := make(map[Sum]struct{}, m.files)
		for _, e := range m.entries {
			if e.Type != TypeFile {
				continue
			}
			if _, dup := seen[e.Sum]; dup {
				continue
			}
			seen[e.Sum] = struct{}{}
			if !yield(e) {
				return
			}
		}
	}
}

// Encode writes the canonical encoding whose sha256 is the digest: JSON
// lines, a header and one object an entry, fields in fixed order, zero
// fields left out. DESIGN.md states it in full.
func (m *Manifest) Encode(w io.Writer) error {
	var line bytes.Buffer
	enc := newLineEncoder(&line)
	if err := enc.Encode(manifestHeader{manifestFormat, len(m.entries)}); err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	for _, e := range m.entries {
		if err := enc.Encode(lineOf(e)); err != nil {
			return fmt.Errorf("encode manifest entry %q: %w", e.Path, err)
		}
		if line.Len() > 64<<10 {
			if _, err := line.WriteTo(w); err != nil {
				return fmt.Errorf("write manifest: %w", err)
			}
		}
	}
	if _, err := line.WriteTo(w); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// newLineEncoder keeps <, > and & as they are: escaping them is for HTML.
func newLineEncoder(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc
}

type manifestHeader struct {
	Format  string `json:"format"`
	Entries int    `json:"entries"`
}

// entryLine fixes names and order of the fields. Changing it changes every
// digest: see manifestFormat.
type entryLine struct {
	Path   string    `json:"path"`
	Type   EntryType `json:"type"`
	Mode   string    `json:"mode,omitempty"`
	Size   int64     `json:"size,omitempty"`
	SHA256 string    `json:"sha256,omitempty"`
	Target string    `json:"target,omitempty"`
	MTime  Time      `json:"mtime,omitzero"`
	Owner  Owner     `json:"owner,omitzero"`
}

func lineOf(e Entry) entryLine {
	l := entryLine{Path: e.Path, Type: e.Type, Size: e.Size, Target: e.Target, MTime: e.MTime, Owner: e.Owner}
	if e.Type == TypeFile {
		l.Mode = fmt.Sprintf("%04o", uint32(e.Mode))
		l.SHA256 = e.Sum.String()
	}
	return l
}

func (l entryLine) entry() (Entry, error) {
	e := Entry{Path: l.Path, Type: l.Type, Size: l.Size, Target: l.Target, MTime: l.MTime, Owner: l.Owner}
	if l.Type != TypeFile {
		return e, nil
	}
	mode, err := strconv.ParseUint(l.Mode, 8, 12)
	if err != nil {
		return e, fmt.Errorf("mode %q is not octal: %w", l.Mode, ErrInvalid)
	}
	e.Mode = fs.FileMode(mode)
	e.Sum, err = ParseSum(l.SHA256)
	return e, err
}
