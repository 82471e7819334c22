package state

import (
	"strings"

	"github.com/groundswell/groundswell/deploy"
)

// EpochBegun is the first entry after a majority was lost or a backup restored:
// one coordinator goes on alone with what it has. All others are members no
// more. The cluster observes, and acts when a person has activated the epoch.
type EpochBegun struct {
	Epoch       uint64
	Coordinator string
	Key         []byte // fingerprint
	Reason      string
}

// EpochActivated lets the cluster act again.
type EpochActivated struct {
	Request deploy.Request
	Epoch   uint64
}

func (EpochBegun) cluster()     {}
func (EpochActivated) cluster() {}

// beginEpoch does nothing for an epoch that has begun already.
func (c *Cluster) beginEpoch(e EpochBegun, at moment) {
	if e.Epoch <= c.Epoch {
		return
	}
	c.Epoch, c.Held = e.Epoch, someone(e.Reason)
	// Who held the key that was being brought in may be lost.
	c.NextRingKey, c.RingKeyUsed, c.RingKeyDue = "", false, true
	self := "coordinator/" + e.Coordinator
	for id := range c.Identities {
		if strings.HasPrefix(id, "coordinator/") && id != self {
			c.setRevoked(id, "epoch "+self)
		}
	}
	for name := range c.Coordinators {
		if name != e.Coordinator {
			delete(c.Coordinators, name)
		}
	}
	if c.Identities == nil {
		c.Identities = map[string]Identity{}
	}
	c.Identities[self] = Identity{Key: e.Key, Wall: at.wall}
}

func (c *Cluster) activate(e EpochActivated) error {
	if e.Epoch != c.Epoch {
		return refuse(deploy.Conflict, "the cluster is in epoch %d, not %d; look at `dctl cluster status` again",
			c.Epoch, e.Epoch)
	}
	c.Held = ""
	return nil
}
