package deploy_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// fleet is a state with facts applied by hand, one entry each.
type fleet struct {
	*deploy.State
	t       *testing.T
	counter uint64
}

func newFleet(t *testing.T, config string, hosts ...string) *fleet {
	f := &fleet{State: deploy.NewState(), t: t}
	c, _ := deploy.Builtin(config)
	f.must(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c})
	for _, h := range hosts {
		f.must(deploy.HostEnrolled{Host: h, Name: h, Zone: "z"})
	}
	f.must(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: hosts})
	for _, v := range []string{"v1", "v2"} {
		f.must(deploy.RevisionRegistered{App: "www", Name: v, Digest: deploy.Digest(v)})
	}
	return f
}

func (f *fleet) try(e deploy.Event) error {
	f.t.Helper()
	err := f.ApplyEntry(f.Index+1, deploy.Entry{At: f.Now, Events: []deploy.Event{e}})[0]
	if broken := deploy.Check(f.State); broken != nil {
		f.t.Fatalf("after %T: %v", e, broken)
	}
	return err
}

func (f *fleet) must(e deploy.Event) {
	f.t.Helper()
	if err := f.try(e); err != nil {
		f.t.Fatalf("%s: %v", deploy.Describe(e), err)
	}
}

func (f *fleet) refused(e deploy.Event) {
	f.t.Helper()
	if f.try(e) == nil {
		f.t.Errorf("%s was accepted", deploy.Describe(e))
	}
}

func (f *fleet) report(r deploy.Report) {
	f.t.Helper()
	f.counter++
	if r.Counter == 0 {
		r.Counter = f.counter
	}
	r.App = "www"
	f.must(deploy.TargetsReported{Items: []deploy.Report{r}})
}

// create makes a deployment of one wave of all hosts, entered.
func (f *fleet) create(id, rev string, hosts ...string) *deploy.Deployment {
	f.t.Helper()
	f.must(deploy.DeploymentCreated{
		ID: id, App: "www", Group: "prod", Revision: deploy.Digest(rev), RevName: rev, Config: f.Groups["www/prod"].Config,
		Waves: []deploy.Wave{{Name: "all", Hosts: hosts}},
	})
	f.must(deploy.DeploymentStarted{Deployment: id})
	f.must(deploy.WaveStarted{Deployment: id, Budget: 0})
	return f.Deployments[id]
}

// grant stages the deployment's revision and grants a permit.
func (f *fleet) grant(d *deploy.Deployment, host string) {
	f.t.Helper()
	t := f.Target(host, "www")
	f.report(deploy.Report{
		Host: host, Gen: t.Gen, Running: t.Running, Health: t.Health,
		Staged: []deploy.Digest{d.Revision},
	})
	kind := deploy.PermitConditional
	if t.Serving() {
		kind = deploy.PermitNormal
	}
	f.must(deploy.PermitsGranted{
		Deployment: d.ID, Concurrent: 100, Floors: []deploy.Floor{{}},
		Items: []deploy.Grant{{Host: host, Gen: t.Gen + 1, Kind: kind, Goal: d.Revision}},
	})
}

// settle grants a permit and reports that the revision serves.
func (f *fleet) settle(d *deploy.Deployment, host string) {
	f.t.Helper()
	f.grant(d, host)
	f.report(deploy.Report{
		Host: host, Gen: f.Target(host, "www").Gen, Result: deploy.ResultDone, Running: d.Revision,
		Health: deploy.HealthHealthy, Staged: []deploy.Digest{d.Revision},
	})
}

// finish seals the wave and ends the deployment.
func (f *fleet) finish(d *deploy.Deployment) {
	f.t.Helper()
	f.must(deploy.BakeStarted{Deployment: d.ID, Until: f.Now})
	f.must(deploy.WaveSealed{Deployment: d.ID})
	f.must(deploy.DeploymentEnded{Deployment: d.ID, Status: deploy.DeploymentStatusSucceeded})
}

