package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/internal/config"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// silence is how long a plain watch says nothing before it says that it lives.
const silence = 30 * time.Second

// renderer shows a watch in one form.
type renderer interface {
	// update shows news; s has them already.
	update(s *story, u update)
	// beat shows that nothing has happened for a while.
	beat(s *story)
	// end shows the outcome of a watch that saw the end.
	end(s *story)
}

// target is what to watch, and how.
type target struct {
	id    string
	fresh bool          // created by this call
	limit time.Duration // 0 is none
	// good is the status that this call is about, "" for the usual: after
	// `dctl rollback`, rolled_back is what was asked for.
	good string
}

// watch follows a deployment to its end and returns its exit code as an error.
func (cl *client) watch(ctx context.Context, t target) error {
	inner, cancel := context.WithCancel(ctx)
	if t.limit > 0 {
		inner, cancel = context.WithTimeout(ctx, t.limit)
	}
	defer cancel()
	s := newStory(cl.cli.flags.output == outputJSON)
	err := cl.follow(inner, t, s)
	switch {
	case errors.Is(err, errEnd):
		return cl.cli.outcome(s, t)
	case errors.Is(err, errDetached) || ctx.Err() != nil:
		return cl.detached(t.id, s.deployment)
	case inner.Err() != nil:
		return cl.timedOut(t, s)
	}
	return err
}

// limitFlag adds --wait-timeout.
func limitFlag(cmd *cobra.Command, limit *config.Duration) {
	cmd.Flags().Var(limit, "wait-timeout", "how long to watch (default: to the end)")
	cmd.Flags().Lookup("wait-timeout").DefValue = ""
}

// errDetached says that a person left the live view.
var errDetached = errors.New("detached")

// follow runs the follower beside the renderer that fits, and waits for both.
func (cl *client) follow(ctx context.Context, t target, s *story) error {
	ctx, cancel := context.WithCancel(ctx)
	updates := make(chan update)
	f := &follower{cl: cl, id: t.id, fresh: t.fresh}
	go f.run(ctx, updates)
	defer func() {
		cancel()
		for range updates { // run closes it as it ends
		}
	}()
	if cl.cli.live() {
		return cl.live(ctx, t, s, updates)
	}
	return cl.cli.lines(ctx, s, updates, cl.cli.renderer())
}

func (c *cli) renderer() renderer {
	switch c.flags.output {
	case outputJSON:
		return jsonRenderer{c}
	case outputJSONL:
		return jsonlRenderer{c}
	}
	return &plainRenderer{out: c.out}
}

// lines shows updates as they come.
func (c *cli) lines(ctx context.Context, s *story, updates <-chan update, r renderer) error {
	beat, stop := c.heartbeat(silence)
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
					r.end(s)
				}
				return u.end
			}
			spoke = spoke || len(u.records) > 0
			s.add(u)
			r.update(s, u)
		case <-beat:
			if !spoke {
				r.beat(s)
			}
			spoke = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// outcome tells of a failure and returns the exit code.
func (c *cli) outcome(s *story, t target) error {
	code := t.code(s.deployment)
	if code == exitDone {
		return nil
	}
	to := c.out
	if c.machine() {
		to, s.told = c.err, false
	}
	s.report(to)
	return silent(code)
}

func (t target) code(d *controlv1.Deployment) int {
	if t.good != "" && d.Status == t.good && d.Broken == 0 {
		return exitDone
	}
	return verdict(d)
}

// detached tells how to come back.
func (cl *client) detached(id string, d *controlv1.Deployment) error {
	w := cl.cli.err
	fmt.Fprintf(w, "detached; deployment %s goes on\n", id)
	fmt.Fprintf(w, "  dctl watch %s              watch it again\n", id)
	fmt.Fprintf(w, "  dctl abort %s --rollback   take it back\n", id)
	if halted(d.GetBehind()) {
		next(w, d, nil)
	}
	return silent(exitDetached)
}

func (cl *client) timedOut(t target, s *story) error {
	text := fmt.Sprintf("watched for %s, and deployment %s goes on", t.limit, t.id)
	if s.lost != nil {
		text = fmt.Sprintf("watched for %s; no coordinator answers now: %s. Deployment %s may go on", t.limit,
			rpc.Text(s.lost), t.id)
	}
	return &exitError{code: exitWatchTimeout, text: text + fmt.Sprintf("; watch it again with `dctl watch %s`", t.id)}
}
