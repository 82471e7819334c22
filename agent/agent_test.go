package agent_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// logged is a log that a test may read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const say = `echo "$LIFECYCLE_EVENT $GROUNDSWELL_REVISION $DEPLOY_ACTION $GROUNDSWELL_FROM_REVISION>$GROUNDSWELL_TO_REVISION" >>"$OUT"` + "\n"

func whole() hookScripts {
	return hookScripts{"ApplicationStop": say, "BeforeInstall": say, "ApplicationStart": say, "ValidateService": say}
}

func TestDeployTwice(t *testing.T) {
	w := newWorld(t)
	w.start()
	v1, v2 := w.push("v1", whole()), w.push("v2", whole())
	w.done(v1)
	w.prefetch(v2, "k")
	w.report("v2 staged", func(r *agentv1.Report) bool { return len(r.Staged) == 2 })
	w.done(v2)
	if w.installed() != "v2" {
		t.Errorf("installed %q", w.installed())
	}
	want := `BeforeInstall v1 deploy >v1
ApplicationStart v1 deploy >v1
ValidateService v1 deploy >v1
ApplicationStop v1 deploy v1>v2
BeforeInstall v2 deploy v1>v2
ApplicationStart v2 deploy v1>v2
ValidateService v2 deploy v1>v2
`
	if got := w.out(); got != want {
		t.Errorf("hooks ran as\n%s\nwant\n%s", got, want)
	}
}

func TestFailingHookReverts(t *testing.T) {
	w := newWorld(t)
	w.start()
	v1 := w.push("v1", whole())
	w.done(v1)
	bad := whole()
	bad["ApplicationStart"] = say + "head -c 5000 /dev/zero | tr '\\0' x\necho; echo no luck with the database >&2\nexit 3\n"
	r := w.result(w.grant(w.push("v2", bad)), agentv1.Result_RESULT_FAILED)
	f := r.Failure
	if r.Running != v1.Digest || r.Health != agentv1.Health_HEALTH_HEALTHY || w.installed() != "v1" {
		t.Errorf("not back on v1: %v, installed %q", r, w.installed())
	}
	if f.GetEvent() != "ApplicationStart" || f.Script != "ApplicationStart.sh" || f.Code != 4 ||
		f.Exit != "exit status 3" ||
		!strings.Contains(f.Tail, "no luck with the database") || len(f.Tail) > 2048 {
		t.Errorf("failure %v", f)
	}
	if !strings.Contains(w.out(), "ApplicationStart v1 rollback v2>v1") {
		t.Errorf("hooks of the way back ran as\n%s", w.out())
	}
}

func TestHangingHookIsKilled(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.done(w.push("v1", whole()))
	hang := whole()
	hang["BeforeInstall"] = "# hangs\nexec sleep 1000\n"
	begin := time.Now()
	f := w.result(w.grant(w.push("v2", hang)), agentv1.Result_RESULT_FAILED).Failure
	if f.GetEvent() != "BeforeInstall" || f.Code != 3 || time.Since(begin) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(begin), f)
	}
}

func TestTaskLimitEndsAHook(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.done(w.push("v1", whole()))
	slow := whole()
	slow["BeforeInstall"] = "exec sleep 19\n"
	w.result(w.grant(w.push("v2", slow), func(a *agentv1.Assignment) { a.TaskLimitNs = int64(300 * time.Millisecond) }),
		agentv1.Result_RESULT_FAILED)
}

func TestStageFailure(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.done(w.push("v1", whole()))
	missing := &agentv1.Revision{Digest: "sha256:" + strings.Repeat("ab", 32), Name: "v2"}
	w.prefetch(missing, "k1")
	r := w.report("staging failed", func(r *agentv1.Report) bool { return r.StageFailed == missing.Digest })
	if r.Failure.GetEvent() != "DownloadBundle" || r.Failure.Message == "" || r.Result != agentv1.Result_RESULT_DONE {
		t.Errorf("reported %v", r)
	}
	before := 0
	w.with(func() { before = len(w.reports) })
	w.prefetch(missing, "k2") // a new attempt
	w.until("a second failure", func() bool {
		return len(w.reports) > before && w.reports[len(w.reports)-1].StageFailed == missing.Digest
	})
	r = w.result(w.grant(missing), agentv1.Result_RESULT_FAILED)
	if r.Failure.GetEvent() != "DownloadBundle" || r.Health != agentv1.Health_HEALTH_HEALTHY ||
		strings.Contains(w.out(), "ApplicationStop") {
		t.Errorf("a goal that cannot be staged: %v; hooks\n%s", r, w.out())
	}
}

