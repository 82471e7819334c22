package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/groundswell/groundswell/agent/release"
	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/hooks"
)

// LocalOptions is one deployment on this host without a coordinator. Bundle,
// App, Group and Root are required; the zero value of every other field takes
// its default.
type LocalOptions struct {
	// Bundle is a folder or archive; Type says which, and is found from the
	// content if it is empty.
	Bundle string
	Type   artifacts.BundleType
	// AppSpec is the appspec's name in the bundle where it is stated.
	AppSpec string
	// App and Group name whose revisions, clean-up record and pointers these
	// are; scripts see them.
	App, Group string
	// Deployment is the deployment's id. Default one that is made up.
	Deployment string
	// Root is the state folder. One agent or local deployment at a time may
	// use it; another is refused.
	Root string
	// Events are those to run, in their order. Nil runs all thirteen; a list
	// also states which names an appspec may use.
	Events []string
	// FileExists is the option of the deployment as it was written. As in
	// CodeDeploy, one that is unknown fails an install that needs it.
	FileExists string
	// StopFails lets a failed stop script of the running revision fail the
	// deployment. Without it the deployment goes on with a warning.
	StopFails bool
	// Revert goes back to the former revision after a failure; without it the
	// host stays as the failure left it.
	Revert bool
	// MaxRevisions is how many stay on disk; what runs, and the last good ones,
	// always do. Default 5.
	MaxRevisions int

	// Supervisor and Cgroup are those of Options.
	Supervisor, Cgroup string
	// Env is handed to every script.
	Env map[string]string
	// Log gets what happens. Default none.
	Log *slog.Logger `json:"-"`
	// Progress is told of each event as it ends; it may be nil.
	Progress func(LocalEvent) `json:"-"`
}

// The results of a local deployment and of its events.
const (
	LocalSucceeded = "succeeded"
	LocalFailed    = "failed"
	LocalSkipped   = "skipped"
)

// LocalResult is how a local deployment ended. Its JSON is a contract: fields
// are only added.
type LocalResult struct {
	Result     string `json:"result"`
	Deployment string `json:"deployment_id"`
	// Release is the folder of the unpacked revision, "" if there is none.
	Release string `json:"release"`
	// Event, Code, Message, Script and Log say what failed first: Log is the
	// end of the script's output, at most hooks.TailSize bytes.
	Event   string     `json:"event"`
	Code    hooks.Code `json:"code"`
	Message string     `json:"message"`
	Script  string     `json:"script"`
	Log     string     `json:"log"`
	// Stop is the choice for stop scripts that fail: fail or continue.
	Stop string `json:"stop"`
	// Events are those of the deployment in their order.
	Events []LocalEvent `json:"events"`
	// Reverted are those of the way back, if there was one.
	Reverted []LocalEvent `json:"reverted,omitempty"`
	Warnings []string     `json:"warnings,omitempty"`
}

// LocalEvent is one lifecycle event. Skipped is one without a script, or one
// that the deployment did not get to.
type LocalEvent struct {
	Event   string        `json:"event"`
	Result  string        `json:"result"`
	Seconds float64       `json:"seconds"`
	Scripts []LocalScript `json:"scripts"`
}

// LocalScript is one script that was run, or could not be.
type LocalScript struct {
	Script  string     `json:"script"`
	Code    hooks.Code `json:"code"`
	Exit    string     `json:"exit"`
	Seconds float64    `json:"seconds"`
	Message string     `json:"message"`
	// LogFile is the script's whole output, on this host.
	LogFile string `json:"log_file"`
	Notice  string `json:"notice,omitempty"`
}

// DeployLocal deploys a bundle on this host by the code of the agent, and
// returns when it has ended. A deployment that fails is no error but a result;
// wrong options, and a state folder that cannot be used, are. When ctx ends, the
// script that runs is waited for, nothing more is begun, and the next
// deployment takes the target over where this one has left it.
func DeployLocal(ctx context.Context, o LocalOptions) (LocalResult, error) {
	d, err := newLocalRun(o)
	if err != nil {
		return LocalResult{}, fmt.Errorf("check local deployment: %w", err)
	}
	h, err := openHost(d.options())
	if err != nil {
		return LocalResult{}, fmt.Errorf("deploy on this host: %w", err)
	}
	err = d.run(ctx, h)
	if err = errors.Join(err, h.journal.Close()); err != nil {
		return d.result, fmt.Errorf("deploy on this host: %w", err)
	}
	return d.result, nil
}

