package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/hooks"
)

func TestMain(m *testing.M) {
	hooks.MaybeSupervise()
	os.Exit(m.Run())
}

func TestUsage(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(bad, []byte("zone: a\nlabel:\n  role: web\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--nope"}, 2, "-nope"},
		{[]string{"extra"}, 2, `unexpected argument "extra"`},
		{[]string{"--label", "role"}, 2, "K=V"},
		{[]string{"--keep-releases", "1"}, 2, "--keep-releases"},
		{[]string{"--log-level", "loud"}, 2, "loud"},
		{[]string{"--name", "web 1", "--zone", "a", "--root", t.TempDir()}, 2, "web 1"},
		{[]string{"--name", "web-1"}, 2, "--zone"},
		{[]string{"--config", bad}, 2, "agent.yaml:2:1"},
		{[]string{"--config", bad + ".not"}, 2, "agent.yaml.not"},
		{[]string{"--zone", "a", "--name", "w", "--root", t.TempDir()}, 1, "no join token"},
		{[]string{"--version"}, 0, "dagent "},
		{[]string{"--help"}, 0, "example:"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: exit %d, want %d and %q:\n%s", c.args, code, c.code, c.says, out.String())
		}
	}
}

func TestLayers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	text := "name: from-file\nzone: from-file\nregion: from-file\nlabels: {role: web, env: file}\ncoordinators: [a:1]\nkeepBytes: 64MiB\npruneAfter: 10m\nenv: {PORT: 80}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l := newLine()
	args := []string{
		"--config", file, "--name", "from-flag", "--label", "env=flag", "--coordinator", "b:1,c:1",
		"--coordinator", "d:1",
	}
	if err := l.flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"DAGENT_ZONE": "from-env", "DAGENT_NAME": "from-env", "DAGENT_KEEP_RUNS": "7"}
	s, err := l.load(func(k string) (string, bool) { v, ok := env[k]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.options()
	if err != nil {
		t.Fatal(err)
	}
	if o.Name != "from-flag" || o.Zone != "from-env" || o.Region != "from-file" || o.KeepRuns != 7 ||
		o.KeepBytes != 64<<20 ||
		o.PruneAfter != 10*time.Minute || o.Labels["env"] != "flag" || o.Labels["role"] != "web" ||
		o.Env["PORT"] != "80" ||
		strings.Join(o.Coordinators, " ") != "b:1 c:1 d:1" || o.OpenStore != nil {
		t.Errorf("layers gave %+v", o)
	}
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}

// TestWhatAHostAllows is read from the file, and what is wrong is named by file, line and
// field.
func TestWhatAHostAllows(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	load := func(text string) (settings, error) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		l := newLine()
		if err := l.flags.Parse([]string{"--config", file}); err != nil {
			t.Fatal(err)
		}
		return l.load(func(string) (string, bool) { return "", false })
	}
	s, err := load("runAs: [www]\nstores: [https://s3.example/releases, s3://releases/www]\nbandwidth: 20MiB\n")
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.options()
	if err != nil || len(o.Stores) != 2 || o.Bandwidth != 20<<20 || strings.Join(o.RunAs, "") != "www" {
		t.Errorf("%+v, %v", o, err)
	}
	for text, want := range map[string]string{
		"name: a\nstores: [https://a/b, 'https://u:p@c']\n": "agent.yaml:2:23: stores[1]",
		"name: a\nstores:\n- s3:///x\n":                     "agent.yaml:3:3: stores[0]",
		"bandwidth: 20\n":                                   "agent.yaml:1:12: bandwidth",
		"bandwith: 20MiB\n":                                 `did you mean "bandwidth"`,
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
