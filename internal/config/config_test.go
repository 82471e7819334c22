package config_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/groundswell/groundswell/internal/config"
)

type listen struct {
	API     string `yaml:"api"`
	DataDir string `yaml:"dataDir"`
}

// word is either "all" or a mapping: it reads itself.
type word struct {
	All  bool
	Only string `yaml:"only,required"`
}

func (w *word) UnmarshalConfig(v config.Value) {
	if text, ok := v.Text(); ok {
		if w.All = text == "all"; !w.All {
			v.Errorf("needs all or a mapping, not %s", v.Describe())
		}
		return
	}
	type plain word
	v.Decode((*plain)(w))
}

type file struct {
	Name    string            `yaml:"name,required"`
	Mode    string            `yaml:"mode" enum:"fast safe" later:"magic"`
	Retry   int               `yaml:"retry" min:"1" max:"10"`
	On      bool              `yaml:"on"`
	Every   time.Duration     `yaml:"every"`
	Memory  config.Size       `yaml:"memory"`
	Part    config.Share      `yaml:"part"`
	Floor   *config.Share     `yaml:"floor"`
	Env     map[string]string `yaml:"env"`
	Hosts   []string          `yaml:"hosts"`
	Listen  listen            `yaml:"listen"`
	Others  map[string]listen `yaml:"others"`
	Select  *word             `yaml:"select"`
	FromEC2 bool              `yaml:"fromEC2Tags"`
	_       struct{}          `later:"notify links"`
}

