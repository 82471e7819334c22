package traffic_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/coordinator/haproxy"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/haproxytest"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// serving is a world before whose host a balancer stands and an application serves.
func serving(t *testing.T) (*world, *haproxytest.Balancer) {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(app.Close)
	b := haproxytest.New(t)
	b.Serve("web-1 " + app.Listener.Addr().String())
	return newWorld(t, b.API), b
}

func (w *world) moves(host, app string, allow bool) {
	w.Helper()
	said, err := w.serve(host, &agentv1.TrafficRequest{App: app, Generation: 1, Allow: allow})
	if err != nil || len(said) == 0 || !said[len(said)-1].Done {
		w.Fatalf("%s of %s, allow %v: %v, %v", host, app, allow, said, err)
	}
}

func (w *world) permit(host, app string) {
	t := w.s.Target(host, app)
	t.Gen, t.Open, t.Permit = 1, true, deploy.PermitNormal
}

func comesBack(t *testing.T, w *world, b *haproxytest.Balancer) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); b.Ready() != 1 ||
		len(w.s.Outages) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d ready, outages %+v", b.Ready(), w.s.Outages)
		}
	}
}

// A machine burns while it is out. The next one of its name is put back as the first
// one was found, and not as we left it.
func TestWhoeverGoesByThatName(t *testing.T) {
	w, b := serving(t)
	w.moves("h1", "www", false)
	w.apply(
		deploy.HostLeft{Host: "h1", Force: true},
		deploy.HostEnrolled{Host: "h9", Name: "web-1", Zone: "a"},
		deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h9"}},
	)
	w.permit("h9", "www")
	w.moves("h9", "www", false)
	w.moves("h9", "www", true)
	comesBack(t, w, b)
}

// Two applications of a host stand behind one server: it is back when both are.
func TestTwoApplicationsOfOneServer(t *testing.T) {
	w, b := serving(t)
	w.apply(
		deploy.GroupDefined{
			App: "side", Group: "prod", Artifacts: "file:///x",
			Traffic: w.s.Groups["www/prod"].Traffic,
		},
		deploy.TargetsJoined{App: "side", Group: "prod", Hosts: []string{"h1"}},
	)
	w.permit("h1", "side")
	w.moves("h1", "www", false)
	w.moves("h1", "side", false)
	w.moves("h1", "www", true)
	w.svc.Assert(t.Context())
	if b.Ready() > 0 {
		t.Error("it is back while the other application is being stopped")
	}
	w.moves("h1", "side", true)
	comesBack(t, w, b)
}

// Who has another host's name does not move its server, and a replica that has not
// read of a generation yet is not the last word about it.
func TestNameAndTime(t *testing.T) {
	w, _ := serving(t)
	_, err := w.serve("h1", &agentv1.TrafficRequest{Generation: 2})
	if !passing(err) {
		t.Errorf("a generation that is not read yet: %v", err)
	}
	w.s.Rules = 2 // from which on two may have one name
	w.apply(
		deploy.HostEnrolled{Host: "h7", Name: "web-1", Zone: "a"},
		deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h7"}},
	)
	w.permit("h7", "www")
	var refused *deploy.Refusal
	if _, err := w.serve("h7", &agentv1.TrafficRequest{Generation: 1}); !errors.As(err, &refused) ||
		!strings.Contains(err.Error(), "hosts are called web-1") || len(w.sets) > 0 {
		t.Errorf("a namesake: %v, %v", err, w.sets)
	}
	w.moves("h1", "www", false) // which is no reason for the first of the name to stay
}

// What a call that came late has set is set right: an outage that is being ended is no
// reason to leave a server as it is.
func TestALateCall(t *testing.T) {
	w, b := serving(t)
	w.moves("h1", "www", false)
	w.apply(deploy.TrafficSet{Host: "h1", App: "www", Pool: w.s.Outages[0].Pool, Stage: deploy.TrafficAllowed})
	late, err := haproxy.New("edge", []string{b.API})
	if err != nil {
		t.Fatal(err)
	}
	if err := late.Close(t.Context(), haproxy.Server{Backend: "www", Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); len(w.s.Outages) > 0; time.Sleep(20 * time.Millisecond) {
		w.svc.Assert(t.Context())
		if time.Now().After(end) {
			t.Fatalf("outages %+v", w.s.Outages)
		}
	}
	comesBack(t, w, b)
}

// One of two balancers is away when the host comes back: it serves by the other, and
// the outage is ended when that one has been told too.
func TestABalancerIsAway(t *testing.T) {
	_, b := serving(t)
	gone := haproxytest.New(t)
	gone.Serve("web-1 127.0.0.1:1")
	both := newWorld(t, b.API, gone.API)
	both.moves("h1", "www", false)
	gone.Kill()
	both.moves("h1", "www", true)
	if b.Ready() != 1 || len(both.s.Outages) != 1 || !both.s.Outages[0].Allowed {
		t.Errorf("%d ready, outages %+v", b.Ready(), both.s.Outages)
	}
	gone.Begin()
}
