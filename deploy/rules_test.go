package deploy_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// Single rules that the models and simulations meet only now and then.

// serving is a fleet that runs v1 everywhere, sealed.
func serving(t *testing.T, hosts ...string) *fleet {
	t.Helper()
	f := newFleet(t, "all-at-once", hosts...)
	d := f.create("d1", "v1", hosts...)
	for _, h := range hosts {
		f.settle(d, h)
	}
	f.finish(d)
	for _, h := range hosts {
		f.report(deploy.Report{
			Host: h, Gen: 1, Result: deploy.ResultDone, Running: "v1", Health: deploy.HealthHealthy,
			Staged: []deploy.Digest{"v1", "v2"},
		})
	}
	return f
}

func permit(d string, floor int, items ...deploy.Grant) deploy.PermitsGranted {
	return deploy.PermitsGranted{Deployment: d, Concurrent: 100, Floors: []deploy.Floor{{Min: floor}}, Items: items}
}

// TestAGrantFitsTheStateItMeets: generation, kind and floor are tested as the
// fact is applied, whatever it was decided on.
func TestAGrantFitsTheStateItMeets(t *testing.T) {
	f := serving(t, "h1", "h2")
	f.create("d2", "v2", "h1", "h2")
	one := deploy.Grant{Host: "h1", Gen: 2, Kind: deploy.PermitNormal, Goal: "v2"}
	for _, gen := range []uint64{0, 1, 3} {
		wrong := one
		wrong.Gen = gen
		f.refused(permit("d2", 1, wrong))
	}
	f.refused(permit("d2", 2, one))
	f.must(permit("d2", 1, one))
	f.refused(permit("d2", 1, deploy.Grant{Host: "h2", Gen: 2, Kind: deploy.PermitNormal, Goal: "v2"}))
}

// TestAFreezeHoldsGrantsButNoWayBack is I8.
func TestAFreezeHoldsGrantsButNoWayBack(t *testing.T) {
	f := serving(t, "h1", "h2")
	d := f.create("d2", "v2", "h1", "h2")
	f.settle(d, "h1")
	f.report(deploy.Report{
		Host: "h1", Gen: 2, Result: deploy.ResultDone, Running: "v2", Health: deploy.HealthHealthy,
		Staged: []deploy.Digest{"v1", "v2"},
	})
	f.must(deploy.FreezeSet{Request: deploy.Request{ID: "f", Actor: "ann"}})
	f.refused(permit("d2", 0, deploy.Grant{Host: "h2", Gen: 2, Kind: deploy.PermitNormal, Goal: "v2"}))
	f.act("d2", deploy.VerbAbortRollback)
	f.must(deploy.RollbackStarted{Deployment: "d2", Bad: true, Items: []deploy.RevertGoal{{Host: "h1", Goal: "v1"}}})
	f.must(permit("d2", 0, deploy.Grant{Host: "h1", Gen: 3, Kind: deploy.PermitNormal, Goal: "v1"}))
}

// TestAFreezeEndsByAFact: its time being over ends no freeze, FreezesEnded does,
// and only those whose time is over; the same log gives the same grants.
func TestAFreezeEndsByAFact(t *testing.T) {
	f := serving(t, "h1", "h2")
	f.create("d2", "v2", "h1", "h2")
	set := func(app string, d time.Duration) deploy.FreezeSet {
		return deploy.FreezeSet{Request: deploy.Request{Actor: "ann", Reason: "fair"}, App: app, For: d}
	}
	f.refused(set("", -time.Second))
	f.refused(set("", deploy.FreezeMax+1))
	f.refused(deploy.FreezesEnded{})
	f.must(set("www", time.Hour))
	f.must(set("db", 2*time.Hour))
	f.must(set("cache", 0))
	begun := f.Now
	if at, _, ok := deploy.NextWake(f.State, begun); !ok || at > begun.Add(time.Hour) {
		t.Errorf("the leader wakes at %v, not when the first freeze ends", at)
	}
	ends := func(at deploy.Time) bool {
		return slices.Contains(deploy.Decide(f.State, deploy.Fleet{}, at), deploy.Event(deploy.FreezesEnded{}))
	}
	if ends(begun.Add(time.Hour-1)) || !ends(begun.Add(time.Hour)) {
		t.Error("the leader does not end the freeze when its time is over")
	}
	grant := permit("d2", 0, deploy.Grant{Host: "h1", Gen: 2, Kind: deploy.PermitNormal, Goal: "v2"})
	f.Now = begun.Add(90 * time.Minute)
	f.refused(grant) // the fact is missing
	f.must(deploy.FreezesEnded{})
	if len(f.Freezes) != 2 || f.Freezes[0].App != "db" || f.Freezes[1].App != "cache" {
		t.Errorf("left are %+v", f.Freezes)
	}
	f.must(set("db", 0)) // frozen again without an end
	f.Now = begun.Add(9 * time.Hour)
	f.refused(deploy.FreezesEnded{})
}

