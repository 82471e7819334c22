package state

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/groundswell/groundswell/deploy"
)

// TestWhatAHostIs: its token's word, else what it was, else its own; then a
// person's alone. It outlives revocation, and a token of another day.
func TestWhatAHostIs(t *testing.T) {
	c := newCluster(t)
	labels := func(kv ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			out[kv[i]] = kv[i+1]
		}
		return out
	}
	says := &deploy.Attributes{Name: "web-1", Zone: "a-first", Labels: labels("role", "db", "x", "y")}
	is := func(host string) deploy.Attributes {
		a, _ := c.view().HostAttributes(host)
		if a == nil {
			return deploy.Attributes{}
		}
		return *a
	}
	enrol := func(id, host, key string, binds *deploy.Attributes, back bool) {
		t.Helper()
		c.token(id, "agent", func(e *TokenCreated) {
			e.Binds = binds
			if back {
				e.Host = host
			}
		})
		e := used(id, "agent/"+host, key)
		e.Says = says
		c.must(e)
		c.must(e) // the answer was lost
	}
	for _, x := range []struct {
		name  string
		binds *deploy.Attributes
		want  deploy.Attributes
	}{
		{"free", nil, *says},
		{"zone", &deploy.Attributes{Zone: "b"}, deploy.Attributes{Name: "web-1", Zone: "b", Labels: says.Labels}},
		{
			"labels", &deploy.Attributes{Labels: labels("role", "web")},
			deploy.Attributes{Name: "web-1", Zone: "a-first", Labels: labels("role", "web")},
		},
		{
			"all", &deploy.Attributes{Name: "n", Zone: "b", Labels: labels("r", "w")},
			deploy.Attributes{Name: "n", Zone: "b", Labels: labels("r", "w")},
		},
	} {
		enrol("t-"+x.name, x.name, "k-"+x.name, x.binds, false)
		if diff := cmp.Diff(x.want, is(x.name)); diff != "" {
			t.Errorf("%s:\n%s", x.name, diff)
		}
	}
	approved := deploy.Attributes{Name: "n", Zone: "c", Labels: labels("role", "cache")}
	approve := AttributesApproved{Request: by("admin"), Host: "all", Attributes: approved, Approved: 1}
	c.must(approve)
	c.refused("somebody else", approve)
	c.must(IdentityRevoked{Request: by("admin"), Identity: "agent/all"})
	enrol("back", "all", "another", nil, true)
	if diff := cmp.Diff(approved, is("all")); diff != "" {
		t.Errorf("it came back as something else:\n%s", diff)
	}
	approve.Approved = 2
	c.must(approve) // the count goes on
	enrol("bound", "all", "third", &deploy.Attributes{Zone: "d"}, true)
	if is("all").Zone != "d" || is("all").Labels["role"] != "cache" {
		t.Errorf("the new token says zone d: %+v", is("all"))
	}
	// A host that a restored backup does not know is not locked out by being named.
	approve = AttributesApproved{Request: by("admin"), Host: "unknown", Attributes: approved, Approved: 1}
	c.must(approve)
	if err := c.view().Admits("agent/unknown", []byte("k"), false); err != nil {
		t.Error(err)
	}
}
