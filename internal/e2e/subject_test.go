package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// How long the waves of the subject bake: the first longer than it takes until another
// leads, or a bake that a new leader cuts short would not show.
const (
	firstBakes = 4 * time.Second
	restBakes  = 1500 * time.Millisecond
)

// step is a moment of a running deployment.
type step struct {
	name string
	at   func(*controlv1.Deployment) bool
	bad  bool // of one that is rolled back
}

func working(wave int) func(*controlv1.Deployment) bool {
	return func(d *controlv1.Deployment) bool {
		return d.Waves[wave].Status == "deploying" && d.Waves[wave].Granted > 0
	}
}

func baking(wave int) func(*controlv1.Deployment) bool {
	return func(d *controlv1.Deployment) bool { return d.Waves[wave].Status == "baking" }
}

// steps are those at which faults are injected, in the order of a deployment.
var steps = []step{
	{name: "one-box works", at: working(0)},
	{name: "one-box bakes", at: baking(0)},
	{name: "the rest works", at: working(1)},
	{name: "the rest bakes", at: baking(1)},
	{name: "rolling back", at: func(d *controlv1.Deployment) bool { return d.Status == "rolling_back" }, bad: true},
}

// subject makes the application that is deployed under faults: two good revisions,
// and one that fails on every host but the first. Its hooks bear witness.
func (w *trio) subject() {
	w.Helper()
	w.write("hello/deploy.yaml", fmt.Sprintf(`app: hello
artifacts: file://%s/store
groups:
  prod:
    select: role == "hello"
    config:
      capacity: {minHealthy: 30%%, maxConcurrent: 2}
      waves:
        - {name: one-box, select: {count: 1}, bake: {min: %s}}
        - {name: rest, select: remainder, bake: {min: %s}}
      %s
`, w.dir, firstBakes, restBakes, allBack))
	w.write("hello/appspec.yml", "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n"+
		"    - {location: start.sh, timeout: 30}\n")
	ops := w.machines["ops"]
	ops.run("dctl apps apply -f hello/deploy.yaml")
	for _, rev := range []string{"v1", "v2", "bad"} {
		fails := ""
		if rev == "bad" {
			fails = "grep -q \"^begin $DEPLOYMENT_ID bad\" " + w.witness + " && fails=1\n"
		}
		w.write("hello/revision", rev+"\n")
		w.write("hello/start.sh", "#!/bin/sh\n"+fails+
			"echo begin $DEPLOYMENT_ID "+rev+" $HOST $(date +%s%N) >>"+w.witness+"\nsleep 0.4\n[ -z \"$fails\" ] || exit 4\n"+
			"echo end $DEPLOYMENT_ID "+rev+" $HOST $(date +%s%N) >>"+w.witness+"\n")
		ops.run("dctl revisions push hello --app hello --rev " + rev)
	}
}

// submit creates a deployment of the subject, once, whoever answers.
func (w *trio) submit(rev string) (id string) {
	w.Helper()
	r := &controlv1.CreateDeploymentRequest{
		Mutation: mutation("under faults"), App: "hello", Revision: rev, Redeploy: true, ForceBad: true,
	}
	w.poll(lastTry, "a deployment of "+rev+" is accepted", func() bool {
		for _, c := range w.all {
			ctx, cancel := context.WithTimeout(w.Context(), firstTry)
			out, err := c.api.CreateDeployment(ctx, r)
			cancel()
			switch rpc.Kind(err) {
			case rpc.KindConflict, rpc.KindInvalid, rpc.KindNotFound:
				w.Fatalf("deploy %s: %v", rev, err)
			}
			if err == nil {
				id = out.Id
				return true
			}
		}
		return false
	})
	return id
}

