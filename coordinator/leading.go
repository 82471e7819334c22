package coordinator

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/gates"
	"github.com/groundswell/groundswell/coordinator/scheduler"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/backoff"
)

// leadership runs the scheduler while this node leads.
func (c *Coordinator) leadership(ctx context.Context) error {
	for leads := false; ; {
		if leads {
			leads = c.term(ctx)
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case leads = <-c.node.Leadership():
		}
	}
}

// term leads until raft has something else to say of it, or ctx ends, and
// returns what raft said.
func (c *Coordinator) term(ctx context.Context) (leads bool) {
	inner, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.lead(inner)
	}()
	select {
	case <-ctx.Done():
	case leads = <-c.node.Leadership():
	}
	cancel()
	<-done
	return leads
}

// lead decides until ctx ends. What fails is tried again: raft says when this
// node leads no longer.
func (c *Coordinator) lead(ctx context.Context) {
	defer c.fleet.Lead(false)
	defer c.log.resign()
	for ctx.Err() == nil {
		if err := c.log.lead(ctx); err != nil {
			c.o.Log.Warn("cannot take the lead yet", "error", err)
			backoff.Pause(ctx, 50*time.Millisecond)
			continue
		}
		if err := c.beginEpoch(ctx); err != nil {
			c.o.Log.Warn("cannot begin the new epoch yet", "error", err)
			backoff.Pause(ctx, 50*time.Millisecond)
			continue
		}
		c.o.Log.Info("leading", "term", c.node.Term())
		c.fleet.Lead(true)
		if err := c.decide(ctx); err != nil {
			c.o.Log.Warn("scheduler stopped", "error", err)
			pause := 50 * time.Millisecond
			if full := (*consensus.DiskFull)(nil); errors.As(err, &full) {
				pause = 2 * time.Second // it has been said, and a full disk holds few more lines
			}
			backoff.Pause(ctx, pause)
		}
	}
}

// decide runs what only a leader runs: the scheduler, and beside it who asks
// the gates. Either ends the other.
func (c *Coordinator) decide(ctx context.Context) error {
	c.activated(ctx)
	observer, err := gates.New(c.o.Gates)
	if err != nil {
		return err
	}
	observer.Changed = c.store.Changed
	observer.Due = func() (due []deploy.Question, wait time.Duration) {
		now := c.log.Now()
		c.store.View(func(st *deploy.State) { due, wait = deploy.Questions(st, now) })
		return due, wait
	}
	observer.Log = observations{c.log}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		s := &scheduler.Scheduler{State: c.store, Fleet: c.fleet, Log: c.log}
		return s.Run(ctx)
	})
	g.Go(func() error { return observer.Run(ctx) })
	g.Go(func() error { return c.removeLongDead(ctx) })
	g.Go(func() error { return c.raiseRules(ctx) })
	g.Go(func() error { return c.importApprovers(ctx) })
	g.Go(func() error { return c.moveCAs(ctx) })
	g.Go(func() error { return c.moveRingKeys(ctx) })
	g.Go(func() error { return c.traffic.Reassert(ctx) })
	g.Go(func() error { return c.movePast(ctx) })
	return g.Wait()
}

// observations appends what gates answered; an answer that nobody waits for any
// more is refused by the log, which is no error.
type observations struct{ log *replicated }

func (o observations) Propose(ctx context.Context, events []deploy.Event) error {
	_, err := o.log.Propose(ctx, events)
	return err
}
