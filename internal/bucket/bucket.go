// Package bucket limits what each of many callers may cost: one token bucket
// for each key.
package bucket

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limit is how much one key may have: so much a second for ever, and so much
// at once.
type Limit struct {
	PerSecond float64
	Burst     int
}

// Buckets is a bucket for each key. Its methods may be called concurrently.
type Buckets struct {
	limit Limit
	most  int

	mu    sync.Mutex
	all   map[string]*rate.Limiter
	sweep int // when so many are there, full ones are forgotten
	swept time.Time
}

// Most keys that have a bucket of their own, and how many are kept before full
// buckets are looked for: a full one is as good as a new one. A bucket takes
// about 200 bytes.
const (
	mostKeys  = 1 << 16
	firstFull = 1 << 10
)

// New returns buckets, all of them full.
func New(l Limit) *Buckets {
	return &Buckets{limit: l, most: mostKeys, all: map[string]*rate.Limiter{}, sweep: firstFull}
}

// Allow takes n from the key's bucket, or nothing and answers false. More than
// a full bucket holds counts as a full bucket.
func (b *Buckets) Allow(key string, n int) bool {
	return b.of(key).AllowN(time.Now(), min(n, b.limit.Burst))
}

// Charge takes n from the key's bucket, which may then owe: for what was had
// already. More than a full bucket holds counts as a full one.
func (b *Buckets) Charge(key string, n int) {
	b.of(key).ReserveN(time.Now(), min(n, b.limit.Burst))
}

// Owes reports whether the key has had more than its bucket held.
func (b *Buckets) Owes(key string) bool { return b.of(key).TokensAt(time.Now()) < 0 }

// Wait takes n from the key's bucket as soon as it has them, and answers
// whether that took time. More than a full bucket holds counts as a full one.
func (b *Buckets) Wait(ctx context.Context, key string, n int) (waited bool, err error) {
	l, n := b.of(key), min(n, b.limit.Burst)
	if l.AllowN(time.Now(), n) {
		return false, nil
	}
	return true, l.WaitN(ctx, n)
}

// of returns the key's bucket. When too many keys are in use, those that come
// last share one.
func (b *Buckets) of(key string) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.all[key]; l != nil {
		return l
	}
	if len(b.all) >= b.sweep && time.Since(b.swept) >= time.Second {
		b.forgetFull()
	}
	if len(b.all) >= b.most {
		if l := b.all[""]; l != nil {
			return l
		}
		key = ""
	}
	l := rate.NewLimiter(rate.Limit(b.limit.PerSecond), b.limit.Burst)
	b.all[key] = l
	return l
}

func (b *Buckets) forgetFull() {
	for key, l := range b.all {
		if l.TokensAt(time.Now()) >= float64(b.limit.Burst) {
			delete(b.all, key)
		}
	}
	b.sweep, b.swept = min(b.most, max(firstFull, 2*len(b.all))), time.Now()
}
