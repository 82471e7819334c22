package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/devfleet"
	"github.com/groundswell/groundswell/internal/haproxytest"
)

// balanced is a fleet behind two balancers.
type balanced struct {
	*world
	all []*haproxytest.Balancer
}

func startBalanced(t *testing.T, agents int) *balanced {
	t.Helper()
	b := &balanced{}
	var apis []string
	for range 2 {
		h := haproxytest.New(t)
		b.all, apis = append(b.all, h), append(apis, fmt.Sprintf("%q", h.API))
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "coordinator.yaml")
	b.world = &world{T: t, dir: dir}
	b.write(file, "balancers: {edge: ["+strings.Join(apis, ", ")+"]}\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f, err := devfleet.Start(ctx, devfleet.Options{
		Dir: dir, Bin: bin, Coordinators: 3, Agents: agents, Zones: 3, Keep: true, Config: file,
	}, t.Logf)
	t.Cleanup(func() {
		if t.Failed() {
			dump(t, dir)
		}
		if err := f.Stop(); err != nil {
			t.Errorf("stop the fleet: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.fleet = f
	var servers []string
	for _, h := range f.Hosts {
		servers = append(servers, fmt.Sprintf("%s 127.0.0.1:%d", h.Name, h.Port))
	}
	for _, h := range b.all {
		h.Serve(servers...)
	}
	return b
}

// rude is an application that ends at once when it is told to, whatever it does, and
// refuses connections for a while when it starts.
func (b *balanced) rude(rev string) {
	b.Helper()
	dir := filepath.Join(b.dir, "bundles", rev)
	if err := b.fleet.Run(exec.Command(filepath.Join(bin, "www"), "bundle", "--dir", dir, "--revision",
		rev)); err != nil {
		b.Fatal(err)
	}
	b.write(filepath.Join(dir, "scripts/stop.sh"), "#!/bin/sh\n[ -e \"$WWW_STATE/pid\" ] || exit 0\n"+
		"kill -9 $(cat \"$WWW_STATE/pid\") || true\nrm -f \"$WWW_STATE/pid\"\n")
	b.write(filepath.Join(dir, "scripts/start.sh"), "#!/bin/sh\nset -eu\nmkdir -p \"$WWW_STATE\"\nsleep 1\n"+
		"./www serve </dev/null >>\"$WWW_STATE/www.log\" 2>&1 &\n./www check --wait 10s \"http://127.0.0.1:$PORT/ping\"\n")
	b.must("revisions", "push", dir, "--app", "hello", "--rev", rev)
}

func (b *balanced) group(traffic string) {
	b.Helper()
	path := filepath.Join(b.dir, "deploy.yaml")
	b.write(path, "app: hello\nartifacts: "+b.fleet.Store("hello")+`
groups:
  prod:
    select: role == "web"
    config: {capacity: {minHealthy: 60%, maxZones: all}, waves: [{name: all, select: remainder}]}
`+traffic)
	b.must("apps", "apply", "-f", path)
}

const edge = "    traffic: [{haproxy: {balancers: edge, backend: www}}]\n"

// load asks balancers on and on, by connections that are kept, with GET and POST,
// until stop is called; it says how many requests were made and how many failed.
func (b *balanced) load(through ...*haproxytest.Balancer) (stop func() (made, failed int64, why string)) {
	var made, failed atomic.Int64
	var first atomic.Value
	ctx, cancel := context.WithCancel(b.Context())
	var all sync.WaitGroup
	for i := range 8 {
		h := through[i%len(through)]
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: 10 * time.Second}
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				method, path := http.MethodGet, "/"
				if n%2 == 1 {
					method, path = http.MethodPost, "/ping"
				}
				err := ask(client, method, "http://"+h.Address+path)
				made.Add(1)
				if err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, err.Error())
				}
			}
		})
	}
	return func() (int64, int64, string) {
		cancel()
		all.Wait()
		why, _ := first.Load().(string)
		return made.Load(), failed.Load(), why
	}
}