// TestARollbackRevokesWhatContainsIt is R6: a later revision goes too, and both
// are bad.
func TestARollbackRevokesWhatContainsIt(t *testing.T) {
	f := serving(t, "h1", "h2")
	f.must(deploy.RevisionRegistered{App: "www", Name: "v3", Digest: "v3"})
	f.settle(f.create("d2", "v2", "h1", "h2"), "h1")
	c := f.Groups["www/prod"].Config
	next := deploy.DeploymentCreated{
		ID: "d3", App: "www", Group: "prod", Revision: "v3", RevName: "v3", Config: c,
		Layout: f.Groups["www/prod"].Layout.Version, Waves: []deploy.Wave{{Name: "all"}},
	}
	f.must(next)
	f.act("d2", deploy.VerbAbortRollback)
	for _, e := range deploy.Decide(f.State, deploy.Fleet{}, f.Now) {
		f.must(e)
	}
	if f.Deployments["d3"].Status != deploy.DeploymentStatusCancelled {
		t.Errorf("v3, which contains v2, is %s", f.Deployments["d3"].Status)
	}
	for _, e := range deploy.Decide(f.State, deploy.Fleet{}, f.Now) {
		f.must(e)
	}
	next.ID = "d4"
	f.refused(next)
	next.Force = true
	f.must(next)
}

// TestAFailoverForgetsNothing: a replica restored from a snapshot keeps the bake
// deadline and the failures (S12).
func TestAFailoverForgetsNothing(t *testing.T) {
	f := serving(t, "h1", "h2")
	d := f.create("d2", "v2", "h1", "h2")
	f.settle(d, "h1")
	f.grant(d, "h2")
	f.report(deploy.Report{
		Host: "h2", Gen: 2, Result: deploy.ResultFailed, Running: "v1",
		Health: deploy.HealthHealthy,
	})
	d.Waves[0].Budget, d.Waves[0].BakeMin = 1, time.Hour
	f.must(deploy.BakeStarted{Deployment: "d2", Until: f.Now.Add(time.Hour)})
	text, err := json.Marshal(f.State)
	if err != nil {
		t.Fatal(err)
	}
	var back deploy.State
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	back.Rebuild()
	if got := back.Deployments["d2"].Failures; got != 1 {
		t.Errorf("%d failures are known after a failover, there was 1", got)
	}
	if at, _, ok := deploy.NextWake(&back, back.Now); !ok || at != back.Now.Add(time.Hour) {
		t.Errorf("wakes at %v, %v, the bake ends in an hour", at, ok)
	}
	if errs := back.ApplyEntry(back.Index+1, deploy.Entry{
		At:     back.Now,
		Events: []deploy.Event{deploy.WaveSealed{Deployment: "d2"}},
	}); errs[0] == nil {
		t.Error("the wave was sealed before its bake was over")
	}
}

