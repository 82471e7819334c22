package audit

import "slices"

// Log is what the replicated state holds of the audit: the head of the chain, and its
// newest records. Records are only appended, and forgotten from the front by a new slice:
// an image may share them.
type Log struct {
	Seq  uint64 `json:"seq"`  // of the newest record
	Head Sum    `json:"head"` // its sum
	// Before is the sum of the last one that was forgotten.
	Before  Sum      `json:"before,omitempty"`
	Records []Record `json:"records,omitempty"` // the newest, in order
	Bytes   int64    `json:"bytes"`             // that they weigh
	// Exported is the newest record that the files of a leader have. Lost is the newest
	// one that was forgotten though no file had it, see MostUnexported.
	Exported uint64 `json:"exported,omitempty"`
	Lost     uint64 `json:"lost,omitempty"`
}

// What is kept. They are rules of the log: another number needs a level of its own.
const (
	Most      = 10_000  // records
	MostBytes = 8 << 20 // of them; a record is some 400 bytes, at most 5 KiB
	// MostUnexported and MostUnexportedBytes bound them while nothing can be exported,
	// as on a leader whose disk is full: the state must not grow for ever.
	MostUnexported      = 2 * Most
	MostUnexportedBytes = 4 * MostBytes
)

// weight is about what a record takes.
func (r Record) weight() int64 {
	n := 160
	for _, s := range []string{
		r.Actor, r.Address, r.Verb, r.App, r.Group, r.What, r.Reason, r.Request, r.Outcome, r.Said,
	} {
		n += len(s)
	}
	return int64(n)
}

// Add appends a record, as the next one.
func (l *Log) Add(r Record) {
	r.Seq, r.Times = l.Seq+1, max(1, r.Times)
	r.Sum = r.sum(l.Head)
	l.Seq, l.Head = r.Seq, r.Sum
	l.Records, l.Bytes = append(l.Records, r), l.Bytes+r.weight()
	l.forget()
}

// Export notes that files have what was recorded up to a record.
func (l *Log) Export(upto uint64) {
	l.Exported = max(l.Exported, min(upto, l.Seq))
	l.forget()
}

// Due reports whether records wait to be forgotten until they are exported.
func (l *Log) Due() bool { return l.tooMany(Most, MostBytes) && l.Exported < l.Seq }

func (l *Log) tooMany(records int, bytes int64) bool {
	return len(l.Records) > records || l.Bytes > bytes
}

// forget drops the oldest records: what is exported beyond what is kept, and anything
// beyond what can be. The newest always stays.
func (l *Log) forget() {
	n := 0
	for rest := *l; len(rest.Records) > 1; n++ {
		first := rest.Records[0]
		exported := first.Seq <= l.Exported && rest.tooMany(Most, MostBytes)
		if !exported && !rest.tooMany(MostUnexported, MostUnexportedBytes) {
			break
		}
		if !exported {
			l.Lost = first.Seq
		}
		rest.Records, rest.Bytes = rest.Records[1:], rest.Bytes-first.weight()
		l.Bytes = rest.Bytes
	}
	if n > 0 {
		l.Before = l.Records[n-1].Sum
		l.Records = l.Records[n:]
	}
}

// After returns at most so many records behind one, in order, and the sum before them.
// Where some between are forgotten it begins with the oldest that is kept.
func (l *Log) After(seq uint64, most int) (before Sum, records []Record) {
	at, _ := slices.BinarySearchFunc(l.Records, seq+1, func(r Record, seq uint64) int {
		switch {
		case r.Seq < seq:
			return -1
		case r.Seq > seq:
			return 1
		}
		return 0
	})
	before = l.Before
	if at > 0 {
		before = l.Records[at-1].Sum
	}
	return before, slices.Clone(l.Records[at:min(len(l.Records), at+most)])
}

// Recorded reports whether a request with this id was recorded among what is kept.
func (l *Log) Recorded(request string) bool {
	return request != "" && slices.ContainsFunc(l.Records, func(r Record) bool { return r.Request == request })
}