func (f *fleet) act(id string, v deploy.Verb) {
	f.t.Helper()
	f.must(deploy.RequestMade{Deployment: id, Verb: v})
}

// TestAnAcknowledgedRequestIsNotOverrun: facts that were decided before a
// request entered the log do not undo it.
func TestAnAcknowledgedRequestIsNotOverrun(t *testing.T) {
	for verb, want := range map[deploy.Verb]deploy.DeploymentStatus{
		deploy.VerbAbortRollback: deploy.DeploymentStatusRollingBack,
		deploy.VerbAbortLeave:    deploy.DeploymentStatusStopping,
		deploy.VerbPause:         deploy.DeploymentStatusPaused,
	} {
		f := newFleet(t, "all-at-once", "h1")
		d := f.create("d1", "v1", "h1")
		f.settle(d, "h1")
		f.must(deploy.BakeStarted{Deployment: "d1", Until: f.Now})
		f.act("d1", verb)
		f.refused(deploy.WaveSealed{Deployment: "d1"})
		f.refused(deploy.DeploymentEnded{Deployment: "d1", Status: deploy.DeploymentStatusSucceeded})
		if verb != deploy.VerbPause { // a pause that asks for a decision is still one
			f.refused(deploy.DeploymentPaused{Deployment: "d1", Cause: "decided before"})
		}
		if d.Status != want {
			t.Errorf("after %s: %s", verb, d.Status)
		}
	}
}

func TestSuccessNeedsEveryWave(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	d := f.create("d1", "v1", "h1")
	f.settle(d, "h1")
	f.refused(deploy.DeploymentEnded{Deployment: "d1", Status: deploy.DeploymentStatusSucceeded})
	f.must(deploy.BakeStarted{Deployment: "d1", Until: f.Now})
	f.report(deploy.Report{
		Host: "h1", Gen: 1, Result: deploy.ResultDone, Running: "v1",
		Health: deploy.HealthUnhealthy,
	})
	f.refused(deploy.WaveSealed{Deployment: "d1"}) // sick since the decision
	f.report(deploy.Report{Host: "h1", Gen: 1, Result: deploy.ResultDone, Running: "v1", Health: deploy.HealthHealthy})
	f.must(deploy.WaveSealed{Deployment: "d1"})
	f.refused(deploy.DeploymentEnded{Deployment: "d1", Status: deploy.DeploymentStatusStopped})
	f.must(deploy.DeploymentEnded{Deployment: "d1", Status: deploy.DeploymentStatusSucceeded})
}

// TestAReportOfNonsenseSaysNothing: fields out of range neither close a
// generation nor leave a task between two states.
func TestAReportOfNonsenseSaysNothing(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	d := f.create("d1", "v1", "h1")
	f.grant(d, "h1")
	before := *f.Target("h1", "www")
	for _, r := range []deploy.Report{
		{Result: 99}, {Result: -1}, {Result: deploy.ResultDone, Health: 7}, {Result: deploy.ResultDone, Health: -2},
	} {
		r.Host, r.Gen, r.Running = "h1", 1, "v1"
		f.report(r)
		if got := *f.Target("h1", "www"); got.Permit != before.Permit || got.Health != before.Health || !got.Open {
			t.Errorf("%+v changed the target: %+v", r, got)
		}
	}
	for _, r := range []deploy.Report{
		{Host: "nobody", Gen: 1},
		{Host: "", Gen: 1},
		{Host: "h1", Counter: 1, Gen: math.MaxUint64},
	} {
		f.report(r)
	}
	if d.Tasks["h1"].Status != deploy.TaskGranted {
		t.Errorf("the task is %s", d.Tasks["h1"].Status)
	}
}

