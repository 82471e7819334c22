package deploy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/groundswell/groundswell/deploy"
)

// ruled is an empty state at a level of rules.
func ruled(level int) *deploy.State {
	s := deploy.NewState()
	for l := 2; l <= level; l++ {
		s.ApplyEntry(s.Index+1, deploy.Entry{Events: []deploy.Event{deploy.RulesRaised{Level: l}}})
	}
	return s
}

// again returns what a replica has that reads a snapshot of the state.
func again(t *testing.T, s *deploy.State) *deploy.State {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	out := deploy.NewState()
	if err := json.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	out.Rebuild()
	return out
}

func same(t *testing.T, a, b *deploy.State) {
	t.Helper()
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) != string(y) {
		t.Error("a replica that read a snapshot meanwhile differs")
	}
}

// TestRequestsAreBoundedByNumber: the newest 100,000 ids are known; one that is older,
// and says so, is refused and not done twice; one that is new is done.
func TestRequestsAreBoundedByNumber(t *testing.T) {
	at := time.UnixMilli(1_800_000_000_000)
	freeze := func(s *deploy.State, id string, now time.Time) error {
		return s.ApplyEntry(s.Index+1, deploy.Entry{
			At: deploy.Time(now.Sub(at)), Wall: now.UnixMilli(), Events: []deploy.Event{
				deploy.FreezeSet{App: "www", Request: deploy.Request{ID: id}},
			},
		})[0]
	}
	id := func(ms int) string {
		return ulid.MustNew(uint64(at.UnixMilli())+uint64(ms), strings.NewReader(strings.Repeat("x", 16))).String()
	}
	const n = 105_000
	s := ruled(2)
	var read *deploy.State
	for i := range n {
		now := at.Add(time.Duration(i) * time.Millisecond)
		if err := freeze(s, id(i), now); err != nil {
			t.Fatal(err)
		}
		if i == n/2 {
			read = again(t, s)
		} else if read != nil {
			_ = freeze(read, id(i), now)
		}
	}
	same(t, s, read)
	if got := len(s.Requests); got < 100_000 || got > 101_001 || len(s.RequestLog) != got {
		t.Errorf("%d requests are remembered", got)
	}
	late := at.Add(20 * time.Minute) // longer than a client tries
	if err := freeze(s, id(100), late); err == nil || !strings.Contains(err.Error(), "so long ago") {
		t.Errorf("a request that is forgotten: %v", err)
	}
	before := len(s.Requests)
	if err := freeze(s, id(n-10), late); err != nil || len(s.Requests) != before {
		t.Errorf("one that is remembered: %v", err)
	}
	for _, fresh := range []string{id(20 * 60 * 1000), "of-another-kind"} {
		if err := freeze(s, fresh, late); err != nil {
			t.Errorf("a new request %s: %v", fresh, err)
		}
	}
	// Whoever led had a clock that was a year ahead: what is made afterwards is done.
	wrong := ruled(2)
	for i := range n {
		_ = freeze(wrong, id(i), at.AddDate(1, 0, 0))
	}
	if err := freeze(wrong, id(19*60*1000), late); err != nil || wrong.RequestFloor < late.UnixMilli() {
		t.Errorf("a request after a wrong clock: %v", err)
	}
	one := ruled(1)
	for i := range n {
		_ = freeze(one, id(i), at)
	}
	if len(one.Requests) != n || one.RequestFloor != 0 {
		t.Errorf("by the rules of level 1 %d of %d are remembered", len(one.Requests), n)
	}
}

