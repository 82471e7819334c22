package state

import (
	"testing"
)

// TestRingKeys: one replacement at a time, each step once; whoever loses his key
// makes one due, but not a person, who never had the ring's.
func TestRingKeys(t *testing.T) {
	c := newCluster(t)
	c.refused("does not wait", RingKeyUsed{ID: "a"})
	c.refused("not used beside", RingKeyRetired{ID: "a"})
	c.must(RingKeyAdded{Request: by("admin"), ID: "lost"})
	c.must(RingKeyAdded{Request: by("admin"), ID: "a"}) // whoever had the other is gone for good
	c.refused("not used beside", RingKeyRetired{ID: "a"})
	c.refused("does not wait", RingKeyUsed{ID: "b"})
	c.must(RingKeyUsed{ID: "a"})
	c.refused("already", RingKeyAdded{ID: "b"})
	c.refused("does not wait", RingKeyUsed{ID: "a"})
	c.must(RingKeyRetired{ID: "a"})
	if v := c.view(); v.RingKey != "a" || v.NextRingKey != "" || v.RingKeyUsed || v.RingKeyDue {
		t.Errorf("after it: %+v", v)
	}
	c.person("ann", "admin")
	c.must(IdentityRevoked{Request: by("admin"), Identity: "operator/ann"})
	if c.view().RingKeyDue {
		t.Error("a person never had the ring's key")
	}
	c.must(IdentityRevoked{Request: by("admin"), Identity: "agent/h"})
	if !c.view().RingKeyDue {
		t.Error("a host that was revoked still knows the ring's key")
	}
	c.must(RingKeyAdded{ID: "b"})
	if c.view().RingKeyDue {
		t.Error("it is due though it is under way")
	}
	c.must(IdentityRevoked{Request: by("admin"), Identity: "agent/h2"}) // it may have seen b by now
	if !c.view().RingKeyDue {
		t.Error("a second one is not followed by another key")
	}
}

// TestANewEpochGivesUpAKeyThatNobodyMayHave: whoever brought it in may be lost.
func TestANewEpochGivesUpAKeyThatNobodyMayHave(t *testing.T) {
	c := newCluster(t)
	c.must(RingKeyAdded{Request: by("admin"), ID: "lost"})
	c.must(EpochBegun{Epoch: 2, Coordinator: "c1", Key: []byte("k1"), Reason: "drill"})
	if v := c.view(); v.NextRingKey != "" || v.RingKeyUsed || !v.RingKeyDue {
		t.Errorf("in the new epoch: %+v", v)
	}
}
