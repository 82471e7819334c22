package traffic_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/haproxytest"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// drained is a world whose host h2, called web-2, is drained and out of its pool.
func drained(t *testing.T) (*world, *haproxytest.Balancer, *agentv1.Pool) {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(app.Close)
	b := haproxytest.New(t)
	b.Serve("web-1 "+app.Listener.Addr().String(), "web-2 "+app.Listener.Addr().String())
	w := newWorld(t, b.API)
	w.s.Rules = deploy.RulesKnown
	w.wish(false)
	w.apply(deploy.HostDrained{Host: "h2"})
	pool := &agentv1.Pool{Kind: "haproxy", Balancers: "edge", Backend: "www", Server: "web-2"}
	if _, err := w.serve("h2", &agentv1.TrafficRequest{Pool: pool}); err != nil {
		t.Fatal(err)
	}
	w.ready(b, 1)
	return w, b, pool
}

// wish drains h2, or ends that.
func (w *world) wish(undo bool) {
	w.Helper()
	w.apply(deploy.HostDrainSet{
		Request: deploy.Request{ID: map[bool]string{true: "undo", false: "do"}[undo]},
		Host:    "h2", Undo: undo,
	})
}

// ready lets the leader look until so many servers are ready, and once more.
func (w *world) ready(b *haproxytest.Balancer, want int) {
	w.Helper()
	for end := time.Now().Add(10 * time.Second); b.Ready() != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("%d servers are ready, want %d; outages %+v", b.Ready(), want, w.s.Outages)
		}
		w.svc.Assert(w.Context())
	}
	w.svc.Assert(w.Context())
	if n := b.Ready(); n != want {
		w.Errorf("after one more look %d servers are ready, want %d", n, want)
	}
}

// Whoever is drained stays out whatever its agent asks for, whatever it is called and
// whatever pools its group has, until a person calls it back.
func TestADrainedHostStaysOutOfItsPool(t *testing.T) {
	for what, change := range map[string]func(*world){
		"renamed":           func(w *world) { w.apply(deploy.HostEnrolled{Host: "h2", Name: "web-9", Zone: "a"}) },
		"its pools changed": func(w *world) { w.s.Groups["www/prod"].Traffic = nil },
		"it is in no group": func(w *world) {
			w.apply(deploy.TargetsLeft{
				App: "www", Group: "prod",
				Hosts: []string{"h2"},
			})
		},
		"its agent comes back": func(*world) {},
	} {
		t.Run(what, func(t *testing.T) {
			w, b, pool := drained(t)
			change(w)
			if _, err := w.serve("h2", &agentv1.TrafficRequest{Pool: pool, Allow: true}); err == nil ||
				!strings.Contains(err.Error(), "drained") {
				t.Errorf("asked to be let in: %v", err)
			}
			w.ready(b, 1)
		})
	}
}

// Nobody asks for the way back of who left its group meanwhile: the leader puts it back
// once a person has called it back.
func TestWhoLeftWhileDrainedComesBack(t *testing.T) {
	for what, leave := range map[string]deploy.Event{
		"by its selector": deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h2"}},
		"with its group":  deploy.GroupDeleted{App: "www", Group: "prod"},
	} {
		t.Run(what, func(t *testing.T) {
			w, b, _ := drained(t)
			h1 := w.s.Target("h1", "www")
			h1.Open, h1.Permit = false, deploy.PermitNone
			w.apply(leave)
			w.wish(true)
			w.ready(b, 2)
		})
	}
}