// TestEndedDeploymentsAreBoundedByBytes: the newest keep their tasks as far as there is
// room, of each group one at least; outlines stay; a replica that read a snapshot in
// between drops the same.
func TestEndedDeploymentsAreBoundedByBytes(t *testing.T) {
	const hosts, groups, each = 6000, 3, 12
	a := &album{t: t}
	build := func(level int) (*deploy.State, *deploy.State) {
		s := ruled(level)
		var read *deploy.State
		apply := func(at int, e deploy.Event) {
			t.Helper()
			for _, st := range []*deploy.State{s, read} {
				if st == nil {
					continue
				}
				errs := st.ApplyEntry(st.Index+1, deploy.Entry{At: deploy.Time(at), Events: []deploy.Event{e}})
				if errs[0] != nil {
					t.Fatal(errs[0])
				}
			}
		}
		c, _ := deploy.Builtin("all-at-once")
		var ids []string
		for i := range hosts {
			ids = append(ids, fmt.Sprintf("h%04d", i))
			apply(0, deploy.HostEnrolled{Host: ids[i], Name: ids[i], Zone: "a"})
		}
		for g := range groups {
			app := fmt.Sprint("app", g)
			apply(0, deploy.GroupDefined{App: app, Group: "prod", Selector: "true", Config: c})
			apply(0, deploy.TargetsJoined{App: app, Group: "prod", Hosts: ids})
			apply(0, deploy.RevisionRegistered{App: app, Name: "v1", Digest: "sha256:1"})
		}
		for i := range each {
			for g := range groups {
				if i > 0 && g == 0 {
					continue // this group's only one is the oldest of all
				}
				app := fmt.Sprint("app", g)
				id := fmt.Sprintf("d%02d-%d", i, g)
				d := deploy.DeploymentCreated{
					ID: id, App: app, Group: "prod", Revision: "sha256:1", Config: c, Redeploy: true,
					Waves: []deploy.Wave{{Name: "all", Hosts: slices.Clone(ids)}},
				}
				apply(i, d)
				apply(i, deploy.DeploymentStarted{Deployment: id})
				apply(i, deploy.RequestMade{Deployment: id, Verb: deploy.VerbAbortLeave})
				apply(i, deploy.DeploymentEnded{Deployment: id, Status: deploy.DeploymentStatusStopped})
				if i == each/2 && g == 1 {
					read = again(t, s)
					a.images, a.wants = append(a.images, s.Image()), append(a.wants, text(t, s))
				}
			}
		}
		return s, read
	}
	s, read := build(2)
	same(t, s, read)
	a.look("outlines")
	whole := 0
	for _, d := range s.Deployments {
		if !d.Pruned {
			whole += len(d.Tasks)
		}
	}
	if len(s.Deployments) != 1+2*each || whole<<10 > 128<<20 || whole<<10 < 100<<20 {
		t.Errorf("%d deployments, %d tasks are kept", len(s.Deployments), whole)
	}
	for id, want := range map[string]bool{"d00-0": false, "d00-1": true, "d11-1": false, "d11-2": false} {
		if s.Deployments[id].Pruned != want {
			t.Errorf("%s is an outline: %v", id, s.Deployments[id].Pruned)
		}
	}
	old, _ := build(1)
	for id, d := range old.Deployments {
		if d.Pruned {
			t.Errorf("by the rules of level 1 %s is an outline", id)
		}
	}
}

// TestAGroupThatIsDefinedAnew has no past: neither here, nor at a replica that has read
// a snapshot since. A rollback must mean the same to both.
func TestAGroupThatIsDefinedAnew(t *testing.T) {
	s := ruled(3)
	do := func(st *deploy.State, e deploy.Event) error {
		return st.ApplyEntry(st.Index+1, deploy.Entry{At: st.Now + 1, Events: []deploy.Event{e}})[0]
	}
	c, _ := deploy.Builtin("all-at-once")
	group := deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c}
	joined := deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h1"}}
	for _, e := range []deploy.Event{
		deploy.HostEnrolled{Host: "h1", Name: "h1", Zone: "a"},
		group, joined,
		deploy.RevisionRegistered{App: "www", Name: "v1", Digest: "sha256:1"},
		deploy.DeploymentCreated{
			ID: "d1", App: "www", Group: "prod", Revision: "sha256:1", Config: c,
			Waves: []deploy.Wave{{Name: "all", Hosts: []string{"h1"}}},
		},
		deploy.DeploymentStarted{Deployment: "d1"},
		deploy.WaveStarted{Deployment: "d1"},
		deploy.TargetsReported{Items: []deploy.Report{{
			Host: "h1", App: "www", Counter: 1, Staged: []deploy.Digest{"sha256:1"},
		}}},
		deploy.PermitsGranted{Deployment: "d1", Concurrent: 1, Items: []deploy.Grant{{
			Host: "h1", Gen: 1, Kind: deploy.PermitConditional, Goal: "sha256:1",
		}}},
		deploy.TargetsReported{Items: []deploy.Report{{
			Host: "h1", App: "www", Counter: 2, Gen: 1, Result: deploy.ResultDone, Running: "sha256:1",
			Health: deploy.HealthHealthy,
		}}},
		deploy.RequestMade{Deployment: "d1", Verb: deploy.VerbAbortLeave},
		deploy.DeploymentEnded{Deployment: "d1", Status: deploy.DeploymentStatusStopped},
		deploy.GroupDeleted{App: "www", Group: "prod"},
		group, joined,
	} {
		if err := do(s, e); err != nil {
			t.Fatalf("%s: %v", deploy.Describe(e), err)
		}
	}
	read := again(t, s)
	same(t, s, read)
	for who, st := range map[string]*deploy.State{"who applied": s, "who read": read} {
		_, err := st.Undoable(st.Groups["www/prod"])
		if err == nil || !strings.Contains(err.Error(), "nothing that could be taken back was deployed") {
			t.Errorf("%s would take back what was deployed to the group that was deleted: %v", who, err)
		}
	}
}
