package fleet

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

type fixed struct{ s *deploy.State }

func (f fixed) View(g func(*deploy.State)) { g(f.s) }

func world(t *testing.T) (*View, *deploy.State) {
	t.Helper()
	s := deploy.NewState()
	c, _ := deploy.Builtin("all-at-once")
	for i, e := range []deploy.Event{
		deploy.HostEnrolled{Host: "h1", Name: "h1", Labels: map[string]string{"role": "web"}},
		deploy.HostEnrolled{Host: "h2", Name: "h2", Labels: map[string]string{"role": "db"}},
		deploy.GroupDefined{App: "www", Group: "prod", Selector: "web", Config: c},
	} {
		if errs := s.ApplyEntry(uint64(i+1), deploy.Entry{Events: []deploy.Event{e}}); errs[0] != nil {
			t.Fatal(errs[0])
		}
	}
	return New(fixed{s}, func(_, sel string, h *deploy.Host) bool { return h.Labels["role"] == sel }), s
}

// TestUnreachableNeedsBoth: gossip alone and a stream alone change nothing.
func TestUnreachableNeedsBoth(t *testing.T) {
	v, _ := world(t)
	v.Lead(true)
	steps := []struct {
		what  string
		do    func()
		state string
		down  string
	}{
		{"nothing seen yet, new leader", func() {}, "unreachable", "[]"},
		{"stream comes", func() { v.Streams("c1", true, []string{"h1"}, nil) }, "degraded", "[]"},
		{"gossip too", func() { v.Gossip("h1", true) }, "connected", "[]"},
		{"gossip goes", func() { v.Gossip("h1", false) }, "degraded", "[]"},
		{
			"gossip comes, stream goes", func() { v.Gossip("h1", true); v.Streams("c1", false, nil, []string{"h1"}) },
			"degraded", "[]",
		},
		{"both gone", func() { v.Gossip("h1", false) }, "unreachable", "[h1]"},
		{"stream at another coordinator", func() { v.Streams("c2", false, []string{"h1"}, nil) }, "degraded", "[]"},
		{"that coordinator is lost", func() { v.Lost("c2") }, "unreachable", "[h1]"},
		{"a new leader has seen nothing go", func() { v.Lead(true) }, "unreachable", "[]"},
	}
	for _, s := range steps {
		s.do()
		if state, _ := v.Status("h1"); state != s.state {
			t.Errorf("%s: %s, want %s", s.what, state, s.state)
		}
		if down := fmt.Sprint(v.Snapshot().Down); down != s.down {
			t.Errorf("%s: down %s, want %s", s.what, down, s.down)
		}
	}
}

// TestGossipHidesNobodyForEver: who gossips and has no stream is down after
// lostAfter, and is not forgotten.
func TestGossipHidesNobodyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := world(t)
		v.Lead(true)
		v.Streams("c1", true, []string{"h1"}, nil)
		v.Gossip("h1", true)
		v.Gossip("h2", true) // and never had a stream
		time.Sleep(time.Hour)
		if down := fmt.Sprint(v.Snapshot().Down); down != "[h2]" {
			t.Errorf("with a stream: down %s", down)
		}
		v.Streams("c1", false, nil, []string{"h1"})
		time.Sleep(usuallyLost - time.Second)
		if down := fmt.Sprint(v.Snapshot().Down); down != "[h2]" {
			t.Errorf("before lostAfter: down %s", down)
		}
		time.Sleep(time.Second)
		if down := fmt.Sprint(v.Snapshot().Down); down != "[h1 h2]" {
			t.Errorf("after lostAfter: down %s", down)
		}
		if v.Forgets(s, "h1") {
			t.Error("a host that gossips is forgotten")
		}
		if v.Gossip("h1", false); !v.Forgets(s, "h1") || v.Forgets(s, "nobody") {
			t.Error("a host that is gone is not forgotten, or one that is not known is")
		}
		v.Lead(true)
		if down := fmt.Sprint(v.Snapshot().Down); down != "[]" {
			t.Errorf("a new leader knows nothing yet: down %s", down)
		}
	})
}

// TestABlockedPortForgetsNobody: a tenth of a group, or one host, may be away.
func TestABlockedPortForgetsNobody(t *testing.T) {
	v, s := world(t)
	hosts := []string{}
	apply := func(e deploy.Event) {
		t.Helper()
		if errs := s.ApplyEntry(s.Index+1, deploy.Entry{Events: []deploy.Event{e}}); errs[0] != nil {
			t.Fatal(errs[0])
		}
	}
	for i := range 40 {
		id := fmt.Sprintf("w%02d", i)
		hosts = append(hosts, id)
		apply(deploy.HostEnrolled{Host: id, Name: id})
	}
	apply(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: hosts})
	for i, id := range hosts {
		apply(deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: id}}})
		if may, want := v.Forgets(s, "w00"), i < 4; may != want {
			t.Errorf("%d of 40 away: forgets %v", i+1, may)
		}
	}
	apply(deploy.GroupDefined{App: "db", Group: "prod", Selector: "db"})
	apply(deploy.TargetsJoined{App: "db", Group: "prod", Hosts: []string{"h1", "h2"}})
	apply(deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: "h1"}}})
	if !v.Forgets(s, "h1") {
		t.Error("one of two cannot be replaced")
	}
}

