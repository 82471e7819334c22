package deploy

import (
	"hash/fnv"
	"strings"
	"time"
)

// How long request ids are remembered, in FSM time, and how many; they are forgotten
// so many at once.
const (
	requestMemory  = 24 * time.Hour
	requestsKept   = 100_000
	requestsDumped = 1000
	// requestSlack is how new a request is that is never taken for a forgotten one:
	// longer than a client tries, shorter than 100,000 requests take.
	requestSlack = 10 * time.Minute
)

// once applies a request at most once and remembers its answer. One that is so old
// that its answer may be forgotten is refused, where its id says how old it is.
func (s *State) once(req Request, content string, e Event) error {
	sum := hashed(content)
	if a, seen := s.Requests[req.ID]; seen {
		if a.Content != sum {
			return refuse(Conflict, "request id %s was used for another request; use a new id", req.ID)
		}
		if a.Refusal != "" {
			return &Refusal{Reason: RefusalKind(a.Kind), Text: a.Refusal}
		}
		return nil
	}
	// The floor is of wall clocks, of which one may have been wrong: it never refuses
	// what was made just now.
	floor := min(s.RequestFloor, s.clock-requestSlack.Milliseconds())
	if at, ok := ulidTime(req.ID); ok && s.Rules >= 2 && at <= floor {
		return refuse(Conflict, "request %s was made so long ago that nobody knows whether it was done; "+
			"look, and make it anew. If it is new, the clock of the machine that makes it is behind", req.ID)
	}
	err := s.apply(e)
	a := &Answer{At: s.Now, Content: sum, Index: s.Index}
	if s.Rules >= 2 {
		a.Wall = s.Wall
	}
	if r, ok := err.(*Refusal); ok {
		a.Refusal, a.Kind = r.Text, string(r.Reason)
	}
	s.Requests[req.ID] = a
	s.RequestLog, s.answers = append(s.RequestLog, req.ID), append(s.answers, a)
	return err
}

func hashed(content string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(content)) // a hash never fails
	return h.Sum64()
}

// Repeats reports whether a fact is of a request that was answered before: it changes
// nothing now, and gets that answer.
func (s *State) Repeats(e Event) bool {
	req, content := request(e)
	a, seen := s.Requests[req.ID]
	return seen && req.ID != "" && a.Content == hashed(content)
}

// forgetRequests forgets the oldest requests, by age and by number.
func (s *State) forgetRequests() {
	old := func(i int) bool { return s.Now.Sub(s.answers[i].At) > requestMemory }
	n := 0
	if s.Rules < 2 {
		for n < len(s.RequestLog) && old(n) {
			n++
		}
	} else {
		for n+requestsDumped <= len(s.RequestLog) &&
			(old(n+requestsDumped-1) || len(s.RequestLog)-n >= requestsKept+requestsDumped) {
			n += requestsDumped
		}
	}
	if n == 0 {
		return
	}
	for i, id := range s.RequestLog[:n] {
		s.RequestFloor = max(s.RequestFloor, s.answers[i].Wall)
		delete(s.Requests, id)
	}
	s.RequestLog, s.answers = s.RequestLog[n:], s.answers[n:] // an image may share them: nothing is moved
}

// crockford are the digits of a ULID.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// ulidTime returns when a ULID was made, in Unix milliseconds; false for any other id.
func ulidTime(id string) (ms int64, ok bool) {
	if len(id) != 26 || id[0] > '7' {
		return 0, false
	}
	for i := range len(id) {
		digit := strings.IndexByte(crockford, id[i])
		if digit < 0 {
			return 0, false
		}
		if i < 10 {
			ms = ms<<5 | int64(digit)
		}
	}
	return ms, true
}
