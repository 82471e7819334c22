// Package watch follows a deployment to its end, across failures of
// coordinators, and shows it: live on a terminal, line by line, or as the
// caller's own renderer does.
package watch

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/groundswell/groundswell/internal/backoff"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Cluster is what a watch asks. Its methods may be called concurrently.
type Cluster interface {
	// API is the service at the coordinator that is tried now.
	API() controlv1.ControlServiceClient
	// FailOver gives up on that one because of an error and tries the next. It returns
	// an error, which ends the watch, if no other try can help.
	FailOver(err error) error
	// Act asks for a change of a deployment. Its error is for people.
	Act(ctx context.Context, deployment, verb string) error
}

// Options say what to watch, and how.
type Options struct {
	Deployment string // id
	Fresh      bool   // it was created just now: a coordinator may not know it yet
	Keep       bool   // all records, not only failures

	// Live draws on the terminal Out, with keys from In. Else Lines shows, and an
	// approval that is missing, which may take days, ends the watch.
	Live     bool
	In       io.Reader
	Out      io.Writer
	NoColour bool
	Reflows  bool // the terminal wraps lines anew when its width changes
	Lines    Renderer

	// Heartbeat returns a channel that fires while nothing happens.
	Heartbeat func(time.Duration) (<-chan time.Time, func())
	// Wait returns after a time, or earlier with the error of ctx; Backoff spaces
	// tries by it.
	Wait    func(context.Context, time.Duration) error
	Backoff *backoff.Backoff
}

// Renderer shows a watch in one form.
type Renderer interface {
	// Update shows news; p has them already.
	Update(p *Progress, u Update)
	// Beat shows that nothing has happened for a while.
	Beat(p *Progress)
	// End shows the outcome of a watch that saw the end.
	End(p *Progress)
}

// ErrDetached says that a person left the live view.
var ErrDetached = errors.New("detached")

// Run watches until the deployment has ended or waits for a decision, and
// returns what was learnt, with an error too: ErrDetached, that of ctx, or why
// coordinators refuse.
func Run(ctx context.Context, c Cluster, o Options) (*Progress, error) {
	p := newProgress(o.Keep)
	err := follow(ctx, c, o, p)
	if errors.Is(err, errEnd) {
		err = nil
	}
	return p, err
}

// follow runs the follower beside what shows it, and waits for both.
func follow(ctx context.Context, c Cluster, o Options, p *Progress) error {
	ctx, cancel := context.WithCancel(ctx)
	updates := make(chan Update)
	f := &follower{cluster: c, o: o}
	go f.run(ctx, updates)
	defer func() {
		cancel()
		for range updates { // run closes it as it ends
		}
	}()
	if o.Live {
		return live(ctx, c, o, p, updates)
	}
	return lines(ctx, o, p, updates)
}

// silence is how long a plain watch says nothing before it says that it lives.
const silence = 30 * time.Second

// lines shows updates as they come.
func lines(ctx context.Context, o Options, p *Progress, updates <-chan Update) error {
	beat, stop := o.Heartbeat(silence)
	defer stop()
	spoke := false
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return ctx.Err()
			}
			if u.end != nil {
				if errors.Is(u.end, errEnd) {
					o.Lines.End(p)
				}
				return u.end
			}
			spoke = spoke || len(u.Records) > 0
			p.add(u)
			o.Lines.Update(p, u)
		case <-beat:
			if !spoke {
				o.Lines.Beat(p)
			}
			spoke = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
