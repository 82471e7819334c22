package deploy_test

import (
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// What a pool said first counts until the host is back in it, whoever asks how often;
// an outage outlives that the host leaves its group, and ends with the host.
func TestOutages(t *testing.T) {
	s := deploy.NewState()
	apply := func(want bool, e deploy.Event) {
		t.Helper()
		s.Index++
		if err := s.Apply(e); (err == nil) != want {
			t.Fatalf("%T: %v", e, err)
		}
	}
	pool := deploy.Pool{Kind: deploy.PoolHAProxy, Balancers: "edge", Backend: "{{.App}}-{{.Zone}}", Server: "{{.Host}}"}
	apply(true, deploy.GroupDefined{
		App: "www", Group: "prod", Selector: "all", Artifacts: "file:///x",
		Traffic: &deploy.Traffic{Pools: []deploy.Pool{pool}, Drain: time.Second},
	})
	for _, h := range []string{"h1", "h2"} {
		apply(true, deploy.HostEnrolled{Host: h, Name: "web-" + h, Zone: "a"})
	}
	apply(true, deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h1"}})
	is := s.TrafficOf(s.Target("h1", "www")).Pools[0]
	if is.Backend != "www-a" || is.Server != "web-h1" || s.Groups["www/prod"].Traffic.Pools[0] != pool {
		t.Errorf("rendered %+v", is)
	}
	set := func(host string, stage deploy.TrafficStage, found ...string) deploy.TrafficSet {
		return deploy.TrafficSet{Host: host, App: "www", Pool: is, Stage: stage, Found: found}
	}
	apply(false, set("h2", deploy.TrafficBlocked, "ready")) // no target
	apply(false, set("h1", 0))
	apply(true, set("h1", deploy.TrafficRestored)) // it was in it
	apply(true, set("h1", deploy.TrafficBlocked, "maint"))
	apply(true, set("h1", deploy.TrafficAllowed))
	if o := s.Outage("h1", "www", is); o == nil || !o.Allowed {
		t.Errorf("being put back: %+v", o)
	}
	apply(true, set("h1", deploy.TrafficBlocked, "drain")) // by us
	if o := s.Outage("h1", "www", is); o == nil || o.Allowed || len(o.Found) != 1 || o.Found[0] != "maint" {
		t.Errorf("out again: %+v", o)
	}
	apply(true, deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h1"}})
	apply(true, set("h1", deploy.TrafficAllowed))
	if s.Outage("h1", "www", is) == nil {
		t.Error("forgotten, and nobody puts it back")
	}
	// The machine burns while it is out; the next of its name is put back as the first was
	// found, not as we left it.
	apply(true, deploy.HostLeft{Host: "h1", Force: true})
	apply(true, deploy.HostEnrolled{Host: "h9", Name: "web-h1", Zone: "a"})
	apply(true, deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h9"}})
	apply(true, set("h9", deploy.TrafficBlocked, "maint, by us"))
	if len(s.Outages) != 1 || s.Outages[0].Host != "h9" || s.Outages[0].Found[0] != "maint" {
		t.Errorf("inherited: %+v", s.Outages)
	}
}
