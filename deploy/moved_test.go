package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
)

// past is a group with one host, and deployments that were cancelled one after the
// other.
type past struct {
	*testing.T
	s *State
	n int
}

func newPast(t *testing.T) *past {
	t.Helper()
	p := &past{T: t, s: NewState()}
	p.s.Violated = func(err error) { t.Error(err) }
	c, _ := Builtin("all-at-once")
	for level := 2; level <= RulesKnown; level++ {
		p.apply(RulesRaised{Level: level})
	}
	p.apply(GroupDefined{App: "www", Group: "prod", Config: c})
	p.apply(HostEnrolled{Host: "h", Name: "h", Zone: "z"})
	p.apply(TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h"}})
	p.apply(RevisionRegistered{App: "www", Name: "v1", Digest: "sha256:1"})
	return p
}

func (p *past) try(e Event) error {
	at := Time(p.s.Index+1) * Time(time.Millisecond)
	return errors.Join(p.s.ApplyEntry(p.s.Index+1, Entry{At: at, Wall: int64(p.s.Index), Events: []Event{e}})...)
}

func (p *past) apply(e Event) {
	p.Helper()
	if err := p.try(e); err != nil {
		p.Fatalf("%T: %v", e, err)
	}
}

// deploy has n more deployments begin and end.
func (p *past) deploy(n int) {
	p.Helper()
	c, _ := Builtin("all-at-once")
	for range n {
		p.n++
		id := fmt.Sprintf("D%06d", p.n)
		p.apply(DeploymentCreated{
			ID: id, App: "www", Group: "prod", Revision: "sha256:1", RevName: "v1", Config: c, Redeploy: true,
			Waves: []Wave{{Name: "all", Hosts: []string{"h"}}},
		})
		p.apply(RequestMade{Deployment: id, Verb: VerbAbortLeave})
		if d := p.s.Deployments[id]; !d.Status.Terminal() {
			p.apply(DeploymentEnded{Deployment: id, Status: DeploymentStatusStopped})
		}
	}
}

// pack has the history's store take what it can.
func (p *past) pack() (e HistoryMoved) {
	p.Helper()
	for d := range p.s.Movables {
		e.Deployments = append(e.Deployments, d.ID)
	}
	e.Pack = Pack{
		Object: Digest(fmt.Sprint("sha256:", len(p.s.Packs), p.s.OlderPacks)), Items: len(e.Deployments),
		From: e.Deployments[0], To: e.Deployments[len(e.Deployments)-1],
	}
	p.apply(e)
	return e
}

// TestWhatIsMoved: everything but the newest of a group, which keeps its outline and
// says where the rest is.
func TestWhatIsMoved(t *testing.T) {
	p := newPast(t)
	p.deploy(5)
	e := p.pack()
	if len(e.Deployments) != 4 {
		t.Fatalf("of 5 deployments %v can be moved", e.Deployments)
	}
	for id, d := range p.s.Deployments {
		if moved := id != "D000005"; d.Pruned != moved || (d.Pack != "") != moved || (len(d.Records) > 0) == moved {
			t.Errorf("%s: pruned %t, pack %q, %d records", id, d.Pruned, d.Pack, len(d.Records))
		}
	}
	for name, bad := range map[string]HistoryMoved{
		"again":          e,
		"no digest":      {Pack{From: "D", To: "E"}, []string{"D000005"}},
		"the newest":     {Pack{Object: "x", From: "D", To: "E"}, []string{"D000005"}},
		"unknown":        {Pack{Object: "x", From: "D", To: "E"}, []string{"D7"}},
		"moved before":   {Pack{Object: "x", From: "D", To: "E"}, e.Deployments},
		"turned round":   {Pack{Object: "x", From: "E", To: "D"}, []string{"D000005"}},
		"nothing at all": {},
	} {
		if err := p.try(bad); err == nil {
			t.Errorf("%s: is no refusal", name)
		}
	}
	if len(p.s.Packs) != 1 || p.s.Packs[0] != e.Pack {
		t.Errorf("it knows the packs %v", p.s.Packs)
	}
}

// TestOutlinesAreBounded: by number; what histories name and the newest of the group
// stay, and a replica that has read a snapshot drops the same.
func TestOutlinesAreBounded(t *testing.T) {
	const most = outlineBytes / outlineWeight
	p := newPast(t)
	p.deploy(1)
	p.s.Groups["www/prod"].History = []Seal{{Deployment: "D000001", Revision: "sha256:1"}} // what it named once
	p.deploy(most + outlinesEvery)
	p.pack()
	p.deploy(2 * outlinesEvery)
	if len(p.s.outlines) > most || len(p.s.Deployments) > most+2*outlinesEvery+1 {
		t.Errorf("%d outlines of %d deployments", len(p.s.outlines), len(p.s.Deployments))
	}
	if p.s.Dropped == 0 || p.s.Deployments["D000002"] != nil {
		t.Errorf("%d are dropped", p.s.Dropped)
	}
	if p.s.Deployments["D000001"] == nil {
		t.Error("what a line of the history names was dropped")
	}
	if g := p.s.Groups["www/prod"]; len(g.all) != len(p.s.Deployments) {
		t.Errorf("the group lists %d deployments, the state has %d", len(g.all), len(p.s.Deployments))
	}

	text, err := json.Marshal(p.s.Image().State())
	if err != nil {
		t.Fatal(err)
	}
	q := &past{T: t, s: NewState(), n: p.n}
	if err := json.Unmarshal(text, q.s); err != nil {
		t.Fatal(err)
	}
	q.s.Rebuild()
	for _, x := range []*past{p, q} {
		x.deploy(outlinesEvery + 3)
		x.pack()
	}
	if !reflect.DeepEqual(ids(p.s), ids(q.s)) || p.s.Dropped != q.s.Dropped {
		t.Errorf("one keeps %d, a restored one %d", len(p.s.Deployments), len(q.s.Deployments))
	}
}

func ids(s *State) map[string]bool {
	out := map[string]bool{}
	for id := range s.Deployments {
		out[id] = true
	}
	return out
}

// TestPacksAreBounded: of too many the older half is folded, and a fact about other packs
// is refused.
func TestPacksAreBounded(t *testing.T) {
	p := newPast(t)
	for i := range packsKept {
		if p.s.Foldable() != 0 {
			t.Fatalf("%d packs are too many", i)
		}
		p.s.Packs = append(p.s.Packs, Pack{Object: Digest(fmt.Sprint(i))})
	}
	image := p.s.Image()
	n := p.s.Foldable()
	fold := HistoryFolded{First: "0", Packs: n, Older: Pack{Object: "folded"}}
	for name, bad := range map[string]HistoryFolded{
		"others": {First: "1", Packs: n, Older: fold.Older}, "none": {First: "0", Older: fold.Older},
		"more": {First: "0", Packs: packsKept + 1, Older: fold.Older}, "nowhere": {First: "0", Packs: n},
	} {
		if p.try(bad) == nil {
			t.Errorf("%s: is no refusal", name)
		}
	}
	p.apply(fold)
	if len(p.s.Packs) != packsKept-n || p.s.OlderPacks != "folded" || p.s.Packs[0].Object != Digest(fmt.Sprint(n)) {
		t.Errorf("%d packs are left, behind %q", len(p.s.Packs), p.s.OlderPacks)
	}
	if was := image.State(); len(was.Packs) != packsKept || was.OlderPacks != "" {
		t.Errorf("an image of before has %d packs", len(was.Packs))
	}
	if p.try(fold) == nil {
		t.Error("they are folded twice")
	}
}

// TestHistoryMovesByLevel: below level 4 of the rules nothing is moved or dropped.
func TestHistoryMovesByLevel(t *testing.T) {
	p := newPast(t)
	p.deploy(3)
	p.s.Rules = 3
	for d := range p.s.Movables {
		t.Errorf("%s can be moved", d.ID)
	}
	if p.try(HistoryMoved{Pack{Object: "x", From: "D", To: "E"}, []string{"D000001"}}) == nil {
		t.Error("it was moved")
	}
}
