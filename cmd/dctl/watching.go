package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/cmd/dctl/watch"
	"github.com/groundswell/groundswell/internal/config"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

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
	p, err := cl.follow(inner, t)
	switch {
	case err == nil:
		return cl.cli.outcome(p, t)
	case errors.Is(err, watch.ErrDetached) || ctx.Err() != nil:
		return cl.detached(t.id, p.Deployment)
	case inner.Err() != nil:
		return cl.timedOut(t, p)
	}
	return err
}

func (cl *client) follow(ctx context.Context, t target) (*watch.Progress, error) {
	c := cl.cli
	c.drawing = c.live()
	defer func() { c.drawing = false }()
	return watch.Run(ctx, watchedCluster{cl}, watch.Options{
		Deployment: t.id, Fresh: t.fresh, Keep: c.flags.output == outputJSON,
		Live: c.live(), In: c.in, Out: c.out, NoColour: c.flags.noColor, Reflows: c.reflows(), Lines: c.renderer(),
		Heartbeat: c.heartbeat, Wait: c.wait, Backoff: newBackoff(),
	})
}

func (c *cli) renderer() watch.Renderer {
	switch c.flags.output {
	case outputJSON:
		return jsonRenderer{c}
	case outputJSONL:
		return jsonlRenderer{c}
	}
	return watch.Plain(c.out)
}

// watchedCluster is the cluster as a watch asks it.
type watchedCluster struct{ cl *client }

func (w watchedCluster) API() controlv1.ControlServiceClient { return w.cl.api() }

func (w watchedCluster) FailOver(err error) error { return w.cl.failOver(err) }

func (w watchedCluster) Act(ctx context.Context, deployment, verb string) error {
	req := &controlv1.ActRequest{Mutation: w.cl.mutation(""), Deployment: deployment, Verb: verb}
	if _, err := call(ctx, w.cl, controlv1.ControlServiceClient.Act, req); err != nil {
		return errors.New(message(err))
	}
	return nil
}

// limitFlag adds --wait-timeout.
func limitFlag(cmd *cobra.Command, limit *config.Duration) {
	cmd.Flags().Var(limit, "wait-timeout", "how long to watch (default: to the end)")
	cmd.Flags().Lookup("wait-timeout").DefValue = ""
}

// outcome tells of a failure and returns the exit code.
func (c *cli) outcome(p *watch.Progress, t target) error {
	code := t.code(p.Deployment)
	if code == exitDone {
		return nil
	}
	to := c.out
	if c.machine() {
		to, p.Shown = c.err, false
	}
	p.Report(to)
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
	if watch.Halted(d.GetBehind()) {
		watch.NextSteps(w, d, nil)
	}
	return silent(exitDetached)
}

func (cl *client) timedOut(t target, p *watch.Progress) error {
	text := fmt.Sprintf("watched for %s, and deployment %s goes on", t.limit, t.id)
	if p.Lost != nil {
		text = fmt.Sprintf("watched for %s; no coordinator answers now: %s. Deployment %s may go on", t.limit,
			rpc.Text(p.Lost), t.id)
	}
	if watch.Halted(p.Deployment.GetBehind()) {
		watch.NextSteps(cl.cli.err, p.Deployment, nil)
	}
	return &exitError{code: exitWatchTimeout, text: text + fmt.Sprintf("; watch it again with `dctl watch %s`", t.id)}
}
