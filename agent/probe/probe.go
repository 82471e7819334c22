package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/backoff"
)

// Probe is one health check. Exactly one of HTTP, TCP and Command is set; the
// zero value of every other field takes its default.
type Probe struct {
	// HTTP is a URL. Redirects are not followed: they are an answer.
	HTTP string
	// Expect is the HTTP status that passes. Default 200.
	Expect int
	// Contains must be in the first MiB of the body, if set.
	Contains string
	// TCP is host:port; an accepted connection passes.
	TCP string
	// Command is a script of the revision; exit status 0 passes.
	Command string

	// Consecutive successes pass. Default 1.
	Consecutive int
	// Failures is how many failed attempts in a row fail the probe, at once.
	// Default 3.
	Failures int
	// Interval is the time between attempts. Default 1 s.
	Interval time.Duration
	// Timeout bounds one attempt. Default 5 s.
	Timeout time.Duration
	// Patience is how long failures are forgiven from the start on, for an
	// application that needs time to come up. Default 0.
	Patience time.Duration
}

// Validate answers why a probe cannot be used.
func (p Probe) Validate() error {
	set := 0
	for _, s := range []string{p.HTTP, p.TCP, p.Command} {
		if s != "" {
			set++
		}
	}
	switch {
	case set != 1:
		return fmt.Errorf("check probe: exactly one of http, tcp and command must be set, not %d", set)
	case p.Consecutive < 0 || p.Failures < 0 || p.Interval < 0 || p.Timeout < 0 || p.Patience < 0:
		return errors.New("check probe: a count or time is negative")
	case p.Expect != 0 && (p.Expect < 100 || p.Expect > 599):
		return fmt.Errorf("check probe: %d is no HTTP status", p.Expect)
	}
	return nil
}

func (p Probe) withDefaults() Probe {
	p.Expect = cmp.Or(p.Expect, 200)
	p.Consecutive = cmp.Or(p.Consecutive, 1)
	p.Failures = cmp.Or(p.Failures, 3)
	p.Interval = cmp.Or(p.Interval, time.Second)
	p.Timeout = cmp.Or(p.Timeout, 5*time.Second)
	return p
}

// Answer is what one attempt, or a whole probe, comes to.
type Answer uint8

// The answers.
const (
	// AnswerUnknown: the question could not be put, so nothing is known about
	// the application.
	AnswerUnknown Answer = iota
	AnswerHealthy
	AnswerUnhealthy
)

// String is the answer in lower case.
func (a Answer) String() string {
	switch a {
	case AnswerHealthy:
		return "healthy"
	case AnswerUnhealthy:
		return "unhealthy"
	case AnswerUnknown:
	}
	return "unknown"
}

// Attempt is the evidence of one try.
type Attempt struct {
	At     time.Time
	Took   time.Duration
	Answer Answer
	// Text says what was seen, such as "status 503, want 200".
	Text string
}

// maxEvidence bounds the attempts that an outcome keeps, the last ones.
const maxEvidence = 16

// Outcome is what a probe found.
type Outcome struct {
	Answer Answer
	// Attempts counts all; Evidence has the last ones in order.
	Attempts int
	Evidence []Attempt
}

// String is the outcome with its last evidence, on one line.
func (o Outcome) String() string {
	if len(o.Evidence) == 0 {
		return fmt.Sprintf("%s without an attempt", o.Answer)
	}
	return fmt.Sprintf("%s after %d attempts, last: %s", o.Answer, o.Attempts, o.Evidence[len(o.Evidence)-1].Text)
}

func (o *Outcome) add(a Attempt) {
	o.Attempts++
	if o.Evidence = append(o.Evidence, a); len(o.Evidence) > maxEvidence {
		o.Evidence = o.Evidence[1:]
	}
}

// Prober runs probes. It may be used concurrently.
type Prober struct {
	// Commands runs command probes; nil answers them as unknown.
	Commands *hooks.Runner
}

// Target is the application that a command probe runs for. Env.ID must be
// unique for each call of Run or Once; a suffix is added for each attempt.
type Target struct{ Env hooks.Env }

// Run tries until enough successes or failures have come in a row, or ctx
// ends, which answers unknown. The Nth failure answers at once.
func (r Prober) Run(ctx context.Context, p Probe, t Target) (Outcome, error) {
	if err := p.Validate(); err != nil {
		return Outcome{}, err
	}
	p = p.withDefaults()
	var o Outcome
	begin := time.Now()
	for good, bad := 0, 0; ; {
		a := r.attempt(ctx, p, t, o.Attempts)
		o.add(a)
		switch {
		case ctx.Err() != nil:
			o.Answer = AnswerUnknown
			return o, nil
		case a.Answer == AnswerHealthy:
			good, bad = good+1, 0
		default:
			good, bad = 0, bad+1
		}
		if good >= p.Consecutive {
			o.Answer = AnswerHealthy
			return o, nil
		}
		if bad >= p.Failures && time.Since(begin) >= p.Patience {
			o.Answer = a.Answer
			return o, nil
		}
		if !backoff.Pause(ctx, p.Interval) {
			o.Answer = AnswerUnknown
			return o, nil
		}
	}
}

// Once tries a single time: is the application serving now? A question that
// could not be put answers unknown.
func (r Prober) Once(ctx context.Context, p Probe, t Target) (Outcome, error) {
	if err := p.Validate(); err != nil {
		return Outcome{}, err
	}
	var o Outcome
	a := r.attempt(ctx, p.withDefaults(), t, 0)
	o.add(a)
	o.Answer = a.Answer
	return o, nil
}

// attempt asks once within the timeout. The end of ctx itself is no answer of
// the application.
func (r Prober) attempt(ctx context.Context, p Probe, t Target, n int) Attempt {
	a := Attempt{At: time.Now()}
	limited, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	switch {
	case p.HTTP != "":
		a.Answer, a.Text = askHTTP(limited, p)
	case p.TCP != "":
		a.Answer, a.Text = askTCP(limited, p)
	default:
		a.Answer, a.Text = r.askCommand(ctx, p, t, n)
	}
	a.Took = time.Since(a.At)
	if ctx.Err() != nil {
		a.Answer, a.Text = AnswerUnknown, "the probe was called off"
	}
	return a
}
