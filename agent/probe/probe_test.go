package probe_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groundswell/groundswell/agent/probe"
	"github.com/groundswell/groundswell/hooks"
)

func TestMain(m *testing.M) {
	hooks.MaybeSupervise()
	os.Exit(m.Run())
}

// app answers the nth request with the nth status, the last one for ever.
func app(t *testing.T, body string, statuses ...int) (url string, asked *atomic.Int32) {
	t.Helper()
	asked = &atomic.Int32{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := int(asked.Add(1)) - 1
		w.WriteHeader(statuses[min(n, len(statuses)-1)])
		_, _ = fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

func run(t *testing.T, p probe.Probe) probe.Outcome {
	t.Helper()
	p.Interval = time.Millisecond
	o, err := probe.Prober{}.Run(t.Context(), p, probe.Target{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestHTTP(t *testing.T) {
	for _, c := range []struct {
		name     string
		statuses []int
		probe    probe.Probe
		want     probe.Answer
		asked    int32
		says     string
	}{
		{"healthy", []int{200}, probe.Probe{}, probe.AnswerHealthy, 1, "status 200"},
		{
			"consecutive",
			[]int{200, 500, 200, 200, 200},
			probe.Probe{Consecutive: 3},
			probe.AnswerHealthy, 5,
			"status 200",
		},
		{"fails at its third failure", []int{503}, probe.Probe{}, probe.AnswerUnhealthy, 3, "status 503, want 200"},
		{"fails at its first failure", []int{503}, probe.Probe{Failures: 1}, probe.AnswerUnhealthy, 1, "status 503"},
		{"recovers", []int{503, 503, 200}, probe.Probe{}, probe.AnswerHealthy, 3, "status 200"},
		{"other status", []int{204}, probe.Probe{Expect: 204}, probe.AnswerHealthy, 1, "status 204"},
		{"redirect is an answer", []int{302}, probe.Probe{Failures: 1}, probe.AnswerUnhealthy, 1, "status 302"},
		{"body", []int{200}, probe.Probe{Contains: "rev v2"}, probe.AnswerHealthy, 1, "contains"},
		{
			"wrong body",
			[]int{200},
			probe.Probe{Contains: "rev v3", Failures: 1},
			probe.AnswerUnhealthy, 1,
			`lacks "rev v3"`,
		},
	} {
		url, asked := app(t, "ok, rev v2", c.statuses...)
		c.probe.HTTP = url
		o := run(t, c.probe)
		if o.Answer != c.want || asked.Load() != c.asked || !strings.Contains(o.String(), c.says) {
			t.Errorf("%s: %s, asked %d times", c.name, o, asked.Load())
		}
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if o := run(t, probe.Probe{TCP: addr}); o.Answer != probe.AnswerHealthy {
		t.Errorf("listening: %s", o)
	}
	_ = l.Close()
	for _, p := range []probe.Probe{{TCP: addr}, {HTTP: "http://" + addr}} {
		if o := run(t, p); o.Answer != probe.AnswerUnhealthy || o.Attempts != 3 ||
			!strings.Contains(o.String(), "refused") || strings.Count(o.String(), "http://") > 1 {
			t.Errorf("closed: %s", o)
		}
	}
}

// An application that accepts and never answers is unhealthy, in time.
func TestNoAnswerInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	o := run(t, probe.Probe{HTTP: "http://" + l.Addr().String(), Timeout: 50 * time.Millisecond, Failures: 2})
	if o.Answer != probe.AnswerUnhealthy || o.Attempts != 2 {
		t.Errorf("got %s", o)
	}
}

// Failures are forgiven while the application comes up.
func TestPatience(t *testing.T) {
	url, _ := app(t, "", 503, 503, 503, 503, 503, 503, 200)
	if o := run(t, probe.Probe{HTTP: url, Failures: 1, Patience: time.Minute}); o.Answer != probe.AnswerHealthy ||
		o.Attempts != 7 {
		t.Errorf("got %s", o)
	}
}

// What cannot be asked is unknown, never healthy and never unhealthy.
func TestUnknown(t *testing.T) {
	for _, p := range []probe.Probe{{HTTP: "http://no-such-host.invalid/"}, {TCP: "127.0.0.1"}, {Command: "check.sh"}} {
		o, err := probe.Prober{}.Once(t.Context(), p, probe.Target{})
		if err != nil || o.Answer != probe.AnswerUnknown {
			t.Errorf("%+v: %s, %v", p, o, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o, err := probe.Prober{}.Run(ctx, probe.Probe{TCP: "127.0.0.1:1"}, probe.Target{})
	if err != nil || o.Answer != probe.AnswerUnknown {
		t.Errorf("called off: %s, %v", o, err)
	}
}

func TestCommand(t *testing.T) {
	root := t.TempDir()
	for name, body := range map[string]string{
		"good.sh": "[ $APPLICATION_NAME = www ]", "bad.sh": "echo why >&2; exit 3", "hang.sh": "trap '' TERM; sleep 60 & wait; " +
			"sleep 60",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	runner, err := hooks.NewRunner(hooks.Options{Dir: t.TempDir(), Limits: hooks.Limits{Grace: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]probe.Answer{
		"good.sh": probe.AnswerHealthy, "bad.sh": probe.AnswerUnhealthy, "hang.sh": probe.AnswerUnhealthy,
		"gone.sh": probe.AnswerUnknown,
	} {
		p := probe.Probe{Command: name, Timeout: time.Second, Failures: 2, Interval: time.Millisecond}
		o, err := probe.Prober{Commands: runner}.Run(t.Context(), p,
			probe.Target{Env: hooks.Env{ID: "probe-" + name, Root: root, Application: "www"}})
		if err != nil || o.Answer != want {
			t.Errorf("%s: %s, %v", name, o, err)
		}
		if said := "failed with exit code 3: why"; name == "bad.sh" && !strings.HasSuffix(o.String(), "last: "+said) {
			t.Errorf("%s, want %s", o, said)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	o, err := probe.Prober{Commands: runner}.Run(ctx, probe.Probe{Command: "hang.sh", Timeout: time.Minute},
		probe.Target{Env: hooks.Env{ID: "off", Root: root}})
	if err != nil || o.Answer != probe.AnswerUnknown {
		t.Errorf("called off: %s, %v", o, err)
	}
	if r, known, err := runner.Adopt(t.Context(), "off.p0"); err != nil || !known || r.OK() {
		t.Errorf("the command was not ended: %+v, %v, %v", r, known, err)
	}
}

func TestValidate(t *testing.T) {
	for _, p := range []probe.Probe{
		{},
		{HTTP: "http://x", TCP: "y:1"},
		{TCP: "y:1", Failures: -1},
		{HTTP: "http://x", Expect: 7},
	} {
		if p.Validate() == nil {
			t.Errorf("accepted %+v", p)
		}
	}
}
