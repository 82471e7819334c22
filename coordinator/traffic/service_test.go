package traffic_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/coordinator/haproxy"
	"github.com/groundswell/groundswell/coordinator/traffic"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/haproxytest"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// world is a state with two hosts, of which h1 holds a permit of generation 1.
type world struct {
	*testing.T
	s    *deploy.State
	sets []deploy.TrafficSet
	svc  *traffic.Service
	pool *agentv1.Pool
}

func newWorld(t *testing.T, addresses ...string) *world {
	t.Helper()
	w := &world{T: t, s: deploy.NewState(), pool: &agentv1.Pool{
		Kind: "haproxy", Balancers: "edge", Backend: "www", Server: "web-1",
	}}
	pools := []deploy.Pool{
		{Kind: "haproxy", Balancers: "edge", Backend: "www", Server: "{{.Host}}"},
		{Kind: "haproxy", Balancers: "attic", Backend: "www", Server: "{{.Host}}"},
		{Kind: "file", Path: "/run/x"},
	}
	w.apply(
		deploy.GroupDefined{
			App: "www", Group: "prod", Artifacts: "file:///x",
			Traffic: &deploy.Traffic{Pools: pools, Drain: time.Second, Admit: time.Second},
		},
		deploy.HostEnrolled{Host: "h1", Name: "web-1", Zone: "a"},
		deploy.HostEnrolled{Host: "h2", Name: "web-2", Zone: "a"},
		deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{"h1", "h2"}},
	)
	h1 := w.s.Target("h1", "www")
	h1.Gen, h1.Open, h1.Permit = 1, true, deploy.PermitNormal
	balancers := map[string]*haproxy.Balancers{}
	if len(addresses) > 0 {
		b, err := haproxy.New("edge", addresses)
		if err != nil {
			t.Fatal(err)
		}
		balancers["edge"] = b
	}
	w.svc = traffic.New(traffic.Options{
		View: func(f func(*deploy.State)) { f(w.s) }, HAProxy: balancers, Log: slog.New(slog.DiscardHandler),
		Propose: func(_ context.Context, e deploy.Event) error {
			w.sets = append(w.sets, e.(deploy.TrafficSet))
			return w.s.Apply(e)
		},
	})
	return w
}

func (w *world) apply(all ...deploy.Event) {
	w.Helper()
	for _, e := range all {
		w.s.Index++
		if err := w.s.Apply(e); err != nil {
			w.Fatal(err)
		}
	}
}

func (w *world) serve(host string, r *agentv1.TrafficRequest) (said []*agentv1.TrafficProgress, err error) {
	if r.Pool == nil {
		r.Pool = w.pool
	}
	if r.App == "" {
		r.App = "www"
	}
	err = w.svc.Serve(w.Context(), host, r, func(p *agentv1.TrafficProgress) error {
		said = append(said, p)
		return nil
	})
	return said, err
}

// A host moves itself alone, out while it has a permit and back when it was out; what
// is refused is in no log.
func TestWhoMayMoveWhom(t *testing.T) {
	w := newWorld(t)
	other := &agentv1.Pool{Kind: "haproxy", Balancers: "edge", Backend: "www", Server: "web-2"}
	for what, c := range map[string]struct {
		host string
		r    *agentv1.TrafficRequest
		kind deploy.RefusalKind // "" is what another coordinator may answer otherwise
	}{
		"another host's server": {"h1", &agentv1.TrafficRequest{Generation: 1, Pool: other}, deploy.NotFound},
		"back, another host's server": {
			"h1", &agentv1.TrafficRequest{Generation: 1, Pool: other, Allow: true},
			deploy.NotFound,
		},
		"another application":         {"h1", &agentv1.TrafficRequest{Generation: 1, App: "shop"}, deploy.NotFound},
		"a former generation":         {"h1", &agentv1.TrafficRequest{Generation: 0}, deploy.Conflict},
		"a generation nobody granted": {"h1", &agentv1.TrafficRequest{Generation: 2}, ""},
		"out without a permit":        {"h2", &agentv1.TrafficRequest{Generation: 0, Pool: other}, deploy.Conflict},
		"a host that is no target":    {"h3", &agentv1.TrafficRequest{Generation: 1}, deploy.NotFound},
		"nothing": {
			"h1", &agentv1.TrafficRequest{Generation: 1, Pool: &agentv1.Pool{}},
			deploy.NotFound,
		},
		"a pool that the host drives": {
			"h1",
			&agentv1.TrafficRequest{Generation: 1, Pool: &agentv1.Pool{Kind: "file", Path: "/run/x"}}, deploy.Invalid,
		},
		"balancers that nobody has": {
			"h1",
			&agentv1.TrafficRequest{
				Generation: 1,
				Pool:       &agentv1.Pool{Kind: "haproxy", Balancers: "attic", Backend: "www", Server: "web-1"},
			}, "",
		},
		"a server that another is told": {
			"h1",
			&agentv1.TrafficRequest{
				Generation: 1,
				Pool: &agentv1.Pool{
					Kind: "haproxy", Balancers: "edge", Backend: "www",
					Server: "web-1 state ready",
				},
			}, deploy.NotFound,
		},
	} {
		said, err := w.serve(c.host, c.r)
		var refused *deploy.Refusal
		if errors.As(err, &refused) && refused.Reason != c.kind || refused == nil && (c.kind != "" || !passing(err)) ||
			len(said) > 0 {
			t.Errorf("%s: %v, %v", what, said, err)
		}
	}
	if len(w.sets) > 0 {
		t.Errorf("written down: %v", w.sets)
	}
	// A way back from a pool that nobody knows any more is no reason to stay away.
	said, err := w.serve("h1", &agentv1.TrafficRequest{
		Generation: 1, Allow: true, Restore: true, Pool: &agentv1.Pool{
			Kind: "haproxy", Balancers: "attic",
			Backend: "b", Server: "s",
		},
	})
	if err != nil || len(said) != 1 || !said[0].Done {
		t.Errorf("%v, %v", said, err)
	}
}

