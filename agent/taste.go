package agent

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/groundswell/groundswell/hooks"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// taste runs scripts of a revision that is on disk, beside what serves. Nothing of them
// goes on when it returns: a script's processes are ended with it, and it with ctx. How
// often one runs for a revision is not bounded: after a crash it begins again.
func (t *target) taste(ctx context.Context, id string, tastes *agentv1.Tastes) *failure {
	t.endTastes(true)
	for _, s := range tastes.Scripts {
		if f := t.tasteScript(ctx, id, tastes.Deployment, s); f != nil || ctx.Err() != nil {
			return f
		}
	}
	return nil
}

func (t *target) tasteScript(ctx context.Context, id, deployment string, s *agentv1.StageScript) *failure {
	begin := time.Now()
	t.tell(&agentv1.Progress{
		App: t.app, Deployment: deployment, Event: s.Event, Script: clip(s.Script, 200), SinceMs: begin.UnixMilli(),
	})
	script := hooks.Script{Location: s.Script, Timeout: time.Duration(s.TimeoutNs), RunAs: s.RunAs, KillRest: true}
	port, err := freePort()
	if err = cmp.Or(t.mayDeploy(), t.checkUser(t.users(), s.Event, script), err); err != nil {
		return &failure{
			Event: s.Event, Script: s.Script, Code: int(hooks.CodeOther),
			Message: clip(err.Error(), maxMessage),
		}
	}
	root := t.root(id)
	run := t.tastePrefix() + deployment + "-" + strconv.FormatInt(begin.UnixNano(), 36) + "-" + s.Event
	r := t.runner.Run(ctx, script, hooks.Env{
		ID: run, Root: root, Event: s.Event, Application: t.app,
		DeploymentID: deployment, DeploymentGroup: t.checkpoint.Group, DeploymentGroupID: t.checkpoint.Group,
		Extra: t.place(id, root, map[string]string{"PORT": port, "DEPLOY_ACTION": "stage"}),
	})
	if r.Detached {
		t.endRun(run, true)
		return nil
	}
	if r.OK() {
		return nil
	}
	return ofScript(s.Event, r)
}

// freePort is a TCP port that nothing on this host listens at just now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		return "", fmt.Errorf("look for a free port: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	return port, err
}

func (t *target) tastePrefix() string { return t.runPrefix() + "taste-" }

// tastes lists the runs of a deployment's tastes in the order they began.
func (t *target) tastes(deployment string) (out []run) {
	begin := t.tastePrefix() + deployment + "-"
	for _, id := range t.tasteRuns() {
		if rest, ours := strings.CutPrefix(id, begin); ours && deployment != "" {
			_, event, _ := strings.Cut(rest, "-")
			out = append(out, run{id: id, event: event})
		}
	}
	return out
}

// tasteRuns lists the ids of all runs of tastes.
func (t *target) tasteRuns() (out []string) {
	entries, err := os.ReadDir(t.o.path("hooks"))
	if err != nil {
		return nil // no run, no folder
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), t.tastePrefix()) {
			out = append(out, e.Name())
		}
	}
	return out
}

// endTastes ends what a former life of the agent left running.
func (t *target) endTastes(wait bool) {
	for _, id := range t.tasteRuns() {
		t.endRun(id, wait)
	}
}

// tasteEnd is how long a run that was told to end is waited for; its supervisor kills
// it well before.
const tasteEnd = 30 * time.Second

// endRun ends a run and, if asked, waits until nothing of it is left.
func (t *target) endRun(id string, wait bool) {
	err := t.runner.Stop(id)
	if err == nil && wait {
		ctx, cancel := context.WithTimeout(context.Background(), tasteEnd)
		defer cancel()
		var r hooks.Result
		if r, _, err = t.runner.Adopt(ctx, id); err == nil && r.Detached {
			err = ctx.Err()
		}
	}
	if err != nil {
		t.o.Log.Warn("a script did not end", "app", t.app, "run", id, "error", err)
	}
}
