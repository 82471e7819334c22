package deploy_test

import (
	"testing"

	"github.com/groundswell/groundswell/deploy"
)

// TestAnOldAnswerEndsNoDrain: a host counts again once it says so of the very word that
// called it back; what it said before may still be under way.
func TestAnOldAnswerEndsNoDrain(t *testing.T) {
	f := newFleet(t, "all-at-once", "h1", "h2")
	f.Rules = deploy.RulesKnown
	d := f.create("d1", "v1", "h1", "h2")
	f.settle(d, "h1")
	f.settle(d, "h2")
	f.finish(d)
	set := func(id string, undo bool) {
		f.must(deploy.HostDrainSet{Request: deploy.Request{ID: id, Actor: "ann"}, Host: "h1", Undo: undo})
	}
	target := func() *deploy.Target { return f.Target("h1", "www") }
	says := func(out deploy.Out, key uint64) {
		r := deploy.Report{
			Host: "h1", App: "www", Counter: target().Counter + 1, Gen: target().Gen, Result: deploy.ResultNone,
			Running: target().Running, Health: deploy.HealthHealthy, Out: out, OutKey: key,
		}
		f.must(deploy.TargetsReported{Items: []deploy.Report{r}})
	}
	was := target().OutKey
	set("1", false)
	f.must(deploy.HostDrained{Host: "h1"})
	out := target().OutKey
	if says(deploy.OutNone, was); target().Out != deploy.OutMoving || out == was {
		t.Errorf("drained, and an older report came: %+v", target())
	}
	if says(deploy.OutDone, out); target().Out != deploy.OutDone || target().Serving() {
		t.Errorf("out: %+v", target())
	}
	set("2", true)
	if target().Serving() || target().OutKey == out {
		t.Errorf("called back, it counts at once: %+v", target())
	}
	for _, key := range []uint64{was, out} {
		if says(deploy.OutNone, key); target().Serving() {
			t.Errorf("an answer to word %d counts for %d: %+v", key, target().OutKey, target())
		}
	}
	if says(deploy.OutNone, target().OutKey); !target().Serving() {
		t.Errorf("back: %+v", target())
	}
}

// drainFleet is a fleet of hosts that run v1 under the newest rules and a floor of half.
func drainFleet(t *testing.T, hosts ...string) *fleet {
	t.Helper()
	f := newFleet(t, "all-at-once", hosts...)
	f.Rules = deploy.RulesKnown
	c := f.Groups["www/prod"].Config
	c.Capacity.MinHealthy = deploy.Percent(50)
	f.must(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c})
	d := f.create("d1", "v1", hosts...)
	for _, h := range hosts {
		f.settle(d, h)
	}
	f.finish(d)
	return f
}

func (f *fleet) health(host string, h deploy.Health) {
	t := f.Target(host, "www")
	f.must(deploy.TargetsReported{Items: []deploy.Report{{
		Host: host, App: "www", Counter: t.Counter + 1, Gen: t.Gen, Running: t.Running, Health: h,
	}}})
}

// TestADrainKeepsTheFloorWhoeverIsIll: drains that wait are not granted because nobody
// serves for a moment: all would be well again, and all drained.
func TestADrainKeepsTheFloorWhoeverIsIll(t *testing.T) {
	hosts := []string{"h1", "h2", "h3", "h4"}
	f := drainFleet(t, hosts...)
	for _, h := range hosts {
		f.must(deploy.HostDrainSet{Request: deploy.Request{ID: h, Actor: "ann"}, Host: h})
	}
	decide := func() {
		for range 10 {
			for _, e := range deploy.Decide(f.State, deploy.Fleet{}, f.Now) {
				f.must(e)
			}
		}
	}
	decide()
	for _, h := range hosts {
		f.health(h, deploy.HealthUnhealthy)
	}
	decide()
	for _, h := range hosts {
		f.health(h, deploy.HealthHealthy)
	}
	decide()
	if u := f.Groups["www/prod"].Usage(""); u.Serving != 2 {
		t.Errorf("%d of 4 serve, the floor is 2", u.Serving)
	}
}

// TestAHostOnItsWayBackGetsWork: what it needs to come back may be a deployment. It takes
// nothing away, for it does not count.
func TestAHostOnItsWayBackGetsWork(t *testing.T) {
	f := drainFleet(t, "h1", "h2")
	f.must(deploy.HostDrainSet{Request: deploy.Request{ID: "1", Actor: "ann"}, Host: "h1"})
	f.must(deploy.HostDrained{Host: "h1"})
	f.must(deploy.HostDrainSet{Request: deploy.Request{ID: "2", Actor: "ann"}, Host: "h1", Undo: true})
	if x := f.Target("h1", "www"); x.Serving() || x.Quarantined {
		t.Errorf("on its way back: %+v", x)
	}
	x := f.Target("h1", "www")
	f.must(deploy.TargetsReported{Items: []deploy.Report{{
		Host: "h1", App: "www", Counter: x.Counter + 1, Gen: x.Gen, Running: "v1", Health: deploy.HealthHealthy,
		Staged: []deploy.Digest{"v1", "v2"}, Out: deploy.OutMoving, OutKey: x.OutKey,
	}}})
	f.create("d2", "v2", "h1", "h2")
	for range 5 {
		for _, e := range deploy.Decide(f.State, deploy.Fleet{}, f.Now) {
			f.must(e)
		}
	}
	if f.Target("h1", "www").Permit != deploy.PermitNormal {
		t.Errorf("its permit is %v", f.Target("h1", "www").Permit)
	}
}

// TestWhoComesBackToItsGroupOutOfItsPools does not serve before its agent says that it is
// in them.
func TestWhoComesBackToItsGroupOutOfItsPools(t *testing.T) {
	f := drainFleet(t, "h1", "h2")
	f.must(deploy.HostDrainSet{Request: deploy.Request{ID: "1", Actor: "ann"}, Host: "h1"})
	f.must(deploy.HostDrained{Host: "h1"})
	key := f.Target("h1", "www").OutKey
	f.must(deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h1"}})
	f.must(deploy.HostDrainSet{Request: deploy.Request{ID: "2", Actor: "ann"}, Host: "h1", Undo: true})
	f.must(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h1"}})
	says := func(out deploy.Out, key uint64) bool {
		x := f.Target("h1", "www")
		f.must(deploy.TargetsReported{Items: []deploy.Report{{
			Host: "h1", App: "www", Counter: f.Hosts["h1"].Counter + 1, Gen: x.Gen, Running: "v1",
			Health: deploy.HealthHealthy, Out: out, OutKey: key,
		}}})
		return f.Target("h1", "www").Serving()
	}
	if says(deploy.OutDone, key) {
		t.Error("its agent says that it is out of its pools, and it counts as serving")
	}
	if !says(deploy.OutNone, 0) {
		t.Error("it is back, and does not count")
	}
}
