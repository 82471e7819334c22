package gates

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// hosts is an HTTP server with one page of metrics for each host. Counters grow
// by 100 requests a scrape.
type hosts struct {
	mu      sync.Mutex
	scrapes map[string]int
}

// Hosts good-1 to good-3 and restarts (whose counters fall to 0 every 4 seconds)
// are well, slow is too and is scraped every 2 seconds, bad fails half of its 20 requests a second and is slow, void has no
// numbers, and quiet no requests.
func (h *hosts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := strings.Trim(r.URL.Path, "/")
	h.mu.Lock()
	h.scrapes[host]++
	n := h.scrapes[host]
	h.mu.Unlock()
	requests, failed, share, latency := 100*n, 0, "0.001", 0.1+float64(n%5)/100
	switch host {
	case "restarts":
		requests = 100 * (n % 40)
	case "bad":
		requests, failed, share, latency = 2*n, n, "0.5", 0.5+float64(n%5)/100
	case "void":
		share = "NaN"
	case "quiet":
		requests = 0
	}
	fmt.Fprintf(w, "requests_total %d\nerrors_total %d\nerrors:rate1m %s\nlatency:p99 %g\n", requests, failed, share,
		latency)
	if host != "quiet" {
		fmt.Fprintf(w, "busy 1\n")
	}
}

// startPrometheus starts a real server that scrapes the hosts ten times a
// second, and returns its URL. It ends with the test.
func startPrometheus(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("prometheus is not installed, and CI needs it (Debian: prometheus)")
		}
		t.Skip("prometheus is not installed (Debian: prometheus): gates that ask it are not tested")
	}
	fleet := httptest.NewServer(&hosts{scrapes: map[string]int{}})
	t.Cleanup(fleet.Close)
	dir := t.TempDir()
	config := "global: {scrape_interval: 100ms, scrape_timeout: 100ms}\nscrape_configs:\n- job_name: hosts\n  static_configs:\n"
	for _, host := range []string{"good-1", "good-2", "good-3", "restarts", "bad", "void", "quiet", "slow"} {
		if host == "slow" {
			config += "- job_name: slow\n  scrape_interval: 2s\n  static_configs:\n"
		}
		config += fmt.Sprintf("  - {targets: [%q], labels: {host: %s, instance: %q, zone: %s, __metrics_path__: /%s}}\n",
			strings.TrimPrefix(fleet.URL, "http://"), host, host+":9100", host[:1], host)
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	var output bytes.Buffer
	cmd := exec.Command(binary, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus said:\n%s", output.String())
		}
	})
	until(t, "Prometheus has scraped every host", func() string {
		resp, err := http.Get("http://" + addr + "/api/v1/query?query=" + "count(latency:p99)")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		var body bytes.Buffer
		_, _ = body.ReadFrom(resp.Body)
		if strings.Contains(body.String(), `"8"`) {
			return ""
		}
		return body.String()
	})
	return "http://" + addr
}

// until repeats a question until it answers "".
func until(t *testing.T, what string, missing func() string) {
	t.Helper()
	why := ""
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if why = missing(); why == "" {
			return
		}
	}
	t.Fatalf("%s: not within 40 s: %s", what, why)
}

func questionAbout(g deploy.Gate, since time.Time) *deploy.Question {
	return &deploy.Question{
		Gate: g, Since: since.UnixMilli(), Host: "bad", Zone: "g", WaveName: "one-box",
		Candidates: []string{"good-1"}, Baseline: []string{"good-2", "good-3"},
		Metric: deploy.Metric{
			Name: "m", Total: `requests_total{host=~"{{.Hosts}}"}`, Bad: `errors_total{host=~"{{.Hosts}}"}`,
			Samples: `latency:p99{host=~"{{.Hosts}}"}`,
		},
	}
}

