package devfleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// interrupted is the exit code of a dctl whose view a person left.
const interrupted = 130

// Step is one step of the demo, a line of `dctl dev --auto --output jsonl`.
type Step struct {
	Step       string      `json:"step"`
	Result     string      `json:"result"` // pass | fail
	Seconds    float64     `json:"seconds"`
	Deployment string      `json:"deployment"`
	Outcome    string      `json:"outcome"`
	Asserted   []Assertion `json:"asserted"`
	Message    string      `json:"message"`
}

// Assertion is one thing that a step looked at.
type Assertion struct {
	What string `json:"what"`
	Want string `json:"want"`
	Got  string `json:"got"`
	OK   bool   `json:"ok"`
}

// want records an assertion.
func (s *Step) want(what string, want, got any) {
	a := Assertion{What: what, Want: fmt.Sprint(want), Got: fmt.Sprint(got)}
	a.OK = a.Want == a.Got
	s.Asserted = append(s.Asserted, a)
}

func (s *Step) failed() bool {
	return s.Message != "" || slices.ContainsFunc(s.Asserted, func(a Assertion) bool { return !a.OK })
}

// Demo runs the example application through the life of four revisions.
type Demo struct {
	Options Options
	Dctl    string   // the binary whose commands are shown
	Env     []string // added to the environment of every dctl command
	Say     func(format string, args ...any)
	Emit    func(Step)
	// Ready is called once the fleet serves, before the first dctl command.
	Ready func(*Fleet) error
	// Watch receives the output of dctl commands; nil drops it.
	Watch *os.File
	// Keys are those of the person at the terminal Watch: deployments are shown
	// live there. Nil shows them line by line.
	Keys *os.File

	fleet *Fleet

	mu      sync.Mutex
	drawing bool     // a live view has the terminal
	held    []string // what is said once it is left
}

// say tells a person something, but never into a live view.
func (d *Demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.drawing {
		d.held = append(d.held, fmt.Sprintf(format, args...))
		return
	}
	d.Say(format, args...)
}

// draw gives the terminal to a live view, or takes it back.
func (d *Demo) draw(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drawing = on
	if !on {
		for _, text := range d.held {
			d.Say("%s", text)
		}
		d.held = nil
	}
}

// Run runs the steps in order; after a failed one only stop follows. Between
// the last step and stop it calls stay, if there is one. It reports whether
// every assertion held.
func (d *Demo) Run(ctx context.Context, stay func(context.Context, *Fleet)) bool {
	steps := []struct {
		name string
		run  func(context.Context, *Step) error
	}{
		{"start", d.start},
		{"deploy-v1", d.deployV1},
		{"deploy-v2", d.deployV2},
		{"rollback-v3", d.rollbackV3},
		{"failover-v4", d.failoverV4},
	}
	ok := true
	for _, s := range steps {
		if ok = d.step(ctx, s.name, s.run); !ok {
			break
		}
	}
	if ok && stay != nil {
		stay(ctx, d.fleet)
	}
	return d.step(context.WithoutCancel(ctx), "stop", d.stop) && ok
}

func (d *Demo) step(ctx context.Context, name string, run func(context.Context, *Step) error) bool {
	s := Step{Step: name, Result: "pass", Asserted: []Assertion{}}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := run(ctx, &s); err != nil {
		s.Message = err.Error()
	}
	if s.failed() {
		s.Result = "fail"
	}
	s.Seconds = float64(time.Since(began).Milliseconds()) / 1000
	d.Emit(s)
	return s.Result == "pass"
}

func (d *Demo) start(ctx context.Context, s *Step) (err error) {
	if d.fleet, err = Start(ctx, d.Options, d.Say); err != nil {
		return err
	}
	status, err := d.fleet.Control.ClusterStatus(ctx, &controlv1.ClusterStatusRequest{})
	if err != nil {
		return errors.New(rpc.Text(err))
	}
	s.want("coordinators", d.Options.Coordinators, len(status.Coordinators))
	s.want("a leader", true, status.Leader != "")
	s.want("hosts connected", d.Options.Agents, status.Connected)
	s.Outcome = "running"
	if err := errors.Join(d.Ready(d.fleet), d.writeApp()); err != nil {
		return err
	}
	_, err = d.dctl(ctx, "apps", "apply", "-f", filepath.Join(d.Options.Dir, "deploy.yaml"))
	return err
}

