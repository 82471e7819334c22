// Package gates asks the gates of running deployments: Prometheus, webhooks and
// time windows. It runs on the leader, keeps nothing between two questions, and
// records every answer with its evidence as a fact; what follows from the answer
// is decided by package deploy.
package gates

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/backoff"
)

// Log commits facts; it returns once they are applied here.
type Log interface {
	Propose(ctx context.Context, events []deploy.Event) error
}

// Observer asks for the whole cluster while its node leads.
type Observer struct {
	// Due returns what must be asked now, and when to call again at the latest; 0
	// is whenever something changes. A question stays due until its answer is
	// applied.
	Due func() (due []deploy.Question, wait time.Duration)
	// Changed returns a channel that is closed when Due may have new questions.
	Changed func() <-chan struct{}
	Log     Log
	// Asked is told of each answer, for metrics; nil is nobody. It may be called
	// concurrently.
	Asked func(kind deploy.GateKind, answer deploy.Verdict)

	sources sources
	timeout time.Duration // of one question
}

// Bounds of asking. A gate that does not answer in time is inconclusive.
const (
	askTimeout  = 10 * time.Second       // of one question
	atOnce      = 16                     // questions in flight
	jobTimeouts = 3                      // for all questions of one gate
	again       = time.Second            // at least, before the same gate is asked again
	settlePause = 100 * time.Millisecond // between two looks at the state: many hosts report at once
	idle        = 5 * time.Second        // between two looks when nothing is to come
)

// New returns an Observer that asks what the options name; the caller sets its
// fields before Run.
func New(o Options) (*Observer, error) {
	s, err := newSources(o)
	if err != nil {
		return nil, err
	}
	return &Observer{sources: s, timeout: askTimeout}, nil
}

// gateKey is what one fact is about.
type gateKey struct {
	deployment string
	attempt    int
	wave       int
	gate       string
}

// run is the state of one Run.
type run struct {
	*Observer
	slots   chan struct{}
	answers chan deploy.GateObserved
	asking  map[gateKey]bool
	next    map[gateKey]time.Time // not before
	all     sync.WaitGroup
}

// Run asks until ctx ends or the log is lost; it returns nil in the first case,
// and only when no question is in flight any more.
func (o *Observer) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	r := &run{
		Observer: o, slots: make(chan struct{}, atOnce), answers: make(chan deploy.GateObserved),
		asking: map[gateKey]bool{}, next: map[gateKey]time.Time{},
	}
	defer r.all.Wait()
	defer stop()
	for ctx.Err() == nil {
		changed := o.Changed()
		wait := r.begin(ctx)
		if err := r.listen(ctx, changed, wait); err != nil {
			return err
		}
	}
	return nil
}

// begin starts what is due and not in flight, and returns when to look again.
func (r *run) begin(ctx context.Context) time.Duration {
	due, wait := r.Due()
	if wait <= 0 {
		wait = idle
	}
	now := time.Now()
	for key, at := range r.next {
		if !now.Before(at) {
			delete(r.next, key)
		}
	}
	jobs, order := byGate(due)
	for _, key := range order {
		at, early := r.next[key]
		switch {
		case r.asking[key]:
		case early:
			wait = min(wait, at.Sub(now))
		default:
			r.asking[key] = true
			r.next[key] = now.Add(again)
			r.all.Go(func() { r.job(ctx, key, jobs[key]) })
		}
	}
	return max(wait, settlePause)
}

// byGate groups questions by the fact that answers them.
func byGate(due []deploy.Question) (map[gateKey][]deploy.Question, []gateKey) {
	jobs := map[gateKey][]deploy.Question{}
	var order []gateKey
	for _, q := range due {
		key := gateKey{q.Deployment, q.Attempt, q.Wave, q.Gate.Name}
		if jobs[key] == nil {
			order = append(order, key)
		}
		jobs[key] = append(jobs[key], q)
	}
	return jobs, order
}

// job asks all questions of one gate and hands their answers over as one fact.
// Those that are not asked within jobTimeouts timeouts, because so many others
// get no answer, get none either.
func (r *run) job(ctx context.Context, key gateKey, questions []deploy.Question) {
	fact := deploy.GateObserved{
		Deployment: key.deployment, Attempt: key.attempt, Wave: key.wave, Gate: key.gate,
		Items: make([]deploy.Observation, len(questions)),
	}
	limited, cancel := context.WithTimeout(ctx, jobTimeouts*r.timeout)
	defer cancel()
	var all sync.WaitGroup
	for i := range questions {
		all.Go(func() {
			select {
			case r.slots <- struct{}{}:
				defer func() { <-r.slots }()
			case <-limited.Done():
			}
			fact.Items[i] = r.ask(limited, &questions[i])
		})
	}
	all.Wait()
	select {
	case r.answers <- fact:
	case <-ctx.Done():
	}
}

// listen waits for answers and commits them, or for something new to ask.
func (r *run) listen(ctx context.Context, changed <-chan struct{}, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-changed:
		backoff.Pause(ctx, settlePause)
	case fact := <-r.answers:
		return r.commit(ctx, fact)
	}
	return nil
}

// commit proposes an answer together with those that wait behind it.
func (r *run) commit(ctx context.Context, first deploy.GateObserved) error {
	facts := []deploy.Event{first}
	for more := true; more; {
		select {
		case fact := <-r.answers:
			facts = append(facts, fact)
		default:
			more = false
		}
	}
	err := r.Log.Propose(ctx, facts)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("propose the answers of %d gates: %w", len(facts), err)
	}
	for _, e := range facts {
		f := e.(deploy.GateObserved)
		delete(r.asking, gateKey{f.Deployment, f.Attempt, f.Wave, f.Gate})
	}
	return nil
}

// ask returns the answer to one question. Whatever goes wrong is inconclusive,
// with the reason in Detail. No answer begins before q.Since: it would be void.
func (o *Observer) ask(ctx context.Context, q *deploy.Question) deploy.Observation {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	now := time.Now()
	out := deploy.Observation{
		Key: q.Key, From: q.Since, To: max(now.UnixMilli(), q.Since), Answer: deploy.VerdictInconclusive,
	}
	if err := o.answer(ctx, q, now, &out); err != nil {
		out.Answer, out.Final, out.Detail = deploy.VerdictInconclusive, false, err.Error()
	}
	out.Question, out.Value, out.Detail = tidy(out.Question, 4096), tidy(out.Value, 256), tidy(out.Detail, 512)
	if o.Asked != nil {
		o.Asked(q.Gate.Kind(), out.Answer)
	}
	return out
}

func (o *Observer) answer(ctx context.Context, q *deploy.Question, now time.Time, out *deploy.Observation) error {
	kind := q.Gate.Kind()
	if behind := time.UnixMilli(q.Since).Sub(now); behind >= time.Millisecond && kind != deploy.GateWindow {
		return fmt.Errorf("the clock of this coordinator is %s behind the start of the evidence; set it by NTP",
			behind.Truncate(time.Millisecond))
	}
	switch kind {
	case deploy.GateQuery:
		return o.sources.query(ctx, q, out)
	case deploy.GateCompare:
		return o.sources.compare(ctx, q, out)
	case deploy.GateWebhook:
		return o.sources.webhook(ctx, q, out)
	case deploy.GateWindow:
		return window(q.Gate.Window, now, out)
	case deploy.GateProbe, deploy.GateApproval:
	}
	return fmt.Errorf("a %s is not asked by coordinators", kind)
}
