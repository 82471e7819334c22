package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// deliver sends the hosts that a fact concerns what they should do now.
func (w *World) deliver(e deploy.Event) {
	switch e := e.(type) {
	case deploy.PermitsGranted:
		for _, g := range e.Items {
			w.assign(g.Host)
		}
	case deploy.RollbackStarted:
		for _, g := range e.Items {
			w.assign(g.Host)
		}
	case deploy.DeploymentCreated:
		for _, id := range w.order {
			w.assign(id)
		}
	case deploy.RequestMade, deploy.TasksEnded, deploy.DeploymentStarted, deploy.WaveStarted, deploy.WaveSealed,
		deploy.WaveSkipped,
		deploy.WaveReverted, deploy.DeploymentEnded, deploy.DeploymentPaused, deploy.HostsReleased, deploy.TargetMoved,
		deploy.HostDrained, deploy.HostDrainSet,
		deploy.BakeStarted,
		deploy.StagingRetried, deploy.TasksReopened, deploy.RevertExtended, deploy.RevisionSuspected,
		deploy.RevisionProven, deploy.RevisionsPruned:
		for _, id := range w.order {
			w.assign(id)
		}
	case deploy.TargetsJoined:
		for _, id := range e.Hosts {
			if h := w.hosts[id]; h != nil && h.up {
				w.send(h)
			}
		}
	}
	if w.lazy() {
		for _, id := range w.order {
			w.assign(id)
		}
	}
}

// lazy reports whether hosts stage only before their turn, so that what one
// reports may be another's call to stage.
func (w *World) lazy() bool {
	return slices.ContainsFunc(w.State.Open(),
		func(d *deploy.Deployment) bool { return d.Config.Stage.Prefetch == "none" })
}

// assign delivers the assignment after the latency of a stream; what a host
// out of sight misses it gets when it is back.
func (w *World) assign(id string) {
	h := w.hosts[id]
	if h == nil || !h.up || h.told == w.State.AssignedAt(id) {
		return
	}
	h.told = w.State.AssignedAt(id)
	w.after(w.between(time.Millisecond, 20*time.Millisecond), func() {
		for _, a := range deploy.Assign(w.State, id) {
			w.accept(h, a)
		}
	})
}

// accept is the agent's fence and its work, shortened to one wait.
func (w *World) accept(h *host, a deploy.Assignment) {
	if !h.up {
		return
	}
	w.drain(h, a)
	w.stage(h, a)
	if a.Gen <= h.acked {
		return
	}
	if a.Permit == deploy.PermitNone {
		if h.working == 0 {
			h.acked, h.result = a.Gen, deploy.ResultIdle
			w.report(h)
		}
		return
	}
	h.acked, h.result, h.failure = a.Gen, deploy.ResultNone, nil
	if a.Permit == deploy.PermitConditional && h.serves && h.working == 0 {
		h.result = deploy.ResultRefused
		w.report(h)
		return
	}
	h.working, h.goal, h.serves = a.Gen, a.Goal, false
	w.after(w.between(100*time.Millisecond, 2*time.Second), func() { w.finish(h, a) })
}

// drain leaves the pools, or comes back to them; what runs goes on.
func (w *World) drain(h *host, a deploy.Assignment) {
	if a.OutKey <= h.outKey {
		return
	}
	h.outKey, h.out = a.OutKey, deploy.OutMoving
	w.after(w.between(10*time.Millisecond, 3*time.Second), func() {
		if h.outKey != a.OutKey {
			return
		}
		if h.out = deploy.OutNone; a.Out {
			h.out = deploy.OutDone
		}
		w.report(h)
	})
}

func (w *World) stage(h *host, a deploy.Assignment) {
	staged := slices.Contains(h.staged, a.Stage)
	if a.Stage == "" || staged && a.Tastes.Deployment == "" || h.stageKey == a.StageKey {
		return
	}
	h.stageKey = a.StageKey
	fails := !staged && (h.plan[a.Stage] == "stage-fail" || w.chance(w.faults.Stage))
	dies := a.Tastes.Deployment != "" && (h.plan[a.Stage] == "taste-fail" || w.chance(w.faults.Stage))
	w.after(w.between(10*time.Millisecond, time.Second), func() {
		switch {
		case fails:
			h.failed, h.failedKey = a.Stage, a.StageKey
			h.failure = &deploy.Failure{Event: "DownloadBundle", Message: "store unavailable"}
		case dies:
			h.staged, h.failed, h.failedKey = append(h.staged, a.Stage), a.Stage, a.StageKey
			h.failure = &deploy.Failure{Event: "Taste", Script: "taste.sh", Code: 4, Message: "script taste.sh failed"}
		default:
			h.staged, h.failed = append(h.staged, a.Stage), ""
			if a.Tastes.Deployment != "" {
				h.tasted = a.StageKey
			}
		}
		w.report(h)
	})
}