func TestDecode(t *testing.T) {
	got := file{Mode: "safe", Retry: 3, Env: map[string]string{"A": "1"}}
	err := config.Decode([]byte(`
name: www
retry: 5
on: true
every: 1d2h
memory: 64MiB
part: 2.5%
floor: 3
env: {PORT: 8080, DEBUG: true}
hosts: &h [a, "b"]
listen: {api: ":7100"}
others: {x: {dataDir: /d}}
select: {only: y}
`), "f.yaml", &got)
	if err != nil {
		t.Fatal(err)
	}
	want := file{
		Name: "www", Mode: "safe", Retry: 5, On: true, Every: 26 * time.Hour, Memory: 64 << 20,
		Part: config.Share{PPM: 25_000, Relative: true}, Floor: &config.Share{Count: 3},
		Env:   map[string]string{"A": "1", "PORT": "8080", "DEBUG": "true"},
		Hosts: []string{"a", "b"}, Listen: listen{API: ":7100"},
		Others: map[string]listen{"x": {DataDir: "/d"}}, Select: &word{Only: "y"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(file{})); diff != "" {
		t.Error(diff)
	}
}

func TestProblems(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", `f.yaml: the key "name" is missing`},
		{"comment only", "# nothing\n", `f.yaml: the key "name" is missing`},
		{"scalar", "hello", "f.yaml:1:1: needs a mapping with keys of"},
		{"nearest", "name: x\nmdoe: safe", "f.yaml:2:1: mdoe: unknown key \"mdoe\"; did you mean \"mode\"?\n    2 | mdoe: safe\n      | ^"},
		{
			"case", "name: x\nlisten:\n  data_dir: /x",
			`f.yaml:3:3: listen.data_dir: unknown key "data_dir"; did you mean "dataDir"?`,
		},
		{"far", "name: x\nlisten: {zebra: 1}", `unknown key "zebra"; known are api, dataDir`},
		{"later", "name: x\nnotify: [a]", "f.yaml:2:1: notify: not supported yet; remove the key"},
		{"near later", "name: x\nnotfy: [a]", `unknown key "notfy"; the nearest, "notify", is not supported yet`},
		{"later value", "name: x\nmode: magic", `f.yaml:2:7: mode: "magic" is not supported yet; use fast or safe`},
		{"enum", "name: x\nmode: slow", `f.yaml:2:7: mode: "slow" is not legal; use fast or safe`},
		{"twice", "name: x\nname: y", "f.yaml:2:1: name: the key comes twice; remove one"},
		{"null", "name:\n", "f.yaml:1:6: name: has no value; give one or remove the key"},
		{"list for text", "name: [x]", "f.yaml:1:7: name: needs text, not a list"},
		{"text for list", "name: x\nhosts: a", `f.yaml:2:8: hosts: needs a list, such as [a, b], not "a"`},
		{"text for map", "name: x\nenv: a", `f.yaml:2:6: env: needs a mapping of names to values, not "a"`},
		{
			"map for share", "name: x\npart: {a: 1}",
			"f.yaml:2:7: part: needs a count such as 3 or a percentage such as 25%, not a mapping",
		},
		{
			"list for duration", "name: x\nevery: [1s]",
			"f.yaml:2:8: every: needs a duration such as 90s, 10m or 7d, not a list",
		},
		{"list item", "name: x\nhosts: [a, {b: c}]", "f.yaml:2:12: hosts[1]: needs text, not a mapping"},
		{"int", "name: x\nretry: 2.5", `f.yaml:2:8: retry: needs a whole number, not "2.5"`},
		{"low", "name: x\nretry: 0", "f.yaml:2:8: retry: must be at least 1, not 0"},
		{"high", "name: x\nretry: 11", "f.yaml:2:8: retry: must be at most 10, not 11"},
		{"bool", "name: x\non: yes", `f.yaml:2:5: on: needs true or false, not "yes"`},
		{"no unit", "name: x\nevery: 90", `f.yaml:2:8: every: "90" has no unit; write for instance 90s or 90m`},
		{"negative", "name: x\nevery: -5s", `"-5s" is no duration`},
		{"duration", "name: x\nevery: soon", `"soon" is no duration`},
		{"size", "name: x\nmemory: 64", `f.yaml:2:9: memory: "64" is no size; write for instance 512KiB`},
		{"share", "name: x\npart: 101%", `f.yaml:2:7: part: "101%" is no percentage`},
		{"share text", "name: x\npart: some", `f.yaml:2:7: part: "some" is no share`},
		{"merge", "name: x\nlisten:\n  <<: {api: a}", "f.yaml:3:3: listen: merge keys (<<) are not read here"},
		{"complex key", "name: x\nenv:\n  [a]: b", "f.yaml:3:3: env: a key must be a word, not a list"},
		{"own type", "name: x\nselect: some", `f.yaml:2:9: select: needs all or a mapping, not "some"`},
		{
			"own type, nested", "name: x\nselect: {onyl: x}",
			`f.yaml:2:10: select.onyl: unknown key "onyl"; did you mean "only"?`,
		},
		{"own type, missing", "name: x\nselect: {}", `f.yaml:2:9: select: the key "only" is missing`},
		{"second document", "name: x\n---\nname: y\n", "a second document begins here; only one is read"},
		{"yaml", "name: [x\n", "not valid YAML"},
		{"tab", "name: x\nlisten:\n\tapi: x", "not valid YAML"},
		{"utf8", "name: \xff", "the file is not UTF-8 text"},
		{"cycle", "name: x\nothers: &a {x: *a}", "unknown key"},
		{"crlf", "name: x\r\nmdoe: safe\r\n", "    2 | mdoe: safe\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f file
			err := config.Decode([]byte(c.in), "f.yaml", &f)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
			var one *config.Error
			if err != nil && (!errors.As(err, &one) || one.Kind() != "invalid") {
				t.Errorf("%T is no config.Error", err)
			}
		})
	}
}

func TestAllProblemsInOrder(t *testing.T) {
	var f file
	err := config.Decode([]byte("retry: x\nlisten: {apy: 1}\nevery: 5\n"), "f.yaml", &f)
	var errs config.Errors
	if !errors.As(err, &errs) || len(errs) != 4 {
		t.Fatalf("got %v", err)
	}
	var lines []int
	for _, e := range errs {
		lines = append(lines, e.Line)
	}
	if diff := cmp.Diff([]int{1, 1, 2, 3}, lines); diff != "" {
		t.Error(diff)
	}
}

func TestErrorfFindsThePlace(t *testing.T) {
	d := config.Parse([]byte("name: x\nothers:\n  y:\n    api: z\n"), "f.yaml")
	var f file
	d.Decode(&f)
	d.Errorf("others.y.api", "is taken")
	d.Errorf("others.y.dataDir", "is needed")
	var errs config.Errors
	if !errors.As(d.Err(), &errs) || errs[0].Line != 4 || errs[1].Line != 4 || errs[0].Column != 5 {
		t.Errorf("got %v", d.Err())
	}
}

