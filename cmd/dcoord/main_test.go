package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/identity"
)

func TestOperatorCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c1")
	var out, errs bytes.Buffer
	call := func(args ...string) int {
		out.Reset()
		errs.Reset()
		return run(t.Context(), args, &out, &errs)
	}
	if code := call("operator", "--dir", dir, "--name", "ann"); code != 1 ||
		!strings.Contains(errs.String(), "no coordinator's folder") {
		t.Errorf("without a coordinator: %d, %s", code, errs.String())
	}
	if code := call("operator", "--dir", dir); code != 2 || !strings.Contains(errs.String(), "--name is missing") {
		t.Errorf("without a name: %d, %s", code, errs.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a coordinator that is stopped as soon as it has made its keys
	code := run(ctx, []string{
		"--bootstrap", "--name", "c1", "--dir", dir, "--api", "127.0.0.1:0", "--agents", "127.0.0.1:0",
		"--raft", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--debug", "none",
	}, &out, &errs)
	if code != 0 {
		t.Fatalf("bootstrap: %d, %s", code, errs.String())
	}
	if code := call("operator", "--dir", dir, "--name", "ann"); code != 0 {
		t.Fatalf("%d, %s", code, errs.String())
	}
	made, _, _ := strings.Cut(out.String(), "\n")
	cred, err := identity.Load(made)
	if err != nil {
		t.Fatal(err)
	}
	who, err := cred.Peer()
	if err != nil || who != (identity.Peer{Role: identity.Operator, ID: "ann", BreakGlass: true}) ||
		time.Until(cred.Ends()) > 24*time.Hour {
		t.Errorf("%+v until %s, %v", who, cred.Ends(), err)
	}
	if code := call("operator", "--dir", dir, "--name", "a/b"); code != 1 ||
		!strings.Contains(errs.String(), "identity") {
		t.Errorf("a name with a slash: %d, %s", code, errs.String())
	}
}

// TestBadSettings: what is wrong in a call or a file is exit 2 and says where.
func TestBadSettings(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		path := filepath.Join(dir, "coordinator.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		text string
		args []string
		want string
	}{
		{"name: c1\ndirr: x\n", nil, "coordinator.yaml:2:1"},
		{"name: c1\ndiskReserve: much\n", nil, "coordinator.yaml:2"},
		{"name: c1\nlogLevel: loud\n", nil, "loud"},
		{"name: c1\n", []string{"surplus"}, `unexpected argument "surplus"`},
		{"name: c1\n", []string{"--no-such-flag"}, "no-such-flag"},
		{"name: c1\n", []string{"--log-level", "loud"}, "loud"},
		{"name: c1\n", []string{"--name", "a/b"}, "a/b"},
	} {
		var out, errs bytes.Buffer
		args := append([]string{"--config", file(c.text), "--dir", filepath.Join(dir, "state")}, c.args...)
		if code := run(t.Context(), args, &out, &errs); code != 2 || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%q %v: exit %d, %s; want 2 and %q", c.text, c.args, code, errs.String(), c.want)
		}
	}
}

// TestLayers: a flag lies over the environment, that over the file, that over the
// defaults.
func TestLayers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "coordinator.yaml")
	text := "name: file\napi: file:1\nagents: file:2\njoin: [a:1, b:2]\ndebug: none\napprovers: {oncall: [ann]}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DCOORD_API", "env:1")
	t.Setenv("DCOORD_NAME", "env")
	cmd := command(io.Discard, io.Discard)
	if err := cmd.ParseFlags([]string{"--name", "flag", "--log-level", "warn", "--join", "c:3"}); err != nil {
		t.Fatal(err)
	}
	s, err := load(path, cmd.Flags())
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "flag" || s.API != "env:1" || s.Agents != "file:2" || s.Raft != ":7102" || s.LogLevel != "warn" ||
		s.Debug != "" || !slices.Equal(s.Join, []string{"c:3"}) ||
		!slices.Equal(s.Approvers["oncall"], []string{"ann"}) {
		t.Errorf("%+v", s)
	}
}
