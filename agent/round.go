package agent

import "github.com/groundswell/groundswell/internal/backoff"

// round is in which order coordinators are tried, and how long is waited between
// two tries: each in turn, one soon after the other, since one of them may be well
// when the rest is dead; then longer each time. So a coordinator that comes back
// hears of a host within the longest backoff, however many others are gone, and
// none is tried more often than that. The zero value is ready; one goroutine uses
// it.
type round struct {
	tried   map[string]bool
	between backoff.Backoff
	after   backoff.Backoff
}

// pick returns the first of the addresses that was not tried in this round; all
// are in the order of preference. Without any it is "".
func (r *round) pick(all []string) string {
	if len(all) == 0 {
		return ""
	}
	address := r.left(all)
	if address == "" {
		clear(r.tried)
		address = all[0]
	}
	if r.tried == nil {
		r.tried = map[string]bool{}
	}
	r.tried[address] = true
	return address
}

func (r *round) left(all []string) string {
	for _, address := range all {
		if !r.tried[address] {
			return address
		}
	}
	return ""
}

// pause is what to wait by after a try that failed. Where somebody answered and
// welcomes nobody, as without a majority, the next one most likely does the same.
func (r *round) pause(all []string, answered bool) *backoff.Backoff {
	if answered || r.left(all) == "" {
		return &r.after
	}
	r.between.Longest = backoff.First
	return &r.between
}