func TestPrometheus(t *testing.T) {
	began := time.Now()
	o := observer(t, Options{Prometheus: startPrometheus(t)})
	t.Run("queries", func(t *testing.T) { testQueries(t, o, began) })
	t.Run("samples", func(t *testing.T) { testSamples(t, o) })
	t.Run("errors", func(t *testing.T) { testErrors(t, o, began) })
	t.Run("latency", func(t *testing.T) { testLatency(t, o, began) })
	t.Run("expressions", func(t *testing.T) { testExpressions(t, o, began) })
	t.Run("counters", func(t *testing.T) { testCounters(t, o, began) })
	t.Run("presence", func(t *testing.T) { testPresence(t, o, began) })
	t.Run("few", func(t *testing.T) { testFew(t, o) })
	t.Run("window", func(t *testing.T) { testLooksBack(t, o) })
	t.Run("compared", func(t *testing.T) { testComparedPresence(t, o, began) })
}

func testQueries(t *testing.T, o *Observer, began time.Time) {
	for _, c := range []struct {
		query, max, min string
		want            deploy.Verdict
		value, detail   string
	}{
		{`errors:rate1m{host="{{.Host}}"}`, "0.01", "", "fail", "0.5", ""},
		{`errors:rate1m{host="{{.Host}}"}`, "0.5", "", "pass", "0.5", ""},
		{`errors:rate1m{zone="{{.Zone}}"}`, "0.01", "", "pass", "0.001, the worst of 3", ""},
		{`errors:rate1m{zone="{{.Zone}}"}`, "", "0.01", "fail", "0.001, the worst of 3", ""},
		{`errors:rate1m{host=~"good-1|bad"}`, "0.01", "", "fail", "0.5, the worst of 2", ""},
		{`errors:rate1m{host=~"bad|void"}`, "0.01", "", "fail", "0.5, the worst of 2", ""},
		{
			`errors:rate1m{host=~"good-1|void"}`, "0.01", "", "inconclusive", "0.001, the worst of 2",
			"a value is no number",
		},
		{`errors:rate1m{host="void"}`, "0.01", "0", "inconclusive", "NaN", "a value is no number"},
		{`errors:rate1m{host="nobody"}`, "0.01", "", "inconclusive", "", "no data"},
		{`busy{host="quiet"}`, "0.01", "", "inconclusive", "", "no data"},
		{`errors:rate1m{host="bad"}[5m]`, "1", "", "inconclusive", "", "the query gives a matrix"},
		{`errors:rate1m{{`, "1", "", "inconclusive", "", "is not closed"},
		{`sum(`, "1", "", "inconclusive", "", "parse error"},
	} {
		q := questionAbout(deploy.Gate{Query: &deploy.QueryGate{Query: c.query, Max: c.max, Min: c.min}}, began)
		q.Candidates = nil // whom a query must speak of is tested below
		got := o.ask(t.Context(), q)
		if got.Answer != c.want || got.Value != c.value || !strings.Contains(got.Detail, c.detail) || got.Final {
			t.Errorf("%s, max %q, min %q: %+v", c.query, c.max, c.min, got)
		}
		if c.want != deploy.VerdictInconclusive &&
			(got.Samples == 0 || got.Threshold == "" || strings.Contains(got.Question, "{{") ||
				got.From != began.UnixMilli() || got.To < got.From) {
			t.Errorf("%s: evidence %+v", c.query, got)
		}
	}
}

// testExpressions: samples of an expression are counted by steps of 15 seconds.
func testExpressions(t *testing.T, o *Observer, began time.Time) {
	for _, c := range []struct {
		query         string
		want          deploy.Verdict
		value, detail string
	}{
		{`avg(errors:rate1m{host=~"{{.Hosts}}"})`, "pass", "0.001", ""},
		{`errors:rate1m{host="{{.Host}}"} * 2`, "fail", "1", ""},
		{`scalar(errors:rate1m{host="{{.Host}}"})`, "fail", "0.5", ""},
		{`up{host="bad"} / 0`, "fail", "+Inf", ""},
		{`0 * up{host="bad"} / 0`, "inconclusive", "NaN", "a value is no number"},
	} {
		q := questionAbout(deploy.Gate{Query: &deploy.QueryGate{Query: c.query, Max: "0.01"}}, began)
		if !strings.Contains(c.query, "Hosts") {
			q.Candidates = []string{"bad"}
		}
		until(t, c.query, func() string {
			got := o.ask(t.Context(), q)
			if got.Answer == c.want && got.Value == c.value && got.Detail == c.detail && got.Samples > 0 &&
				got.Samples < 5 {
				return ""
			}
			return fmt.Sprintf("%+v", got)
		})
	}
}

