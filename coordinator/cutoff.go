package coordinator

import (
	"context"
	"time"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
)

// A replica that has not heard of a leader for a while, or has not applied what the
// leader had committed by then, is cut off: it does not know what is true now. It
// serves no reads but to who asks for stale ones, takes no new sessions, ends
// watches, and tells the agents that it has to look for another coordinator. They
// stay until another one welcomes them: without a majority nobody would.
const (
	cutOffBeats = 6 // of heartbeats that a leader may be silent, 500 ms each: 3 s
	cutOffLooks = 3 // a heartbeat
)

// contact remembers how far a replica was behind.
type contact struct {
	after   time.Duration // without contact a replica is cut off
	began   time.Time     // of looking
	behind  uint64        // committed and not applied
	since   time.Time     // it is so
	applied func() uint64
	heard   func() (time.Time, uint64)
}

// lost says for how long the replica has not known what is true; less than after
// is nothing.
func (c *contact) lost(now time.Time) time.Duration {
	at, committed := c.heard()
	if at.Before(c.began) {
		at = c.began
	}
	silent := now.Sub(at)
	if applied := c.applied(); applied >= c.behind || c.behind == 0 {
		c.behind, c.since = committed, now
		if applied >= committed {
			c.behind = 0
		}
	}
	if c.behind > 0 {
		silent = max(silent, now.Sub(c.since))
	}
	return silent
}

// cutOffError says that the replica is cut off.
func (c *Coordinator) cutOffError() error {
	if since := c.lostSince.Load(); since != nil {
		return rpc.Errorf(rpc.KindUnavailable,
			"coordinator %s has not known what is true for %s: it hears of no leader, or lags behind; ask another, "+
				"or take what it has (`--stale`)", c.o.Name, time.Since(*since).Round(time.Second))
	}
	return nil
}

// watchContact looks whether this replica is cut off, until ctx ends.
func (c *Coordinator) watchContact(ctx context.Context) error {
	beat := c.o.heartbeat()
	k := &contact{
		after: cutOffBeats * beat, began: time.Now(), applied: c.node.Applied, heard: c.node.Heard,
	}
	look := time.NewTicker(beat / cutOffLooks)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-look.C:
			lost := k.lost(now)
			if cut := lost >= k.after; cut != (c.lostSince.Load() != nil) {
				c.setCutOff(now.Add(-lost), cut)
			}
		}
	}
}

func (c *Coordinator) setCutOff(since time.Time, cut bool) {
	if !cut {
		c.lostSince.Store(nil)
		c.o.Log.Info("in contact with the leader again")
		c.sessions.Tell()
		return
	}
	c.lostSince.Store(&since)
	c.o.Log.Warn("cut off: no leader is heard of, or this replica lags behind; agents and people are sent to others")
	c.sessions.Tell()
	c.server.End(func(l rpc.Live) bool { return l.Peer.Role == identity.Operator && !l.Stale }, c.cutOffError())
}