// localRun is a local deployment at work.
type localRun struct {
	o      LocalOptions
	events []string
	source artifacts.Source
	bad    error // why there is no source
	t      *target
	gen    uint64
	goal   string
	result LocalResult
}

func newLocalRun(o LocalOptions) (*localRun, error) {
	for _, f := range []struct{ name, value string }{{"bundle", o.Bundle}, {"app", o.App}, {"group", o.Group}, {"root", o.Root}} {
		if f.value == "" {
			return nil, fmt.Errorf("%s is missing", f.name)
		}
	}
	if o.MaxRevisions < 0 {
		return nil, fmt.Errorf("max revisions %d: at least 1 stays on disk", o.MaxRevisions)
	}
	d := &localRun{o: o}
	if d.o.Log == nil {
		d.o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Type != "" {
		if _, err := artifacts.ParseBundleType(string(o.Type)); err != nil {
			return nil, err
		}
	}
	for _, e := range o.Events {
		if !namePattern.MatchString(e) {
			return nil, fmt.Errorf("event %q: a name is letters, digits, '.', '_' and '-'", e)
		}
	}
	var err error
	if d.events, err = localOrder(o.Events); err != nil {
		return nil, err
	}
	if d.o.Deployment == "" {
		d.o.Deployment = "d-" + rand.Text()[:9]
	}
	return d, nil
}

// localOrder is the list of events with what every deployment has.
func localOrder(given []string) ([]string, error) {
	if len(given) > 0 {
		return hooks.OrderEvents(given)
	}
	var all []string
	for _, e := range hooks.LifecycleEvents() {
		all = append(all, e.String())
	}
	return all, nil
}

// options are those of an agent that only ever does this.
func (d *localRun) options() Options {
	name, _ := os.Hostname() // only for scripts to see
	return Options{
		Name: name, Zone: "local", Root: d.o.Root, Env: d.o.Env, KeepReleases: d.o.MaxRevisions, Supervisor: d.o.Supervisor,
		Cgroup: d.o.Cgroup, Log: d.o.Log, StopGrace: time.Duration(1<<63 - 1), // a script that runs is waited for
	}.withDefaults()
}

// plain turns a name that people chose into a part of a file name: different
// names stay different.
func plain(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' && b.Len() > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02X", c)
		}
	}
	const most = 45 // two of them are the name of a target
	if b.Len() > most {
		sum := sha256.Sum256([]byte(name))
		return b.String()[:most-17] + "_" + hex.EncodeToString(sum[:8])
	}
	return b.String()
}

// localKey is the target of an application and a group: both have a clean-up
// record and pointers of their own.
func localKey(app, group string) string {
	key := plain(app) + "." + plain(group)
	if key[0] == '_' {
		return "0" + key // a target's name begins with a letter or digit
	}
	return key
}

// run does the deployment.
func (d *localRun) run(ctx context.Context, h *host) error {
	t, err := h.newTarget(localKey(d.o.App, d.o.Group))
	if err != nil {
		return err
	}
	d.t, t.local, t.saw = t, d, d.saw
	h.runner.Prepare() // while the bundle is unpacked
	defer h.runner.Rest()
	d.prepare()
	if err := d.assign(); err != nil {
		return err
	}
	for {
		st := t.journal.Target(t.app).State()
		if st.Next.Kind == task.KindWait {
			break
		}
		if ctx.Err() != nil {
			d.interrupted(st.Next)
			return t.journal.Flush()
		}
		if err := t.step(ctx, st); err != nil {
			return err
		}
	}
	d.finish()
	if err := d.tidy(h); err != nil {
		d.warn("left-overs not cleaned up: %v", err)
	}
	return t.journal.Flush()
}

