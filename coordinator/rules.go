package coordinator

import (
	"context"
	"fmt"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
)

// raiseRules raises the rules of the log to what every voter knows, while this
// coordinator leads. A voter that has not announced itself knows the first
// level alone; one that joins later and knows less refuses the log by name.
func (c *Coordinator) raiseRules(ctx context.Context) error {
	for {
		changed := c.store.Changed()
		known, err := c.rulesKnown()
		if err != nil {
			return err
		}
		var now int
		c.store.View(func(s *deploy.State) { now = s.Rules })
		if known > now {
			if _, err := c.log.Propose(ctx, []deploy.Event{deploy.RulesRaised{Level: now + 1}}); err != nil &&
				ctx.Err() == nil {
				return fmt.Errorf("raise the rules of the log to %d: %w", now+1, err)
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// rulesKnown is the highest level that every voter has announced.
func (c *Coordinator) rulesKnown() (int, error) {
	servers, err := c.node.Servers()
	if err != nil {
		return 0, err
	}
	known := c.o.rules()
	c.store.ViewCluster(func(s *state.Cluster) {
		for _, server := range servers {
			if server.Voter {
				known = min(known, max(1, s.Coordinators[server.Name].Rules))
			}
		}
	})
	return known, nil
}