// finish ends the work of a generation as script and faults say.
func (w *World) finish(h *host, a deploy.Assignment) {
	if h.working != a.Gen {
		return // re-targeted meanwhile
	}
	how := h.plan[a.Goal]
	switch {
	case how == "hang" || how == "" && w.chance(w.faults.Hang):
		return
	case how == "crash" || w.chance(w.faults.Crash):
		delete(h.plan, a.Goal)
		w.crash(h, a)
		return
	case !a.Rollback && (how == "fail" || how == "break" || w.chance(w.faults.Fail)):
		w.goBack(h, a, how == "break" || w.chance(w.faults.Break))
		return
	}
	h.working, h.running, h.serves, h.result, h.byHand = 0, a.Goal, true, deploy.ResultDone, false
	if !slices.Contains(h.staged, a.Goal) {
		h.staged = append(h.staged, a.Goal)
	}
	w.report(h)
	if d, ok := strings.CutPrefix(how, "sick:"); ok {
		wait, _ := time.ParseDuration(d)
		w.sicken(h, a.Goal, wait)
	} else if !a.Rollback && w.chance(w.faults.Sick) {
		w.sicken(h, a.Goal, w.between(time.Second, time.Minute))
	}
	if w.chance(w.faults.Away) {
		w.Sight(h.id, false)
		w.after(w.between(time.Second, 20*time.Minute), func() { w.Sight(h.id, true) })
	}
}

// goBack is the local revert under the same permit.
func (w *World) goBack(h *host, a deploy.Assignment, broken bool) {
	h.working = 0
	h.failure = &deploy.Failure{Event: "ApplicationStart", Code: 4, Message: "script failed"}
	h.result, h.serves = deploy.ResultFailed, h.running != ""
	if broken {
		h.result, h.serves = deploy.ResultBroken, false
	}
	w.report(h)
}

// crash kills the agent: it is out of sight, and what it was doing counts as
// failed when it comes back.
func (w *World) crash(h *host, a deploy.Assignment) {
	w.Sight(h.id, false)
	w.after(w.between(time.Second, 10*time.Minute), func() {
		h.told = 0
		if h.working == a.Gen {
			h.failure = &deploy.Failure{Event: "ApplicationStart", Code: 7, Message: "the agent was restarted"}
			h.working, h.result, h.serves = 0, deploy.ResultFailed, h.running != ""
		}
		w.Sight(h.id, true)
		w.assign(h.id)
	})
}

func (w *World) sicken(h *host, rev deploy.Digest, wait time.Duration) {
	w.after(wait, func() {
		if h.running == rev && h.working == 0 {
			h.serves = false
			w.report(h)
		}
	})
}

// report sends the whole state; it may be lost and sent again, or come twice.
func (w *World) report(h *host) {
	if !h.up {
		return
	}
	w.send(h)
}

func (w *World) send(h *host) {
	h.counter++
	lost := w.chance(w.faults.Lose)
	r := deploy.Report{
		Host: h.id, Counter: h.counter, Gen: h.acked, Result: h.result, Running: h.running,
		Staged: slices.Clone(h.staged), StageFailed: h.failed, Failure: h.failure, Health: h.health(),
		StageKey: h.tasted, Out: h.out, OutKey: h.outKey,
	}
	if h.failed != "" {
		r.StageKey = h.failedKey
	}
	if r.Health == deploy.HealthUnhealthy {
		r.Evidence = "probe: status 500"
	}
	arrive := func() {
		if w.hosts[h.id] != h {
			return
		}
		items := []deploy.Report{}
		for _, g := range w.groups {
			r.App = g.App
			items = append(items, r)
		}
		w.Propose(deploy.TargetsReported{Items: items})
		w.assign(h.id)
	}
	switch {
	case lost:
		w.after(w.between(time.Second, 5*time.Second), func() {
			if h.up {
				w.send(h)
			}
		})
	default:
		w.after(w.between(time.Millisecond, 20*time.Millisecond), arrive)
	}
	if w.chance(w.faults.Repeat) {
		w.after(w.between(time.Second, 2*time.Minute), arrive)
	}
}

func (h *host) health() deploy.Health {
	switch {
	case h.serves:
		return deploy.HealthHealthy
	case h.running == "":
		return deploy.HealthUnknown
	default:
		return deploy.HealthUnhealthy
	}
}

// String shows a host in one line.
func (h *host) String() string {
	return fmt.Sprintf("%s zone=%s running=%s serves=%v gen=%d %s", h.id, h.zone, h.running, h.serves, h.acked,
		h.result)
}
