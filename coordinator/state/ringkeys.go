package state

import "github.com/groundswell/groundswell/deploy"

// RingKeyAdded begins the replacement of the gossip ring's key: messages under the
// new one are taken. The key is with the proposer, and goes from coordinator to
// coordinator, and to agents, outside of the log. One that is not used yet is given
// up by it: whoever holds that key may be lost.
type RingKeyAdded struct {
	Request deploy.Request
	ID      string // hash of the key
}

// RingKeyUsed has all use the new key. Whoever proposes it has seen that every
// coordinator holds it.
type RingKeyUsed struct{ ID string }

// RingKeyRetired ends the keys before it.
type RingKeyRetired struct{ ID string }

func (RingKeyAdded) cluster()   {}
func (RingKeyUsed) cluster()    {}
func (RingKeyRetired) cluster() {}

func (c *Cluster) addRingKey(e RingKeyAdded) error {
	if c.NextRingKey != "" && c.RingKeyUsed {
		return refuse(deploy.Conflict, "the ring's key is being replaced already; see `dctl cluster status`")
	}
	c.NextRingKey, c.RingKeyUsed, c.RingKeyDue = e.ID, false, false
	return nil
}

func (c *Cluster) useRingKey(e RingKeyUsed) error {
	if c.NextRingKey != e.ID || c.RingKeyUsed {
		return refuse(deploy.Conflict, "key %s of the ring does not wait to be used", e.ID)
	}
	c.RingKeyUsed = true
	return nil
}

func (c *Cluster) retireRingKeys(e RingKeyRetired) error {
	if c.NextRingKey != e.ID || !c.RingKeyUsed {
		return refuse(deploy.Conflict, "key %s of the ring is not used beside another", e.ID)
	}
	c.RingKey, c.NextRingKey, c.RingKeyUsed = e.ID, "", false
	return nil
}
