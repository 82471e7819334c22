package haproxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/coordinator/haproxy"
	"github.com/groundswell/groundswell/internal/haproxytest"
)

// world is two balancers before two servers.
type world struct {
	*testing.T
	all  []*haproxytest.Balancer
	b    *haproxy.Balancers
	apps map[string]*httptest.Server
	slow chan struct{} // /slow answers when it is closed
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, apps: map[string]*httptest.Server{}, slow: make(chan struct{})}
	var servers []string
	for _, name := range []string{"web-1", "web-2"} {
		app := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				<-w.slow
			}
			_, _ = io.WriteString(out, name)
		}))
		t.Cleanup(app.Close)
		w.apps[name] = app
		servers = append(servers, name+" "+app.Listener.Addr().String())
	}
	var addresses []string
	for range 2 {
		b := haproxytest.New(t)
		b.Serve(servers...)
		w.all, addresses = append(w.all, b), append(addresses, b.API)
	}
	var err error
	if w.b, err = haproxy.New("edge", addresses); err != nil {
		t.Fatal(err)
	}
	return w
}

// served counts who answers some requests through both balancers.
func (w *world) served() map[string]int {
	w.Helper()
	out := map[string]int{}
	for _, b := range w.all {
		for range 10 {
			res, err := http.Get("http://" + b.Address + "/")
			if err != nil {
				w.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != http.StatusOK {
				w.Fatalf("answered %s: %s", res.Status, body)
			}
			out[string(body)]++
		}
	}
	return out
}

func (w *world) do(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) until(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatal(what)
		}
	}
}

var web1 = haproxy.Server{Backend: "www", Name: "web-1"}

func (w *world) serves() bool {
	w.Helper()
	why, _, err := w.b.Settle(w.Context(), web1, nil)
	w.do(err)
	return why == ""
}

