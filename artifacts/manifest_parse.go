package artifacts

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
)

// maxLine holds any legal entry: a path and a target of 4,095 bytes, each
// byte escaped to six at worst.
const maxLine = 64 << 10

// ParseManifest reads a canonical manifest and nothing else: bytes that
// [Manifest.Encode] would not have written are refused, so two different
// texts never mean the same revision. Memory is bounded by lim. The caller
// compares [Manifest.Digest] with the digest it trusts; until then the
// manifest is only well formed. Errors wrap [ErrInvalid] and name the line.
func ParseManifest(r io.Reader, lim Limits) (*Manifest, error) {
	p := &manifestParser{in: bufio.NewReaderSize(r, maxLine), hash: sha256.New()}
	m, err := p.parse(lim.OrDefault())
	if err != nil {
		return nil, fmt.Errorf("parse manifest, line %d: %w", p.line, err)
	}
	if err := checkTree(m.entries, lim); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	m.count()
	return m, nil
}

type manifestParser struct {
	in   *bufio.Reader
	hash hash.Hash
	line int
	out  bytes.Buffer
}

func (p *manifestParser) parse(lim Limits) (*Manifest, error) {
	var head manifestHeader
	if err := p.next(&head, func() any { return head }); err != nil {
		return nil, err
	}
	if head.Format != manifestFormat {
		return nil, fmt.Errorf("format %.80q, want %q: %w", head.Format, manifestFormat, ErrInvalid)
	}
	if head.Entries < 0 || head.Entries > lim.Entries {
		return nil, fmt.Errorf("%d entries, limit %d: %w", head.Entries, lim.Entries, ErrInvalid)
	}
	m := &Manifest{entries: make([]Entry, 0, min(head.Entries, 4096))}
	for range head.Entries {
		e, err := p.entry()
		if err != nil {
			return nil, err
		}
		m.entries = append(m.entries, e)
	}
	if _, err := p.in.ReadByte(); err != io.EOF {
		return nil, fmt.Errorf("text after the last of %d entries (%w): %w", head.Entries, orInvalid(err), ErrInvalid)
	}
	m.digest = Sum(p.hash.Sum(nil)).Digest()
	return m, nil
}

func orInvalid(err error) error {
	if err == nil {
		return ErrInvalid
	}
	return err
}

func (p *manifestParser) entry() (e Entry, err error) {
	var l entryLine
	if err := p.next(&l, func() any { return l }); err != nil {
		return e, err
	}
	if e, err = l.entry(); err != nil {
		return e, fmt.Errorf("entry %.300q: %w", l.Path, err)
	}
	return e, nil
}

// next decodes one line into v and compares it with the encoding of what it
// decoded: only canonical lines pass.
func (p *manifestParser) next(v any, decoded func() any) error {
	p.line++
	text, err := p.in.ReadSlice('\n')
	if err != nil {
		return lineError(err)
	}
	p.hash.Write(text)
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("not an object of the format (%w): %w", err, ErrInvalid)
	}
	p.out.Reset()
	if err := newLineEncoder(&p.out).Encode(decoded()); err != nil {
		return fmt.Errorf("encode again: %w", err)
	}
	if !bytes.Equal(p.out.Bytes(), text) {
		return fmt.Errorf("not in canonical form, %.300q: %w", text, ErrInvalid)
	}
	return nil
}

func lineError(err error) error {
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return fmt.Errorf("longer than %d bytes: %w", maxLine, ErrInvalid)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("ends early: %w: %w", io.ErrUnexpectedEOF, ErrInvalid)
	}
	return err
}