// deploymentAt is the deployment as somebody knows it, nil if nobody tells.
func (w *trio) deploymentAt(id string, all ...*coordinator) *controlv1.GetDeploymentResponse {
	for _, c := range all {
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		d, err := c.api.GetDeployment(ctx, &controlv1.GetDeploymentRequest{Id: id, AllTasks: true})
		cancel()
		if err == nil {
			return d
		}
	}
	return nil
}

// reach waits until the deployment is at a step, by its leader's word.
func (w *trio) reach(id string, s step) (leader *coordinator) {
	w.Helper()
	leader = w.leader()
	w.poll(time.Minute, "deployment "+id+": "+s.name, func() bool {
		if leader == nil {
			leader = w.leader()
			return false
		}
		d := w.deploymentAt(id, leader)
		if d.GetDeployment().GetTerminal() {
			w.Fatalf("deployment %s ended, %s (%s), before %s", id, d.Deployment.Status, d.Deployment.Cause, s.name)
		}
		if d == nil || !s.at(d.Deployment) {
			return false
		}
		return true
	})
	return leader
}

// ended waits until the deployment has ended, and returns how.
func (w *trio) ended(id string) (status string) {
	w.Helper()
	var last *controlv1.GetDeploymentResponse
	defer func() {
		if w.Failed() && last != nil {
			w.Logf("deployment %s: %v", id, last.Deployment)
		}
	}()
	w.poll(2*time.Minute, "the end of deployment "+id, func() bool {
		d := w.deploymentAt(id, w.all...)
		if d != nil {
			last = d
		}
		return d.GetDeployment().GetTerminal()
	})
	return last.Deployment.Status
}

// hookRun is what one hook of the subject wrote.
type hookRun struct{ deployment, revision, host string }

// testimony is what hooks wrote: when each began and ended.
func (w *trio) testimony() (began, ended map[hookRun][]time.Time) {
	w.Helper()
	began, ended = map[hookRun][]time.Time{}, map[hookRun][]time.Time{}
	f, err := os.Open(w.witness)
	must(w.T, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var what string
		var run hookRun
		var ns int64
		if _, err := fmt.Sscan(lines.Text(), &what, &run.deployment, &run.revision, &run.host, &ns); err != nil {
			w.Fatalf("%s: %q: %v", w.witness, lines.Text(), err)
		}
		to := map[string]map[hookRun][]time.Time{"begin": began, "end": ended}[what]
		to[run] = append(to[run], time.Unix(0, ns))
	}
	return began, ended
}

// judge compares what hooks wrote with what was promised: each ran once for a
// deployment and a revision, and none of the second wave before the first had baked.
func (w *trio) judge(deployments map[string]string) (bakesSeen int) {
	w.Helper()
	began, ended := w.testimony()
	first := map[string]time.Time{} // the end of the first wave's hook
	for run, at := range ended {
		if run.revision == deployments[run.deployment] && (first[run.deployment].IsZero() ||
			at[0].Before(first[run.deployment])) {
			first[run.deployment] = at[0]
		}
	}
	hosts := map[string][]time.Time{}
	for run, at := range began {
		if len(at) > 1 {
			w.Errorf("%s: the hook of %s ran %d times on %s, at %v", run.deployment, run.revision, len(at), run.host, at)
		}
		if run.revision == deployments[run.deployment] {
			hosts[run.deployment] = append(hosts[run.deployment], at[0])
		}
	}
	for id, rev := range deployments {
		all := hosts[id]
		slices.SortFunc(all, time.Time.Compare)
		if len(all) < 2 {
			w.Errorf("deployment %s of %s reached %d hosts", id, rev, len(all))
			continue
		}
		bakesSeen++
		if gap := all[1].Sub(first[id]); gap < firstBakes {
			w.Errorf("deployment %s of %s: the second wave began %s after the first had ended; its bake is %s", id, rev,
				gap, firstBakes)
		}
	}
	if text := strings.TrimSpace(w.witness); len(began) == 0 {
		w.Errorf("no hook wrote anything to %s", text)
	}
	return bakesSeen
}