func TestStagingWaitsForALeader(t *testing.T) {
	w := newWorld(t)
	w.start()
	v1 := w.push("v1", whole())
	w.with(func() { w.withhold = true })
	w.prefetch(v1, "k")
	w.until("progress", func() bool { return len(w.progress) > 0 })
	w.with(func() { w.withhold = false })
	w.report("v1 staged", func(r *agentv1.Report) bool { return len(r.Staged) == 1 && r.StageFailed == "" })
}

func TestBadAppspecFailsStaging(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.prefetch(w.push("v1", hookScripts{"ApplicationStop": "# hangs"}), "k0") // sound
	w.report("staged", func(r *agentv1.Report) bool { return len(r.Staged) == 1 })
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "appspec.yml"), []byte("version: 0.0\nos: amiga\n"), 0o644))
	rev := w.pushDir(src, "bad")
	w.prefetch(rev, "k1")
	r := w.report("staging failed", func(r *agentv1.Report) bool { return r.StageFailed == rev.Digest })
	if !strings.Contains(r.Failure.Message+r.Failure.Tail, "appspec.yml:2") {
		t.Errorf("the failure does not name the place: %v", r.Failure)
	}
}

// app is the health check of an application that a test can make ill.
func app(t *testing.T) (url string, status *atomic.Int32) {
	status = &atomic.Int32{}
	status.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter,
		_ *http.Request,
	) {
		rw.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(s.Close)
	return s.URL, status
}

func TestConditionalPermit(t *testing.T) {
	w := newWorld(t)
	w.start()
	v1, v2 := w.push("v1", whole()), w.push("v2", whole())
	url, status := app(t)
	conditional := permit(agentv1.Permit_PERMIT_CONDITIONAL)
	w.done(v1, conditional, probing(url)) // nothing ran: surely not serving
	r := w.result(w.grant(v2, conditional, probing(url)), agentv1.Result_RESULT_REFUSED)
	if r.Running != v1.Digest || r.Health != agentv1.Health_HEALTH_HEALTHY {
		t.Errorf("refused with %v", r)
	}
	r = w.result(w.grant(v2, conditional), agentv1.Result_RESULT_REFUSED) // no probe: it cannot be told
	if r.Health != agentv1.Health_HEALTH_HEALTHY || strings.Contains(w.out(), "ApplicationStop") {
		t.Errorf("refused with %v; hooks\n%s", r, w.out())
	}
	status.Store(500)
	gen := w.grant(v2, conditional, probing(url))
	w.sees("ApplicationStart v2")
	status.Store(200)
	w.result(gen, agentv1.Result_RESULT_DONE)
}

func TestWithoutPermitIsIdle(t *testing.T) {
	w := newWorld(t)
	w.start()
	v1 := w.push("v1", whole())
	w.done(v1)
	gen := w.grant(w.push("v2", whole()), permit(agentv1.Permit_PERMIT_UNSPECIFIED))
	r := w.result(gen, agentv1.Result_RESULT_IDLE)
	if r.Running != v1.Digest || r.Health != agentv1.Health_HEALTH_HEALTHY || strings.Contains(w.out(), "v2") {
		t.Errorf("idle with %v", r)
	}
	w.gen -= 2
	w.grant(w.push("v0", whole())) // an old generation is never acted on, but answered
	n := 0
	w.with(func() { n = len(w.reports) })
	w.until("the state told again", func() bool {
		return len(w.reports) > n ||
			w.reports[len(w.reports)-1].Counter > r.Counter
	})
	if strings.Contains(w.out(), "v0") {
		t.Errorf("an older generation was acted on:\n%s", w.out())
	}
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	url, status := app(t)
	w.done(w.push("v1", whole()), probing(url))
	status.Store(503)
	r := w.report("unhealthy", func(r *agentv1.Report) bool { return r.Health == agentv1.Health_HEALTH_UNHEALTHY })
	if want := fmt.Sprintf("GET %s: status 503, want 200, 3 times in a row", url); r.Evidence != want {
		t.Errorf("evidence %q, want %q", r.Evidence, want)
	}
	status.Store(200)
	w.report("healthy again", func(h *agentv1.Report) bool {
		return h.Health == agentv1.Health_HEALTH_HEALTHY && h.Counter > r.Counter
	})
	stop()
	status.Store(500)
	n := len(w.reports)
	w.start()
	w.until("a report of the next life", func() bool { return len(w.reports) > n })
	w.with(func() {
		if r := w.reports[n]; r.Health != agentv1.Health_HEALTH_UNHEALTHY || r.Generation != 1 ||
			r.Result != agentv1.Result_RESULT_DONE {
			t.Errorf("the first report of the next life is %v", r)
		}
	})
}

