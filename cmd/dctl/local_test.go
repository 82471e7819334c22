package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/hooks"
)

func TestMain(m *testing.M) {
	hooks.MaybeSupervise()
	if os.Getenv("TEST_BE_DCTL") != "" {
		os.Exit(run(context.Background(), newCLI(os.Stdin, os.Stdout, os.Stderr), os.Args[1:]))
	}
	os.Exit(m.Run())
}

// TestAgentPage runs what docs/agent.md tells people to type.
func TestAgentPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```bash\n")
	script, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("docs/agent.md has no example")
	}
	clean := func() { _ = os.RemoveAll("/tmp/groundswell-hello") }
	clean()
	t.Cleanup(clean)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", "set -eu\ndctl() { TEST_BE_DCTL=1 "+self+" \"$@\"; }\n"+script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if text := string(out); strings.Count(text, "<h1>hello</h1>") != 2 || !strings.Contains(text, "exit code 1") ||
		!strings.Contains(text, "went back to the former revision") {
		t.Errorf("it printed\n%s", text)
	}
}

// write makes a bundle of files.
func writeBundle(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// One JSON line whatever happens; 0, 1 or 2.
func TestLocalDeploy(t *testing.T) {
	good := writeBundle(t, map[string]string{"appspec.yml": "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - " +
		"location: h.sh\n", "h.sh": "#!/bin/sh\necho hi\n"})
	bad := writeBundle(t, map[string]string{"appspec.yml": "version: 1.0\n"})
	root := t.TempDir()
	at := "--root " + root + " --app www --group g --bundle "
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{at + good, 0, `"result":"succeeded"`},
		{at + bad, 1, "appspec.yml:1:10"},
		{at + good + "/none", 1, `"event":"DownloadBundle"`},
		{at + good + " --type rar", 2, "directory, zip, tar or tgz"},
		{at + good + " --events ApplicationStart,DownloadBundle", 2, "stands before DownloadBundle"},
		{at + good + " --on-failure maybe", 2, "leave or revert"},
		{at + good + " --stop maybe", 2, "fail or continue"},
		{at + good + " --max-revisions 0", 2, "--max-revisions"},
		{"--app www --group g", 2, "--bundle is missing"},
		{"--bundle x --group g", 2, "--app is missing"},
		{at + good + " --nope", 2, "--nope"},
	} {
		got := newCluster(t).call(strings.Fields("local deploy " + c.args + " --output json")...)
		var r agent.LocalResult
		if err := json.Unmarshal([]byte(got.out), &r); err != nil || strings.Count(got.out, "\n") != 1 {
			t.Errorf("%s: not one line of JSON: %q, %v", c.args, got.out, err)
		}
		if got.code != c.code || !strings.Contains(got.out, c.says) ||
			(r.Result == agent.LocalSucceeded) != (c.code == 0) {
			t.Errorf("%s: %+v, want %d and %q", c.args, got, c.code, c.says)
		}
	}
	if got := newCluster(t).call(strings.Fields("local deploy " + at + good)...); got.code != 0 ||
		!strings.Contains(got.out, "AfterInstall") {
		t.Errorf("for people: %+v", got)
	}
}

func TestLocalLint(t *testing.T) {
	spec := "version: 0.0\nos: linux\nfiles:\n  - {source: gone, destination: /x}\nhooks:\n  AfterInstall:\n    - " +
		"location: crlf.sh\n    - location: none.sh\n"
	bad := writeBundle(t, map[string]string{"appspec.yml": spec, "crlf.sh": "#!/bin/sh\r\n"})
	got := newCluster(t).call("local", "lint", bad)
	for _, want := range []string{`"gone" is not in the revision`, "CRLF", "no run bit", "none.sh"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("lint lacks %q:\n%s", want, got.out)
		}
	}
	if got.code != 1 {
		t.Errorf("exit %d", got.code)
	}
	good := writeBundle(t, map[string]string{"appspec.yml": "version: 0.0\nos: linux\n"})
	if got := newCluster(t).call("local", "lint", good, "-o", "json"); got.code != 0 ||
		!strings.Contains(got.out, `"ok":true`) {
		t.Errorf("%+v", got)
	}
	if got := newCluster(t).call("local", "lint", good, "--type", "rar"); got.code != 2 {
		t.Errorf("%+v", got)
	}
}

// A misspelt event is a warning here, where no list of events is known, and is
// refused at push, where it is.
func TestMisspeltEvent(t *testing.T) {
	spec := "version: 0.0\nos: linux\nhooks:\n  ApplicatiionStart:\n    - {location: s.sh, runas: nobody-at-all}\n"
	dir := writeBundle(t, map[string]string{"appspec.yml": spec, "s.sh": "#!/bin/sh\n"})
	const near = "ApplicatiionStart (did you mean ApplicationStart?)"
	got := newCluster(t).call("local", "lint", dir)
	if got.code != 0 || !strings.Contains(got.out, "did you mean ApplicationStart?") ||
		!strings.Contains(got.out, `user "nobody-at-all" is not known`) {
		t.Errorf("lint: %+v", got)
	}
	got = newCluster(t).call("local", "deploy", "--root", t.TempDir(), "--app", "a", "--group", "g", "--bundle", dir)
	if got.code != 0 || !strings.Contains(got.out, near) {
		t.Errorf("local: %+v", got)
	}
	whole := writeBundle(t, map[string]string{
		"appspec.yml": "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - {location: s.sh}\n",
		"s.sh":        "#!/bin/sh\n",
	})
	got = newCluster(t).call("local", "deploy", "--root", t.TempDir(), "--app", "a", "--group", "g", "--bundle", whole,
		"--events", "AplicationStart")
	if got.code != 0 || !strings.Contains(got.out, "no script for it (did you mean ApplicationStart?)") {
		t.Errorf("local, by events: %+v", got)
	}
	got = newCluster(t).call("revisions", "push", dir, "--app", "a", "--rev", "v1")
	if got.code != 2 || !strings.Contains(got.err, near) {
		t.Errorf("push: %+v", got)
	}
}

// A folder is judged as its archive would be.
func TestLintOfAFolder(t *testing.T) {
	dir := writeBundle(t, map[string]string{"appspec.yml": "version: 0.0\nos: linux\n"})
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := newCluster(t).call("local", "lint", dir); got.code != 1 || !strings.Contains(got.out, "named pipe") {
		t.Errorf("%+v", got)
	}
}