// prepare finds the source and the revision's folder. A bundle that cannot be
// used is told when it is staged, as an event of the deployment.
func (d *localRun) prepare() {
	d.source = artifacts.Source{Path: d.o.Bundle, Type: d.o.Type, SpecFile: d.o.AppSpec}
	if d.o.Type == "" {
		found, err := artifacts.OpenSource(d.o.Bundle)
		d.source.Type, d.bad = found.Type, err
	}
	id := plain(d.o.Deployment)
	d.goal = id
	for n := 2; d.t.releases.Has(d.t.app, d.goal); n++ { // a deployment's id may come twice
		d.goal = fmt.Sprintf("%s-%d", id, n)
	}
	d.result = LocalResult{Result: LocalFailed, Deployment: d.o.Deployment, Stop: "continue"}
	if d.o.StopFails {
		d.result.Stop = "fail"
	}
	for _, e := range d.events {
		d.result.Events = append(d.result.Events, LocalEvent{Event: e, Result: LocalSkipped, Scripts: []LocalScript{}})
	}
}

// assign makes the deployment the newest generation of the target.
func (d *localRun) assign() error {
	t := d.t
	st := t.journal.Target(t.app).State()
	d.gen = max(st.Base.Generation, st.Assignment.Generation) + 1
	if st.Next.Kind != task.KindWait {
		d.warn("an earlier deployment (%s) was cut off in %s: this one takes over from there", t.brief.Deployment, d.eventOf(st.Next))
	}
	a := task.Assignment{
		Generation: d.gen, Permit: task.PermitNormal, App: t.app, Deployment: d.o.Deployment, Goal: d.goal, Traffic: true,
		StopFails: d.o.StopFails, SkipProbe: true, Events: d.events,
	}
	if !d.o.Revert {
		a.OnFailure = task.OnFailureLeave
	}
	err := t.change(func(b *brief) {
		b.Generation, b.App, b.Group, b.Deployment, b.Started = d.gen, d.o.App, d.o.Group, d.o.Deployment, time.Now()
		b.Failure = nil
		b.remember()
		names, specs := map[string]string{d.goal: d.o.Deployment}, map[string]string{}
		if d.o.AppSpec != "" {
			specs[d.goal] = d.o.AppSpec
		}
		for id, name := range b.Names { // of what is still there
			if t.releases.Has(t.app, id) {
				names[id] = name
				if b.Specs[id] != "" {
					specs[id] = b.Specs[id]
				}
			}
		}
		b.Names, b.Specs = names, specs
	})
	if err != nil {
		return err
	}
	return t.journal.Assign(a)
}

// stage unpacks the bundle: into a folder of its own, whose name it gets when
// it is complete and has an appspec that can be used.
func (d *localRun) stage(ctx context.Context, t *target, id string) error {
	if d.bad != nil {
		return artifacts.Permanent(d.bad)
	}
	return t.releases.Stage(ctx, t.app, id, func(ctx context.Context, dest string) error {
		if err := os.Remove(dest); err != nil { // Extract makes it itself
			return err
		}
		if _, err := d.source.Extract(ctx, dest); err != nil {
			return artifacts.Permanent(err)
		}
		if _, err := hooks.Load(dest, d.o.AppSpec); err != nil {
			return artifacts.Permanent(err)
		}
		return nil
	})
}

// install checks what only a local deployment states, and installs.
func (d *localRun) install(ctx context.Context, t *target, q release.Request) error {
	if len(d.o.Events) > 0 && q.Spec != nil && q.To == d.goal {
		known, err := localOrder(nil)
		if err == nil {
			err = q.Spec.CheckEvents(append(known, d.o.Events...))
		}
		if err != nil {
			return err
		}
	}
	behaviour, unknown := hooks.ParseFileExists(d.o.FileExists)
	q.FileExists = behaviour
	err := t.releases.Install(ctx, q)
	if err != nil && unknown != nil && errors.Is(err, release.ErrExists) {
		return fmt.Errorf("%w: %w", unknown, err)
	}
	return err
}

// eventOf is where a step belongs, for people.
func (d *localRun) eventOf(s task.Step) string {
	if s.Event != "" {
		return s.Event
	}
	return s.Kind.String()
}