// TestFourEyes: who asks does not approve, and nobody approves twice.
func TestFourEyes(t *testing.T) {
	f := serving(t, "h1")
	c := f.Groups["www/prod"].Config
	c.Gates = []deploy.Gate{{Name: "go", Approval: &deploy.ApprovalGate{Count: 2}}}
	c.PreGates = []string{"go"}
	f.must(deploy.DeploymentCreated{
		Request: deploy.Request{ID: "r", Actor: "ann"}, ID: "d2", App: "www", Group: "prod", Revision: "v2", Config: c,
		Waves: []deploy.Wave{{Name: "all", Hosts: []string{"h1"}}},
	})
	say := func(actor string) deploy.Event {
		return deploy.RequestMade{Request: deploy.Request{Actor: actor}, Deployment: "d2", Verb: deploy.VerbApprove}
	}
	f.refused(say("ann"))
	f.must(say("bob"))
	f.refused(say("bob"))
	as := func(actor, person string) deploy.Event {
		return deploy.RequestMade{
			Request: deploy.Request{Actor: actor, Person: person}, Deployment: "d2", Verb: deploy.VerbApprove,
		}
	}
	f.refused(as("puppet", "ann")) // whom the requester made
	f.refused(as("sock", "bob"))   // one approver's second name
	f.must(say("cyd"))
}

// TestAFailureBeforeAWaveIsNotSkipped: a permit that outlived a retry fails while
// its wave waits; the wave is entered and fails, it is not passed over.
func TestAFailureBeforeAWaveIsNotSkipped(t *testing.T) {
	f := serving(t, "h1")
	d := f.create("d2", "v2", "h1")
	f.grant(d, "h1")
	d.Waves[0].Status = deploy.WaveStatusPending
	f.report(deploy.Report{
		Host: "h1", Gen: 2, Result: deploy.ResultFailed, Running: "v1",
		Health: deploy.HealthHealthy,
	})
	f.refused(deploy.WaveSkipped{Deployment: "d2"})
	for _, e := range deploy.Decide(f.State, deploy.Fleet{}, f.Now) {
		f.must(e)
	}
	if st := d.Waves[0].Status; st == deploy.WaveStatusSkipped || st == deploy.WaveStatusHeld {
		t.Errorf("a wave with a failure is %s, as if nobody in it could act", st)
	}
}

// TestAnOpenGenerationDoesNotServe: a host that works on a generation which a
// restored log does not know was healthy once, and is not counted.
func TestAnOpenGenerationDoesNotServe(t *testing.T) {
	f := serving(t, "h1", "h2")
	f.report(deploy.Report{Host: "h1", Gen: 7, Running: "v1", Health: deploy.HealthHealthy})
	if f.Target("h1", "www").Serving() || f.Groups["www/prod"].Usage("").Serving != 1 {
		t.Error("a target with an open generation counts as serving")
	}
}

// TestWhoIsInTheWay: whoever waits in the queue of a group knows for whom, by the
// limit of what is in flight, by a wave, or because the one before halts.
func TestWhoIsInTheWay(t *testing.T) {
	f := serving(t, "h1", "h2")
	f.must(deploy.RevisionRegistered{App: "www", Name: "v3", Digest: "v3"})
	d2 := f.create("d2", "v2", "h1", "h2")
	c := f.Groups["www/prod"].Config
	c.InFlight.Max = 1
	f.must(deploy.DeploymentCreated{
		ID: "d3", App: "www", Group: "prod", Revision: "v3", RevName: "v3", Config: c,
		Waves: []deploy.Wave{{Name: "all", Hosts: []string{"h1", "h2"}}}, Layout: f.Groups["www/prod"].Layout.Version,
	})
	d3 := f.Deployments["d3"]
	if got := f.Behind(d3); got != d2 || f.Behind(d2) != nil {
		t.Errorf("d3 is behind %v, d2 behind %v", got, f.Behind(d2))
	}
	if got := deploy.Holds(f.State, d3, f.Now); len(got) != 1 ||
		!strings.Contains(got[0], "v2 (d2), which is running") {
		t.Errorf("it waits for %q", got)
	}
	d3.Config.InFlight.Max = 2
	f.act("d2", deploy.VerbPause)
	if got := f.Behind(d3); got != d2 {
		t.Errorf("d2 halts, and d3 is behind %v", got)
	}
}
