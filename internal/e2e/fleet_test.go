package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/devfleet"
	"github.com/groundswell/groundswell/internal/s3server"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// bin holds the programs under test, built once.
var bin string

func TestMain(m *testing.M) {
	s3server.MaybeServe()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "groundswell-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/dctl", "./cmd/dcoord", "./cmd/dagent", "./examples/www")
	cmd.Dir = "../.."
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		return 1
	}
	return m.Run()
}

// world is a fleet with an application whose hooks the test writes.
type world struct {
	*testing.T
	fleet *devfleet.Fleet
	dir   string
}

// long says that a test takes more than 8 seconds: `make test` leaves it to
// `make e2e`.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("make e2e runs it")
	}
}

// start starts a fleet for one test. There is one at a time: it reaps all that
// this process leaves behind.
func start(t *testing.T, coordinators, agents int) *world {
	t.Helper()
	return startIn(t, t.TempDir(), coordinators, agents)
}

// startIn is start in a folder.
func startIn(t *testing.T, dir string, coordinators, agents int) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f, err := devfleet.Start(ctx, devfleet.Options{
		Dir: dir, Bin: bin, Coordinators: coordinators, Agents: agents, Zones: min(3, agents), Keep: true,
	}, t.Logf)
	t.Cleanup(func() {
		if !t.Failed() {
			quiet(t, f)
		}
		if t.Failed() {
			dump(t, dir)
		}
		if err := f.Stop(); err != nil {
			t.Errorf("stop the fleet: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return &world{T: t, fleet: f, dir: dir}
}

// dump shows the end of every process's log of a failed test.
func dump(t *testing.T, dir string) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
	for _, l := range logs {
		b, _ := os.ReadFile(l)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		t.Logf("%s:\n%s", filepath.Base(l), strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// dctl runs a command and returns output and exit code.
func (w *world) dctl(args ...string) (string, int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "dctl"), args...)
	cmd.Env = append(append(os.Environ(), w.fleet.Env()...), "DCTL_CONFIG="+filepath.Join(w.dir, "contexts.yaml"),
		"DCTL_OUTPUT=plain")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := w.fleet.Run(cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Fatalf("dctl %s: %v", args, err)
	}
	w.Logf("$ dctl %s  → %d\n%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), out.String())
	return out.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that has to succeed.
func (w *world) must(args ...string) string {
	w.Helper()
	out, code := w.dctl(args...)
	if code != 0 {
		w.Fatalf("dctl %s: exit %d", args, code)
	}
	return out
}

// app applies a deploy.yaml whose config is given in flow style.
func (w *world) app(config string) {
	w.Helper()
	text := fmt.Sprintf("app: hello\nartifacts: %s\ngroups:\n  prod:\n    select: role == \"web\"\n    config: %s\n",
		w.fleet.Store("hello"), config)
	path := filepath.Join(w.dir, "deploy.yaml")
	w.write(path, text)
	w.must("apps", "apply", "-f", path)
}

func (w *world) write(path, text string) {
	w.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		w.Fatal(err)
	}
}

// hook is one script of a bundle.
type hook struct {
	event, script string
	timeout       int
}

// push makes and pushes a bundle with these hooks.
func (w *world) push(rev string, hooks ...hook) {
	w.Helper()
	dir := filepath.Join(w.dir, "bundles", rev)
	spec := "version: 0.0\nos: linux\n"
	if len(hooks) > 0 {
		spec += "hooks:\n"
	}
	for i, h := range hooks {
		name := fmt.Sprintf("scripts/%d.sh", i)
		w.write(filepath.Join(dir, name), "#!/bin/sh\n"+h.script+"\n")
		spec += fmt.Sprintf("  %s:\n    - location: %s\n      timeout: %d\n", h.event, name,
			max(h.timeout, 30*btoi(h.timeout == 0)))
	}
	w.write(filepath.Join(dir, "appspec.yml"), spec)
	w.write(filepath.Join(dir, "revision"), rev+"\n")
	w.must("revisions", "push", dir, "--app", "hello", "--rev", rev)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// running reads which revision every host's current release is.
func (w *world) running() map[string]string {
	w.Helper()
	out, err := releases(w.fleet)
	if err != nil {
		w.Fatal(err)
	}
	return out
}

// releases reads which revision of hello every host's current release is.
func releases(f *devfleet.Fleet) (map[string]string, error) {
	out := map[string]string{}
	for _, h := range f.Hosts {
		found, _ := filepath.Glob(filepath.Join(h.Dir, "root", "hello", "current", "revision"))
		if len(found) == 0 {
			found, _ = filepath.Glob(filepath.Join(h.Dir, "root", "*", "hello", "current", "revision"))
		}
		out[h.Name] = "nothing"
		if len(found) == 1 {
			b, err := os.ReadFile(found[0])
			if err != nil {
				return nil, err
			}
			out[h.Name] = strings.TrimSpace(string(b))
		}
	}
	return out, nil
}

// all checks that every host runs the revision.
func (w *world) all(rev string) {
	w.Helper()
	for h, got := range w.running() {
		if got != rev {
			w.Errorf("%s runs %s, want %s", h, got, rev)
		}
	}
}

func (w *world) deployment() *controlv1.GetDeploymentResponse {
	w.Helper()
	d, err := w.fleet.Control.GetDeployment(w.Context(), &controlv1.GetDeploymentRequest{App: "hello", AllTasks: true})
	if err != nil {
		w.Fatal(err)
	}
	return d
}

// until polls what another process does.
func (w *world) until(limit time.Duration, what string, ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("waited %s for: %s", limit, what)
		}
	}
}