// ask reports what a client sees of a request. That a POST to a page that is for GET
// is refused by the application is an answer of it.
func ask(client *http.Client, method, url string) error {
	r, err := http.NewRequest(method, url, strings.NewReader("x"))
	if err != nil {
		return err
	}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusMethodNotAllowed {
		return fmt.Errorf("%s: %s", res.Status, body)
	}
	return nil
}

// serving counts the servers that a balancer has ready.
func (b *balanced) serving() (n int) {
	b.Helper()
	for _, h := range b.all {
		n += h.Ready()
	}
	return n
}

// An application that is rude loses no request while it is upgraded; without the
// balancers' help it does, which shows that the load would have noticed.
func TestNoRequestIsLostBehindBalancers(t *testing.T) {
	long(t)
	b := startBalanced(t, 6)
	b.group(edge)
	for _, rev := range []string{"v1", "v2", "v3"} {
		b.rude(rev)
	}
	b.must("deploy", "--app", "hello", "--rev", "v1", "--timeout", "2m")
	b.until(20*time.Second, "every server is ready", func() bool { return b.serving() == 12 })
	stop := b.load(b.all...)
	b.must("deploy", "--app", "hello", "--rev", "v2", "--timeout", "2m")
	made, failed, why := stop()
	b.serve("v2")
	t.Logf("with the balancers: %d of %d requests failed (%s)", failed, made, why)
	if failed > 0 || made < 1000 {
		t.Errorf("%d of %d requests failed: %s", failed, made, why)
	}
	if n := b.serving(); n != 12 {
		t.Errorf("%d servers are ready after the deployment", n)
	}

	b.group("")
	stop = b.load(b.all...)
	b.must("deploy", "--app", "hello", "--rev", "v3", "--timeout", "2m")
	made, failed, why = stop()
	t.Logf("without them: %d of %d requests failed (%s)", failed, made, why)
	if failed == 0 {
		t.Error("no request failed without the balancers: nothing was shown")
	}
}

