package main

import (
	"bytes"
	"context"
	"path/filepath"
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