func TestOutAndBack(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.until("the servers are not up", w.serves)
	found, err := w.b.Found(ctx, web1)
	w.do(err)
	if len(found) != 2 || !strings.HasSuffix(found[0], "=ready") || !strings.HasPrefix(found[1], w.all[1].API) {
		t.Errorf("found %v", found)
	}
	slow := make(chan string, 8)
	for range 8 { // some of them at web-1, for as long as it takes
		go func() {
			res, err := http.Get("http://" + w.all[0].Address + "/slow")
			if err != nil {
				slow <- err.Error()
				return
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			slow <- res.Status + string(body)
		}()
	}
	sessions := func() int {
		n, err := w.b.Sessions(ctx, web1)
		w.do(err)
		return n
	}
	w.until("no request is at web-1", func() bool { return sessions() == 4 })
	for range 2 { // asked twice is asked once
		w.do(w.b.Drain(ctx, web1))
	}
	if got := w.served(); got["web-1"] > 0 {
		t.Errorf("drained, and served %v", got)
	}
	if n := sessions(); n != 4 {
		t.Errorf("%d sessions are left while 4 requests run", n)
	}
	close(w.slow)
	w.until("sessions are left", func() bool { return sessions() == 0 })
	for range 8 {
		if got := <-slow; !strings.HasPrefix(got, "200 OK") {
			t.Errorf("a request that ran was answered %s", got)
		}
	}
	w.do(w.b.Close(ctx, web1))
	if got := w.served(); got["web-1"] > 0 {
		t.Errorf("closed, and served %v", got)
	}
	w.until("it does not serve again", func() bool {
		why, _, err := w.b.Settle(ctx, web1, found)
		w.do(err)
		return why == ""
	})
	if got := w.served(); got["web-1"] != 10 {
		t.Errorf("restored, and served %v", got)
	}
}

// A balancer that was reloaded sends traffic again; it is put right.
func TestForgottenByAReload(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.until("the servers are not up", w.serves)
	w.do(w.b.Drain(ctx, web1))
	w.do(w.b.Close(ctx, web1))
	if n, err := w.b.Out(ctx, web1); n != 0 || err != nil {
		t.Errorf("%d forgot, %v", n, err)
	}
	w.all[1].Restart()
	if n, err := w.b.Out(ctx, web1); n != 1 || err != nil {
		t.Errorf("%d forgot, %v", n, err)
	}
	if got := w.served(); got["web-1"] > 0 {
		t.Errorf("served %v", got)
	}
}

// What a person took out by hand is left as it was found; what is not up is not back.
func TestLeftAsFound(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.until("the servers are not up", w.serves)
	conn, err := net.Dial("tcp", w.all[0].API)
	w.do(err)
	_, _ = fmt.Fprintln(conn, "set server www/web-1 state maint")
	_, _ = io.ReadAll(conn)
	_ = conn.Close()
	found, err := w.b.Found(ctx, web1)
	w.do(err)
	w.do(w.b.Drain(ctx, web1))
	w.do(w.b.Close(ctx, web1))
	w.apps["web-1"].Close()
	var why string
	w.until("a dead server serves", func() bool {
		why, _, err = w.b.Settle(ctx, web1, found)
		w.do(err)
		return strings.Contains(why, "DOWN")
	})
	if !strings.Contains(why, w.all[1].API) || strings.Contains(why, w.all[0].API) {
		t.Errorf("not serving: %s", why)
	}
	if now, err := w.b.Found(ctx, web1); err != nil || now[0] != w.all[0].API+"=maint" ||
		now[1] != w.all[1].API+"=ready" {
		t.Errorf("found %v, left as %v, %v", found, now, err)
	}
}

// Nothing is passed over in silence: neither who is unknown nor who does not answer.
func TestUnknown(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for _, c := range []struct {
		s    haproxy.Server
		text string
	}{
		{haproxy.Server{Backend: "www", Name: "web-9"}, "it has web-1, web-2"},
		{haproxy.Server{Backend: "shop", Name: "web-1"}, "find backend"},
		{
			haproxy.Server{Backend: "www", Name: "web-1 state ready; shutdown sessions server www/web-2"},
			"no name of HAProxy's",
		},
		{haproxy.Server{Backend: "www", Name: "web-1\nset server www/web-2 state maint"}, "no name of HAProxy's"},
	} {
		_, err := w.b.Found(ctx, c.s)
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("found %v: %v", c.s, err)
		}
		if err := w.b.Drain(ctx, c.s); err == nil {
			t.Errorf("drained %v", c.s)
		}
		if err := w.b.Known(ctx, []haproxy.Server{web1, c.s}); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("known %v: %v", c.s, err)
		}
	}
	w.do(w.b.Known(ctx, []haproxy.Server{web1, {Backend: "www", Name: "web-2"}}))
	w.all[1].Kill()
	err := w.b.Drain(ctx, web1)
	if err == nil || !strings.Contains(err.Error(), w.all[1].API) {
		t.Errorf("half of the balancers are down, and it is drained: %v", err)
	}
	if err := w.b.Known(ctx, []haproxy.Server{web1}); err == nil || !strings.Contains(err.Error(), w.all[1].API) {
		t.Errorf("half of the balancers are down: %v", err)
	}
	w.all[1].Begin()
}

// A balancer that takes the question and says nothing is given up.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := haproxy.New("edge", []string{l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			cancel()
			_, _ = io.Copy(io.Discard, conn)
		}
	}()
	if _, err := b.Found(ctx, web1); err == nil {
		t.Error("nobody answered, and something was found")
	}
}

// What would fail with the first host is found before: a runtime API that may only be
// looked at, and a server whose own agent says that it is ready.
func TestNoDrainWouldHold(t *testing.T) {
	for text, change := range map[string][2]string{
		"level admin":  {"level admin", "level operator"},
		"agent-check,": {"default-server check", "default-server check agent-check agent-port 1"},
	} {
		b := haproxytest.New(t)
		b.Change(change[0], change[1])
		b.Serve("web-1 127.0.0.1:1")
		all, err := haproxy.New("edge", []string{b.API})
		if err != nil {
			t.Fatal(err)
		}
		if err := all.Known(t.Context(), []haproxy.Server{web1}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
