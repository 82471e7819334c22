package coordinator

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// refusals counts what callers were refused, or slowed down in, because they
// had their share. It tells of each caller and method once a minute, with how
// often it was: who is refused cannot fill a disk with it. Its methods may be
// called concurrently and do not block.
type refusals struct {
	log   *slog.Logger
	known func(method string) bool // others are counted as one: a caller may make names up

	mu    sync.Mutex
	by    map[[2]string]float64 // method, why
	told  map[[2]string]*untold
	swept time.Time
}

// untold is what one caller was refused of one method since it was told.
type untold struct {
	at    time.Time // told
	count int
}

const (
	tellEvery = time.Minute
	mostTold  = 10_000 // callers and methods; those beyond are counted only
	unknown   = "unknown"
)

func newRefusals(log *slog.Logger, known func(method string) bool) *refusals {
	return &refusals{log: log, known: known, by: map[[2]string]float64{}, told: map[[2]string]*untold{}}
}

// note counts a refusal.
func (r *refusals) note(caller, method, why string) {
	if !r.known(method) {
		method = unknown
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.by[[2]string{method, why}]++
	if now.Sub(r.swept) >= tellEvery {
		r.sweep(now)
	}
	x := r.told[[2]string{caller, method}]
	if x == nil {
		if len(r.told) >= mostTold {
			return
		}
		x = &untold{}
		r.told[[2]string{caller, method}] = x
	}
	if x.count++; now.Sub(x.at) < tellEvery {
		return
	}
	r.tell(caller, method, why, x.count)
	x.at, x.count = now, 0
}

// sweep forgets callers of more than a minute ago, and tells what was not told.
func (r *refusals) sweep(now time.Time) {
	for key, x := range r.told {
		if now.Sub(x.at) < tellEvery {
			continue
		}
		if x.count > 0 {
			r.tell(key[0], key[1], "more of it", x.count)
		}
		delete(r.told, key)
	}
	r.swept = now
}

func (r *refusals) tell(caller, method, why string, times int) {
	r.log.Warn("a caller had its share", "caller", caller, "method", method, "why", why, "times", times)
}

// count is how often something was refused.
type count struct {
	method, why string
	n           float64
}

// counts returns all of them, in order.
func (r *refusals) counts() (out []count) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range slices.SortedFunc(maps.Keys(r.by), func(a, b [2]string) int {
		return slices.Compare(a[:], b[:])
	}) {
		out = append(out, count{key[0], key[1], r.by[key]})
	}
	return out
}
