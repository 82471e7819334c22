package state

import (
	"bytes"
	"maps"
	"slices"

	"github.com/groundswell/groundswell/deploy"
)

// A host's identity is its key, and a copied disk has the same one. What tells two
// machines apart is the instance: each process of an agent makes one at random and
// remembers it, on its disk, before it says it. So a restarted agent knows the
// instance that the log has; a copy knows it too, but then the other lives.

// Machine is one process of an agent, and where it called from.
type Machine struct {
	Instance string `json:"instance,omitempty"`
	Address  string `json:"address,omitempty"`
}

// Clone is two machines that were found alive with one identity.
type Clone struct {
	First  Machine `json:"first"` // that had it before
	Second Machine `json:"second"`
}

// InstanceBegan says that another process speaks for a host; Was is the one that
// did when that was decided.
type InstanceBegan struct {
	Host, Was string
	Machine
}

// InstanceCleared says that every replica was asked, after it began, whether another
// process of the host lives, and none does: it may work now.
type InstanceCleared struct{ Host, Instance string }

// HostCloned says that two machines live with one identity: neither is let in
// until a person has split them, or has revoked the key.
type HostCloned struct {
	Host          string
	First, Second Machine
}

// HostSplit lets one of the two keep the identity; the other may enrol as another
// host by its key.
type HostSplit struct {
	Request deploy.Request
	Host    string
	Keep    string // instance
}

// SplitEnrolled gives the other machine, which remembers one of these instances, an
// identity of its own, with the same labels. Once more with the same key it changes
// nothing.
type SplitEnrolled struct {
	Host      string
	Instances []string
	ID, Name  string
	Key       []byte
	Address   string // from which it was asked
}

func (InstanceBegan) cluster()   {}
func (InstanceCleared) cluster() {}
func (HostCloned) cluster()      {}
func (HostSplit) cluster()       {}
func (SplitEnrolled) cluster()   {}

// Instance returns who speaks for the host now, whether it was cleared, and whether
// the machine that remembers these instances, the newest last, was split off it.
func (c *Cluster) Instance(host string, instances ...string) (now Machine, cleared, splitOff bool) {
	id := c.Identities["agent/"+host]
	return id.Machine, id.Cleared, id.newestSplit(instances) != ""
}

// newestSplit returns the newest instance that says what a machine is, if that was
// split off: a machine that keeps the identity may remember the one that did not.
func (id Identity) newestSplit(instances []string) string {
	for _, i := range slices.Backward(instances) {
		if id.isSplit(i) {
			return i
		}
		if i == id.Instance {
			return ""
		}
	}
	return ""
}

func (id Identity) isSplit(instance string) bool {
	_, split := id.Split[instance]
	return split
}

// Cloned returns the two machines that share the identity of a host, if there are.
func (c *Cluster) Cloned(host string) *Clone { return c.Identities["agent/"+host].Clone }

func (c *Cluster) begin(e InstanceBegan) error {
	id := c.Identities["agent/"+e.Host]
	switch {
	case id.Clone != nil:
		return id.Clone.refusal()
	case id.Instance == e.Instance:
		return nil
	case id.Instance != e.Was || id.isSplit(e.Instance):
		return refuse(deploy.Conflict, "another process of this host's agent began in this moment; connect again")
	}
	id.Machine, id.Cleared = e.Machine, false
	c.setIdentity("agent/"+e.Host, id)
	return nil
}

func (c *Cluster) cleared(e InstanceCleared) error {
	id := c.Identities["agent/"+e.Host]
	switch {
	case id.Clone != nil:
		return id.Clone.refusal()
	case id.Instance != e.Instance:
		return refuse(deploy.Conflict, "another process of this host's agent began in this moment; connect again")
	}
	id.Cleared = true
	c.setIdentity("agent/"+e.Host, id)
	return nil
}

func (c *Cluster) cloned(e HostCloned) error {
	id := c.Identities["agent/"+e.Host]
	if id.Clone != nil {
		return id.Clone.refusal()
	}
	id.Clone = &Clone{First: e.First, Second: e.Second}
	c.setIdentity("agent/"+e.Host, id)
	c.Ended++
	return nil
}

func (k *Clone) refusal() error {
	return refuse(deploy.Conflict,
		"two machines speak as this host, from %s and %s: a copied disk; neither gets work until "+
			"a person says which one it is (`dctl hosts split`), or gives it a new key (`dctl hosts revoke`)",
		k.First.Address, k.Second.Address)
}

// mostSplit bounds how many copies of a host are remembered.
const mostSplit = 64

func (c *Cluster) split(e HostSplit) error {
	id := c.Identities["agent/"+e.Host]
	if id.Clone == nil {
		return refuse(deploy.Conflict, "no two machines speak as host %s", e.Host)
	}
	keep, other := id.Clone.First, id.Clone.Second
	if e.Keep == other.Instance {
		keep, other = other, keep
	}
	if e.Keep != keep.Instance {
		return refuse(deploy.NotFound, "no such machine speaks as host %s", e.Host)
	}
	if len(id.Split) >= mostSplit {
		return refuse(deploy.Conflict,
			"%d machines were split off host %s already; give it a new key (`dctl hosts revoke`, "+
				"`dctl token create --host`)", mostSplit, e.Host)
	}
	id.Split = maps.Clone(id.Split) // views may hold the old one
	if id.Split == nil {
		id.Split = map[string]string{}
	}
	id.Split[other.Instance] = ""
	id.Machine, id.Cleared, id.Clone = keep, false, nil
	c.setIdentity("agent/"+e.Host, id)
	return nil
}

// SplitID returns whom a machine that was split off became, if it has a new key
// already; else "", or a refusal.
func (c *Cluster) SplitID(host string, instances []string, key []byte) (string, error) {
	id := c.Identities["agent/"+host]
	if i := id.newestSplit(instances); i != "" {
		if became := id.Split[i]; became == "" || c.Owner("agent/"+became, key) {
			return became, nil
		}
	}
	return "", refuse(deploy.Conflict, "no person has split this machine off its host; see `dctl hosts split`")
}

func (c *Cluster) splitOff(e SplitEnrolled, at moment) error {
	became, err := c.SplitID(e.Host, e.Instances, e.Key)
	if err != nil || became != "" {
		return err
	}
	old, known := c.Identities["agent/"+e.Host], false
	if _, known = c.Identities["agent/"+e.ID]; known || bytes.Equal(old.Key, e.Key) {
		return refuse(deploy.Conflict, "the new identity needs an id and a key of its own")
	}
	old.Split = maps.Clone(old.Split)
	old.Split[old.newestSplit(e.Instances)] = e.ID
	c.setIdentity("agent/"+e.Host, old)
	id := Identity{Key: e.Key, Maker: old.Maker, Wall: at.wall}
	if old.Attributes != nil {
		is := *old.Attributes
		is.Name = e.Name
		id.Attributes = &is
	}
	c.setIdentity("agent/"+e.ID, id)
	return nil
}

func (c *Cluster) setIdentity(key string, id Identity) {
	if c.Identities == nil {
		c.Identities = map[string]Identity{}
	}
	c.Identities[key] = id
}
