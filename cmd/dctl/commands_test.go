package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

// TestEveryCommandHasAnExample walks the tree; families list their children.
func TestEveryCommandHasAnExample(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if !cmd.HasSubCommands() && cmd.Example == "" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newCLI(nil, nil, nil).root())
	cl := newCluster(t)
	if got := cl.call("logs", "--help"); got.code != 0 || !strings.Contains(got.out, "dctl logs 01JD4Z --failed") {
		t.Errorf("%+v", got)
	}
}

func TestLists(t *testing.T) {
	f := &fake{
		get: &controlv1.GetDeploymentResponse{
			Deployment: state(4, "running"),
			Records:    []*controlv1.Record{rec(4, "deployment", "running")},
		},
		apps: []*controlv1.App{{Name: "www", Groups: []*controlv1.Group{{
			Name: "prod", Hosts: 2, Serving: 2, LastDeployment: "01C", LastStatus: "succeeded", Deployment: "01D",
			Config: "staged", Artifacts: "file:///r",
			Selector: `role == "web"`, Running: []*controlv1.RevisionCount{{Name: "4f2a91c", Hosts: 2}},
		}}}},
		hosts: []*controlv1.Host{
			{
				Name: "web1", Zone: "a1", State: "connected", Version: "v1",
				Targets: []*controlv1.Target{{App: "www", Running: "4f2a91c", Health: "healthy"}},
			},
			{Name: "web2\x1b[2J", Zone: "b1", State: "unreachable"},
		},
	}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	var all strings.Builder
	for _, args := range []string{
		"status", "status 01D", "history", "hosts list", "apps list", "apps show www", "cluster status", "token create",
		"hosts list -o json", "hosts list -o jsonl", "status -o json", "history -o json", "cluster status -o json",
	} {
		got := cl.call(strings.Fields(args)...)
		if got.code != 0 {
			t.Errorf("%s: %+v", args, got)
		}
		all.WriteString("$ dctl " + args + "\n" + got.out)
		if !strings.Contains(args, "json") {
			continue
		}
		for l := range strings.Lines(got.out) {
			if !json.Valid([]byte(l)) {
				t.Errorf("%s: not JSON: %s", args, l)
			}
		}
	}
	if strings.Contains(all.String(), "\x1b") {
		t.Error("an escape sequence of a host's name came through")
	}
	golden(t, "lists.golden", all.String())
}

func TestLogs(t *testing.T) {
	f := &fake{logged: []*controlv1.LogsResponse{
		{Host: "web1", Event: "ApplicationStart", Script: "start.sh", Data: []byte("one\ntw")},
		{Host: "web1", Event: "ApplicationStart", Script: "start.sh", Data: []byte("o \x1b[31mred\xff")},
		{Host: "web2", Event: "ApplicationStart", Script: "start.sh", Data: []byte("three\n")},
		{Host: "web3", Error: "no stream"},
	}}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	piped := cl.call("logs", "01D")
	want := "==> web1 ApplicationStart start.sh <==\none\ntwo \x1b[31mred\xff\n==> web2 ApplicationStart start.sh " +
		"<==\nthree\n"
	if piped.out != want || piped.err != "web3: no stream\n" || piped.code != 0 {
		t.Errorf("piped: %+v", piped)
	}
	shown := cl.callWith(t.Context(), func(c *cli) { c.outTTY = true }, "logs", "01D")
	if !strings.Contains(shown.out, `two \x1b[31mred\xff`) || strings.Contains(shown.out, "\x1b") {
		t.Errorf("on a terminal: %q", shown.out)
	}
	asJSON := cl.call("logs", "01D", "-o", "jsonl")
	if strings.Count(asJSON.out, "\n") != 4 ||
		!strings.Contains(asJSON.out, `{"host":"web3","event":"","script":"","data":"","error":"no stream"}`) {
		t.Errorf("json: %s", asJSON.out)
	}
}