func TestProbeFailureReverts(t *testing.T) {
	w := newWorld(t)
	w.start()
	url, status := app(t)
	v1 := w.push("v1", whole())
	w.done(v1, probing(url))
	status.Store(500)
	gen := w.grant(w.push("v2", whole()), probing(url))
	w.sees("rollback v2>v1")
	status.Store(200)
	f := w.result(gen, agentv1.Result_RESULT_FAILED).Failure
	if f.GetEvent() != "ValidateService" || f.Script != "probe smoke" ||
		!strings.Contains(f.Message, "status 500, want 200") {
		t.Errorf("failure %v", f)
	}
}

func TestRetargetMidTask(t *testing.T) {
	w := newWorld(t)
	w.start()
	url, status := app(t)
	v1 := w.push("v1", whole())
	w.done(v1, probing(url))
	status.Store(500)
	long := func(a *agentv1.Assignment) { a.Probes[0].IntervalNs = int64(time.Hour) }
	w.grant(w.push("v2", whole()), probing(url), long) // would be probed for hours
	w.sees("ValidateService v2")
	status.Store(200)
	r := w.result(w.grant(v1, probing(url), func(a *agentv1.Assignment) { a.Rollback = true }),
		agentv1.Result_RESULT_DONE)
	if r.Running != v1.Digest || w.installed() != "v1" {
		t.Errorf("re-targeted to v1: %v, installed %q", r, w.installed())
	}
}

func TestReconnectResends(t *testing.T) {
	w := newWorld(t)
	w.start()
	v1 := w.push("v1", whole())
	w.done(v1)
	w.with(func() { w.loseAcks = true }) // the next report is lost with the session
	gen := w.grant(w.push("v2", whole()))
	w.result(gen, agentv1.Result_RESULT_DONE)
	if w.sessions < 2 {
		t.Errorf("%d sessions", w.sessions)
	}
	w.with(func() { w.counter += 1000; w.skipNext = true }) // a counter from another life; a gap
	n := 0
	w.with(func() { n = w.sessions })
	w.result(w.grant(v1), agentv1.Result_RESULT_DONE)
	if w.sessions <= n {
		t.Error("a gap in the sequence did not end the session")
	}
}

func TestCoordinatorAway(t *testing.T) {
	w := newWorld(t)
	w.start()
	slow := whole()
	slow["BeforeInstall"] = say + `while [ ! -e "$OUT.go" ]; do sleep 0.02; done` + "\n"
	v1 := w.push("v1", slow)
	gen := w.grant(v1)
	w.sees("BeforeInstall v1")
	w.stop() // the only coordinator dies in the middle
	must(t, os.WriteFile(filepath.Join(w.dir, "out.go"), nil, 0o644))
	w.sees("ValidateService v1") // what was permitted is finished
	w.restart()
	w.result(gen, agentv1.Result_RESULT_DONE)
}

func TestLogs(t *testing.T) {
	w := newWorld(t)
	w.start()
	b := whole()
	b["BeforeInstall"] = "seq 1 20000\n"
	b["ApplicationStart"] = `echo waiting; while [ ! -e "$OUT.go" ]; do sleep 0.02; done; echo started; exit 9` + "\n"
	w.until("session", func() bool { return w.sessions == 1 })
	gen := w.grant(w.push("v1", b))
	w.ask(&agentv1.LogRequest{Id: "f", App: "www", Deployment: "d-1", Follow: true})
	w.until("followed output", func() bool {
		for _, c := range w.chunks {
			if strings.Contains(string(c.Data), "waiting") {
				return true
			}
		}
		return false
	})
	must(t, os.WriteFile(filepath.Join(w.dir, "out.go"), nil, 0o644))
	if got := w.output("f"); !strings.Contains(got, "started") || !strings.Contains(got, "19999") {
		t.Errorf("followed %d bytes", len(got))
	}
	w.result(gen, agentv1.Result_RESULT_FAILED)
	w.ask(&agentv1.LogRequest{Id: "x", App: "www", Failed: true})
	if got := w.output("x"); !strings.Contains(got, "started") || strings.Contains(got, "19999") {
		t.Errorf("failed output: %q", got)
	}
	w.ask(&agentv1.LogRequest{Id: "e", App: "www", Event: "BeforeInstall"})
	if got := w.output("e"); strings.Contains(got, "started") || !strings.Contains(got, "19999") {
		t.Errorf("output of one event: %d bytes", len(got))
	}
	w.ask(&agentv1.LogRequest{Id: "u", App: "www", Deployment: "other"})
	if got := w.output("u"); !strings.Contains(got, "no output of deployment other") {
		t.Errorf("unknown deployment: %q", got)
	}
	w.ask(&agentv1.LogRequest{Id: "c", App: "www", Deployment: "later", Follow: true})
	w.ask(&agentv1.LogRequest{Id: "c", Cancel: true})
}

