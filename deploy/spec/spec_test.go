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
	if len(files) < 40 {
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
	want := &spec.App{Name: "www", Artifacts: "s3://releases/www", Groups: []spec.Group{{Name: "prod", Select: `role == "web"`, Config: staged}}}
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
	want := deploy.Config{
		Name:     "careful",
		Capacity: deploy.Capacity{MinHealthy: deploy.Percent(66), MinHealthyPerZone: &half, SmallFleet: "relax", MaxConcurrent: deploy.Percent(10), MaxZones: 1},
		Waves: []deploy.WaveSpec{
			{Name: "one-box", Kind: "count", Size: deploy.Count(1), Zone: "lightest", Prefer: "canary=yes", BakeSpec: deploy.BakeSpec{BakeMin: 10 * time.Minute}, Gates: []string{"smoke"}},
			{Name: "canary", Kind: "percent", Size: deploy.Percent(5), Balance: true, BakeSpec: deploy.BakeSpec{BakeMin: 30 * time.Minute}, Gates: []string{"port", "smoke"}},
			{Name: "zones", Kind: "remainder", ForEachZone: true, Parallel: []int{1, 1, 2}, OneBox: true, FailureBudget: deploy.Percent(2), BakeSpec: deploy.BakeSpec{BakeMin: time.Hour}, Gates: []string{"script"}},
		},
		Gates: []deploy.Gate{
			{Name: "port", Probe: deploy.Probe{TCP: "127.0.0.1:8080", Failures: 2, Interval: 2 * time.Second, Timeout: 500 * time.Millisecond}},
			{Name: "script", Probe: deploy.Probe{Command: []string{"scripts/check.sh", "--fast"}}},
			{Name: "smoke", Probe: deploy.Probe{HTTP: "http://127.0.0.1:8080/healthz", Expect: 200, Consecutive: 5}},
		},
		OnFailure:          deploy.FailureAction{Wave: deploy.Action{Do: "pause"}, Gate: deploy.Action{Do: "rollback", Scope: "all"}},
		FailureBudgetTotal: &total,
		Rollback:           deploy.RollbackPolicy{MaxConcurrent: deploy.Percent(33)},
		Timeouts:           deploy.DefaultTimeouts(),
		StopFailure:        "continue",
	}
	if diff := cmp.Diff(want, app.Groups[0].Config); diff != "" {
		t.Error(diff)
	}
	test := app.Groups[1].Config
	if test.Name != "inline" || test.Capacity.MinHealthy != deploy.Count(1) || !test.Capacity.SharedHost || test.Capacity.MaxZones != 0 || len(test.Waves) != 1 {
		t.Errorf("inline config: %+v", test)
	}
	if got := spec.Lint(data, "deploy.yaml"); len(got) != 0 {
		t.Errorf("lint: %v", got)
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
	}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Error(diff)
	}
	if got := spec.Lint([]byte("ap: x"), "d.yaml"); len(got) != 4 || got[0].Severity != spec.SeverityError {
		t.Errorf("got %v", got)
	}
}

func TestSelector(t *testing.T) {
	h := &deploy.Host{Name: "web1", Zone: "a1", Region: "eu", Labels: map[string]string{"role": "web", "env": "prod", "aws:x-y": "1", "disk": "ssd"}}
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