// TestALaterGenerationFreesTheTask: a host that is ahead of a restored log has
// no result for the task's generation, so the task waits for a new permit.
func TestALaterGenerationFreesTheTask(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	d := f.create("d1", "v1", "h1")
	f.grant(d, "h1")
	f.report(deploy.Report{Host: "h1", Gen: 7, Result: deploy.ResultDone, Running: "v2", Health: deploy.HealthHealthy})
	if task := d.Tasks["h1"]; task.Status != deploy.TaskWaiting || f.Target("h1", "www").Permit != deploy.PermitNone {
		t.Errorf("the task is %s", task.Status)
	}
	f.settle(d, "h1")
	if task := d.Tasks["h1"]; task.Status != deploy.TaskSettled || task.Gen != 8 {
		t.Errorf("the task is %s at generation %d", task.Status, task.Gen)
	}
}

// TestRefusalsEnd: an agent that hands back every permit becomes a failure.
func TestRefusalsEnd(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	d := f.create("d1", "v1", "h1")
	n := 0
	for ; d.Tasks["h1"].Status == deploy.TaskWaiting && n < 100; n++ {
		f.grant(d, "h1")
		f.report(deploy.Report{
			Host: "h1", Gen: f.Target("h1", "www").Gen, Result: deploy.ResultRefused,
			Staged: []deploy.Digest{"v1"},
		})
	}
	if d.Tasks["h1"].Status != deploy.TaskFailed || n != 20 || d.Failures != 1 {
		t.Errorf("after %d refusals: %s, %d failures", n, d.Tasks["h1"].Status, d.Failures)
	}
}

// TestAFailureOutlivesItsHost: a failed host that is replaced stays a failure,
// once, and one that joins again has no task.
func TestAFailureOutlivesItsHost(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1", "h2")
	d := f.create("d1", "v1", "h1", "h2")
	f.settle(d, "h2")
	f.grant(d, "h1")
	f.report(deploy.Report{Host: "h1", Gen: 1, Result: deploy.ResultFailed})
	leave := deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h1"}}
	join := deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h1"}}
	for range 2 {
		f.must(leave)
		f.refused(leave)
		f.must(join)
		f.refused(join)
		if p := d.Progress(0); p.Failed != 1 || p.Total != 2 || d.Failures != 1 {
			t.Errorf("progress %+v, %d failures", p, d.Failures)
		}
	}
	f.refused(deploy.BakeStarted{Deployment: "d1", Until: f.Now})
	if err := reload(f.State); err != nil {
		t.Error(err)
	}
	f.must(deploy.DeploymentPaused{Deployment: "d1"})
	f.act("d1", deploy.VerbRetry) // retries nobody: the host is gone
	if d.Failures != 1 || d.Tasks["h1"].Status != deploy.TaskFailed {
		t.Errorf("retry revived the task of a departed host: %+v", d.Tasks["h1"])
	}
}

// TestGoneTwice: the same host departs, joins and departs while it has a task.
func TestGoneTwice(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1", "h2")
	d := f.create("d1", "v1", "h1", "h2")
	for range 3 {
		f.must(deploy.HostLeft{Host: "h1", Force: true})
		f.must(deploy.HostEnrolled{Host: "h1", Name: "h1", Zone: "z"})
		f.must(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h1"}})
	}
	if p := d.Progress(0); p.Gone != 1 || p.Total != 2 {
		t.Errorf("progress %+v", p)
	}
}

// TestABakeWithoutHostsIsNoSuccess: every settled host departs while the wave
// bakes, so nobody ever said that the revision is good.
func TestABakeWithoutHostsIsNoSuccess(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	d := f.create("d1", "v1", "h1")
	f.settle(d, "h1")
	f.must(deploy.BakeStarted{Deployment: "d1", Until: f.Now})
	f.must(deploy.HostLeft{Host: "h1", Force: true})
	f.refused(deploy.WaveSealed{Deployment: "d1"})
	for _, e := range deploy.Decide(f.State, deploy.Fleet{}, f.Now) {
		f.must(e)
	}
	if d.Status != deploy.DeploymentStatusStopped || !strings.Contains(d.Cause, "no target left") {
		t.Errorf("%s: %s", d.Status, d.Cause)
	}
}

// TestARenamedHostFreesItsName: a newcomer under the old name replaces nobody.
func TestARenamedHostFreesItsName(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	f.must(deploy.HostEnrolled{Host: "h1", Name: "other", Zone: "z"})
	f.must(deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: "h1", Counter: f.Hosts["h1"].Counter}}})
	f.must(deploy.HostEnrolled{Host: "h9", Name: "h1", Zone: "z"})
	if f.Hosts["h1"] == nil || f.Names["other"] != "h1" || f.Names["h1"] != "h9" {
		t.Errorf("names are %v", f.Names)
	}
}

