package state

import (
	"testing"

	"github.com/groundswell/groundswell/deploy"
)

// TestInstances: one process speaks for a host; two are nobody; a new key ends all
// copies of the former one, the same key none.
func TestInstances(t *testing.T) {
	c := newCluster(t)
	c.token("t", "agent", func(e *TokenCreated) { e.Uses = 9 })
	enrol := used("t", "agent/h", "k")
	enrol.Instance, enrol.Says = "a", &deploy.Attributes{Name: "web-1", Labels: map[string]string{"role": "web"}}
	c.must(enrol)
	at := func(i string) Machine { return Machine{Instance: i, Address: "10.0.0." + i} }
	begin := func(was, is string) InstanceBegan { return InstanceBegan{Host: "h", Was: was, Machine: at(is)} }
	c.must(begin("", "a")) // it is that already
	c.must(begin("a", "b"))
	c.must(begin("a", "b")) // the answer was lost
	if _, cleared, _ := c.view().Instance("h"); cleared {
		t.Error("a process works before anybody was asked about others")
	}
	c.refused("another process", InstanceCleared{Host: "h", Instance: "a"})
	c.must(InstanceCleared{Host: "h", Instance: "b"})
	if _, cleared, _ := c.view().Instance("h"); !cleared {
		t.Error("it is not cleared")
	}
	c.refused("another process", begin("a", "c"))
	c.refused("no two machines", HostSplit{Host: "h", Keep: "b"})
	ended := c.view().Ended
	c.must(HostCloned{Host: "h", First: at("a"), Second: at("b")})
	if c.view().Ended == ended {
		t.Error("nobody looks again whom it serves")
	}
	c.refused("two machines", HostCloned{Host: "h", First: at("a"), Second: at("c")})
	c.refused("two machines", begin("b", "c"))
	if err := c.view().Admits("agent/h", []byte("k"), false); err == nil {
		t.Error("a cloned host is let in")
	}
	c.must(enrol) // asked again with the same key: still two
	if c.view().Cloned("h") == nil {
		t.Error("the same token once more made two machines one")
	}
	c.refused("no such machine", HostSplit{Host: "h", Keep: "c"})
	c.must(HostSplit{Request: by("admin"), Host: "h", Keep: "a"})
	if now, _, splitOff := c.view().Instance("h", "b"); now.Instance != "a" || !splitOff {
		t.Errorf("%+v speaks, b is split off: %t", now, splitOff)
	}
	c.refused("another process", begin("a", "b"))
	// The machine that keeps the identity may remember the one that does not.
	if _, _, splitOff := c.view().Instance("h", "b", "a"); splitOff {
		t.Error("the machine that keeps the identity is split off")
	}
	off := SplitEnrolled{Host: "h", Instances: []string{"a", "b"}, ID: "h2", Name: "web-2", Key: []byte("k2")}
	wrong := off
	wrong.Instances = []string{"b", "a"}
	c.refused("no person has split", wrong)
	wrong = off
	wrong.Key = []byte("k")
	c.refused("a key of its own", wrong)
	c.must(off)
	c.must(off) // the answer was lost
	wrong = off
	wrong.ID, wrong.Key = "h3", []byte("k3")
	c.refused("no person has split", wrong)
	if is, _ := c.view().HostAttributes("h2"); is == nil || is.Name != "web-2" || is.Labels["role"] != "web" {
		t.Errorf("the copy is %+v", is)
	}
	if !c.view().Owner("agent/h2", []byte("k2")) || c.view().Owner("agent/h2", []byte("k")) {
		t.Error("the copy has not its own key alone")
	}
	// A new key for the host: what was split off the former one means nothing.
	c.token("back", "agent", func(e *TokenCreated) { e.Host = "h" })
	again := used("back", "agent/h", "k4")
	again.Instance = "z"
	c.must(again)
	if now, cleared, splitOff := c.view().Instance("h", "b"); now.Instance != "z" || splitOff || !cleared {
		t.Errorf("%+v speaks, b is split off: %t", now, splitOff)
	}
}