func (d *localRun) warn(format string, args ...any) {
	d.result.Warnings = append(d.result.Warnings, fmt.Sprintf(format, args...))
}

// saw takes what a step has come to into the result.
func (d *localRun) saw(s task.Step, v verdict, ran []hooks.Result, took time.Duration) {
	if s.Generation != d.gen {
		if s.Kind == task.KindHook {
			d.warn("%s of the deployment that was cut off ended: %s", s.Event, v.outcome)
		}
		return
	}
	if s.Event != "" {
		d.note(s, v, ran, took)
	}
	if v.failure == nil || s.Lenient || d.result.Event != "" {
		return
	}
	f := v.failure
	d.result.Event, d.result.Code, d.result.Message, d.result.Script, d.result.Log = f.Event, hooks.Code(f.Code), f.Message, f.Script, f.Tail
}

func (d *localRun) note(s task.Step, v verdict, ran []hooks.Result, took time.Duration) {
	e := LocalEvent{Event: s.Event, Result: LocalFailed, Seconds: took.Seconds(), Scripts: []LocalScript{}}
	switch {
	case v.outcome == task.OutcomeSkipped:
		e.Result = LocalSkipped
		if event, _ := hooks.ParseEvent(s.Event); event == hooks.BlockTraffic || event == hooks.AllowTraffic {
			e.Result = LocalSucceeded // there is no load balancer to ask
		}
		if s.Revision != "" && !d.t.releases.Has(d.t.app, s.Revision) {
			d.warn("%s skipped: the folder %s of the running revision is gone", s.Event, d.t.releases.Dir(d.t.app, s.Revision))
		}
	case v.outcome.OK():
		e.Result = LocalSucceeded
	case s.Lenient:
		d.warn("%s failed and the deployment goes on (stop: continue): %s", s.Event, v.failure.Message)
	}
	for _, r := range ran {
		e.Scripts = append(e.Scripts, LocalScript{
			Script: r.Script, Code: r.Code, Exit: ofScript(s.Event, r).Exit, Seconds: r.Duration.Seconds(), Message: r.Message,
			LogFile: r.Log, Notice: r.Notice,
		})
	}
	d.place(s, e)
}

// place puts an event where it belongs: the way back has a list of its own.
func (d *localRun) place(s task.Step, e LocalEvent) {
	if d.o.Progress != nil {
		d.o.Progress(e)
	}
	if s.Rollback {
		d.result.Reverted = append(d.result.Reverted, e)
		return
	}
	for i := range d.result.Events {
		if d.result.Events[i].Event == e.Event {
			d.result.Events[i] = e
		}
	}
}

// interrupted says that the deployment was told to stop.
func (d *localRun) interrupted(next task.Step) {
	if d.result.Event != "" {
		return
	}
	d.result.Event, d.result.Code = d.eventOf(next), hooks.CodeOther
	d.result.Message = "told to stop before " + d.eventOf(next) + "; the next deployment takes over from there"
	d.release()
}

// finish reads the result off the closed generation.
func (d *localRun) finish() {
	d.release()
	switch d.t.journal.Target(d.t.app).State().Base.Result {
	case task.ResultDone:
		d.result.Result, d.result.Message = LocalSucceeded, "deployed "+d.o.Deployment
	case task.ResultBroken:
		d.warn("the way back to the former revision failed too: the application is out of service")
	case task.ResultNone, task.ResultFailed, task.ResultRefused, task.ResultIdle:
	}
}

func (d *localRun) release() {
	if d.t.releases.Has(d.t.app, d.goal) {
		d.result.Release = d.t.root(d.goal)
	}
}

// tidy keeps what retention says: after the deployment, never near its install.
func (d *localRun) tidy(h *host) error {
	j := h.journal.Target(d.t.app)
	keep := []string{j.LastGood, j.State().Base.Running}
	if h.o.KeepReleases > 1 {
		keep = append(keep, j.Previous)
	}
	_, err := h.releases.Prune(d.t.app, keep...)
	return errors.Join(err, h.runner.Sweep(h.o.KeepRuns), h.asker.Sweep(keepAsks))
}
