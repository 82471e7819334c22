package deploy_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/groundswell/groundswell/deploy"
)

// grown is a group of n hosts that have joined, and what they run.
func grown(t *testing.T, n int) *deploy.State {
	t.Helper()
	s := deploy.NewState()
	c, _ := deploy.Builtin("all-at-once")
	events := []deploy.Event{deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c}}
	hosts := make([]string, n)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("h%05d", i)
		events = append(events, deploy.HostEnrolled{Host: hosts[i], Name: hosts[i], Zone: "a"})
	}
	events = append(events, deploy.TargetsJoined{App: "www", Group: "prod", Hosts: hosts})
	for _, err := range s.ApplyEntry(1, deploy.Entry{Events: events}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestAChangeTouchesWhatChanged: whoever waits for one of 30,000 hosts is woken as
// seldom as for one of 300. Times are not looked at.
func TestAChangeTouchesWhatChanged(t *testing.T) {
	for _, n := range []int{300, 30_000} {
		s := grown(t, n)
		apply := func(e deploy.Event) {
			t.Helper()
			if errs := s.ApplyEntry(s.Index+1, deploy.Entry{Events: []deploy.Event{e}}); errs[0] != nil {
				t.Fatal(errs[0])
			}
		}
		at := s.Index
		for _, x := range []struct {
			what string
			e    deploy.Event
		}{
			{"a report", deploy.TargetsReported{Items: []deploy.Report{{Host: "h00007", App: "www", Counter: 1}}}},
			{"a host that is gone", deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: "h00007", Counter: 1}}}},
			{"one that is back", deploy.TargetsReported{Items: []deploy.Report{{Host: "h00007", Counter: 2}}}},
			{"a new label", deploy.HostEnrolled{Host: "h00007", Name: "h00007", Zone: "b"}},
			{"a newcomer", deploy.HostEnrolled{Host: "h00007x", Name: "h00007x"}},
			{"a newcomer's target", deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h00007x"}}},
			{"one that leaves", deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h00007x"}}},
		} {
			if apply(x.e); len(s.TouchedHosts()) != 1 {
				t.Errorf("%s among %d hosts touches %d", x.what, n, len(s.TouchedHosts()))
			}
		}
		apply(deploy.RevisionRegistered{App: "www", Name: "v1", Digest: "sha256:1"})
		if len(s.TouchedHosts()) != 0 {
			t.Errorf("a new revision touches %d of %d hosts", len(s.TouchedHosts()), n)
		}
		hosts, groups, known := s.MovedSince(at)
		want := []string{"h00007", "h00007x", "h00007x", "h00007x"}
		if !known || len(groups) != 0 || !slices.Equal(hosts, want) {
			t.Errorf("among %d: moved %v %v %v, want %v", n, hosts, groups, known, want)
		}
	}
}

// TestMovesAreForgotten: who has not looked for long is told so, and so is who has
// seen another state.
// TestAFleetThatWasAwayIsNotLookedAtForEver: who came back keeps no decision busy.
func TestAFleetThatWasAwayIsNotLookedAtForEver(t *testing.T) {
	allocs := map[int]float64{}
	for _, n := range []int{300, 30_000} {
		s := grown(t, n)
		var down []deploy.HostDown
		var back []deploy.Report
		for i := range n {
			id := fmt.Sprintf("h%05d", i)
			down = append(down, deploy.HostDown{Host: id})
			back = append(back, deploy.Report{Host: id, App: "www", Counter: 1})
		}
		s.ApplyEntry(s.Index+1, deploy.Entry{Events: []deploy.Event{deploy.HostsUnreachable{Items: down}}})
		s.ApplyEntry(s.Index+1, deploy.Entry{Events: []deploy.Event{deploy.TargetsReported{Items: back}}})
		allocs[n] = testing.AllocsPerRun(20, func() {
			deploy.Decide(s, deploy.Fleet{}, s.Now)
			deploy.NextWake(s, s.Now)
		})
	}
	if !alike(allocs[300], allocs[30_000]) {
		t.Errorf("a decision is %v allocations after 300 hosts came back, %v after 30,000", allocs[300], allocs[30_000])
	}
}