func TestInitLintApplyPush(t *testing.T) {
	f := &fake{}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	dir, store := t.TempDir(), "file://"+t.TempDir()
	f.apps = []*controlv1.App{{Name: "www", Groups: []*controlv1.Group{{Name: "prod", Artifacts: store}}}}
	step := func(want int, args ...string) called {
		t.Helper()
		got := cl.call(args...)
		if got.code != want {
			t.Fatalf("dctl %v: %+v", args, got)
		}
		return got
	}
	step(0, "apps", "init", "--app", "www", "--dir", dir)
	step(7, "apps", "init", "--app", "www", "--dir", dir)
	if got := step(0, "apps", "lint", dir); got.out != "0 errors, 0 warnings\n" {
		t.Errorf("the skeleton is not clean: %s", got.out)
	}
	step(0, "apps", "apply", "-f", filepath.Join(dir, "deploy.yaml"), "--dry-run")
	if !f.applied.DryRun || f.applied.Filename != "deploy.yaml" ||
		!strings.Contains(string(f.applied.Source), "app: www") {
		t.Errorf("applied %v", f.applied)
	}
	first := pushed(t, step(0, "revisions", "push", dir, "--app", "www", "--rev", "v1", "-o", "json"))
	if first.Revision != "v1" || first.App != "www" || first.Files != 5 || first.Uploaded <= 0 || first.Stored <= 0 ||
		f.revisions[0].Digest != first.Digest {
		t.Errorf("%+v", first)
	}
	must(t, os.WriteFile(filepath.Join(dir, "more"), []byte("more"), 0o644))
	second := pushed(t, step(0, "revisions", "push", dir, "--app", "www", "--rev", "v2", "-o", "json"))
	if second.Files != 6 || second.Digest == first.Digest {
		t.Errorf("%+v", second)
	}
	for range 2 { // a dry run changes nothing
		got := step(0, "revisions", "prune", "--app", "www", "--keep", "1", "--dry-run")
		if !strings.HasPrefix(got.out, "v1 ") ||
			!strings.Contains(got.out, "1 revision of www would be forgotten, 1 stay") {
			t.Errorf("pruned %s", got.out)
		}
	}
	step(0, "revisions", "verify", "v2", "--app", "www")
	step(2, "revisions", "verify", "v3", "--app", "www")
	must(t, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte("version: 0.0\nos: windows\n"), 0o644))
	if got := step(2, "revisions", "push", dir, "--app", "www", "--rev", "v3"); !strings.Contains(got.err,
		"appspec.yml:2:5: os") {
		t.Errorf("%s", got.err)
	}
	step(2, "apps", "lint", dir)
	step(2, "revisions", "push", t.TempDir(), "--app", "www", "--rev", "v3")
}

// pushedLine is the contract of revisions push.
type pushedLine struct {
	App      string `json:"app"`
	Revision string `json:"revision"`
	Digest   string `json:"digest"`
	Files    int    `json:"files"`
	Bytes    int64  `json:"bytes"`
	Stored   int64  `json:"stored_bytes"`
	Uploaded int64  `json:"uploaded_bytes"`
}

func pushed(t *testing.T, c called) pushedLine {
	t.Helper()
	var v pushedLine
	d := json.NewDecoder(strings.NewReader(c.out))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || strings.Count(c.out, "\n") != 1 {
		t.Fatalf("%v in %q", err, c.out)
	}
	return v
}