func passing(err error) bool {
	var k interface{ Kind() string }
	return errors.As(err, &k) && k.Kind() == "unavailable"
}

// Out and back, asked twice each, and what is left when the application stays down.
func TestMoves(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(out, "ok")
	}))
	defer app.Close()
	b := haproxytest.New(t)
	b.Serve("web-1 " + app.Listener.Addr().String())
	w := newWorld(t, b.API)
	ready := func(want int) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); b.Ready() != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d servers are ready, want %d", b.Ready(), want)
			}
		}
	}
	done := func(r *agentv1.TrafficRequest) {
		t.Helper()
		r.Generation = 1
		said, err := w.serve("h1", r)
		if err != nil || len(said) == 0 || !said[len(said)-1].Done {
			t.Fatalf("%v: %v, %v", r, said, err)
		}
	}
	ready(1)
	done(&agentv1.TrafficRequest{Allow: true, Restore: true}) // it was not out
	for range 2 {
		done(&agentv1.TrafficRequest{})
		ready(0)
	}
	if len(w.s.Outages) != 1 || !slices.Equal(w.s.Outages[0].Found, []string{b.API + "=ready"}) {
		t.Errorf("outages %+v", w.s.Outages)
	}
	for range 2 {
		done(&agentv1.TrafficRequest{Allow: true})
		ready(1)
	}
	if len(w.s.Outages) > 0 {
		t.Errorf("back, and yet %+v", w.s.Outages)
	}

	done(&agentv1.TrafficRequest{})
	app.Close()
	_, err := w.serve("h1", &agentv1.TrafficRequest{Generation: 1, Allow: true})
	if err == nil || !strings.Contains(err.Error(), "does not take the host") ||
		!strings.Contains(err.Error(), "DOWN") {
		t.Errorf("an application that is down: %v", err)
	}
	ready(0)
	if len(w.s.Outages) != 1 || w.s.Outages[0].Allowed { // what stops it next does not stop it under traffic
		t.Errorf("outages %+v", w.s.Outages)
	}
	if err := w.svc.Doubts(t.Context(), []deploy.Pool{
		{Kind: "haproxy", Balancers: "edge", Backend: "www", Server: "web-7"},
		{Kind: "haproxy", Balancers: "attic", Backend: "www", Server: "web-7"},
	}); err == nil || !strings.Contains(err.Error(), "no server web-7") ||
		!strings.Contains(err.Error(), "called attic") {
		t.Errorf("doubts: %v", err)
	}
}

// A group that has a pool no more keeps no host out of it.
func TestAPoolThatIsNoMore(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer app.Close()
	b := haproxytest.New(t)
	b.Serve("web-1 " + app.Listener.Addr().String())
	w := newWorld(t, b.API)
	if _, err := w.serve("h1", &agentv1.TrafficRequest{Generation: 1}); err != nil {
		t.Fatal(err)
	}
	w.s.Groups["www/prod"].Traffic = nil
	w.svc.Assert(t.Context())
	if b.Ready() > 0 {
		t.Error("put back while its task is open")
	}
	w.s.Target("h1", "www").Open = false
	for end := time.Now().Add(10 * time.Second); len(w.s.Outages) > 0 ||
		b.Ready() == 0; time.Sleep(20 * time.Millisecond) {
		w.svc.Assert(t.Context())
		if time.Now().After(end) {
			t.Fatalf("outages %+v, %d ready", w.s.Outages, b.Ready())
		}
	}
}

// Who was drained leaves without a permit; who only waits for it stays, and so does
// everybody else.
func TestADrainedHostNeedsNoPermit(t *testing.T) {
	edge := haproxytest.New(t)
	edge.Serve("web-1 127.0.0.1:1", "web-2 127.0.0.1:1")
	w := newWorld(t, edge.API)
	w.s.Rules = deploy.RulesKnown
	pool := &agentv1.Pool{Kind: "haproxy", Balancers: "edge", Backend: "www", Server: "web-2"}
	block := func() error { _, err := w.serve("h2", &agentv1.TrafficRequest{Pool: pool}); return err }
	if err := block(); err == nil || !strings.Contains(err.Error(), "no permit") {
		t.Errorf("without a permit: %v", err)
	}
	w.apply(deploy.HostDrainSet{Request: deploy.Request{ID: "1", Actor: "ann"}, Host: "h2"})
	if err := block(); err == nil || !strings.Contains(err.Error(), "no permit") {
		t.Errorf("while its drain waits: %v", err)
	}
	w.apply(deploy.HostDrained{Host: "h2"})
	if err := block(); err != nil {
		t.Errorf("drained: %v", err)
	}
	if len(w.s.Outages) != 1 || w.s.Outages[0].Host != "h2" {
		t.Errorf("outages are %v", w.s.Outages)
	}
}
