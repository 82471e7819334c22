package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/groundswell/groundswell/agent/probe"
	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/hooks"
)

// hook runs the scripts of a step's event. After a restart of the agent it
// adopts them instead, because the step has the same run id.
func (t *target) hook(ctx context.Context, s task.Step) verdict {
	if !t.releases.Has(t.app, s.Revision) {
		return t.goneRevision(s)
	}
	root := t.root(s.Revision)
	spec, err := hooks.Load(root, t.checkpoint.Specs[s.Revision])
	if err != nil {
		return failedBy(ofStep(s, err, 0))
	}
	scripts := scriptsOf(spec, s.Event)
	if len(scripts) == 0 {
		return ends(task.OutcomeSkipped)
	}
	env := t.env(s, root)
	stop := t.limit(s, env.ID)
	defer stop()
	ctx, release := lingering(ctx, t.o.StopGrace)
	defer release()
	r := t.runner.RunEvent(ctx, scripts, env, func(r hooks.Result) { t.ran = append(t.ran, r) })
	if r.Notice != "" {
		t.janitor.leftRunning(t.app)
	}
	switch {
	case r.Detached:
		return verdict{}
	case r.OK():
		return ends(task.OutcomeOK)
	case r.Code == hooks.CodeRestart:
		return verdict{task.OutcomeInterrupted, ofScript(s.Event, r)}
	}
	return failedBy(ofScript(s.Event, r))
}

// goneRevision is a hook of a revision whose folder is gone. What takes an old
// revision out of service is skipped: it could never be replaced otherwise. A
// revision that is to run has failed.
func (t *target) goneRevision(s task.Step) verdict {
	e, known := hooks.ParseEvent(s.Event)
	if s.Revision == "" || known && (e.OfRunningRevision() || !e.Scriptable()) {
		return ends(task.OutcomeSkipped)
	}
	err := fmt.Errorf("the folder %s of the revision is gone, and the scripts of %s with it: did a hook remove it?",
		t.releases.Dir(t.app, s.Revision), s.Event)
	f := ofStep(s, err, 0)
	f.Code = int(hooks.CodeMissing)
	return failedBy(f)
}

// nothingToRun says that the event of a step has no script, or its revision is
// not here any more.
func (t *target) nothingToRun(s task.Step) bool {
	if s.Resume {
		return false
	}
	if !t.releases.Has(t.app, s.Revision) {
		return t.goneRevision(s).failure == nil
	}
	spec, err := hooks.Load(t.root(s.Revision), t.checkpoint.Specs[s.Revision])
	if err != nil {
		return false
	}
	return len(scriptsOf(spec, s.Event)) == 0
}

// scriptsOf are the scripts of an event, one of the appspec's own included.
// What the agent does itself has none.
func scriptsOf(spec *hooks.AppSpec, event string) []hooks.Script {
	if e, known := hooks.ParseEvent(event); known && !e.Scriptable() {
		return nil
	}
	return spec.Hooks[event]
}

// lingering is ctx that ends later.
func lingering(ctx context.Context, grace time.Duration) (context.Context, func()) {
	if grace <= 0 {
		return ctx, func() {}
	}
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() { stop(); cancel() }
}

// limit ends the scripts of a step when the time of the whole task is over: a
// coordinator has given the target up by then, so the host goes back. A way
// back itself has no limit but its scripts' own.
func (t *target) limit(s task.Step, id string) (stop func()) {
	if t.checkpoint.Limit <= 0 || s.Rollback {
		return func() {}
	}
	left := max(0, t.checkpoint.Limit-time.Since(t.checkpoint.Started))
	timer := time.AfterFunc(left, func() {
		for _, run := range t.runs() {
			if strings.HasPrefix(run.id, id+".") {
				if err := t.runner.Stop(run.id); err != nil {
					t.o.Log.Warn("script not stopped at the task's time limit", "app", t.app, "run", run.id,
						"error", err)
				}
			}
		}
	})
	return func() { timer.Stop() }
}

// runPrefix begins the ids of the application's runs.
func (t *target) runPrefix() string { return t.app + "-" + t.epoch + "-" }

// env is what scripts of a step get beside the agent's own variables.
func (t *target) env(s task.Step, root string) hooks.Env {
	b := t.checkpoint
	action := "deploy"
	if s.Rollback {
		action = "rollback"
	}
	return hooks.Env{
		ID: t.runPrefix() + s.ID(), Root: root, Event: s.Event, Application: cmp.Or(b.App, t.app),
		DeploymentID: b.deploymentOf(s.Generation), DeploymentGroup: b.Group, DeploymentGroupID: b.Group,
		Bundle: bundleOf(b.Artifacts, s.Revision),
		Extra: t.place(s.Revision, root, map[string]string{
			"DEPLOY_ACTION":             action,
			"GROUNDSWELL_FROM_REVISION": b.name(s.From), "GROUNDSWELL_FROM_DIGEST": digestOf(s.From),
			"GROUNDSWELL_TO_REVISION": b.name(s.To), "GROUNDSWELL_TO_DIGEST": digestOf(s.To),
			"GROUNDSWELL_GENERATION": strconv.FormatUint(s.Generation, 10),
		}),
	}
}

// place adds what hooks and command probes are told alike: the revision whose
// script it is and the host.
func (t *target) place(revision, root string, vars map[string]string) map[string]string {
	maps.Copy(vars, map[string]string{
		"GROUNDSWELL_REVISION": t.checkpoint.name(revision), "GROUNDSWELL_RELEASE": root,
		"GROUNDSWELL_HOST": t.o.Name, "GROUNDSWELL_ZONE": t.o.Zone, "GROUNDSWELL_REGION": t.o.Region,
		"GROUNDSWELL_INSTALL_ROOT": t.o.InstallRoot,
	})
	return vars
}

// bundleOf says where in an object store a revision came from.
func bundleOf(store, id string) *hooks.Bundle {
	u, err := url.Parse(store)
	if err != nil || id == "" {
		return nil
	}
	bucket, prefix := u.Host, strings.Trim(u.Path, "/")
	switch u.Scheme {
	case "minio":
		bucket, prefix, _ = strings.Cut(prefix, "/")
	case "s3":
	default:
		return nil
	}
	return &hooks.Bundle{Bucket: bucket, Key: path.Join(prefix, artifacts.ManifestKey(artifacts.Digest(digestOf(id))))}
}

// probeTarget is the application as command probes see it: its running
// revision.
func (t *target) probeTarget(id string) probe.Target {
	t.mu.Lock()
	defer t.mu.Unlock()
	revision := t.base.Running
	return t.probeTargetOf(revision, id)
}

// probeTargetOf is the same for a revision. The ids of one life
// of the agent differ from those of another.
func (t *target) probeTargetOf(revision, id string) probe.Target {
	root := t.root(revision)
	return probe.Target{Env: hooks.Env{
		ID:   strings.Join([]string{t.app, strconv.FormatInt(t.started, 36), id}, "-"),
		Root: root, Event: hooks.ValidateService.String(), Application: t.app,
		DeploymentID: t.checkpoint.Deployment, DeploymentGroup: t.checkpoint.Group, DeploymentGroupID: t.checkpoint.Group,
		Extra: t.place(revision, root, map[string]string{}),
	}}
}
