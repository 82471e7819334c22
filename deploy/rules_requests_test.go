package deploy_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// TestARollbackIsTheChoiceOfTheCore: a fact that takes back another deployment
// than the newest one, goes elsewhere or marks something else bad is refused.
func TestARollbackIsTheChoiceOfTheCore(t *testing.T) {
	f := serving(t, "h1", "h2")
	d := f.create("d2", "v2", "h1", "h2")
	f.settle(d, "h1")
	f.settle(d, "h2")
	f.finish(d)
	u, err := f.Undoable(f.Groups["www/prod"])
	if err != nil || u != (deploy.Undo{Deployment: "d2", Revision: "v1", Bad: "v2"}) {
		t.Fatalf("a rollback is %+v, %v", u, err)
	}
	back := deploy.DeploymentCreated{
		ID: "i1", App: "www", Group: "prod", Inverse: true, Undoes: u.Deployment,
		Revision: u.Revision, Bad: u.Bad, Config: d.Config,
	}
	for _, change := range []func(*deploy.DeploymentCreated){
		func(e *deploy.DeploymentCreated) { e.Undoes = "d1" },
		func(e *deploy.DeploymentCreated) { e.Revision = "v2" },
		func(e *deploy.DeploymentCreated) { e.Bad = "v1" },
		func(e *deploy.DeploymentCreated) { e.Bad = "" },
		func(e *deploy.DeploymentCreated) { e.Undoes = "" },
	} {
		other := back
		change(&other)
		f.refused(other)
	}
	f.must(back)
}

// TestASelectorWaits: who belongs to a group stays until nothing is in flight on
// it; a correction made meanwhile leaves nothing behind.
func TestASelectorWaits(t *testing.T) {
	f := serving(t, "h1")
	d := f.create("d2", "v2", "h1")
	g := f.Groups["www/prod"]
	sel := func(text string) {
		f.must(deploy.GroupDefined{App: "www", Group: "prod", Selector: text, Config: g.Config})
	}
	sel("false")
	sel("true")
	f.settle(d, "h1")
	sel("zone == 'z'")
	if g.Selector != "true" {
		t.Errorf("the selector is %q while a deployment is in flight", g.Selector)
	}
	f.finish(d)
	if g.Selector != "zone == 'z'" || g.NextSelector != "" {
		t.Errorf("the selector is %q, next %q, and nothing is in flight", g.Selector, g.NextSelector)
	}
	sel("true")
	if g.Selector != "true" {
		t.Errorf("the selector is %q, and nothing was in flight", g.Selector)
	}
}

// TestABadRevisionIsBadInEveryGroup: what one group of an application took back
// is refused in another, until a success lifts the mark.
func TestABadRevisionIsBadInEveryGroup(t *testing.T) {
	f := serving(t, "h1")
	f.must(deploy.GroupDefined{App: "www", Group: "edge", Selector: "true", Config: f.Groups["www/prod"].Config})
	f.must(deploy.HostEnrolled{Host: "e1", Name: "e1", Zone: "z"})
	f.must(deploy.TargetsJoined{App: "www", Group: "edge", Hosts: []string{"e1"}})
	d := f.create("d2", "v2", "h1")
	f.settle(d, "h1")
	f.act("d2", deploy.VerbAbortRollback)
	f.must(deploy.RollbackStarted{Deployment: "d2", Bad: true, Items: []deploy.RevertGoal{{Host: "h1", Goal: "v1"}}})
	edge := deploy.DeploymentCreated{
		ID: "e2", App: "www", Group: "edge", Revision: "v2", RevName: "v2", Config: d.Config,
		Waves: []deploy.Wave{{Name: "all", Hosts: []string{"e1"}}},
	}
	f.refused(edge)
	edge.Force = true
	f.must(edge)
}

// TestOneEntryHoldsTwoReportsOfAHost: the witness of reports looks at each item,
// so that a later one of the same entry raises no alarm about an earlier one.
func TestOneEntryHoldsTwoReportsOfAHost(t *testing.T) {
	f := serving(t, "h1")
	d := f.create("d2", "v2", "h1")
	f.grant(d, "h1")
	var alarms []error
	f.Violated = func(err error) { alarms = append(alarms, err) }
	works := deploy.Report{Host: "h1", App: "www", Counter: 100, Gen: 2, Running: "v1", Health: deploy.HealthHealthy}
	done := deploy.Report{
		Host: "h1", App: "www", Counter: 101, Gen: 2, Result: deploy.ResultDone, Running: "v2", Health: deploy.HealthHealthy,
	}
	f.must(deploy.TargetsReported{Items: []deploy.Report{works, done}})
	if len(alarms) > 0 || d.Tasks["h1"].Status != deploy.TaskSettled {
		t.Errorf("the task is %s, alarms %v", d.Tasks["h1"].Status, alarms)
	}
}