func TestRemovedApplicationGoesOn(t *testing.T) {
	w := newWorld(t)
	w.start()
	url, status := app(t)
	w.done(w.push("v1", whole()), probing(url))
	w.depart("www")
	w.ask(&agentv1.LogRequest{Id: "l", App: "www"}) // answered after the removal
	w.output("l")
	n := 0
	w.with(func() { n = len(w.reports) })
	status.Store(500)
	if w.installed() != "v1" || strings.Contains(w.out(), "ApplicationStop") {
		t.Error("a removed application was touched")
	}
	// it comes back to a coordinator that knows nothing
	w.assign(&agentv1.Assignment{App: "www", Group: "prod", Generation: 0})
	r := w.report("its state", func(r *agentv1.Report) bool {
		return len(w.reports) > n &&
			r.Counter >= w.reports[n].Counter
	})
	if r.Generation != 1 || r.Result != agentv1.Result_RESULT_DONE {
		t.Errorf("came back as %v", r)
	}
}

func TestRestartAdoptsAHook(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	slow := whole()
	slow["ApplicationStart"] = say + `while [ ! -e "$OUT.go" ]; do sleep 0.02; done; echo over >>"$OUT"` + "\n"
	gen := w.grant(w.push("v1", slow))
	w.sees("ApplicationStart v1")
	stop()
	w.start()
	w.until("the next session", func() bool { return w.sessions == 2 })
	must(t, os.WriteFile(filepath.Join(w.dir, "out.go"), nil, 0o644))
	w.result(gen, agentv1.Result_RESULT_DONE)
	if n := strings.Count(w.out(), "ApplicationStart"); n != 1 || w.enrolled != 1 {
		t.Errorf("the hook ran %d times, enrolled %d times", n, w.enrolled)
	}
}

func TestKilledAgent(t *testing.T) {
	w := newWorld(t)
	stop := w.start() // enrols; the processes below have no token
	w.until("session", func() bool { return w.sessions == 1 })
	stop()
	b := whole()
	// A daemon that writes to its hook's output for ever, and a hook that goes
	// on while the agent is dead.
	b["ApplicationStart"] = `( n=0; while :; do n=$((n+1)); echo tick $n; echo $n >"$OUT.tick"; sleep 0.02; done ) &
echo $! >"$OUT.pid"
` + say + `while [ ! -e "$OUT.go" ]; do sleep 0.02; done` + "\n"
	first := w.process()
	gen := w.grant(w.push("v1", b))
	w.sees("ApplicationStart v1")
	must(t, first.Process.Kill())
	_ = first.Wait()
	t.Cleanup(func() { w.daemon(syscall.SIGKILL) })
	before := w.ticks()
	w.until("the application goes on", func() bool { return w.ticks() > before })
	second := w.process()
	must(t, os.WriteFile(filepath.Join(w.dir, "out.go"), nil, 0o644))
	w.result(gen, agentv1.Result_RESULT_DONE)
	if n := strings.Count(w.out(), "ApplicationStart v1"); n != 1 {
		t.Errorf("the hook ran %d times", n)
	}
	must(t, second.Process.Signal(syscall.SIGTERM))
	if err := second.Wait(); err != nil {
		t.Errorf("told to stop, the agent ended with %v", err)
	}
	before = w.ticks()
	w.until("the application outlives a stop too", func() bool { return w.ticks() > before && w.daemon(0) == nil })
}

// daemon sends a signal to what ApplicationStart left running.
func (w *world) daemon(s syscall.Signal) error {
	pid := 0
	if b, err := os.ReadFile(filepath.Join(w.dir, "out.pid")); err == nil {
		_, _ = fmt.Sscan(string(b), &pid)
	}
	if pid == 0 {
		return errors.New("no daemon")
	}
	return syscall.Kill(pid, s)
}

func (w *world) ticks() int {
	n := 0
	if b, err := os.ReadFile(filepath.Join(w.dir, "out.tick")); err == nil {
		_, _ = fmt.Sscan(string(b), &n)
	}
	return n
}

