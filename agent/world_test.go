package agent_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/dirstore"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

func TestMain(m *testing.M) {
	hooks.MaybeSupervise()
	if report := os.Getenv("TEST_COST"); report != "" {
		costly(report)
		return
	}
	if text := os.Getenv("TEST_AGENT"); text != "" {
		subprocess(text)
		return
	}
	// Tests here wait for scripts and clocks far more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// subprocess makes the test binary an agent that is there to be killed.
func subprocess(text string) {
	var p settings
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		panic(err)
	}
	a, err := agent.New(agent.Options{
		Name: p.Name, Zone: "a", Root: p.Root, InstallRoot: p.InstallRoot, GossipBind: "127.0.0.1:0", Env: p.Env, Cgroup: "off",
	})
	if err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := a.Run(ctx); err != nil {
		panic(err)
	}
}

// settings is what a subprocess is told.
type settings struct {
	Name, Root, InstallRoot string
	Env                     map[string]string
}

// world is one host with a coordinator and a store.
type world struct {
	*testing.T
	*fake
	dir   string
	store artifacts.Store
	gen   uint64
	o     agent.Options
	log   *logged
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca, err := identity.NewCA("test")
	must(t, err)
	w := &world{T: t, fake: newFake(t, ca), dir: t.TempDir(), log: &logged{}}
	storeDir := filepath.Join(w.dir, "store")
	must(t, os.Mkdir(storeDir, 0o755))
	store, err := dirstore.New(storeDir)
	must(t, err)
	w.store = store
	w.fake.sign = func(key string) (string, error) {
		return store.Presign(t.Context(), key, time.Minute)
	}
	w.o = agent.Options{
		Name: "web-1", Zone: "a", Labels: map[string]string{"role": "web"}, Root: filepath.Join(w.dir, "root"),
		InstallRoot: filepath.Join(w.dir, "fs"), GossipBind: "127.0.0.1:0", Coordinators: []string{w.addr},
		Env: map[string]string{"OUT": filepath.Join(w.dir,
			"out")}, Cgroup: "off", Log: slog.New(slog.NewTextHandler(w.log, nil)),
		Token: func() (identity.Token, error) { return w.token, nil },
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.log.String())
		}
	})
	return w
}

// start runs the agent in this process; the returned function stops it.
func (w *world) start() (stop func()) {
	w.Helper()
	a, err := agent.New(w.o)
	must(w.T, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.Errorf("agent ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			w.Error("the agent did not stop within 10 s")
		}
	}
	w.Cleanup(stop)
	return stop
}

// process runs the agent in a process of its own.
func (w *world) process() *exec.Cmd {
	w.Helper()
	text, err := json.Marshal(settings{w.o.Name, w.o.Root, w.o.InstallRoot, w.o.Env})
	must(w.T, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "TEST_AGENT="+string(text))
	cmd.Stderr = w.log
	must(w.T, cmd.Start())
	w.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// hookScripts are a revision by its hooks: event to script.
type hookScripts map[string]string

// push packs a revision and returns its digest.
func (w *world) push(name string, b hookScripts) *agentv1.Revision {
	w.Helper()
	dir := w.TempDir()
	spec := "version: 0.0\nos: linux\nfiles:\n  - source: revision\n    destination: /srv/www\nfile_exists_behavior: OVERWRITE\n"
	if len(b) > 0 {
		spec += "hooks:\n"
	}
	for _, e := range hooks.LifecycleEvents() {
		script, ok := b[e.String()]
		if !ok {
			continue
		}
		timeout := 20
		if strings.Contains(script, "# hangs") {
			timeout = 1
		}
		spec += fmt.Sprintf("  %s:\n    - location: %s.sh\n      timeout: %d\n", e, e, timeout)
		must(w.T, os.WriteFile(filepath.Join(dir, e.String()+".sh"), []byte("#!/bin/sh\n"+script), 0o755))
	}
	must(w.T, os.WriteFile(filepath.Join(dir, "revision"), []byte(name), 0o644))
	must(w.T, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte(spec), 0o644))
	return w.pushDir(dir, name)
}

func (w *world) pushDir(dir, name string) *agentv1.Revision {
	w.Helper()
	src, err := bundle.Open(dir)
	must(w.T, err)
	p, err := bundle.Push(w.Context(), w.store, src, bundle.Options{})
	must(w.T, err)
	return &agentv1.Revision{Digest: string(p.Digest), Name: name}
}

// prefetch assigns a revision to be staged under the current generation.
func (w *world) prefetch(rev *agentv1.Revision, key string) {
	w.assign(&agentv1.Assignment{
		App: "www", Group: "prod", Generation: w.gen, Stage: rev, StageKey: key, Artifacts: "file:///store",
	})
}

// grant assigns a revision under a new generation with a permit.
func (w *world) grant(rev *agentv1.Revision, edit ...func(*agentv1.Assignment)) uint64 {
	w.gen++
	a := &agentv1.Assignment{
		App: "www", Group: "prod", Deployment: fmt.Sprintf("d-%d",
			w.gen), Generation: w.gen, Permit: agentv1.Permit_PERMIT_NORMAL,
		Goal: rev, Artifacts: "file:///store", TaskLimitNs: int64(time.Minute),
	}
	for _, e := range edit {
		e(a)
	}
	w.assign(a)
	return w.gen
}

// done deploys a revision and waits until it runs.
func (w *world) done(rev *agentv1.Revision, edit ...func(*agentv1.Assignment)) *agentv1.Report {
	w.Helper()
	r := w.result(w.grant(rev, edit...), agentv1.Result_RESULT_DONE)
	if r.Running != rev.Digest || r.Health != agentv1.Health_HEALTH_HEALTHY {
		w.Fatalf("deployed %s, reported %v", rev.Name, r)
	}
	return r
}

// installed reads which revision's file is installed.
func (w *world) installed() string {
	b, _ := os.ReadFile(filepath.Join(w.dir, "fs", "srv", "www", "revision"))
	return string(b)
}

// out reads what hooks wrote to $OUT.
func (w *world) out() string {
	b, _ := os.ReadFile(filepath.Join(w.dir, "out"))
	return string(b)
}

// sees waits until $OUT holds a text.
func (w *world) sees(text string) {
	w.Helper()
	w.until("output "+text, func() bool { return strings.Contains(w.out(), text) })
}

func permit(p agentv1.Permit) func(*agentv1.Assignment) {
	return func(a *agentv1.Assignment) { a.Permit = p }
}

func probing(url string) func(*agentv1.Assignment) {
	return func(a *agentv1.Assignment) {
		a.Probes = []*agentv1.Probe{{Name: "smoke", Http: url, IntervalNs: int64(5 * time.Millisecond), Failures: 3}}
	}
}
