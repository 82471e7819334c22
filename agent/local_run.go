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
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/agent/release"
	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/naming"
	"github.com/groundswell/groundswell/internal/room"
)

// localRun is a local deployment at work.
type localRun struct {
	o      LocalOptions
	events []string
	source bundle.Source
	bad    error // why there is no source
	t      *target
	gen    uint64
	goal   string
	result LocalResult
}

func newLocalRun(o LocalOptions) (*localRun, error) {
	for _, f := range []struct{ name, value string }{
		{"bundle", o.Bundle},
		{"app", o.App},
		{"group", o.Group},
		{"root", o.Root},
	} {
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
		if _, err := bundle.ParseType(string(o.Type)); err != nil {
			return nil, err
		}
	}
	for _, e := range o.Events {
		if err := naming.Check("event", e); err != nil {
			return nil, err
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
		Name: name, Zone: "local", Root: d.o.Root, Env: d.o.Env, KeepReleases: d.o.MaxRevisions,
		Supervisor: d.o.Supervisor,
		Cgroup:     d.o.Cgroup, Log: d.o.Log, StopGrace: time.Duration(1<<63 - 1), // a script that runs is waited for
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
		h.ballast.ease()
		if err := t.step(ctx, st); err != nil && !(room.IsFull(err) && h.ballast.ease()) {
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
	d.source = bundle.Source{Path: d.o.Bundle, Type: d.o.Type, SpecFile: d.o.AppSpec}
	if d.o.Type == "" {
		found, err := bundle.Open(d.o.Bundle)
		d.source.Type, d.bad = found.Type, err
	}
	d.source.Dropped = func(file string) {
		d.warn("%s: its setuid or setgid bit is left out; set it by a mode in permissions", file)
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
		d.warn("an earlier deployment (%s) was cut off in %s: this one takes over from there", t.checkpoint.Deployment,
			d.eventOf(st.Next))
	}
	a := task.Assignment{
		Generation: d.gen, Permit: task.PermitNormal, App: t.app, Deployment: d.o.Deployment, Goal: d.goal,
		Traffic:   true,
		StopFails: d.o.StopFails, SkipProbe: true, Events: d.events,
	}
	if !d.o.Revert {
		a.OnFailure = task.OnFailureLeave
	}
	err := t.change(func(b *checkpoint) {
		b.Generation, b.App, b.Group, b.Deployment, b.Started = d.gen, d.o.App, d.o.Group, d.o.Deployment, time.Now()
		b.Failure, b.Cramped = nil, false
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
	var staged *artifacts.Manifest
	err := t.releases.Stage(ctx, t.app, id, func(ctx context.Context, dest string) error {
		if err := os.Remove(dest); err != nil { // Extract makes it itself
			return err
		}
		m, err := d.source.Extract(ctx, dest)
		if errors.Is(err, artifacts.ErrNoSpace) &&
			t.makeRoom(ctx, &room.Shortage{Dir: filepath.Dir(dest), Bytes: d.size()}) {
			m, err = d.source.Extract(ctx, dest)
		}
		if err != nil {
			return artifacts.Permanent(err)
		}
		staged = m
		return artifacts.Permanent(d.checkSpec(t, dest, id))
	})
	t.noteSize(id, staged, err)
	return err
}

// checkSpec refuses, before anything is touched, an appspec that cannot be
// read or names a script that is not there, and warns of what CodeDeploy
// tolerates. Scripts of the events that only the next deployment runs may come
// by then.
func (d *localRun) checkSpec(t *target, dir, id string) error {
	spec, err := hooks.Load(dir, d.o.AppSpec)
	if err != nil {
		return err
	}
	for _, w := range append(spec.Warnings, spec.Notices()...) {
		d.warn("%v", w)
	}
	if len(d.o.Events) == 0 {
		if err := spec.CheckEvents(hooks.EventNames()); err != nil {
			d.warn("%v; their scripts never run", err)
		}
	}
	for _, name := range d.o.Events {
		e, known := hooks.ParseEvent(name)
		if runs := !known || e.Scriptable() && !e.OfRunningRevision(); runs && len(spec.Hooks[name]) == 0 {
			d.warn("%s", spec.NoScriptFor(name))
		}
	}
	coming := slices.DeleteFunc(slices.Clone(d.events), func(name string) bool {
		e, _ := hooks.ParseEvent(name)
		return e.OfRunningRevision()
	})
	return spec.CheckScripts(dir, t.releases.Dir(t.app, id), coming)
}

// size is about what the bundle takes unpacked.
func (d *localRun) size() int64 {
	st, err := os.Stat(d.source.Path)
	if err != nil || st.IsDir() {
		return release.DiskUse(d.source.Path)
	}
	return st.Size() * packing
}

// packing is how much larger than its archive a bundle of programs and texts
// mostly is.
const packing = 3

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
	err := t.installWithRoom(ctx, q)
	if err != nil && unknown != nil && errors.Is(err, release.ErrExists) {
		return fmt.Errorf("%w: %w", unknown, err)
	}
	return err
}

// tidy keeps what retention says: after the deployment, never near its install.
func (d *localRun) tidy(h *host) error {
	j := h.journal.Target(d.t.app)
	keep := []string{j.LastGood, j.State().Base.Running}
	if h.o.KeepReleases > 1 {
		keep = append(keep, j.Previous)
	}
	_, err := h.releases.Prune(d.t.app, keep...)
	return errors.Join(err, h.runner.Sweep(h.o.KeepRuns), h.probeRunner.Sweep(keepAsks))
}