// TestNobodyTakesANameThatIsHeld: a host cannot push a neighbour out by calling
// itself like it, neither one that answers nor, for who is enrolled, one that is
// down; a machine that was replaced comes back under its name.
func TestNobodyTakesANameThatIsHeld(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1", "h2")
	f.refused(deploy.HostEnrolled{Host: "h2", Name: "h1", Zone: "z"})
	f.refused(deploy.HostEnrolled{Host: "h9", Name: "h1", Zone: "z"})
	f.must(deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: "h1", Counter: f.Hosts["h1"].Counter}}})
	f.refused(deploy.HostEnrolled{Host: "h2", Name: "h1", Zone: "z"})
	if f.Names["h1"] != "h1" || f.Names["h2"] != "h2" || f.Hosts["h9"] != nil {
		t.Errorf("names are %v", f.Names)
	}
	f.must(deploy.HostEnrolled{Host: "h9", Name: "h1", Zone: "z"})
	if f.Hosts["h1"] != nil || f.Names["h1"] != "h9" {
		t.Errorf("names are %v", f.Names)
	}
}

// TestNamesakes: from level 2 on a second living host of a name is there, as one that
// people call by its id; the name goes on to it when the first leaves, and at once
// when that one turns out to be its own former self.
func TestNamesakes(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1", "h2")
	f.must(deploy.RulesRaised{Level: 2})
	down := func(h string) {
		f.must(deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: h, Counter: f.Hosts[h].Counter}}})
	}
	names := func(what string, want ...string) {
		t.Helper()
		if got := f.Named("h1"); !slices.Equal(got, want) {
			t.Errorf("%s: %v are called h1, not %v", what, got, want)
		}
		again := deploy.NewState() // what is derived is as after a restart
		b, err := json.Marshal(f.State)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, again); err != nil {
			t.Fatal(err)
		}
		again.Rebuild()
		if got := again.Named("h1"); !slices.Equal(got, want) {
			t.Errorf("%s, restored: %v", what, got)
		}
	}
	f.must(deploy.HostEnrolled{Host: "h9", Name: "h1", Zone: "z"})
	if names("two live", "h1"); f.Names["h1"] != "h1" { // the id of one is the name of both here
		t.Errorf("the newcomer has the name: %v", f.Names)
	}
	f.must(deploy.HostEnrolled{Host: "i1", Name: "web", Zone: "z"})
	f.must(deploy.HostEnrolled{Host: "i2", Name: "web", Zone: "z"})
	f.must(deploy.HostEnrolled{Host: "i3", Name: "web", Zone: "z"})
	if got := f.Named("web"); !slices.Equal(got, []string{"i1", "i2", "i3"}) || f.Names["web"] != "i1" {
		t.Errorf("called web: %v, first %v", got, f.Names)
	}
	f.must(deploy.HostEnrolled{Host: "i2", Name: "other", Zone: "z"})
	if got := f.Named("web"); !slices.Equal(got, []string{"i1", "i3"}) || f.Named("other")[0] != "i2" {
		t.Errorf("after a new name: %v", got)
	}
	// i1 was killed, wiped, and is i3 now: nobody waits for it.
	down("i1")
	gone := deploy.Decide(f.State, deploy.Fleet{Down: []string{"i1"}}, f.Now)
	if !slices.ContainsFunc(gone, func(e deploy.Event) bool {
		left, ok := e.(deploy.HostLeft)
		return ok && left.Host == "i1" && strings.Contains(left.Cause, "replaced by i3")
	}) {
		t.Errorf("the ghost stays: %v", gone)
	}
	f.must(deploy.HostLeft{Host: "i1"})
	if got := f.Named("web"); !slices.Equal(got, []string{"i3"}) || f.Names["web"] != "i3" {
		t.Errorf("the name went to %v", f.Names)
	}
	// The older one of two lives: the younger that is away is no former self of it.
	f.must(deploy.HostEnrolled{Host: "i4", Name: "web", Zone: "z"})
	down("i4")
	for _, e := range deploy.Decide(f.State, deploy.Fleet{Down: []string{"i4"}}, f.Now) {
		if left, ok := e.(deploy.HostLeft); ok {
			t.Errorf("%s is forgotten at once: %s", left.Host, left.Cause)
		}
	}
	// Two that lived side by side are two, whoever of them goes; a permit is waited for,
	// and a cordon is nobody's to lift.
	f.must(deploy.TargetsReported{Items: []deploy.Report{{Host: "i4", Counter: f.Hosts["i4"].Counter + 1}}})
	f.Now += deploy.Time(time.Hour)
	down("i3")
	for _, e := range deploy.Decide(f.State, deploy.Fleet{Down: []string{"i3"}}, f.Now) {
		if left, ok := e.(deploy.HostLeft); ok {
			t.Errorf("%s is forgotten for a namesake of an hour: %s", left.Host, left.Cause)
		}
	}
	f.must(deploy.TargetsReported{Items: []deploy.Report{{Host: "i3", Counter: f.Hosts["i3"].Counter + 1}}})
	f.must(deploy.HostLeft{Host: "i4", Force: true})
	if got := f.Named("web"); !slices.Equal(got, []string{"i3"}) {
		t.Errorf("forgetting one took both: %v", got)
	}
}

