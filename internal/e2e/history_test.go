package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/devfleet"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// gate stands before the store of history, and holds who comes to a point.
type gate struct {
	*httptest.Server
	proxy *httputil.ReverseProxy

	mu      sync.Mutex
	at      string        // the point that is held
	reached chan struct{} // closed there
	opened  chan struct{}
	dead    bool
}

// The points of a move, as the store sees them.
const (
	beforeWrite = "PUT before"
	afterWrite  = "PUT after"
	beforeRead  = "GET before"
	afterRead   = "GET after"
)

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.isDead() {
			http.Error(w, "dead", http.StatusServiceUnavailable)
			return
		}
		g.pass(r.Method + " before")
		g.proxy.ServeHTTP(w, r)
		g.pass(r.Method + " after")
	}))
	t.Cleanup(g.Close)
	return g
}

// hold holds the next request that comes to a point, until open.
func (g *gate) hold(at string) (reached chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at, g.reached, g.opened = at, make(chan struct{}), make(chan struct{})
	return g.reached
}

func (g *gate) open() { close(g.opened) }

func (g *gate) isDead() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead
}

func (g *gate) set(dead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = dead
}

func (g *gate) pass(point string) {
	g.mu.Lock()
	held, opened := g.at == point, g.opened
	if held {
		g.at = ""
		close(g.reached)
	}
	g.mu.Unlock()
	if held {
		<-opened
	}
}

// TestHistoryOutlivesKills: the leader is killed between the write of a pack, its reading
// back and the fact; what was shown of every deployment is shown at the end by each
// coordinator, and a store that is dead delays nothing and is told of.
func TestHistoryOutlivesKills(t *testing.T) {
	long(t)
	g := newGate(t)
	dir := t.TempDir()
	w := &world{T: t, dir: dir}
	file := filepath.Join(dir, "coordinator.yaml")
	w.write(file, fmt.Sprintf("history: {store: \"s3://releases/past?endpoint=%s&region=us-east-1\", after: 1s}\n", g.URL))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f, err := devfleet.Start(ctx, devfleet.Options{
		Dir: dir, Bin: bin, Coordinators: 3, Agents: 1, Zones: 1, Keep: true, Config: file,
	}, t.Logf)
	t.Cleanup(func() {
		if t.Failed() {
			dump(t, dir)
		}
		if err := f.Stop(); err != nil {
			t.Errorf("stop the fleet: %v", err)
		}
	})
	must(t, err)
	w.fleet = f
	store, err := url.Parse(f.Store("hello"))
	must(t, err)
	backend, err := url.Parse(store.Query().Get("endpoint"))
	must(t, err)
	g.proxy = httputil.NewSingleHostReverseProxy(backend) // the host that was signed stays

	w.app(`{capacity: {minHealthy: 0}, waves: [{name: all, select: remainder}]}`)
	w.push("v1")
	shown := map[string]string{}
	deploy := func() {
		t.Helper()
		w.must("deploy", "--app", "hello", "--rev", "v1", "--redeploy")
		id := w.deployment().Deployment.Id
		shown[id] = w.must("replay", id) + w.must("status", id)
	}
	deploy()
	for _, point := range []string{beforeWrite, afterWrite, beforeRead, afterRead} {
		reached := g.hold(point)
		deploy() // another can be moved from now on
		select {
		case <-reached:
		case <-time.After(time.Minute):
			t.Fatalf("%s was not reached", point)
		}
		leader, err := f.Leader(t.Context())
		must(t, err)
		must(t, f.KillCoordinator(leader))
		g.open()
		must(t, f.RestartCoordinator(t.Context(), leader))
	}
	moved := func() bool {
		all, err := f.Control.ListDeployments(t.Context(), &controlv1.ListDeploymentsRequest{})
		if err != nil {
			return false
		}
		n := 0
		for _, d := range all.Deployments {
			n += btoi(strings.Contains(d.Cause, "in the history's store"))
		}
		return n == len(shown)-1
	}
	w.until(time.Minute, "all but the newest are moved", moved)
	unchanged := func() {
		t.Helper()
		for id, was := range shown {
			for _, c := range f.Coordinators() {
				if got := w.must("replay", id, "-C", c.API) + w.must("status", id, "-C", c.API); got != was {
					t.Errorf("%s showed of %s\n%s\nand shows\n%s", c.Name, id, was, got)
				}
			}
		}
	}
	unchanged()

	g.set(true)
	deploy()
	w.until(90*time.Second, "the dead store is told of", func() bool {
		out, _ := w.dctl("cluster", "status")
		return strings.Contains(out, "HISTORY IS NOT MOVED")
	})
	w.must("history")
	g.set(false)
	w.until(2*time.Minute, "the store is used again", moved)
	if out := w.must("cluster", "status"); strings.Contains(out, "HISTORY IS NOT MOVED") {
		t.Errorf("the store is back:\n%s", out)
	}
	unchanged()

	var objects []string
	must(t, filepath.WalkDir(filepath.Join(dir, "s3"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && filepath.Base(filepath.Dir(path)) == "history" {
			objects = append(objects, path)
			err = os.WriteFile(path, []byte("not what was written"), 0o600)
		}
		return err
	}))
	c := f.Coordinators()[2]
	must(t, f.KillCoordinator(c)) // another process has none of them in memory
	must(t, f.RestartCoordinator(t.Context(), c))
	oldest := ""
	for id := range shown {
		if oldest == "" || id < oldest {
			oldest = id
		}
	}
	out, code := "", 0
	w.until(20*time.Second, "it knows what is true", func() bool {
		out, code = w.dctl("replay", oldest, "-C", c.API)
		return !strings.Contains(out, "has not known")
	})
	if code == 0 || !strings.Contains(out, "lost or changed an object") || len(objects) == 0 {
		t.Errorf("%d objects were changed, and the answer is %d: %s", len(objects), code, out)
	}
}