// testSamples: what was scraped before the start is no evidence, and fewer
// samples than asked for are inconclusive, for good values and for bad ones.
func testSamples(t *testing.T, o *Observer) {
	for _, query := range []string{`errors:rate1m{host="bad"}`, `errors:rate1m{host="bad"} + 0`} {
		now := time.Now()
		g := deploy.Gate{Query: &deploy.QueryGate{Query: query, Max: "0.01"}, MinSamples: 3}
		q := questionAbout(g, now)
		q.Candidates = []string{"bad"}
		if got := o.ask(t.Context(), q); got.Answer != deploy.VerdictInconclusive ||
			!strings.Contains(got.Detail, "3 are needed") || got.Value != "0.5" {
			t.Errorf("%s at the start: %+v", query, got)
		}
	}
	start := time.Now()
	plain := deploy.Gate{Query: &deploy.QueryGate{Query: `errors:rate1m{host="bad"}`, Max: "0.01"}, MinSamples: 3}
	until(t, "three scrapes", func() string {
		q := questionAbout(plain, start)
		q.Candidates = []string{"bad"}
		got := o.ask(t.Context(), q)
		if got.Answer == deploy.VerdictFail && got.Samples >= 3 {
			return ""
		}
		return fmt.Sprintf("%+v", got)
	})
	future := o.ask(t.Context(), questionAbout(deploy.Gate{Query: plain.Query}, time.Now().Add(time.Hour)))
	if future.Answer != deploy.VerdictInconclusive || future.From > future.To {
		t.Errorf("a start in the future: %+v", future)
	}
	never := o.ask(t.Context(), questionAbout(deploy.Gate{Query: plain.Query}, time.UnixMilli(0)))
	if never.Answer != deploy.VerdictFail || never.To-never.From != 300_000 {
		t.Errorf("no start: %+v", never)
	}
}

