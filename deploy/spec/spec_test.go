package spec_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/spec"
	"github.com/groundswell/groundswell/internal/config"
)

var show = flag.Bool("show", false, "print what is said of every bad file")

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestBadFiles reads every file of testdata/bad; its first lines, "# want: ",
// are parts of what must be said, one for each problem and no more.
func TestBadFiles(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	if len(files) < 200 {
		t.Fatalf("only %d files", len(files))
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data := read(t, path)
			_, err := spec.Parse(data, "deploy.yaml")
			if *show {
				t.Logf("\n%v", err)
			}
			var errs config.Errors
			if !errors.As(err, &errs) {
				t.Fatalf("got %v", err)
			}
			checkWants(t, string(data), errs)
		})
	}
}

func checkWants(t *testing.T, data string, errs config.Errors) {
	t.Helper()
	wants := 0
	for line := range strings.Lines(data) {
		want, ok := strings.CutPrefix(strings.TrimSpace(line), "# want: ")
		if !ok {
			continue
		}
		wants++
		if !strings.Contains(errs.Error(), want) {
			t.Errorf("not said: %s\n%v", want, errs)
		}
	}
	if wants != len(errs) {
		t.Errorf("%d problems, want %d:\n%v", len(errs), wants, errs)
	}
}

func TestShort(t *testing.T) {
	app, err := spec.Parse(read(t, "testdata/good/short.yaml"), "deploy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	staged, _ := deploy.Builtin("staged")
	want := &spec.App{
		Name: "www", Artifacts: "s3://releases/www",
		Groups: []spec.Group{{Name: "prod", Select: `role == "web"`, Config: staged}},
	}
	if diff := cmp.Diff(want, app); diff != "" {
		t.Error(diff)
	}
}

func TestLong(t *testing.T) {
	data := read(t, "testdata/good/long.yaml")
	app, err := spec.Parse(data, "deploy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	half, total := deploy.Percent(50), deploy.Percent(5)
	bake := func(d time.Duration) deploy.BakeSpec { return deploy.BakeSpec{BakeMin: d} }
	want := deploy.Config{
		Name: "careful",
		Capacity: deploy.Capacity{
			MinHealthy: deploy.Percent(66), MinHealthyPerZone: &half, SmallFleet: "relax",
			MaxConcurrent: deploy.Percent(10), MaxZones: 1,
			QuorumGroup: &deploy.QuorumGroup{Label: "shard", MaxDown: 1},
		},
		Stage: deploy.Stage{
			Prefetch: "fleet", Bandwidth: 200 << 20, Barrier: "wave", Quorum: deploy.Percent(95),
			Warmup: &deploy.StageScript{Script: "scripts/warm.sh"},
			Taste:  &deploy.StageScript{Script: "scripts/taste.sh", Timeout: time.Minute, RunAs: "www"},
		},
		Waves: []deploy.WaveSpec{
			{
				Name: "one-box", Kind: "count", Size: deploy.Count(1), Zone: "lightest", Prefer: "canary=yes", Rehearse: true,
				BakeSpec: deploy.BakeSpec{BakeMin: 10 * time.Minute, Samples: 100}, Gates: []string{
					"smoke",
					"errors-host",
				},
			},
			{
				Name: "canary", Kind: "percent", Size: deploy.Percent(5), Balance: true,
				BakeSpec: deploy.BakeSpec{BakeMin: 30 * time.Minute, BakeMax: 2 * time.Hour, Early: true},
				Gates:    []string{"port", "errors-all", "errors-vs-baseline", "p99-vs-baseline"},
			},
			{
				Name: "zones", Kind: "remainder", ForEachZone: true, Parallel: []int{
					1, 1,
					2,
				}, OneBox: true, FailureBudget: deploy.Percent(2),
				PreGates: []string{"budget"}, BakeSpec: bake(time.Hour), Gates: []string{
					"script", "errors-zone",
					"tests",
				},
			},
		},
		Gates: []deploy.Gate{
			{
				Name: "budget", Scope: "deployment",
				Query: &deploy.QueryGate{Query: "slo:error_budget:ratio", Min: "0.2"},
			},
			{Name: "errors-all", Query: &deploy.QueryGate{
				Query: `sum(rate(errors_total{job="www"}[5m])) / sum(rate(requests_total{job="www"}[5m]))`, Max: "0.01",
				Window: 10 * time.Minute, HostLabel: "host", Presence: `up{host=~"{{.Hosts}}"} == 1`,
			}},
			{Name: "errors-host", Scope: "host", Query: &deploy.QueryGate{
				Query: `errors:rate1m{host="{{.Host}}"}`, Max: "0.01", Window: time.Minute, HostLabel: "host",
			}, MinSamples: 5},
			{
				Name: "errors-vs-baseline", Scope: "wave",
				Compare: &deploy.CompareGate{Metric: "errors", Test: "sprt", Effect: 2_000_000},
			},
			{Name: "errors-zone", Scope: "zone", Query: &deploy.QueryGate{
				Query: `errors:rate5m{zone="{{.Zone}}"}`, Max: "0.01", Window: 5 * time.Minute,
			}, FailLimit: 2, Interval: 30 * time.Second},
			{
				Name: "go", Scope: "deployment",
				Approval: &deploy.ApprovalGate{Group: "oncall", Count: 1, Timeout: 7 * 24 * time.Hour},
			},
			{Name: "office-hours", Scope: "deployment", Window: "Mon-Thu 09:00-16:00, Fri 09:00-12:00 Europe/Rome"},
			{
				Name: "p99-vs-baseline", Scope: "wave",
				Compare: &deploy.CompareGate{Metric: "latency", Test: "mannwhitney", Effect: 1_200_000},
			},
			{Name: "port", Probe: deploy.Probe{
				TCP: "127.0.0.1:8080", Failures: 2, Interval: 2 * time.Second,
				Timeout: 500 * time.Millisecond,
			}},
			{Name: "script", Probe: deploy.Probe{Command: []string{"scripts/check.sh", "--fast"}}},
			{Name: "smoke", Scope: "host", Probe: deploy.Probe{
				HTTP: "http://127.0.0.1:8080/healthz", Expect: 200,
				Consecutive: 5,
			}},
			{Name: "tests", Webhook: "https://ci.example/groundswell/tests"},
		},
		Metrics: []deploy.Metric{
			{
				Name: "errors", Total: `http_requests_total{host=~"{{.Hosts}}"}`,
				Bad: `http_requests_total{host=~"{{.Hosts}}",code=~"5.."}`,
			},
			{Name: "latency", Samples: `http_latency:p99{host=~"{{.Hosts}}"}`},
		},
		PreGates:       []string{"office-hours", "go"},
		OnInconclusive: "hold",
		OnFailure: deploy.FailureAction{
			Host: deploy.Action{Do: "rollback", Scope: "host"},
			Wave: deploy.Action{Do: "rollback", Scope: "zone", Then: "pause"},
			Gate: deploy.Action{Do: "rollback", Scope: "gate", Then: "pause"},
			Test: deploy.Action{Do: "rollback", Scope: "all"},
			Bake: deploy.Action{Do: "pause"},
		},
		Decision:           deploy.Decision{Timeout: 4 * time.Hour, Then: "hold"},
		FailureBudgetTotal: &total,
		Rollback:           deploy.RollbackPolicy{MaxConcurrent: deploy.Percent(33)},
		InFlight:           deploy.InFlight{Max: 4, Queue: "latest"},
		Timeouts: deploy.Timeouts{
			Stage: 15 * time.Minute, Task: 30 * time.Minute, LostAfter: 5 * time.Minute,
			ForgetAfter: 30 * time.Minute,
		},
		WatchAfter:  24 * time.Hour,
		StopFailure: "continue",
	}
	if diff := cmp.Diff(want, app.Groups[0].Config); diff != "" {
		t.Error(diff)
	}
	test := app.Groups[1].Config
	if test.Name != "inline" || test.Capacity.MinHealthy != deploy.Count(1) || !test.Capacity.SharedHost ||
		test.Capacity.MaxZones != 0 || len(test.Waves) != 1 {
		t.Errorf("inline config: %+v", test)
	}
	if got := spec.Lint(data, "deploy.yaml"); len(got) != 0 {
		t.Errorf("lint: %v", got)
	}
}

// TestTerse reads the other choice of each knob.
func TestTerse(t *testing.T) {
	app, err := spec.Parse(read(t, "testdata/good/terse.yaml"), "deploy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c := app.Groups[0].Config
	for what, ok := range map[string]bool{
		"stage":          c.Stage == deploy.Stage{Prefetch: "none", Bandwidth: 512 << 10},
		"continue":       c.OnFailure.Wave == deploy.Action{Do: "continue"},
		"then":           c.OnFailure.Gate == deploy.Action{Do: "rollback", Scope: "host", Then: "rollback-all"},
		"bake as staged": c.OnFailure.Bake == deploy.Action{Do: "rollback", Scope: "wave", Then: "pause"},
		"decision":       c.Decision == deploy.Decision{Timeout: 30 * time.Minute},
		"rollback": c.Rollback == deploy.RollbackPolicy{
			MaxConcurrent: deploy.Count(4), MaxZones: 2,
			IgnoreFloor: true,
		},
		"in flight":   c.InFlight == deploy.InFlight{Serial: true, Queue: "reject"},
		"timeouts":    c.Timeouts.ForgetAfter == 0 && c.Timeouts.Deployment == 12*time.Hour,
		"full quorum": app.Groups[1].Config.Stage.Quorum == deploy.Percent(100),
	} {
		if !ok {
			t.Errorf("%s: %+v", what, c)
		}
	}
}

func TestBuiltinsAreValid(t *testing.T) {
	for _, name := range deploy.BuiltinNames() {
		c, _ := deploy.Builtin(name)
		if at, err := c.Validate(); err != nil {
			t.Errorf("%s: %s: %v", name, at, err)
		}
	}
}

func TestLintWarnings(t *testing.T) {
	got := spec.Lint([]byte(`app: www
artifacts: file:///srv/r
configs:
  spare: {stop: fail}
groups:
  all:
    select: "true"
    config:
      waves: [{name: all, select: remainder, gates: [a]}]
      gates: {a: {probe: {command: x}}, b: {probe: {command: y}}}
  doubtful:
    select: role == "x"
    config:
      waves:
        - {name: one, select: {percent: 1%}, rehearseRollback: true, gates: [c, d], bake: {min: 1h, max: 1h, early: pass}}
        - {name: two, select: remainder, failureBudget: 100%, preGates: [e], bake: {min: 1h}}
      gates:
        c: {prometheus: "up", max: 1, scope: host}
        d: {compare: {metric: used, test: mannwhitney}}
        e: {approval: {}}
      metrics:
        used: {samples: 'a{host=~"{{.Hosts}}"}'}
        unused: {samples: 'a{host=~"{{.Hosts}}"}'}
      onInconclusive: pass
  reckless:
    select: role == "y"
    config: {rollback: {floor: ignore}}
  unbounded:
    select: role == "z"
    config: {failureBudgetTotal: 5%, onFailure: {wave: {action: continue}}}
`), "d.yaml")
	var texts []string
	for _, p := range got {
		texts = append(texts, p.Severity+" "+p.Headline())
	}
	want := []string{
		"warning d.yaml:4:10: configs.spare: no group uses this config",
		"warning d.yaml:7:13: groups.all.select: asks for no label, so it selects every host or none",
		"warning d.yaml:9:15: groups.all.config.waves[0]: has gates but no bake: they are asked once, and nobody watches afterwards",
		"warning d.yaml:10:44: groups.all.config.gates.b: no wave asks this gate",
		"warning d.yaml:15:64: groups.doubtful.config.waves[0].rehearseRollback: goes to the new revision, back and to it again on every host of the wave, not on one box alone",
		"warning d.yaml:15:117: groups.doubtful.config.waves[0].bake.early: min and max are the same, so there is no early",
		"warning d.yaml:16:57: groups.doubtful.config.waves[1].failureBudget: the wave passes with one host that succeeds",
		"warning d.yaml:18:25: groups.doubtful.config.gates.c.prometheus: asks the same for every host; name it, as in {host=\"{{.Host}}\"}",
		"warning d.yaml:23:17: groups.doubtful.config.metrics.unused: no gate compares this metric",
		"warning d.yaml:24:23: groups.doubtful.config.onInconclusive: waves are sealed without any answer of their gates, for instance while Prometheus is down",
		"warning d.yaml:27:32: groups.reckless.config.rollback.floor: a rollback may take the whole group out of service at once",
		"warning d.yaml:30:34: groups.unbounded.config.failureBudgetTotal: changes nothing while onFailure.wave continues",
	}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Error(diff)
	}
	if got := spec.Lint([]byte("ap: x"), "d.yaml"); len(got) != 4 || got[0].Severity != spec.SeverityError {
		t.Errorf("got %v", got)
	}
}

// Two groups that select the same hosts are told; which spaces there are is
// nothing to go by.
func TestLintOfSharedHosts(t *testing.T) {
	got := spec.Lint([]byte(`app: www
artifacts: file:///srv/r
groups:
  blue: {select: role == "web"}
  green: {select: role  ==  "web"}
  other: {select: role == "db"}
`), "d.yaml")
	const want = "groups.green.select: group blue selects the same hosts"
	if len(got) != 1 || got[0].Severity != spec.SeverityWarning || !strings.Contains(got[0].Error.Error(), want) {
		t.Errorf("%v", got)
	}
}

// TestLintOfQueries: what a query cannot say, and what it looks back on.
func TestLintOfQueries(t *testing.T) {
	const (
		aggregate = "is an aggregate"
		short     = "bake.min: is shorter than the 5m that gate g looks back"
		window    = "is shorter than the 5m that the query looks back"
		unread    = "whose name does not say how far it looks back"
	)
	for gate, want := range map[string][]string{
		`{prometheus: "errors:rate1m", max: 1}`:                                                    nil,
		`{prometheus: "errors:rate5m", max: 1}`:                                                    {short},
		`{prometheus: "rate(errors[5m])", max: 1}`:                                                 {short},
		`{prometheus: "rate(errors[5m])", max: 1, window: 1m}`:                                     {window},
		`{prometheus: "rate(errors[1m])", max: 1, window: 5m}`:                                     {short},
		`{prometheus: "errors:share", max: 1}`:                                                     {unread},
		`{prometheus: "errors:share", max: 1, window: 0}`:                                          nil,
		`{prometheus: "sum(up)", max: 1}`:                                                          {aggregate},
		`{prometheus: "sum(up) by (zone)", max: 1}`:                                                {aggregate},
		`{prometheus: "count(up) or vector(0)", max: 1}`:                                           {aggregate},
		`{prometheus: "scalar(up)", max: 1}`:                                                       {aggregate},
		`{prometheus: "sum(up) by (instance)", max: 1}`:                                            nil,
		`{prometheus: "sum(up)", max: 1, presence: "up"}`:                                          nil,
		`{prometheus: 'sum(up{host="{{.Host}}"})', max: 1, scope: host}`:                           nil,
		`{prometheus: 'sum by (host) (up{host=~"{{.Hosts}}"})', max: 1}`:                           nil,
		`{prometheus: 'sum(up{host=~"{{.Hosts}}"})', max: 1}`:                                      {aggregate},
		`{prometheus: 'sum(up{zone="{{.Zone}}"})', max: 1, scope: zone}`:                           {aggregate},
		`{prometheus: 'sum by (host) (up)', max: 1, hostLabel: host}`:                              nil,
		`{prometheus: 'sum by (zone) (up)', max: 1, presence: "up", hostLabel: node}`:              nil,
		`{prometheus: 'sum(rate(errors{instance=~"{{.Hosts}}:9100"}[1m])) by (instance)', max: 1}`: nil,
	} {
		got := spec.Lint([]byte(`app: www
artifacts: file:///srv/r
groups:
  all:
    select: role == "x"
    config:
      waves: [{name: all, select: remainder, bake: {min: 2m}, gates: [g]}]
      gates: {g: `+gate+`}
`), "d.yaml")
		ok := len(got) == len(want)
		for i := range min(len(got), len(want)) {
			ok = ok && got[i].Severity == spec.SeverityWarning && strings.Contains(got[i].Headline(), want[i])
		}
		if !ok {
			t.Errorf("%s: %v, want %v", gate, got, want)
		}
	}
}

func TestSelector(t *testing.T) {
	h := &deploy.Host{
		Name: "web1", Zone: "a1", Region: "eu",
		Labels: map[string]string{"role": "web", "env": "prod", "aws:x-y": "1", "disk": "ssd"},
	}
	for text, want := range map[string]bool{
		`role == "web" && env == "prod"`:                true,
		`role == "web" && env == "test"`:                false,
		`zone == "a1" && region == "eu"`:                true,
		`name.startsWith("web")`:                        true,
		`missing == ""`:                                 true,
		`missing != "" || disk == "ssd"`:                true,
		`labels["aws:x-y"] == "1"`:                      true,
		`labels["none"] == ""`:                          true,
		`labels.disk == "ssd"`:                          true,
		`labels.none == ""`:                             true,
		`"disk" in labels`:                              true,
		`"none" in labels`:                              false,
		`role in ["web", "api"]`:                        true,
		`zone.matches("^a[0-9]$")`:                      true,
		`labels.exists(k, k == "disk")`:                 true,
		`["a1", "b1"].exists(z, z == zone)`:             true,
		`true`:                                          true,
		`int(role) == 1`:                                false,
		`1 / int(size(missing)) == 1`:                   false,
		`!(role == "db")`:                               true,
		`role == "web" ? zone == "a1" : zone == "none"`: true,
	} {
		s, err := spec.Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := s.Match(h); got != want {
			t.Errorf("%s: got %v", text, got)
		}
		if s.Match(&deploy.Host{}) && strings.HasPrefix(text, "role ==") {
			t.Errorf("%s: matches a host without labels", text)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	h := &deploy.Host{Name: "web1", Zone: "a1", Labels: map[string]string{"role": "web", "env": "prod"}}
	s, err := spec.Compile(`role == "web" && env == "prod"`)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.Match(h)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		app, err := spec.Parse(data, "deploy.yaml")
		if (app == nil) == (err == nil) {
			t.Fatalf("app %v, error %v", app, err)
		}
		spec.Lint(data, "deploy.yaml")
		if err != nil {
			return
		}
		for _, g := range app.Groups {
			if at, err := g.Config.Validate(); err != nil {
				t.Errorf("%s: %v", at, err)
			}
			if s, err := spec.Compile(g.Select); err != nil {
				t.Errorf("selector: %v", err)
			} else {
				s.Match(&deploy.Host{})
			}
		}
	})
}

// TestTheGuideIsLegal: the long form in the user's guide can be applied.
func TestTheGuideIsLegal(t *testing.T) {
	text, err := os.ReadFile("../../docs/deployments.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	yaml, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/deployments.md has no example")
	}
	if _, err := spec.Parse([]byte(yaml), "deployments.md"); err != nil {
		t.Error(err)
	}
}