func TestMovesAreForgotten(t *testing.T) {
	s := grown(t, 1)
	if _, _, known := s.MovedSince(s.Index + 1); known {
		t.Error("it is known what happens after the last entry")
	}
	begin := s.Index
	for i := range 1 << 17 {
		zone := fmt.Sprint(i % 2)
		s.ApplyEntry(s.Index+1, deploy.Entry{Events: []deploy.Event{
			deploy.HostEnrolled{Host: "h00000", Name: "h00000", Zone: zone},
		}})
	}
	if _, _, known := s.MovedSince(begin); known {
		t.Error("moves are remembered for ever")
	}
	if hosts, _, known := s.MovedSince(s.Index - 1000); !known || len(hosts) != 1000 {
		t.Errorf("of 1,000 moves of late %d are known: %v", len(hosts), known)
	}
	s.Rebuild()
	if _, _, known := s.MovedSince(s.Index - 1); known {
		t.Error("a state that was just read knows what came before")
	}
}

// TestDecidingCostsWhatChanged: what Decide and NextWake allocate for one report does
// not depend on how many other hosts there are.
func TestDecidingCostsWhatChanged(t *testing.T) {
	allocs := map[int]float64{}
	for _, n := range []int{300, 30_000} {
		s := grown(t, n)
		counter := uint64(0)
		allocs[n] = testing.AllocsPerRun(20, func() {
			counter++
			s.ApplyEntry(s.Index+1, deploy.Entry{Events: []deploy.Event{deploy.TargetsReported{
				Items: []deploy.Report{{Host: "h00007", App: "www", Counter: counter}},
			}}})
			deploy.Decide(s, deploy.Fleet{}, s.Now)
			deploy.NextWake(s, s.Now)
		})
	}
	if !alike(allocs[300], allocs[30_000]) {
		t.Errorf("one report is %v allocations at 300 hosts, %v at 30,000", allocs[300], allocs[30_000])
	}
}

// alike compares allocations. A pool of the library that the race detector empties may
// cost a few; a slice of thousands that grows costs more than this.
func alike(a, b float64) bool { return math.Abs(a-b) <= 4 }

// TestQuietGroupsCostNothing: neither a decision nor a deployment allocates more because
// there are other groups.
func TestQuietGroupsCostNothing(t *testing.T) {
	type costs struct{ decide, deploy float64 }
	of := map[int]costs{}
	for _, n := range []int{30, 3000} {
		s := deploy.NewState()
		do := func(events ...deploy.Event) {
			for i, err := range s.ApplyEntry(s.Index+1, deploy.Entry{Events: events}) {
				if err != nil {
					t.Fatalf("%s: %v", deploy.Describe(events[i]), err)
				}
			}
		}
		c, _ := deploy.Builtin("all-at-once")
		for i := range n {
			app, host := fmt.Sprintf("svc%04d", i), fmt.Sprintf("h%04d", i)
			do(deploy.GroupDefined{App: app, Group: "prod", Selector: "true", Config: c},
				deploy.HostEnrolled{Host: host, Name: host, Zone: "a"},
				deploy.TargetsJoined{App: app, Group: "prod", Hosts: []string{host}},
				deploy.RevisionRegistered{App: app, Name: "v1", Digest: "sha256:1"})
		}
		one := costs{}
		one.decide = testing.AllocsPerRun(20, func() {
			deploy.Decide(s, deploy.Fleet{}, s.Now)
			deploy.NextWake(s, s.Now)
			deploy.Questions(s, s.Now)
		})
		d := 0
		one.deploy = testing.AllocsPerRun(20, func() {
			d++
			id := fmt.Sprintf("d%04d", d)
			do(deploy.DeploymentCreated{
				ID: id, App: "svc0007", Group: "prod", Revision: "sha256:1", Config: c,
				Waves: []deploy.Wave{{Name: "all", Hosts: []string{"h0007"}}},
			}, deploy.RequestMade{Deployment: id, Verb: deploy.VerbAbortLeave})
		})
		of[n] = one
	}
	if !alike(of[30].decide, of[3000].decide) || !alike(of[30].deploy, of[3000].deploy) {
		t.Errorf("allocations among 30 groups: %v, among 3,000: %v", of[30], of[3000])
	}
}