func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("name: x\nhosts: &a0 [" + strings.Repeat("a, ", 400) + "a]\n")
	b.WriteString("others: {" + strings.Repeat("k: *a0, ", 3) + "z: *a0}\n")
	var f file
	if err := config.Decode([]byte(b.String()), "f.yaml", &f); err == nil {
		t.Error("want an error")
	}
}

func TestLayers(t *testing.T) {
	env := map[string]string{
		"DCOORD_NAME": "env", "DCOORD_LISTEN_DATA_DIR": "/env", "DCOORD_HOSTS": "a, b",
		"DCOORD_EVERY": "5s", "DCOORD_FROM_EC2_TAGS": "true", "DCOORD_FLOOR": "10%", "DCOORD_MODE": "",
	}
	flags := map[string]string{"name": "flag", "listen-api": ":1", "from-ec2-tags": "false"}
	get := func(m map[string]string) func(string) (string, bool) {
		return func(k string) (string, bool) { v, ok := m[k]; return v, ok }
	}
	f := file{Name: "file", Mode: "safe", Listen: listen{API: ":0", DataDir: "/file"}}
	if err := config.Overlay(&f, config.Env("DCOORD", get(env)), config.Flags(get(flags))); err != nil {
		t.Fatal(err)
	}
	want := file{
		Name: "flag", Mode: "safe", Every: 5 * time.Second, Hosts: []string{"a", "b"},
		Listen: listen{API: ":1", DataDir: "/env"}, Floor: &config.Share{PPM: 100_000, Relative: true},
	}
	if diff := cmp.Diff(want, f, cmp.AllowUnexported(file{})); diff != "" {
		t.Error(diff)
	}
	err := config.Overlay(&f, config.Env("DCOORD", get(map[string]string{"DCOORD_EVERY": "x"})),
		config.Flags(get(map[string]string{"mode": "slow"})))
	want1, want2 := `DCOORD_EVERY: "x" is no duration`, `--mode: "slow" is not legal; use fast or safe`
	if err == nil || !strings.Contains(err.Error(), want1) || !strings.Contains(err.Error(), want2) {
		t.Errorf("got %v", err)
	}
}

func TestLoadMissing(t *testing.T) {
	var f file
	if err := config.Load(filepath.Join(t.TempDir(), "none.yaml"), &f); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestTexts(t *testing.T) {
	for in, want := range map[string]string{"1.5GiB": "1536MiB", "2GB": "1953125KiB", "0": "0B", "64 MiB": "64MiB"} {
		var s config.Size
		if err := s.Set(in); err != nil || s.String() != want {
			t.Errorf("size %s: %s, %v", in, s, err)
		}
	}
	for _, in := range []string{"-1B", "1e3B", "99999999TiB", "MiB", "x"} {
		var s config.Size
		if s.Set(in) == nil {
			t.Errorf("size %s: want an error", in)
		}
	}
	for in, want := range map[string]string{"90s": "1m30s", "600s": "10m", "7d": "168h", "0": "0s", "1h": "1h"} {
		var d config.Duration
		if err := d.Set(in); err != nil || d.String() != want {
			t.Errorf("duration %s: %s, %v", in, d, err)
		}
	}
	for in, want := range map[string]string{
		"25%": "25%", "0.5%": "0.5%", "100%": "100%", "3": "3",
		"33.3333%": "33.3333%",
	} {
		var s config.Share
		if err := s.Set(in); err != nil || s.String() != want {
			t.Errorf("share %s: %s, %v", in, s, err)
		}
	}
	for _, in := range []string{"100.0001%", "-1", "1.%", ".5%", "+3", "3%%", "0x3", "1.23456%"} {
		var s config.Share
		if s.Set(in) == nil {
			t.Errorf("share %s: want an error", in)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"name: x", "a: &a [*a]", "name: x\nselect: {only: [}", "? [a]\n: b",
		"others: {a: {api: 1}}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v file
		if err := config.Decode(data, "f.yaml", &v); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
