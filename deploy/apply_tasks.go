package deploy

import "slices"

func (s *State) permitsGranted(d *Deployment, w *Wave, e PermitsGranted) error {
	g := s.Groups[GroupKey(d.App, d.Group)]
	if g == nil {
		return refuse(NotFound, "no group %s of %s", d.Group, d.App)
	}
	x := terms{
		concurrent: e.Concurrent, maxZones: e.MaxZones, floors: e.Floors,
		exclusive: !d.Config.Capacity.SharedHost,
	}
	granted := 0
	for _, item := range e.Items {
		t, task := s.Target(item.Host, d.App), d.Tasks[item.Host]
		if t == nil || task == nil || task.gone() || task.Wave != e.Wave || item.Gen != t.Gen+1 || !s.grantable(d, w, t, task, item.Goal) {
			continue
		}
		if kind, err := s.ledger(g, map[string]bool{}).admit(t, x); err != nil || kind != item.Kind {
			continue
		}
		s.grant(d, t, task, item)
		granted++
	}
	if granted == 0 && len(e.Items) > 0 {
		return refuse(Conflict, "no permit of wave %s fits any more", w.Name)
	}
	return nil
}

// grantable tests what the permit rule does not: that the work is still wanted.
func (s *State) grantable(d *Deployment, w *Wave, t *Target, task *Task, goal Digest) bool {
	switch task.Status {
	case TaskWaiting:
		return d.Status == DeploymentStatusRunning && w.Status == WaveStatusDeploying &&
			goal == d.Revision && t.HasStaged(goal) && d.GateFail == ""
	case TaskReverting:
		return d.Status == DeploymentStatusRollingBack && goal == task.Goal && t.HasStaged(goal)
	default:
		return false
	}
}

func (s *State) grant(d *Deployment, t *Target, task *Task, item Grant) {
	s.touch(t, func() {
		t.Gen, t.Open, t.Permit, t.Desired = item.Gen, true, item.Kind, item.Goal
		t.Deployment, t.GrantedAt = d.ID, s.Now
		task.Gen, task.Failure = item.Gen, keepFailure(task)
		if task.Status == TaskWaiting {
			s.moveTask(d, t.Host, task, TaskGranted, item.Kind.String(), nil)
			return
		}
		s.record(d, Record{Subject: "task", Wave: task.Wave, Host: t.Host, To: "granted", Text: "back to " + s.RevisionName(d.App, item.Goal)})
	})
}

// keepFailure keeps why a task is being reverted, and forgets what a retry may cure.
func keepFailure(task *Task) *Failure {
	if task.Status == TaskReverting {
		return task.Failure
	}
	return nil
}

func (s *State) rollbackStarted(d *Deployment, e RollbackStarted) error {
	if d.Status != DeploymentStatusRunning && d.Status != DeploymentStatusPaused && d.Status != DeploymentStatusRollingBack {
		return refuse(Conflict, "deployment %s is %s", d.ID, d.Status)
	}
	if d.Revert {
		return refuse(Conflict, "deployment %s is rolling back already", d.ID)
	}
	if g := s.Groups[GroupKey(d.App, d.Group)]; e.Bad && g != nil {
		g.Bad[d.Revision] = d.ID
	}
	d.Revert = true
	s.setStatus(d, DeploymentStatusRollingBack, e.Cause)
	for i := range d.Waves {
		if st := d.Waves[i].Status; st != WaveStatusPending && st != WaveStatusSkipped {
			s.setWave(d, i, WaveStatusReverting, "")
		}
	}
	for _, item := range e.Items {
		if t, task := s.Target(item.Host, d.App), d.Tasks[item.Host]; t != nil && task != nil && !task.gone() {
			s.revert(d, t, task, item.Goal)
		}
	}
	s.cancelWaiting(d, "rolled back")
	return nil
}

// revert puts a task into the revert set. A target with a permit is re-targeted
// under it at once: permit and kind stay, the generation rises.
func (s *State) revert(d *Deployment, t *Target, task *Task, goal Digest) {
	s.touch(t, func() {
		if goal == "" {
			s.moveTask(d, t.Host, task, TaskLeft, "no last good revision", nil)
			return
		}
		task.Goal = goal
		t.Seals = slices.DeleteFunc(t.Seals, func(seal Seal) bool { return seal.Deployment == d.ID })
		s.moveTask(d, t.Host, task, TaskReverting, "to "+s.RevisionName(d.App, goal), nil)
		if t.Permit == PermitNone {
			return
		}
		t.Gen, t.Open, t.Desired, t.GrantedAt, t.Deployment = t.Gen+1, true, goal, s.Now, d.ID
		task.Gen = t.Gen
	})
}

func (s *State) tasksEnded(d *Deployment, e TasksEnded) error {
	ended := 0
	for _, item := range e.Items {
		t, task := s.Target(item.Host, d.App), d.Tasks[item.Host]
		if t == nil || task == nil || task.gone() || t.Counter > item.Counter || !s.endable(d, t, task, item) {
			continue
		}
		s.touch(t, func() {
			if item.Status == TaskLost && t.Permit != PermitNone {
				t.Permit, t.Health = PermitNone, HealthUnknown // never healthy, and Gen stays open
			}
			if task.Status.Terminal() { // left without a goal while it held a permit
				return
			}
			var f *Failure
			if item.Status == TaskStageFailed {
				f = t.StageReason
			}
			s.moveTask(d, t.Host, task, item.Status, item.Cause, f)
		})
		ended++
	}
	return changed(ended, "task", "end")
}

// endable tests an end against the target as it is now.
func (s *State) endable(d *Deployment, t *Target, task *Task, item TaskEnd) bool {
	switch item.Status {
	case TaskSettled:
		return task.Status == TaskWaiting && !d.Redeploy && t.Running == d.Revision && t.Serving()
	case TaskStageFailed, TaskSkipped:
		return task.Status == TaskWaiting
	case TaskLost:
		if t.Permit == PermitNone {
			return task.Status == TaskReverting
		}
		return t.Gen == item.Gen
	case TaskReverted:
		return task.Status == TaskReverting && t.Running == task.Goal && t.Serving()
	case TaskBroken:
		return task.Status == TaskReverting && t.Permit == PermitNone
	default:
		return false
	}
}