// writeApp writes the deploy.yaml of the demo: one-box, then zone by zone,
// with short bakes and a gate on what a load balancer would ask.
func (d *Demo) writeApp() error {
	text := fmt.Sprintf(`app: www
artifacts: %s
groups:
  prod:
    select: role == "web" && env == "prod"
    config:
      capacity: {minHealthy: 66%%, maxConcurrent: 50%%, maxZones: 1}
      waves:
        - name: one-box
          select: {count: 1, from: "zone=lightest"}
          bake: {min: 2s}
          gates: [smoke]
        - name: zones
          forEach: zone
          select: remainder
          bake: {min: 1s}
          gates: [smoke]
      gates:
        smoke: {probe: {http: "http://127.0.0.1:${PORT}/healthz", expect: 200, consecutive: 2, interval: 100ms}, scope: host}
      onFailure:
        wave: {action: rollback, scope: all}
        gate: {action: rollback, scope: all}
`, d.fleet.Store("www"))
	if err := os.WriteFile(filepath.Join(d.Options.Dir, "deploy.yaml"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("write deploy.yaml: %w", err)
	}
	return nil
}

// dctl runs a command as a person would, and returns its exit code; an error
// only when it could not be run, or when it failed and code was not asked for.
func (d *Demo) dctl(ctx context.Context, args ...string) (string, error) {
	out, code, err := d.run(ctx, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("dctl %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out, err
}

func (d *Demo) run(ctx context.Context, args ...string) (string, int, error) {
	cmd := exec.CommandContext(ctx, d.Dctl, args...)
	cmd.Env = append(append(os.Environ(), d.fleet.s3.Env()...), d.Env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if d.Watch != nil && args[0] == "deploy" {
		d.Say("$ dctl %s", strings.Join(args, " "))
		cmd.Stdout, cmd.Stderr = d.Watch, d.Watch
		if d.Keys != nil {
			cmd.Stdin = d.Keys
			// A view that is killed would leave the terminal without line ends and echo.
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			cmd.WaitDelay = 5 * time.Second
			cmd.Env = append(cmd.Env, "DCTL_OUTPUT=auto")
			d.draw(true)
			defer d.draw(false)
		}
	}
	err := d.fleet.proc.run(cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == interrupted && cmd.Stdin != nil {
		return "", interrupted, errors.New("the deployment was left by its keys, so the demo ends")
	}
	if errors.As(err, &exit) {
		return out.String(), exit.ExitCode(), nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("run dctl %s: %w", args[0], err)
	}
	return out.String(), 0, nil
}

// push builds the bundle of a revision, by the example's own program, and
// pushes it.
func (d *Demo) push(ctx context.Context, rev string, extra ...string) error {
	dir := filepath.Join(d.Options.Dir, "bundles", rev)
	args := append([]string{"bundle", "--dir", dir, "--revision", rev}, extra...)
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(d.Options.Bin, "www"), args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := d.fleet.proc.run(cmd); err != nil {
		return fmt.Errorf("build bundle of %s: %w\n%s", rev, err, out.String())
	}
	_, err := d.dctl(ctx, "revisions", "push", dir, "--app", "www", "--rev", rev)
	return err
}

// deploy pushes and deploys a revision and checks exit code and outcome.
func (d *Demo) deploy(ctx context.Context, s *Step, rev string, code int, outcome string,
	extra ...string,
) (*controlv1.GetDeploymentResponse, error) {
	if err := d.push(ctx, rev, extra...); err != nil {
		return nil, err
	}
	out, got, err := d.run(ctx, "deploy", "--app", "www", "--rev", rev)
	if err != nil {
		return nil, err
	}
	s.want("exit code of dctl deploy", code, got)
	if got != code && out != "" {
		s.Message = out
	}
	return d.outcome(ctx, s, outcome)
}

// outcome reads the newest deployment and checks how it ended.
func (d *Demo) outcome(ctx context.Context, s *Step, outcome string) (*controlv1.GetDeploymentResponse, error) {
	r, err := d.fleet.Control.GetDeployment(ctx, &controlv1.GetDeploymentRequest{App: "www", AllTasks: true})
	if err != nil {
		return nil, errors.New(rpc.Text(err))
	}
	s.Deployment, s.Outcome = r.Deployment.Id, r.Deployment.Status
	s.want("outcome", outcome, r.Deployment.Status)
	return r, nil
}

// answers asks every host's application which revision it is.
func (d *Demo) answers(s *Step, rev string) {
	n := 0
	for _, h := range d.fleet.Hosts {
		if got := ask(h); got == rev {
			n++
		}
	}
	s.want("hosts that answer with "+rev, len(d.fleet.Hosts), n)
}

func (d *Demo) deployV1(ctx context.Context, s *Step) error {
	if _, err := d.deploy(ctx, s, "v1", 0, "succeeded"); err != nil {
		return err
	}
	d.answers(s, "v1")
	return nil
}

func (d *Demo) deployV2(ctx context.Context, s *Step) error {
	lb := startBalancer(d.fleet.Hosts)
	r, err := d.deploy(ctx, s, "v2", 0, "succeeded")
	requests, failures, example := lb.stop()
	if err != nil {
		return err
	}
	var sealed []string
	for _, rec := range r.Records {
		if rec.Subject == "wave" && rec.To == "sealed" {
			sealed = append(sealed, rec.Wave)
		}
	}
	planned := []string{}
	for _, w := range r.Deployment.Waves {
		planned = append(planned, w.Name)
	}
	s.want("the first wave", "one-box", planned[0])
	s.want("waves sealed in order", strings.Join(planned, " "), strings.Join(sealed, " "))
	s.want("hosts of the one-box", 1, r.Deployment.Waves[0].Settled)
	s.want("requests were sent", true, requests > 100)
	s.want("failed requests", "0", strings.TrimSpace(fmt.Sprint(failures, " ", example)))
	d.say("a load balancer sent %d requests meanwhile, %d failed", requests, failures)
	d.answers(s, "v2")
	return nil
}

func (d *Demo) rollbackV3(ctx context.Context, s *Step) error {
	r, err := d.deploy(ctx, s, "v3", 5, "rolled_back", "--behaviour", "500")
	if err != nil {
		return err
	}
	touched, reason := 0, ""
	for _, t := range r.Deployment.Tasks {
		if t.Failure != nil {
			reason = t.Failure.Message
		}
		if t.Status != "cancelled" && t.Status != "waiting" {
			touched++
		}
	}
	s.want("hosts that v3 touched", 1, touched)
	s.want("the reason names the status", true, strings.Contains(reason+r.Deployment.Cause, "50"))
	d.answers(s, "v2")
	return nil
}

func (d *Demo) failoverV4(ctx context.Context, s *Step) error {
	if err := d.push(ctx, "v4"); err != nil {
		return err
	}
	old, err := d.fleet.Leader(ctx)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	code := -1
	go func() {
		var err error
		_, code, err = d.run(ctx, "deploy", "--app", "www", "--rev", "v4")
		done <- err
	}()
	if err := d.waitSealed(ctx, "v4"); err != nil {
		return errors.Join(err, <-done)
	}
	d.say("killing the leader %s with -9", old.Name)
	if err := d.fleet.KillCoordinator(old); err != nil {
		return err
	}
	killed, alone := time.Now(), len(d.fleet.coords) == 1
	if alone { // nobody takes over; what was decided is on its disk
		if err := d.fleet.RestartCoordinator(ctx, old); err != nil {
			return errors.Join(err, <-done)
		}
	}
	leader, err := d.newLeader(ctx, old)
	if err != nil {
		return errors.Join(err, <-done)
	}
	d.say("%s leads after %s", leader.Name, time.Since(killed).Round(10*time.Millisecond))
	if err := <-done; err != nil {
		return err
	}
	s.want("exit code of dctl deploy", 0, code)
	s.want("another coordinator leads", !alone, leader.Name != old.Name)
	if _, err := d.outcome(ctx, s, "succeeded"); err != nil {
		return err
	}
	d.answers(s, "v4")
	if alone {
		return nil
	}
	return d.fleet.RestartCoordinator(ctx, old)
}

// waitSealed waits until the one-box of a revision is sealed.
func (d *Demo) waitSealed(ctx context.Context, rev string) error {
	return d.fleet.until(ctx, 30*time.Second, nil, "the one-box of "+rev+" is sealed", func() (bool, error) {
		r, err := d.fleet.Control.GetDeployment(ctx, &controlv1.GetDeploymentRequest{App: "www"})
		return err == nil && r.Deployment.Revision == rev && r.Deployment.Waves[0].Status == "sealed", err
	})
}

// newLeader waits until another than the old one leads, or the old one again
// where it is the only one.
func (d *Demo) newLeader(ctx context.Context, old *Coordinator) (leader *Coordinator, err error) {
	err = d.fleet.until(ctx, 20*time.Second, nil, "a new leader", func() (bool, error) {
		var err error
		leader, err = d.fleet.Leader(ctx)
		return err == nil && (leader != old || len(d.fleet.coords) == 1), err
	})
	return leader, err
}

func (d *Demo) stop(_ context.Context, s *Step) error {
	if d.fleet == nil {
		return nil
	}
	err := d.fleet.Stop()
	s.want("processes left", 0, len(descendants(nil)))
	_, gone := os.Stat(d.Options.Dir)
	s.want("folder removed", !d.Options.Keep, errors.Is(gone, os.ErrNotExist))
	s.Outcome = "stopped"
	return err
}
