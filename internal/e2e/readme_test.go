package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inCI are commands of the README that .ci/run executes itself, because they
// run this test.
var inCI = []string{"make demo", "make test", "make build"}

// blocks returns the shell blocks of a document.
func blocks(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, part := range strings.Split(string(b), "```sh\n")[1:] {
		text, _, ok := strings.Cut(part, "```")
		if !ok {
			t.Fatalf("%s: a block does not end", file)
		}
		out = append(out, text)
	}
	return out
}

// TestReadme runs what the README tells a newcomer to type, line by line, in
// one shell.
func TestReadme(t *testing.T) {
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	script := "set -eu\nexport PATH=\"" + bin + ":$PATH\"\nunset DCTL_CONFIG DCTL_OUTPUT\n"
	for _, b := range blocks(t, "../../README.md") {
		for _, line := range strings.Split(b, "\n") {
			for _, skip := range inCI {
				if strings.TrimSpace(line) == skip {
					if !strings.Contains(string(ci), skip) {
						t.Errorf(".ci/run does not execute %q of the README", skip)
					}
					line = ":"
				}
			}
			script += line + "\n"
		}
	}
	if err := os.RemoveAll("/tmp/groundswell"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll("/tmp/groundswell") })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = filepath.Join("..", "..")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	t.Logf("%s", out.String())
	if err != nil {
		for _, l := range []string{"c1.log", "host-1.log"} {
			b, _ := os.ReadFile("/tmp/groundswell/" + l)
			t.Logf("%s:\n%s", l, b)
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what the script left
		t.Fatal(err)
	}
	for _, want := range []string{"exit code 5", "cannot reach the database", "2 hosts"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output has no %q", want)
		}
	}
}

// wholePages are run by tests of their own: TestReadme, TestAccessPage, TestAuditPage.
var wholePages = []string{"README.md", "access.md", "audit.md"}

// TestNoOtherPageHasUntestedCommands: shell blocks belong in the README or in a
// runbook, where they are run.
func TestNoOtherPageHasUntestedCommands(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md"} {
		found, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	if len(pages) < 10 {
		t.Fatalf("only %d pages found", len(pages))
	}
	for _, p := range pages {
		run := 0
		for _, section := range runbooks[filepath.Base(p)] {
			run += len(commands(chapter(t, filepath.Base(p), section)))
		}
		all := 0
		for _, b := range blocks(t, p) {
			all += len(commands(b))
		}
		if !slices.Contains(wholePages, filepath.Base(p)) && all != run {
			t.Errorf("%s has %d commands in shell blocks, of which a test runs %d", p, all, run)
		}
	}
}

// commands are the lines of a block that do something.
func commands(block string) (out []string) {
	for _, l := range strings.Split(block, "\n") {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			out = append(out, l)
		}
	}
	return out
}