// TestCanariesOfApplicationsDiffer: one host is not every application's canary.
func TestCanariesOfApplicationsDiffer(t *testing.T) {
	var hosts []*deploy.Host
	for i := range 10 {
		id := fmt.Sprint("h", i)
		hosts = append(hosts, &deploy.Host{ID: id, Name: id, Zone: "z"})
	}
	specs := []deploy.WaveSpec{{Name: "one", Kind: "count", Size: deploy.Count(1)}, {Name: "rest", Kind: "remainder"}}
	canaries := map[string]int{}
	const apps = 200
	for i := range apps {
		canaries[deploy.Arrange(fmt.Sprint("app", i), specs, hosts, nil)[0].Hosts[0]]++
	}
	for _, h := range hosts {
		if n := canaries[h.ID]; n < apps/len(hosts)/4 || n > 4*apps/len(hosts) {
			t.Errorf("%s is the canary of %d of %d applications", h.ID, n, apps)
		}
	}
}

// TestALateYesIsRefused: when the time to approve is over, a yes comes too late
// also before that was written down.
func TestALateYesIsRefused(t *testing.T) {
	f := serving(t, "h1")
	c := f.Groups["www/prod"].Config
	c.Gates = []deploy.Gate{{Name: "go", Approval: &deploy.ApprovalGate{Timeout: time.Hour}}}
	c.PreGates = []string{"go"}
	f.must(deploy.DeploymentCreated{
		ID: "d2", App: "www", Group: "prod", Revision: "v2", Config: c,
		Waves: []deploy.Wave{{Name: "all", Hosts: []string{"h1"}}},
	})
	for range 2 { // it starts, and is held
		for _, e := range deploy.Decide(f.State, deploy.Fleet{}, f.Now) {
			f.must(e)
		}
	}
	yes := deploy.RequestMade{Request: deploy.Request{Actor: "bob"}, Deployment: "d2", Verb: deploy.VerbApprove}
	f.Now = f.Now.Add(time.Hour + time.Second)
	f.refused(yes)
	f.Now = f.Now.Add(-2 * time.Second)
	f.must(yes)
}

// TestDriftNamesWhatHoldsIt: who is not brought up to date is listed with the
// reason why nothing is done about it.
func TestDriftNamesWhatHoldsIt(t *testing.T) {
	f := serving(t, "h1", "h2", "h3")
	g := f.Groups["www/prod"]
	why := func() string {
		t.Helper()
		all := f.Drift(g)
		if len(all) != 1 || all[0].Host != "h1" {
			t.Fatalf("the drift is %+v", all)
		}
		return all[0].Why
	}
	f.report(deploy.Report{ // somebody changed it by hand
		Host: "h1", Gen: 1, Result: deploy.ResultDone, Running: "v2", Health: deploy.HealthHealthy,
		Staged: []deploy.Digest{"v1"},
	})
	if got := why(); got != "" {
		t.Errorf("it is held by %q, and nothing holds it", got)
	}
	f.must(deploy.FreezeSet{Request: deploy.Request{ID: "f", Actor: "ann", Reason: "feast"}})
	if got := why(); got != "frozen by ann: feast" {
		t.Errorf("it is held by %q, not by the freeze", got)
	}
	f.must(deploy.FreezeLifted{Request: deploy.Request{ID: "u", Actor: "ann"}})
	c := g.Config
	c.Capacity.MinHealthy = deploy.Count(2)
	f.must(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c})
	f.must(deploy.HostsQuarantined{Request: deploy.Request{ID: "q", Actor: "ann"}, Hosts: []string{"h2"}})
	if got := why(); got != "waits: the group serves with 2, the floor is 2" {
		t.Errorf("it is held by %q, not by the floor", got)
	}
}