// Whoever dies in the middle, nobody is left out: the agent, the coordinator that
// drives, a balancer that forgets.
func TestDeathsWhileOut(t *testing.T) {
	long(t)
	b := startBalanced(t, 3)
	b.group(edge)
	b.rude("v1")
	b.rude("v2")
	b.must("deploy", "--app", "hello", "--rev", "v1", "--timeout", "2m")
	b.until(20*time.Second, "every server is ready", func() bool { return b.serving() == 6 })
	stop := b.load(b.all[0])
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.must("deploy", "--app", "hello", "--rev", "v2", "--timeout", "2m")
	}()
	out := func() { b.until(60*time.Second, "nobody is out", func() bool { return b.serving() < 6 }) }
	out()
	b.all[1].Restart() // it has forgotten everything
	leader, err := b.fleet.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.fleet.KillCoordinator(leader); err != nil {
		t.Fatal(err)
	}
	out()
	for _, h := range b.fleet.Hosts[:2] {
		if err := b.fleet.KillAgent(h); err != nil {
			t.Fatal(err)
		}
		if err := b.fleet.RestartAgent(h); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	made, failed, why := stop()
	t.Logf("%d of %d requests failed (%s)", failed, made, why)
	if failed > 0 {
		t.Errorf("%d of %d requests failed at the balancer that lived: %s", failed, made, why)
	}
	b.serve("v2")
	b.until(20*time.Second, "everybody is back", func() bool { return b.serving() == 6 })
	if err := b.fleet.RestartCoordinator(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
}

// A revision that does not come up costs its pool nothing: the host comes back with
// the former one, and a balancer that is down stops nothing.
func TestTrafficComesBack(t *testing.T) {
	long(t)
	b := startBalanced(t, 3)
	b.group(edge)
	b.rude("v1")
	b.rude("v2")
	b.must("deploy", "--app", "hello", "--rev", "v1", "--timeout", "2m")
	b.until(20*time.Second, "every server is ready", func() bool { return b.serving() == 6 })

	b.write(filepath.Join(b.dir, "bundles", "v2", "scripts/validate.sh"), "#!/bin/sh\nexit 1\n")
	b.must("revisions", "push", filepath.Join(b.dir, "bundles", "v2"), "--app", "hello", "--rev", "bad")
	if out, code := b.dctl("deploy", "--app", "hello", "--rev", "bad", "--timeout", "2m"); code == 0 {
		t.Fatalf("a revision that does not come up was deployed\n%s", out)
	}
	b.serve("v1")
	b.until(20*time.Second, "everybody is back", func() bool { return b.serving() == 6 })
	b.must("abort", b.deployment().Deployment.Id, "--leave", "--yes", "-m", "a test")

	b.all[1].Kill()
	out, code := b.dctl("deploy", "--app", "hello", "--rev", "v2", "--timeout", "2m")
	if code != 7 || !strings.Contains(out, b.all[1].API) {
		t.Errorf("half of the balancers are down: exit %d\n%s", code, out)
	}
	b.serve("v1")
	b.all[1].Begin()
	b.until(20*time.Second, "everybody is back", func() bool { return b.serving() == 6 })
	b.must("deploy", "--app", "hello", "--rev", "v2", "--timeout", "2m")
	b.serve("v2")
}

// serve checks what every host answers by its own word.
func (b *balanced) serve(rev string) {
	b.Helper()
	for _, h := range b.fleet.Hosts {
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", h.Port))
		if err != nil {
			b.Errorf("%s: %v", h.Name, err)
			continue
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !strings.Contains(string(body), `"`+rev+`"`) {
			b.Errorf("%s serves %s, want %s", h.Name, body, rev)
		}
	}
}

// slow is a revision whose validation takes long.
func (b *balanced) slow(rev string) {
	b.Helper()
	dir := filepath.Join(b.dir, "bundles", rev)
	if err := b.fleet.Run(exec.Command(filepath.Join(bin, "www"), "bundle", "--dir", dir, "--revision",
		rev)); err != nil {
		b.Fatal(err)
	}
	b.write(filepath.Join(dir, "scripts/validate.sh"), "#!/bin/sh\nsleep 6\n")
	b.must("revisions", "push", dir, "--app", "hello", "--rev", rev)
}

// A group that has its pools no more, and one of whose balancers dies, while a host is
// out: it comes back wherever anybody answers, and the others are told when they do.
func TestThePoolsChangeWhileOut(t *testing.T) {
	long(t)
	b := startBalanced(t, 3)
	times := edge + "    timeouts: {drain: 5s, admit: 5s}\n"
	b.group(times)
	b.rude("v1")
	b.slow("v2")
	b.slow("v3")
	b.must("deploy", "--app", "hello", "--rev", "v1", "--timeout", "2m")
	b.until(20*time.Second, "every server is ready", func() bool { return b.serving() == 6 })
	done := make(chan int)
	deploy := func(rev string) {
		_, code := b.dctl("deploy", "--app", "hello", "--rev", rev, "--timeout", "2m")
		done <- code
	}
	go deploy("v2")
	b.until(60*time.Second, "nobody is out", func() bool { return b.serving() < 6 })
	b.group("")
	b.must("abort", b.deployment().Deployment.Id, "--rollback", "--yes", "-m", "a test")
	<-done
	b.until(30*time.Second, "everybody is back", func() bool { return b.serving() == 6 })
	b.serve("v1")

	b.group(times)
	go deploy("v3")
	b.until(60*time.Second, "nobody is out", func() bool { return b.serving() < 6 })
	b.all[1].Kill()
	t.Logf("with a dead balancer the deployment ends with %d", <-done)
	b.until(30*time.Second, "the living balancer has everybody", func() bool { return b.all[0].Ready() == 3 })
	b.all[1].Begin()
	b.until(30*time.Second, "everybody is back", func() bool { return b.serving() == 6 })
}