func TestContexts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "contexts.yaml")
	a, b := Context{Coordinators: []string{"a:1", "b:1"}, Credentials: "/a"}, Context{
		Coordinators: []string{"c:1"},
		Credentials:  "/b",
	}
	must(t, WriteContext(path, "a", a, false))
	must(t, WriteContext(path, "b", b, true))
	got, err := ReadContexts(path)
	must(t, err)
	if diff := cmp.Diff(Contexts{Current: "b", Contexts: map[string]Context{"a": a, "b": b}}, got); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %s", info.Mode())
	}
	must(t, changeContexts(path, func(all *Contexts) bool { all.drop("b"); return true }))
	if got, err := ReadContexts(path); err != nil || got.Current != "" || len(got.Contexts) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	must(t, os.WriteFile(path, []byte("curent: a\n"), 0o600))
	if _, err := ReadContexts(path); err == nil || exitCode(err) != 2 ||
		!strings.Contains(err.Error(), `did you mean "current"?`) {
		t.Errorf("got %v", err)
	}
}

func TestLoginChecksBeforeItWrites(t *testing.T) {
	cl := newCluster(t)
	address := cl.serve(&fake{})
	if got := cl.call("login", "prod", "-C", "127.0.0.1:1", "--credentials", cl.credentials(), "--timeout",
		"200ms"); got.code != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(cl.path); err == nil {
		t.Error("wrote a context that does not work")
	}
	if got := cl.call("login", "prod", "-C", address, "--credentials", cl.credentials()); got.code != 0 {
		t.Errorf("%+v", got)
	}
	if got := cl.call("cluster", "status"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	none := cl.call("status", "-C", address, "--credentials", t.TempDir())
	if none.code != 4 || !strings.Contains(none.err, "tls.crt") {
		t.Errorf("%+v", none)
	}
}

func TestCompletionOffersApplications(t *testing.T) {
	cl := newCluster(t)
	cl.context(cl.serve(&fake{apps: []*controlv1.App{{Name: "api"}, {Name: "www"}}}))
	if got := cl.call("__complete", "deploy", "--app", ""); !strings.HasPrefix(got.out, "api\nwww\n") {
		t.Errorf("%+v", got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü\t\n": "plain ü\t\n", "\x1b[31m": `\x1b[31m`, "a\rb": `a\x0db`, "\u202e": `\u202e`, "\xff": `\xff`,
		"\u0085": `\u0085`, "\x00\x7f": `\x00\x7f`,
	} {
		if got := output.Clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestGitHead(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	for _, args := range [][]string{
		{"init", "-q"},
		{"-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first words"},
	} {
		if _, err := git(ctx, dir, args...); err != nil {
			t.Skip(err)
		}
	}
	head, err := gitHead(ctx, dir)
	if err != nil || len(head) != 40 || gitSubject(ctx, dir, head) != "first words" {
		t.Errorf("%q %v", head, err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "new"), nil, 0o644))
	if _, err := gitHead(ctx, dir); err == nil || !strings.Contains(err.Error(), "1 file") {
		t.Errorf("got %v", err)
	}
	if _, err := gitHead(ctx, t.TempDir()); err == nil {
		t.Error("want an error outside a checkout")
	}
}

// A host of many applications is one line that fits; asked for one, that one.
func TestHostOfManyApplications(t *testing.T) {
	h := &controlv1.Host{Name: "web1", Zone: "a1", State: "connected", Version: "v1"}
	for i := range 40 {
		health := "healthy"
		if i < 2 {
			health = "unhealthy"
		}
		h.Targets = append(h.Targets, &controlv1.Target{
			App: fmt.Sprintf("app-%02d", i), Running: strings.Repeat("9be01d7aa0", 4), Health: health,
		})
	}
	cl := newCluster(t)
	cl.context(cl.serve(&fake{hosts: []*controlv1.Host{h}}))
	got := cl.call("hosts", "list")
	if !strings.Contains(got.out, "40 applications  2 unhealthy,38 healthy") {
		t.Errorf("%s", got.out)
	}
	for l := range strings.Lines(got.out) {
		if len(l) > 80 {
			t.Errorf("%d columns: %s", len(l), l)
		}
	}
	if got := cl.call("hosts", "list", "--app", "app-07"); !strings.Contains(got.out,
		"connected  9be01d7aa09b  healthy") {
		t.Errorf("%s", got.out)
	}
}