func testErrors(t *testing.T, o *Observer, began time.Time) {
	g := deploy.Gate{Compare: &deploy.CompareGate{Metric: "m", Test: deploy.TestSPRT, Effect: 2_000_000}}
	bad := questionAbout(g, began)
	bad.Candidates = []string{"bad"}
	start := time.Now()
	bad.Since = start.UnixMilli()
	until(t, "a bad one-box is noticed", func() string {
		got := o.ask(t.Context(), bad)
		if got.Answer == deploy.VerdictFail && got.Final && got.Samples > 0 &&
			strings.Contains(got.Value, "(50%), baseline 0/") {
			return ""
		}
		return fmt.Sprintf("%+v", got)
	})
	t.Logf("noticed after %s of 20 req/s, half of them errors", time.Since(start).Round(100*time.Millisecond))
	until(t, "a good one passes", func() string {
		got := o.ask(t.Context(), questionAbout(g, began))
		if got.Answer == deploy.VerdictPass && got.Final {
			return ""
		}
		return fmt.Sprintf("%+v", got)
	})
	for what, change := range map[string]func(*deploy.Question){
		"no host runs the new revision":  func(q *deploy.Question) { q.Candidates = nil },
		"no host is left":                func(q *deploy.Question) { q.Baseline = nil },
		"200000 are needed":              func(q *deploy.Question) { q.Gate.MinSamples = 200_000; q.Candidates = []string{"bad"} },
		"metrics.m.total: query: ":       func(q *deploy.Question) { q.Metric.Total = "sum(" },
		"metrics.m.bad: {{.host}} names": func(q *deploy.Question) { q.Metric.Bad = `x{host="{{.host}}"}` },
	} {
		q := questionAbout(g, began)
		change(q)
		if got := o.ask(t.Context(), q); got.Answer != deploy.VerdictInconclusive || got.Final ||
			!strings.Contains(got.Detail, what) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	quiet := questionAbout(g, began)
	quiet.Candidates = []string{"quiet"}
	if got := o.ask(t.Context(), quiet); got.Answer != deploy.VerdictInconclusive || got.Samples != 0 {
		t.Errorf("without requests: %+v", got)
	}
}

func testLatency(t *testing.T, o *Observer, began time.Time) {
	g := deploy.Gate{Compare: &deploy.CompareGate{Metric: "m", Test: deploy.TestMannWhitney}}
	for host, want := range map[string]deploy.Verdict{"bad": deploy.VerdictFail, "good-1": deploy.VerdictPass} {
		q := questionAbout(g, began)
		q.Candidates = []string{host}
		until(t, host, func() string {
			got := o.ask(t.Context(), q)
			if got.Answer == want && got.Final && got.Samples >= deploy.FirstLook && got.Threshold == "effect 1.2x" {
				return ""
			}
			return fmt.Sprintf("%+v", got)
		})
	}
	// An expression has one value a minute, not one a scrape, and none at the
	// start: that would be from before.
	q := questionAbout(g, time.Now().Add(-time.Second))
	q.Metric.Samples, q.Candidates = `latency:p99{host=~"{{.Hosts}}"} + 0`, []string{"bad"}
	if got := o.ask(t.Context(), q); got.Answer != deploy.VerdictInconclusive || got.Samples != 0 ||
		!strings.Contains(got.Detail, " 0 values against 0") {
		t.Errorf("an expression: %+v", got)
	}
}

// testCounters: a counter that falls was reset, and nothing of it is lost or
// counted twice; what it grew between the last step and the reset is not seen.
func testCounters(t *testing.T, o *Observer, began time.Time) {
	q := questionAbout(deploy.Gate{}, began)
	var out deploy.Observation
	out.To = time.Now().UnixMilli()
	over := spanOf(q, &out)
	sum := func(host string) float64 {
		steps, _, err := o.sources.increases(context.Background(), q, q.Metric.Total, []string{host}, over)
		if err != nil {
			t.Fatal(err)
		}
		total := 0.0
		for _, n := range steps {
			if n < 0 {
				t.Errorf("%s: a step of %g requests", host, n)
			}
			total += n
		}
		return total
	}
	steady, restarting := sum("good-1"), sum("restarts")
	if steady < 1000 || restarting < steady*0.6 || restarting > steady*1.05 {
		t.Errorf("%g requests of a steady host, %g of one that restarts", steady, restarting)
	}
}

// TestPrometheusThatMisbehaves: no answer of a broken server is more than
// inconclusive.
func TestPrometheusThatMisbehaves(t *testing.T) {
	release := make(chan struct{})
	for what, handle := range map[string]http.HandlerFunc{
		"no answer in time": func(http.ResponseWriter, *http.Request) { <-release },
		"bad_response":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>hello</html>") },
		"server_error":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"longer than": func(w http.ResponseWriter, _ *http.Request) {
			_,
				_ = w.Write(bytes.Repeat([]byte("x"), maxSeries+1))
		},
		"another server": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.invalid", http.StatusTemporaryRedirect)
		},
	} {
		server := httptest.NewServer(handle)
		o := observer(t, Options{Prometheus: server.URL})
		if what == "no answer in time" {
			o.timeout = 200 * time.Millisecond
		}
		got := o.ask(t.Context(), questionAbout(deploy.Gate{Query: &deploy.QueryGate{Query: "up", Max: "1"}},
			time.Now()))
		if got.Answer != deploy.VerdictInconclusive || !strings.Contains(got.Detail, what) {
			t.Errorf("%s: %+v", what, got)
		}
		if what == "no answer in time" {
			close(release)
		}
		server.Close()
	}
}

func TestSpread(t *testing.T) {
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("h%03d", i))
	}
	got := spread(names, 4)
	if want := "[h000 h250 h500 h750]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	if len(spread(names, 2000)) != 1000 {
		t.Error("fewer than there are")
	}
}
