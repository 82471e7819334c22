package coordinator

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/groundswell/groundswell/coordinator/archive"
	"github.com/groundswell/groundswell/coordinator/control"
	"github.com/groundswell/groundswell/coordinator/history"
)

// past is where deployments that have ended are moved to; without a store it is nil,
// and the state drops the oldest.
type past struct {
	archive *archive.Archive

	mu      sync.Mutex
	trouble error
	told    time.Time // that there is trouble
}

// openPast opens the history's store, as far as there is one. It makes no request.
func (c *Coordinator) openPast(ctx context.Context) error {
	if c.o.HistoryStore == "" {
		return nil
	}
	store, err := c.o.Store(ctx, c.o.HistoryStore)
	if err != nil {
		return fmt.Errorf("history.store: %w", err)
	}
	c.past = &past{archive: archive.New(store, history.Folder)}
	return nil
}

// readsPast is who reads what was moved, nil without a store.
func (c *Coordinator) readsPast() control.History {
	if c.past == nil {
		return nil
	}
	return &history.Reader{Archive: c.past.archive}
}

// movePast moves deployments while this coordinator leads, until ctx ends.
func (c *Coordinator) movePast(ctx context.Context) error {
	if c.past == nil {
		return nil
	}
	m := &history.Mover{
		View: c.store.View, Propose: c.log.Propose, Now: c.log.Now, Whole: c.operators.Whole, Archive: c.past.archive,
		After: c.o.HistoryAfter, Told: c.pastTold, Look: c.o.historyLook,
	}
	m.Run(ctx)
	c.past.set(nil) // of a leader that was: the next one tells its own
	return nil
}

func (p *past) set(err error) (tell bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = err
	if tell = err != nil && time.Since(p.told) >= tellEvery; tell {
		p.told = time.Now()
	}
	return tell
}

// pastTold takes how an attempt ended, and logs trouble once a minute.
func (c *Coordinator) pastTold(err error) {
	if c.past.set(err) {
		c.o.Log.Warn("ended deployments cannot be moved to the history's store; they stay in the state as far as there is "+
			"room", "store", c.o.HistoryStore, "error", err)
	}
}

// pastTrouble says why deployments cannot be moved now, "" if they can.
func (c *Coordinator) pastTrouble() string {
	if c.past == nil {
		return ""
	}
	c.past.mu.Lock()
	defer c.past.mu.Unlock()
	if c.past.trouble == nil {
		return ""
	}
	return c.past.trouble.Error()
}