// TestADrainGoesOverToTheNextMachine: who is drained to be replaced is replaced by
// somebody who is drained, whether the old one's end was noticed before or not.
func TestADrainGoesOverToTheNextMachine(t *testing.T) {
	for _, noticed := range []bool{true, false} {
		f := newFleet(t, "all-at-once", "h1")
		f.Rules = deploy.RulesKnown
		f.must(deploy.HostEnrolled{Host: "i1", Name: "web", Zone: "z"})
		f.must(deploy.HostDrainSet{Request: deploy.Request{ID: "1", Actor: "ann"}, Host: "i1"})
		f.must(deploy.HostDrained{Host: "i1"})
		down := func() {
			f.must(deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: "i1", Counter: f.Hosts["i1"].Counter}}})
		}
		if noticed {
			down()
		}
		f.must(deploy.HostEnrolled{Host: "i2", Name: "web", Zone: "z"})
		if !noticed {
			down()
			for range 2 { // the old one leaves; then the floor is asked for the new one, which may serve
				for _, e := range deploy.Decide(f.State, deploy.Fleet{Down: []string{"i1"}}, f.Now) {
					f.must(e)
				}
			}
		}
		if f.Hosts["i1"] != nil || !f.Drained("i2") {
			t.Errorf("noticed %v: hosts are %v, the new one is drained: %v", noticed, f.Hosts, f.Drained("i2"))
		}
	}
}

// TestAReportsNumbersAreBounded: after the last number the next is none, and the
// host would never be listened to again.
func TestAReportsNumbersAreBounded(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	before := *f.Target("h1", "www")
	f.must(deploy.TargetsReported{Items: []deploy.Report{
		{Host: "h1", App: "www", Counter: 100, Gen: math.MaxUint64, Result: deploy.ResultDone, Running: "v9"},
		{Host: "h1", App: "www", Counter: math.MaxUint64, Result: deploy.ResultDone, Running: "v9"},
	}})
	if now := f.Target("h1", "www"); now.Gen != before.Gen || now.Counter != before.Counter || now.Running == "v9" {
		t.Errorf("the target is %+v", now)
	}
}

