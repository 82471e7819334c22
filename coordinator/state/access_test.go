package state

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/deploy"
)

// governed is a cluster of two operators; apply puts one cluster fact into its log.
type governed struct {
	*testing.T
	s     *Store
	index uint64
}

func newGoverned(t *testing.T) *governed {
	g := &governed{T: t, s: New(deploy.RulesKnown)}
	g.must(0, ClusterCreated{ID: "c", Founders: []Founder{{"operator/root", []byte{1}}, {"operator/ann", []byte{2}}}})
	return g
}

func (g *governed) apply(by uint64, e ClusterEvent) error {
	g.index++
	return apply(g.T, g.s, g.index, Entry{AllowedBy: by, Cluster: []ClusterEvent{e}}).Err()
}

func (g *governed) must(by uint64, e ClusterEvent) uint64 {
	g.Helper()
	if err := g.apply(by, e); err != nil {
		g.Fatalf("%T: %v", e, err)
	}
	return g.index
}

func (g *governed) refused(by uint64, e ClusterEvent, want string) {
	g.Helper()
	if err := g.apply(by, e); err == nil || !strings.Contains(err.Error(), want) {
		g.Errorf("%T: %v, want %q", e, err, want)
	}
}

func TestAccessIsComparedAndSet(t *testing.T) {
	g := newGoverned(t)
	change := func(source string, guarded bool, index uint64) AccessChanged {
		return AccessChanged{
			Request: deploy.Request{ID: source, Actor: "root"}, Source: source, Admins: []string{"root"}, Guarded: guarded,
			Index: index,
		}
	}
	g.refused(0, change("a", true, 7), "has index 0, not 7")
	first := g.must(0, change("a", true, 0))
	g.must(0, change("a", true, 0)) // the same request once more
	g.refused(0, change("b", true, 0), "somebody else has changed it")
	g.refused(0, change("b", true, first+1), "somebody else has changed it")
	second := g.must(0, change("b", true, first))
	if third := g.must(0, change("c", false, 0)); third <= second {
		t.Errorf("index %d after %d", third, second)
	}
	b, err := g.s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back := New(deploy.RulesKnown)
	if err := back.Restore(io.NopCloser(bytes.NewReader(b))); err != nil {
		t.Fatal(err)
	}
	back.ViewCluster(func(c *Cluster) {
		if c.Access == nil || c.Access.Source != "c" || c.Access.Actor != "root" || c.AccessIndex() != g.index {
			t.Errorf("a snapshot holds %+v", c.Access)
		}
	})
}

// TestWhatWasAllowedBefore: an entry that another document allowed changes nothing,
// neither of the fleet nor of the cluster, and time goes on.
func TestWhatWasAllowedBefore(t *testing.T) {
	g := newGoverned(t)
	freeze := func(by uint64) error {
		g.index++
		e := facts(deploy.FreezeSet{Request: deploy.Request{ID: fmt.Sprint(g.index), Actor: "ann"}})
		e.AllowedBy, e.At = by, deploy.Time(g.index)
		return apply(t, g.s, g.index, e).Err()
	}
	if err := freeze(1); err != nil { // by no document, which is still so
		t.Fatal(err)
	}
	doc := g.must(1, AccessChanged{Source: "a", Admins: []string{"root"}})
	for _, by := range []uint64{1, doc, doc + 2, 1 << 40} {
		if err := freeze(by); err == nil || err.(*deploy.Refusal).Reason != StaleRights {
			t.Errorf("allowed by %d, applied at %d: %v", by, doc+1, err)
		}
		g.refused(by, TokenCreated{ID: "t"}, "try again")
	}
	g.s.View(func(st *deploy.State) {
		if len(st.Freezes) != 1 || st.Index != g.index || len(st.Requests) != 1 {
			t.Errorf("%d freezes, %d requests, index %d of %d", len(st.Freezes), len(st.Requests), st.Index, g.index)
		}
	})
	g.s.ViewCluster(func(c *Cluster) {
		if len(c.Tokens) != 0 {
			t.Error("a token was made")
		}
	})
	if err := freeze(doc + 1); err != nil {
		t.Error(err)
	}
	if err := freeze(0); err != nil {
		t.Errorf("what nobody asked for was refused: %v", err)
	}
}

func TestTheLastAdminStays(t *testing.T) {
	g := newGoverned(t)
	revoke := func(name string) IdentityRevoked {
		return IdentityRevoked{Request: deploy.Request{Actor: "x"}, Identity: "operator/" + name}
	}
	g.refused(0, AccessChanged{Source: "a"}, "nobody could change")
	g.refused(0, AccessChanged{Source: "a", Admins: []string{"roo", "nobody"}}, "none has a credential")
	g.must(0, AccessChanged{Source: "a", Admins: []string{"nobody", "root"}})
	g.refused(0, revoke("root"), "root is the last")
	g.must(0, revoke("stranger")) // who is no admin anyway
	g.must(0, AccessChanged{Source: "b", Admins: []string{"*"}})
	g.must(0, revoke("root"))
	g.refused(0, revoke("ann"), "ann is the last")
	g.refused(0, AccessChanged{Source: "c", Admins: []string{"root"}}, "none has a credential")
	g.must(0, AccessChanged{Source: "d", Admins: []string{"ann"}})
}

func TestOnesOwnFreeze(t *testing.T) {
	g := newGoverned(t)
	do := func(e deploy.Event) error {
		g.index++
		return apply(t, g.s, g.index, facts(e)).Err()
	}
	by := func(actor string) deploy.Request { return deploy.Request{Actor: actor} }
	for _, x := range []struct {
		e    deploy.Event
		want bool
	}{
		{deploy.FreezeSet{Request: by("ann"), App: "www", Own: true}, true},
		{deploy.FreezeSet{Request: by("bob"), App: "www", For: 1, Own: true}, false},
		{deploy.FreezeLifted{Request: by("bob"), App: "www", Own: true}, false},
		{deploy.FreezeSet{Request: by("bob"), App: "api", Own: true}, true},
		{deploy.FreezeSet{Request: by("ann"), App: "www", For: 1, Own: true}, true},
		{deploy.FreezeLifted{Request: by("bob"), App: "www"}, true},
		{deploy.FreezeLifted{Request: by("bob"), App: "api", Own: true}, true},
	} {
		if err := do(x.e); (err == nil) != x.want {
			t.Errorf("%+v: %v", x.e, err)
		}
	}
}