// TestWhoJoinsAgainIsAskedAnew: an agent stages once for a key; one that left and
// joined again must not get a key for which it has failed already.
func TestWhoJoinsAgainIsAskedAnew(t *testing.T) {
	f := serving(t, "h1", "h2")
	f.must(deploy.HostEnrolled{Host: "h9", Name: "h9", Zone: "z"})
	join := func() string {
		f.must(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h9"}, Waves: []int{0}})
		return deploy.Assign(f.State, "h9")[0].StageKey
	}
	first := join()
	f.must(deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h9"}})
	if again := join(); first == "" || again == first {
		t.Errorf("the key is %q, and then %q", first, again)
	}
}

// TestNewcomersAreToldWhenNobodyIsLeft: who is to be born on what a wave is being
// given is told when the last host that took it leaves.
func TestNewcomersAreToldWhenNobodyIsLeft(t *testing.T) {
	f := serving(t, "h1")
	d := f.create("d2", "v2", "h1")
	f.settle(d, "h1")
	f.must(deploy.BakeStarted{Deployment: "d2", Until: f.Now})
	f.must(deploy.HostEnrolled{Host: "h9", Name: "h9", Zone: "z"})
	f.must(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h9"}, Waves: []int{0}})
	if a := deploy.Assign(f.State, "h9")[0]; a.Stage != "v2" {
		t.Fatalf("it is to stage %q", a.Stage)
	}
	f.must(deploy.HostLeft{Host: "h1", Force: true})
	if a := deploy.Assign(f.State, "h9")[0]; a.Stage != "v1" || f.AssignedAt("h9") != f.Index {
		t.Errorf("it is to stage %q, told by entry %d of %d", a.Stage, f.AssignedAt("h9"), f.Index)
	}
}

// TestWhoIsOnItsWayBackIsNotTakenBackAgain: a host whose catch-up goes where a
// rollback goes is left to it, or it would be told twice and answer once.
func TestWhoIsOnItsWayBackIsNotTakenBackAgain(t *testing.T) {
	f := serving(t, "h1")
	d := f.create("d2", "v2", "h1")
	f.settle(d, "h1")
	f.act("d2", deploy.VerbAbortRollback)
	f.must(deploy.RollbackStarted{Deployment: "d2", Bad: true, Items: []deploy.RevertGoal{{Host: "h1", Goal: "v1"}}})
	f.must(deploy.HostEnrolled{Host: "h9", Name: "h9", Zone: "z"})
	f.must(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h9"}, Waves: []int{0}})
	f.report(deploy.Report{
		Host: "h9", Running: "v2", Health: deploy.HealthHealthy, Staged: []deploy.Digest{"v1", "v2"},
	})
	again := deploy.RevertExtended{Deployment: "d2", Items: []deploy.RevertGoal{{Host: "h9", Goal: "v1"}}}
	f.must(deploy.PermitsGranted{
		App: "www", Group: "prod", Wave: -1, CatchUp: deploy.CatchUpLate, Concurrent: 100, Floors: []deploy.Floor{{}},
		Items: []deploy.Grant{{Host: "h9", Gen: 1, Kind: deploy.PermitNormal, Goal: "v1"}},
	})
	f.refused(again)
	f.report(deploy.Report{
		Host: "h9", Gen: 1, Result: deploy.ResultFailed, Running: "v2", Health: deploy.HealthHealthy,
		Staged: []deploy.Digest{"v1", "v2"},
	})
	f.must(again) // it did not arrive
}

// TestAnEndNamesWhoWentDownLater: a host that settled and is ill, or away, when
// its deployment ends does not serve, and the end says so.
func TestAnEndNamesWhoWentDownLater(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1", "h2", "h3")
	d := f.create("d1", "v1", "h1", "h2", "h3")
	for _, h := range []string{"h1", "h2", "h3"} {
		f.settle(d, h)
	}
	f.must(deploy.BakeStarted{Deployment: "d1", Until: f.Now})
	f.must(deploy.WaveSealed{Deployment: "d1"})
	f.report(deploy.Report{Host: "h2", Gen: 1, Running: "v1", Health: deploy.HealthUnknown})
	f.must(deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: "h3", Counter: f.Target("h3", "www").Counter}}})
	for _, e := range deploy.Decide(f.State, deploy.Fleet{Down: []string{"h3"}}, f.Now) {
		f.must(e)
	}
	if want := "not serving: h2 (unknown), h3 (unreachable)"; d.Cause != want || !d.Status.Terminal() {
		t.Errorf("it is %s: %q, not %q", d.Status, d.Cause, want)
	}
}

// TestAnEndedDeploymentIsOvertaken: a host that another deployment is changing is
// that one's to answer for, also to one that has ended.
func TestAnEndedDeploymentIsOvertaken(t *testing.T) {
	f := serving(t, "h1", "h2")
	f.grant(f.create("d2", "v2", "h1", "h2"), "h1")
	for host, want := range map[string]bool{"h1": true, "h2": false} {
		if got := f.Deployments["d1"].Overtaken(f.Groups["www/prod"], f.Target(host, "www")); got != want {
			t.Errorf("%s is overtaken: %v", host, got)
		}
	}
}
