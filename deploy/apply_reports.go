package deploy

import (
	"fmt"
	"time"
)

func (s *State) targetsReported(e TargetsReported) error {
	for i := range e.Items {
		r := &e.Items[i]
		if s.Violated == nil {
			s.reported(r)
			continue
		}
		check := s.witnessReport(r) // of each item: one entry may hold several of a host
		s.reported(r)
		if err := check(); err != nil {
			s.Violated(err)
		}
	}
	return nil
}

// reported applies one whole-state report: section 1 of the semantics.
func (s *State) reported(r *Report) {
	h := s.Hosts[r.Host]
	if !r.valid() || s.Rules >= 4 && (r.Out < OutNone || r.Out > OutDone) {
		return
	}
	if h == nil || r.Counter <= h.Counter && r.App == "" {
		return
	}
	t := h.Targets[r.App]
	if t != nil && r.Counter <= t.Counter {
		return
	}
	h.Counter = max(h.Counter, r.Counter)
	if h.Unreachable {
		h.Unreachable = false
		s.flapped(h)
		for _, other := range sorted(h.Targets) {
			s.update(other, func() { other.Away = false })
		}
		s.noteHost(h, "reachable")
	}
	if t == nil {
		return
	}
	s.remove(t)
	failed := t.StageFailed
	t.Counter, t.Staged, t.Edits = r.Counter, r.Staged, r.Edits
	if t.OutKey == r.OutKey && t.OutKey > 0 {
		t.Out = r.Out
	}
	if t.OutKey == 0 && s.Rules >= 4 { // it was drained under a former membership, or log, and comes back
		t.Out = min(r.Out, OutMoving)
	}
	stageFailed := r.StageFailed
	switch {
	case stageFailed == "":
		s.tasted(t, r.StageKey)
	case s.Rules >= 4 && r.StageKey != "" && !s.asksToStage(t, r.StageKey):
		stageFailed = "" // an answer to an older question
	}
	t.StageFailed, t.StageReason = stageFailed, nil
	if stageFailed != "" {
		t.StageReason = r.Failure
		if t.StageFailed != failed {
			t.StageFailedAt = s.Now
		}
	}
	if ended := s.closeGeneration(t, r); ended != nil {
		s.taskResult(ended, t, r)
	}
	s.returned(t)
	s.add(t)
}

// tasted notes that a target has passed what a deployment runs before a permit. It
// runs between remove and add.
func (s *State) tasted(t *Target, key string) {
	if key == "" || s.Rules < 4 {
		return
	}
	for _, d := range s.openOn(t) {
		if task := d.Tasks[t.Host]; task != nil && task.Status == TaskWaiting && key == d.stageKey(t) {
			task.Tasted = true
		}
	}
}

// asksToStage reports whether staging under the key is asked of the target now.
func (s *State) asksToStage(t *Target, key string) bool {
	for _, d := range s.openOn(t) {
		if task := d.Tasks[t.Host]; task != nil && key == d.stageKey(t) {
			return true
		}
	}
	if t.group == nil {
		return false
	}
	kind, goal := t.group.catchUp(t)
	return kind != CatchUpNone && key == t.group.stageKey(t, kind, goal)
}

// returned makes a target evidence again that was lost after it took the
// revision, or came to it late; that it was counted stays. It runs between
// remove and add.
func (s *State) returned(t *Target) {
	for _, d := range s.openOn(t) {
		task := d.Tasks[t.Host]
		if task == nil || task.Status != TaskLost || task.Goal != "" || !t.proved(d.Revision) {
			continue
		}
		if st := d.Waves[task.Wave].Status; st.active() || st == WaveStatusHeld {
			s.moveTask(d, t.Host, task, TaskSettled, "is back on it", nil)
		}
	}
}

// valid reports whether result and health have values that mean something. An
// agent is not trusted: a report that says anything else says nothing.
func (r *Report) valid() bool {
	if r.Gen > mostCounted || r.Counter > mostCounted {
		return false
	}
	return r.Result >= ResultNone && r.Result <= ResultIdle && r.Health >= HealthUnknown && r.Health <= HealthUnhealthy
}

// mostCounted bounds what a host may say of its generations and reports: beyond
// it the next one would start at nothing again, and never be listened to.
const mostCounted = 1 << 62

