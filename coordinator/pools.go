package coordinator

import (
	"context"
	"fmt"

	"github.com/groundswell/groundswell/coordinator/haproxy"
	"github.com/groundswell/groundswell/coordinator/traffic"
	"github.com/groundswell/groundswell/deploy"
)

func (c *Coordinator) newTraffic() (*traffic.Service, error) {
	all := map[string]*haproxy.Balancers{}
	for name, addresses := range c.o.HAProxy {
		b, err := haproxy.New(name, addresses)
		if err != nil {
			return nil, err
		}
		all[name] = b
	}
	return traffic.New(traffic.Options{View: c.store.View, Propose: c.proposeTraffic, HAProxy: all, Log: c.o.Log}), nil
}

// proposeTraffic commits a fact about a host in a pool, at any coordinator.
func (c *Coordinator) proposeTraffic(ctx context.Context, e deploy.Event) error {
	refusals, err := c.log.Propose(ctx, []deploy.Event{e})
	if err == nil {
		err = refusals[0]
	}
	if err != nil {
		return fmt.Errorf("write down that traffic changes: %w", err)
	}
	return nil
}
