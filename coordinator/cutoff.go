package coordinator

import (
	"context"
	"time"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
)

// A replica that has not heard of a leader for a while, or has not applied what the
// leader had committed by then, is cut off: it does not know what is true now. It
// serves no reads but to who asks for stale ones, takes no new sessions, ends
// watches, and tells the agents that it has to look for another coordinator. They
// stay until another one welcomes them: without a majority nobody would.
//
// A leader's heartbeat does not say how far the log is. So a replica that was cut off,
// has just started, or was not run for so long, is back once an entry that was written
// after that is applied here: it has everything then that was committed before.
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
	looked  time.Time     // last
	last    time.Duration // that it was lost for then
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

// next is lost at the next look. A replica that was not run between the two has heard
// nothing meanwhile, whatever comes in first afterwards.
func (c *contact) next(now time.Time) time.Duration {
	before := c.last + now.Sub(c.looked)
	c.looked, c.last = now, c.lost(now)
	return max(c.last, min(before, now.Sub(c.began)))
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

// current is cutOffError for who reads: what is read just when a process goes on that
// stood still comes before its next look.
func (c *Coordinator) current() error {
	looked := c.looked.Load()
	if still := time.Since(*looked); still > c.o.heartbeat()*cutOffBeats/2 {
		return rpc.Errorf(rpc.KindUnavailable, "coordinator %s has stood still for %s; ask another, or try again",
			c.o.Name, still.Round(time.Second))
	}
	return c.cutOffError()
}

// beginCutOff is before anything is served: what a restart finds may be old.
func (c *Coordinator) beginCutOff() {
	now := time.Now()
	c.lostSince.Store(&now)
	c.looked.Store(&now)
}

// watchContact looks whether this replica is cut off, until ctx ends.
func (c *Coordinator) watchContact(ctx context.Context) error {
	beat, now := c.o.heartbeat(), time.Now()
	k := &contact{
		after: cutOffBeats * beat, began: now, looked: now, applied: c.node.Applied, heard: c.node.Heard,
	}
	look := time.NewTicker(beat / cutOffLooks)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			now := time.Now() // the tick's own may be of before a process stood still
			lost := k.next(now)
			c.looked.Store(&now)
			switch was := c.lostSince.Load() != nil; {
			case lost >= k.after && !was:
				c.cutOff(now.Add(-lost))
			case lost < k.after && was && c.confirm(ctx) == nil:
				c.keepsUp()
			}
		}
	}
}

// confirmBound is how long the entry may take that says that this replica keeps up.
const confirmBound = time.Second

// confirm returns once an entry that is written now is applied here.
func (c *Coordinator) confirm(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, confirmBound)
	defer cancel()
	switch {
	case c.log.leading():
		_, err = c.log.commit(ctx, state.Entry{})
		return err
	case c.node.IsLeader():
		return &consensus.NotLeader{} // its barrier will say so
	}
	_, err = c.log.forward(ctx, state.Entry{})
	return err
}

// keepsUp ends being cut off.
func (c *Coordinator) keepsUp() {
	if c.lostSince.Swap(nil) != nil {
		c.o.Log.Info("in contact with the leader, and as far as it")
		c.sessions.Tell()
	}
}

func (c *Coordinator) cutOff(since time.Time) {
	c.lostSince.Store(&since)
	c.o.Log.Warn("cut off: no leader is heard of, or this replica lags behind; agents and people are sent to others")
	c.sessions.Tell()
	c.server.End(func(l rpc.Live) bool { return l.Peer.Role == identity.Operator && !l.Stale }, c.cutOffError())
}