// closeGeneration applies generation, result and health of a report, and
// returns the deployment whose task the result may end. It runs between remove
// and add.
func (s *State) closeGeneration(t *Target, r *Report) *Deployment {
	if r.Gen < t.Gen {
		return nil
	}
	if r.Gen > t.Gen { // the log was restored from a backup: the host knows more
		s.overtaken(t)
		t.Gen, t.Open, t.Permit, t.Deployment, t.CatchUp = r.Gen, true, PermitNone, "", CatchUpNone
	}
	kind := CatchUpNone
	var ended *Deployment
	if t.Open && r.Result != ResultNone {
		if t.Permit != PermitNone {
			ended, kind = s.Deployments[t.Deployment], t.CatchUp
		}
		if t.Permit != PermitNone && r.Result == ResultDone && r.Running == t.Desired {
			t.Done = t.Desired
		}
		t.Open, t.Permit, t.CatchUp = false, PermitNone, CatchUpNone
	}
	if !t.Open {
		t.Running, t.Health, t.Evidence = r.Running, r.Health, r.Evidence
		t.EverHealthy = t.EverHealthy || r.Health == HealthHealthy
	}
	if kind != CatchUpNone {
		s.catchUpResult(t, kind, r)
	}
	return ended
}

// overtaken lets a granted task wait again when its target is at a generation
// that this log never granted: no result of the task's own will come.
func (s *State) overtaken(t *Target) {
	for _, d := range s.openOn(t) {
		if task := d.Tasks[t.Host]; task != nil && task.Status == TaskGranted {
			s.moveTask(d, t.Host, task, TaskWaiting, "the host is at a later generation", nil)
		}
	}
}

// refusals is how often a target may hand permits back before that counts as a
// failure: an agent that never says the same twice must not keep the log busy.
const refusals = 20

// taskResult ends the task that a permit was for. It runs between remove and add.
func (s *State) taskResult(d *Deployment, t *Target, r *Report) {
	task := d.Tasks[t.Host]
	if task == nil || task.gone() || d.Status.Terminal() || task.Status.Terminal() || task.Gen != r.Gen {
		return
	}
	move := func(to TaskStatus, cause string) { s.moveTask(d, t.Host, task, to, cause, r.Failure) }
	goal := task.goal(d)
	good, waiting := TaskSettled, TaskWaiting
	if task.Status == TaskReverting {
		good, waiting = TaskReverted, TaskReverting
	}
	switch r.Result {
	case ResultDone:
		switch {
		case task.Status == TaskReverting && (t.Running != goal || t.Health != HealthHealthy):
			move(TaskBroken, "could not go back")
		case t.Running != goal:
			move(TaskFailed, fmt.Sprintf("reports %s as running", s.RevisionName(t.App, t.Running)))
		case t.Health != HealthHealthy:
			move(TaskFailed, "runs the revision but does not serve: "+t.Evidence)
		case good == TaskSettled && s.rehearse(d, t, task):
		default:
			move(good, "")
		}
	case ResultFailed:
		switch {
		case task.Status == TaskReverting && (t.Running != goal || t.Health != HealthHealthy):
			move(TaskBroken, "could not go back")
		case task.Status == TaskReverting:
			move(TaskReverted, "")
		default:
			move(TaskFailed, "")
		}
	case ResultBroken:
		move(TaskBroken, "")
	case ResultRefused, ResultIdle:
		task.Refused++
		switch {
		case task.Refused < refusals:
			move(waiting, r.Result.String())
		case task.Status == TaskReverting:
			move(TaskBroken, fmt.Sprintf("handed %d permits back", task.Refused))
		default:
			move(TaskFailed, fmt.Sprintf("handed %d permits back", task.Refused))
		}
	case ResultNone:
	}
}

// rehearse takes a task of a rehearsing wave on: new, old, new again. It reports
// whether the task goes on; the time of the way back is kept for people.
func (s *State) rehearse(d *Deployment, t *Target, task *Task) bool {
	w := &d.Waves[task.Wave]
	switch task.Phase {
	case 0:
		goal := d.rehearsalGoal(t)
		if !w.Rehearse || w.Rehearsed > 0 || goal == "" {
			return false
		}
		task.Phase, task.Goal = 1, goal
		s.moveTask(d, t.Host, task, TaskWaiting, "rehearses the way back to "+s.RevisionName(t.App, goal), nil)
		return true
	case 1:
		w.Rehearsed = s.Now.Sub(t.GrantedAt)
		task.Phase, task.Goal = 2, ""
		s.moveTask(d, t.Host, task, TaskWaiting,
			fmt.Sprintf("a rollback takes %s; deploys again", w.Rehearsed.Round(time.Millisecond)), nil)
		return true
	}
	task.Phase = 0
	return false
}
