// Package audit is the record of who asked for what and what came of it: records, the
// chain of hashes that joins them, what is kept of them, and how refused requests are
// counted. It is pure.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Record is one line of the audit.
type Record struct {
	Seq   uint64 `json:"seq"`   // 1 is the first
	Index uint64 `json:"index"` // of its entry in the log
	At    int64  `json:"at_ms"` // Unix milliseconds by the clock of who led then: it may step back
	Asked
	Sum Sum `json:"sum"` // of this record and, by that of its predecessor, of all before it
}

// Asked is who asked for what. Whoever proposes an entry fills it in; the outcome of what
// is decided in the log comes as the entry is applied, so that effect and record are one
// step.
type Asked struct {
	Since   int64  `json:"since_ms,omitempty"` // of the first request, where it counts several
	Actor   string `json:"actor"`              // role/name; Others
	Address string `json:"address,omitempty"`  // from which it came first, whoever handed it on
	Verb    string `json:"verb"`               // rights that it asked for, a space between two
	App     string `json:"app,omitempty"`
	Group   string `json:"group,omitempty"`
	What    string `json:"what"` // the request, with its parameters
	Reason  string `json:"reason,omitempty"`
	Request string `json:"request,omitempty"` // its id
	Outcome string `json:"outcome"`           // OK, or of which kind the refusal is
	Times   int64  `json:"times"`             // requests that it stands for
	// Said is the wording of a refusal. It is no part of the chain: two builds may word
	// one refusal differently, and must not disagree about the chain.
	Said string `json:"said,omitempty"`
}

// OK is the outcome of what was done. Partly begins that of an entry of which something
// was done and something refused.
const (
	OK     = "ok"
	Partly = "partly "
)

// Limits of what is recorded, in bytes; what is longer is cut and says so.
const (
	mostWord = 256  // names, addresses, ids: longer than any that is legal
	mostText = 1024 // a reason, a request in words, the wording of a refusal
)

// Cleaned returns it with every text bounded and printable: what people and machines send
// may be of any length and hold line ends and escapes. It is for who proposes an entry,
// never for who applies one: what is printable differs between builds.
func (r Asked) Cleaned() Asked {
	for _, s := range []*string{&r.Actor, &r.Address, &r.Verb, &r.App, &r.Group, &r.Request, &r.Outcome} {
		*s = Clean(*s, mostWord)
	}
	for _, s := range []*string{&r.What, &r.Reason, &r.Said} {
		*s = Clean(*s, mostText)
	}
	return r
}

// Clean returns a text of at most so many bytes in which everything that is not printed
// as itself (line ends, escapes, marks that turn the direction, broken UTF-8) is written
// as \x or \u and its number.
func Clean(s string, most int) string {
	var out strings.Builder
	for i, r := range s {
		part := string(r)
		switch _, size := utf8.DecodeRuneInString(s[i:]); {
		case r == utf8.RuneError && size == 1:
			part = fmt.Sprintf(`\x%02x`, s[i])
		case !unicode.IsPrint(r):
			part = fmt.Sprintf(`\u{%x}`, r)
		}
		if out.Len()+len(part) > most {
			return out.String() + fmt.Sprintf("…(%d bytes)", len(s))
		}
		out.WriteString(part)
	}
	return out.String()
}

// chainOf begins what is hashed: another encoding has another name, so no two records of
// different encodings have one sum.
const chainOf = "groundswell audit 1"

// sum is the hash of a record behind one with the sum prev. Its encoding is fixed for
// ever, whatever becomes of the struct: each field by its length and its bytes, each
// number as such a field.
func (r Record) sum(prev []byte) []byte {
	b := make([]byte, 0, 512)
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	number := func(n uint64) { b = binary.BigEndian.AppendUint64(b, n) }
	text(chainOf)
	text(string(prev))
	for _, n := range []uint64{r.Seq, r.Index, uint64(r.At), uint64(r.Since), uint64(r.Times)} {
		number(n)
	}
	for _, s := range []string{
		r.Actor, r.Address, r.Verb, r.App, r.Group, r.What, r.Reason, r.Request, r.Outcome,
	} {
		text(s)
	}
	out := sha256.Sum256(b)
	return out[:]
}

// Verify recomputes the chain over records that follow each other behind one with the sum
// before, nil for none. The error names the first that does not fit.
func Verify(before []byte, records []Record) error {
	prev := before
	for i, r := range records {
		if i > 0 && r.Seq != records[i-1].Seq+1 {
			return fmt.Errorf("record %d is followed by %d: what was between them is missing", records[i-1].Seq, r.Seq)
		}
		if !bytes.Equal(r.sum(prev), r.Sum) {
			return fmt.Errorf("record %d (%s %s at index %d) does not fit: it, or what was before it, is not what was "+
				"recorded", r.Seq, r.Actor, r.Verb, r.Index)
		}
		prev = r.Sum
	}
	return nil
}