func TestSelectorsAreAskedWhenSomethingChanged(t *testing.T) {
	v, s := world(t)
	if got := fmt.Sprint(v.Snapshot().Joins); got != "[{www prod h1}]" {
		t.Errorf("joins %s", got)
	}
	apply := func(e deploy.Event) {
		t.Helper()
		if errs := s.ApplyEntry(s.Index+1, deploy.Entry{Events: []deploy.Event{e}}); errs[0] != nil {
			t.Fatal(errs[0])
		}
	}
	apply(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h1"}})
	if f := v.Snapshot(); len(f.Joins)+len(f.Leaves) != 0 {
		t.Errorf("after the join: %+v", f)
	}
	apply(deploy.HostEnrolled{Host: "h1", Name: "h1", Labels: map[string]string{"role": "db"}})
	if got := fmt.Sprint(v.Snapshot().Leaves); got != "[{www prod h1}]" {
		t.Errorf("leaves %s", got)
	}
}

func TestChangesAreSignalled(t *testing.T) {
	v, _ := world(t)
	for what, do := range map[string]func(){
		"gossip": func() { v.Gossip("h1", true) }, "streams": func() { v.Streams("c1", false, []string{"h2"}, nil) },
		"lost": func() { v.Lost("c1") }, "lead": func() { v.Lead(true) },
	} {
		ch := v.Changed()
		do()
		select {
		case <-ch:
		default:
			t.Errorf("%s changed and nobody was told", what)
		}
	}
}

// TestANewLeaderBlamesNobody: one that has just started has heard of nobody by
// gossip when another coordinator ends, with whose hosts all is well.
func TestANewLeaderBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := world(t)
		v.Lead(true)
		v.Streams("c2", true, []string{"h1", "h2"}, nil)
		v.Gossip("h2", true)
		v.Gossip("h2", false)
		v.Lost("c2")
		if down := fmt.Sprint(v.Snapshot().Down); down != "[h2]" {
			t.Errorf("down %s, and gossip has seen only h2 die", down)
		}
		time.Sleep(settle)
		if down := fmt.Sprint(v.Snapshot().Down); down != "[h1 h2]" {
			t.Errorf("down %s after the time in which a new leader hears of all", down)
		}
	})
}

// TestLookingCostsWhatChanged: one host that changes is asked about once by each
// selector, and nobody else is, whether there are 300 hosts or 30,000.
func TestLookingCostsWhatChanged(t *testing.T) {
	for _, n := range []int{300, 30_000} {
		s, asked := deploy.NewState(), 0
		apply := func(events ...deploy.Event) {
			t.Helper()
			for _, err := range s.ApplyEntry(s.Index+1, deploy.Entry{Events: events}) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		v := New(fixed{s}, func(_, sel string, h *deploy.Host) bool { asked++; return h.Labels["role"] == sel })
		c, _ := deploy.Builtin("all-at-once")
		apply(deploy.GroupDefined{App: "www", Group: "prod", Selector: "web", Config: c},
			deploy.GroupDefined{App: "db", Group: "prod", Selector: "db", Config: c})
		for i := range n {
			id := fmt.Sprintf("h%05d", i)
			apply(deploy.HostEnrolled{Host: id, Name: id, Labels: map[string]string{"role": "web"}})
		}
		if f := v.Snapshot(); len(f.Joins) != n || asked != 2*n {
			t.Fatalf("%d joins by %d questions of %d hosts", len(f.Joins), asked, n)
		}
		step := func(what string, questions, joins, leaves int) {
			t.Helper()
			asked = 0
			if f := v.Snapshot(); asked != questions || len(f.Joins) != joins || len(f.Leaves) != leaves {
				t.Errorf("%s, of %d: %d questions, %d joins, %d leaves", what, n, asked, len(f.Joins), len(f.Leaves))
			}
		}
		step("nothing happened", 0, n, 0)
		hosts := make([]string, n)
		for i := range hosts {
			hosts[i] = fmt.Sprintf("h%05d", i)
		}
		apply(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: hosts})
		step("all have joined", 0, 0, 0)
		apply(deploy.HostEnrolled{Host: "h00007", Name: "h00007", Labels: map[string]string{"role": "db"}})
		step("another role", 2, 1, 1)
		apply(deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h00007"}})
		step("it has left", 0, 1, 0)
		apply(deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: "h00007"}}})
		apply(deploy.HostLeft{Host: "h00007", Cause: "gone"})
		step("it is forgotten", 0, 0, 0)
		apply(deploy.GroupDefined{App: "db", Group: "prod", Selector: "none", Config: c})
		step("another selector", n-1, 0, 0)
	}
}

// TestWhatIsForgottenIsForgottenHere: the view shrinks with the fleet.
func TestWhatIsForgottenIsForgottenHere(t *testing.T) {
	v, s := world(t)
	v.Lead(true)
	v.Snapshot()
	for _, h := range []string{"h1", "h2", "stranger"} {
		v.Gossip(h, true)
		v.Streams("c1", false, []string{h}, nil)
		v.Gossip(h, false)
		v.Streams("c1", false, nil, []string{h})
	}
	for _, h := range []string{"h1", "h2"} {
		if errs := s.ApplyEntry(s.Index+1, deploy.Entry{Events: []deploy.Event{
			deploy.HostLeft{Host: h, Force: true},
		}}); errs[0] != nil {
			t.Fatal(errs[0])
		}
	}
	v.Snapshot()
	if n := len(v.gossip) + len(v.gone) + len(v.away) + len(v.look) + len(v.down) + len(v.members.hosts) +
		len(v.members.todo); n != 0 {
		t.Errorf("%d things are remembered of hosts that are gone: %+v", n, v)
	}
}