// TestRollbackFindsWhatARetryTouched: a task that waits again after a retry may
// run the bad revision; rolling back takes it along (S6).
func TestRollbackFindsWhatARetryTouched(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1", "h2")
	d := f.create("d1", "v1", "h1", "h2")
	f.settle(d, "h1")
	f.settle(d, "h2")
	f.finish(d)
	d = f.create("d2", "v2", "h1", "h2")
	f.settle(d, "h2")
	f.grant(d, "h1")
	f.must(deploy.TasksEnded{
		Deployment: "d2",
		Items:      []deploy.TaskEnd{{Host: "h1", Status: deploy.TaskLost, Gen: 2, Counter: math.MaxUint64}},
	})
	f.report(deploy.Report{
		Host: "h1", Gen: 2, Result: deploy.ResultDone, Running: "v2", Health: deploy.HealthUnhealthy,
		Staged: []deploy.Digest{"v1", "v2"},
	})
	f.must(deploy.DeploymentPaused{Deployment: "d2"})
	f.act("d2", deploy.VerbRetry)
	f.act("d2", deploy.VerbAbortRollback)
	events := deploy.Decide(f.State, deploy.Fleet{}, f.Now)
	if text := deploy.Describe(events[0]); !strings.Contains(text, "h1→v1") || !strings.Contains(text, "h2→v1") {
		t.Fatalf("decided %s", text)
	}
	f.must(events[0])
	// both are on their way
	f.refused(deploy.DeploymentEnded{Deployment: "d2", Status: deploy.DeploymentStatusRolledBack})
}

// TestARevertThatDoesNotServeIsListed: done, but on the wrong revision or not
// healthy, is no way back.
func TestARevertThatDoesNotServeIsListed(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	d := f.create("d1", "v1", "h1")
	f.settle(d, "h1")
	f.finish(d)
	d = f.create("d2", "v2", "h1")
	f.grant(d, "h1")
	f.act("d2", deploy.VerbAbortRollback)
	f.must(deploy.RollbackStarted{Deployment: "d2", Bad: true, Items: []deploy.RevertGoal{{Host: "h1", Goal: "v1"}}})
	f.report(deploy.Report{
		Host: "h1", Gen: 3, Result: deploy.ResultDone, Running: "v1",
		Health: deploy.HealthUnhealthy,
	})
	if got := d.Tasks["h1"].Status; got != deploy.TaskBroken {
		t.Errorf("the task is %s", got)
	}
}

// TestOldDeploymentsAreOutlines: state does not grow with every deployment
// times every host.
func TestOldDeploymentsAreOutlines(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	for i := range 60 {
		d := f.create(fmt.Sprintf("d%02d", i), []string{"v1", "v2"}[i%2], "h1")
		f.settle(d, "h1")
		f.finish(d)
	}
	full := 0
	for id, d := range f.Deployments {
		if old := id < "d10"; old != (d.Records == nil) || old != (d.Tasks == nil) || old != d.Pruned {
			t.Errorf("%s has %d records and %d tasks", id, len(d.Records), len(d.Tasks))
		}
		full += len(d.Tasks)
	}
	if full != 50 || len(f.Deployments) != 60 {
		t.Errorf("%d of %d deployments are kept whole", full, len(f.Deployments))
	}
	if err := reload(f.State); err != nil {
		t.Error(err)
	}
}

// TestNothingIsDueTwice: after Decide has nothing to say, only later moments
// are worth waking for.
func TestNothingIsDueTwice(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1", "h2")
	d := f.create("d1", "v1", "h1", "h2")
	f.settle(d, "h1")
	f.settle(d, "h2")
	f.must(deploy.BakeStarted{Deployment: "d1", Until: f.Now.Add(time.Minute)})
	if at, _, ok := deploy.NextWake(f.State, f.Now); !ok || at != f.Now.Add(time.Minute) {
		t.Errorf("wakes at %v, %v", at, ok)
	}
	f.report(deploy.Report{Host: "h1", Gen: 1, Result: deploy.ResultDone, Running: "v1"}) // health unknown: no evidence
	late := f.Now.Add(time.Hour)
	if events := deploy.Decide(f.State, deploy.Fleet{}, late); len(events) > 0 {
		t.Fatalf("decided %v", events)
	}
	if at, _, ok := deploy.NextWake(f.State, late); ok {
		t.Errorf("wakes at %v for what no time will change", at)
	}
}