func TestEnrolmentRefused(t *testing.T) {
	w := newWorld(t)
	other, err := identity.NewCA("other")
	must(t, err)
	for name, token := range map[string]identity.Token{
		"another CA":  identity.NewToken(other.PEM),
		"not known":   identity.NewToken(w.ca.PEM),
		"no join tok": {},
	} {
		o := w.o
		o.Root = t.TempDir()
		o.Token = func() (identity.Token, error) {
			if token.ID == "" {
				return token, errors.New("no join token")
			}
			return token, nil
		}
		a, err := agent.New(o)
		must(t, err)
		if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestSecretsAreSecret(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.until("session", func() bool { return w.sessions == 1 })
	for _, name := range []string{"tls.key", "gossip.key", "cluster.json"} {
		st, err := os.Stat(filepath.Join(w.o.Root, "identity", name))
		must(t, err)
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %s", name, st.Mode())
		}
	}
	if h := w.hello; h.Name != "web-1" || h.Zone != "a" || h.Labels["role"] != "web" {
		t.Errorf("hello %v", h)
	}
}

func TestOneAgentAFolder(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.until("session", func() bool { return w.sessions == 1 })
	a, err := agent.New(w.o)
	must(t, err)
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second agent on the folder: %v", err)
	}
}

func TestValidate(t *testing.T) {
	_, err := agent.New(agent.Options{
		Name: "a b", Coordinators: []string{"nowhere"}, Env: map[string]string{"1": ""},
		KeepRuns: -1,
	})
	for _, want := range []string{`name "a b"`, "--zone", "--root", "nowhere", `env "1"`, "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

// A coordinator of an older epoch than the host has seen is left alone: not even
// a permit of its is taken, after a restart of the agent either.
func TestNeverBackToAnOlderEpoch(t *testing.T) {
	w := newWorld(t)
	w.epoch = 2
	stop := w.start()
	w.eventually("a session in epoch 2", func() bool { return strings.Contains(w.log.String(), "session up") })
	stop()
	w.mu.Lock()
	w.epoch = 1
	before := w.sessions
	w.mu.Unlock()
	w.start()
	w.until("it tries and leaves again", func() bool { return w.sessions >= before+3 })
	if !strings.Contains(w.log.String(), "it belongs to the past") {
		t.Error("it does not say why")
	}
	w.mu.Lock()
	if w.hello.Epoch != 2 {
		t.Errorf("it says hello with epoch %d", w.hello.Epoch)
	}
	w.epoch = 3
	w.mu.Unlock()
	w.until("a session in epoch 3", func() bool { return strings.Count(w.log.String(), "session up") == 2 })
}

// The doctor says how long the certificate lives, and how a host whose own has
// ended comes back.
func TestDoctorOfCertificates(t *testing.T) {
	ca, err := identity.NewCA("test")
	must(t, err)
	for life, want := range map[time.Duration]string{
		72 * time.Hour: agent.CheckOK + " lives for another 2 days", 90 * time.Minute: agent.CheckOK + " lives for another 1h",
		-time.Minute: agent.CheckFailed + " dctl token create --host web-1",
	} {
		o := agent.Options{Name: "web-1", Zone: "a", Root: t.TempDir(), Cgroup: "off"}
		ca.Life = life
		key, csr, err := identity.NewKey()
		must(t, err)
		cert, err := ca.Issue(csr, identity.Agent, "h1")
		must(t, err)
		must(t, identity.Save(filepath.Join(o.Root, "identity"), cert, key, ca.PEM))
		level, text, _ := strings.Cut(want, " ")
		for _, c := range agent.Doctor(t.Context(), o) {
			if c.Name == "identity" && (c.Level != level || !strings.Contains(c.Text, text)) {
				t.Errorf("a life of %s: %s %s, want %s", life, c.Level, c.Text, want)
			}
		}
	}
}

// A store that copies itself to another place is late with an object: it is asked
// for again before staging has failed.
func TestALateObjectIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	sign := w.fake.sign
	var asked atomic.Int32
	w.fake.sign = func(key string) (string, error) {
		if asked.Add(1) <= 2 {
			return sign(key + ".on-its-way")
		}
		return sign(key)
	}
	w.start()
	w.prefetch(w.push("v1", whole()), "k")
	r := w.report("v1 staged, or not", func(r *agentv1.Report) bool {
		return len(r.Staged) == 1 || r.StageFailed != ""
	})
	if r.StageFailed != "" || asked.Load() < 3 {
		t.Errorf("asked %d times: %v", asked.Load(), r)
	}
}