// TestAFactWithoutEffectIsRefused, so that the scheduler does not take it for progress.
func TestAFactWithoutEffectIsRefused(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	f.create("d1", "v1", "h1")
	f.refused(deploy.TasksEnded{Deployment: "d1", Items: []deploy.TaskEnd{{Host: "h1", Status: deploy.TaskLost}}})
	f.refused(deploy.TasksEnded{Deployment: "d1", Items: []deploy.TaskEnd{{Host: "h1", Status: 77}}})
	f.refused(deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: "nobody"}}})
	f.refused(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h1"}})
	f.refused(deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h2"}})
}

// TestHostsWithoutZone: the wave of the hosts that name no zone is not the
// wave of everybody.
func TestHostsWithoutZone(t *testing.T) {
	var hosts []*deploy.Host
	for i, z := range []string{"", "a", "a", "b", "b", "b"} {
		hosts = append(hosts, &deploy.Host{ID: fmt.Sprint("h", i), Name: fmt.Sprint("h", i), Zone: z})
	}
	waves := deploy.Arrange("www", []deploy.WaveSpec{{Name: "zones", Kind: "remainder", ForEachZone: true}}, hosts, nil)
	if len(waves) != 3 || len(waves[0].Hosts) != 1 || len(waves[2].Hosts) != 3 {
		t.Errorf("waves %+v", waves)
	}
}

// TestOneAppWantsTheHostAlone: the host mutex holds if either application says so.
func TestOneAppWantsTheHostAlone(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	shared, _ := deploy.Builtin("all-at-once")
	shared.Capacity.SharedHost = true
	f.must(deploy.GroupDefined{App: "api", Group: "prod", Selector: "true", Config: shared})
	f.must(deploy.TargetsJoined{App: "api", Group: "prod", Hosts: []string{"h1"}})
	f.must(deploy.RevisionRegistered{App: "api", Name: "v1", Digest: "v1"})
	d := f.create("d1", "v1", "h1")
	f.must(deploy.DeploymentCreated{
		ID: "d2", App: "api", Group: "prod", Revision: "v1", Config: shared,
		Waves: []deploy.Wave{{Name: "all", Hosts: []string{"h1"}}},
	})
	f.must(deploy.DeploymentStarted{Deployment: "d2"})
	f.must(deploy.WaveStarted{Deployment: "d2"})
	f.must(deploy.TargetsReported{Items: []deploy.Report{{
		Host: "h1", App: "api", Counter: 50,
		Staged: []deploy.Digest{"v1"},
	}}})
	f.counter = 50
	f.report(deploy.Report{Host: "h1", Staged: []deploy.Digest{"v1"}})
	grants := 0
	for _, e := range deploy.Decide(f.State, deploy.Fleet{}, f.Now) {
		if p, ok := e.(deploy.PermitsGranted); ok {
			grants += len(p.Items)
		}
	}
	if grants != 1 {
		t.Errorf("%d grants on one host at once", grants)
	}
	f.grant(d, "h1")
	f.refused(deploy.PermitsGranted{
		Deployment: "d2", Concurrent: 1,
		Items: []deploy.Grant{{Host: "h1", Gen: 1, Kind: deploy.PermitConditional, Goal: "v1"}},
	})
}

func TestDurationsAreBounded(t *testing.T) {
	for path, change := range map[string]func(*deploy.Config){
		"waves[0].bake.min":  func(c *deploy.Config) { c.Waves[0].BakeMin = math.MaxInt64 },
		"timeouts.task":      func(c *deploy.Config) { c.Timeouts.Task = 0 },
		"timeouts.lostAfter": func(c *deploy.Config) { c.Timeouts.LostAfter = -time.Second },
	} {
		c, _ := deploy.Builtin("all-at-once")
		change(&c)
		if at, err := c.Validate(); err == nil || at != path {
			t.Errorf("%s: %s, %v", path, at, err)
		}
	}
}

// TestProductionAsserts: what production tests of an entry notices a grant that
// breaks the floor which it names.
func TestProductionAsserts(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1", "h2")
	d := f.create("d1", "v1", "h1", "h2")
	f.settle(d, "h1")
	f.settle(d, "h2")
	f.finish(d)
	d = f.create("d2", "v2", "h1", "h2")
	f.report(deploy.Report{
		Host: "h1", Gen: 1, Result: deploy.ResultDone, Running: "v1", Health: deploy.HealthHealthy,
		Staged: []deploy.Digest{"v2"},
	})
	grant := deploy.PermitsGranted{
		Deployment: d.ID, Concurrent: 2, Floors: []deploy.Floor{{Min: 1}},
		Items: []deploy.Grant{{Host: "h1", Gen: 2, Kind: deploy.PermitNormal, Goal: "v2"}},
	}
	kept, broken := deploy.Assert(f.State, grant), grant
	broken.Floors = []deploy.Floor{{Min: 2}}
	violated := deploy.Assert(f.State, broken)
	var seen []error
	f.Violated = func(err error) { seen = append(seen, err) }
	f.must(grant)
	if err := kept(); err != nil || len(seen) > 0 {
		t.Errorf("a grant that keeps the floor: %v, %v", err, seen)
	}
	if err := violated(); err == nil || !strings.Contains(err.Error(), "I1") {
		t.Errorf("a grant below the floor: %v", err)
	}
}

// TestOldSnapshotsKeepTheirBakes: a wave that baked under the version before
// bakes on for what was left.
func TestOldSnapshotsKeepTheirBakes(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	d := f.create("d1", "v1", "h1")
	d.Waves[0].BakeMin = time.Hour
	f.settle(d, "h1")
	f.must(deploy.BakeStarted{Deployment: d.ID, Until: f.Now.Add(time.Hour)})
	d.Waves[0].BakeSince = 0 // as it was written then
	f.Rebuild()
	if got := deploy.Decide(f.State, deploy.Fleet{}, f.Now.Add(59*time.Minute)); len(got) > 0 {
		t.Errorf("after 59 minutes of an hour: %s", deploy.Describe(got[0]))
	}
	if got := deploy.Decide(f.State, deploy.Fleet{}, f.Now.Add(time.Hour)); len(got) == 0 {
		t.Error("after the hour nothing follows")
	}
}

// TestABadRevisionIsAskedForInEveryGroup: what failed and went back in one group
// of an application needs force in another too; a forced success lifts the mark.
func TestABadRevisionIsAskedForInEveryGroup(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1")
	d := f.create("d1", "v1", "h1")
	f.settle(d, "h1")
	f.finish(d)
	bad := f.create("d2", "v2", "h1")
	f.settle(bad, "h1")
	f.must(deploy.RollbackStarted{Deployment: "d2", Bad: true, Items: []deploy.RevertGoal{{Host: "h1", Goal: "v1"}}})
	g := f.Groups["www/prod"]
	f.must(deploy.GroupDefined{App: "www", Group: "other", Selector: "false", Config: g.Config})
	f.must(deploy.HostEnrolled{Host: "x1", Name: "x1", Zone: "z"})
	f.must(deploy.TargetsJoined{App: "www", Group: "other", Hosts: []string{"x1"}})
	e := deploy.DeploymentCreated{
		ID: "d3", App: "www", Group: "other", Revision: "v2", RevName: "v2", Config: g.Config,
		Waves: []deploy.Wave{{
			Name: g.Config.Waves[0].Name, Hosts: []string{"x1"},
			Share: g.Config.Waves[0].FailureBudget,
		}},
	}
	f.refused(e)
	e.Force = true
	f.must(e)
}
