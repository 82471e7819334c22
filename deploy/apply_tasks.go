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
	granted, frozen := 0, s.frozen(g, d) != nil
	led := s.ledger(g, nil) // every item is committed before the next is tested
	for _, item := range e.Items {
		t, task := s.Target(item.Host, d.App), d.Tasks[item.Host]
		if t == nil || task == nil || task.gone() || task.Wave != e.Wave || item.Gen != t.Gen+1 ||
			!s.grantable(d, w, t, task, item.Goal) ||
			frozen && task.Status != TaskReverting {
			continue
		}
		if kind, err := led.admit(t, x); err != nil || kind != item.Kind {
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
		return d.Status == DeploymentStatusRunning && w.Status == WaveStatusDeploying && d.ScopeRevert == nil &&
			d.AskAgain == 0 &&
			goal == task.goal(d) && d.ready(t, task) && !t.Quarantined && !d.claimed(t.group, t, TaskReverting)
	case TaskReverting:
		back := d.Status == DeploymentStatusRollingBack || d.ScopeRevert != nil && d.Status != DeploymentStatusStopping
		return back && goal == task.Goal && t.HasStaged(goal)
	default:
		return false
	}
}

func (s *State) grant(d *Deployment, t *Target, task *Task, item Grant) {
	s.update(t, func() {
		t.Gen, t.Open, t.Permit, t.Desired = item.Gen, true, item.Kind, item.Goal
		t.Deployment, t.GrantedAt, t.CatchUp, t.Tries, t.RetryAt = d.ID, s.Now, CatchUpNone, 0, 0
		t.Drift, t.Declared, t.LeftBy, d.Granted = "", false, "", true
		task.Gen, task.Failure = item.Gen, keepFailure(task)
		if task.Status == TaskWaiting {
			d.Waves[task.Wave].Released = true
			s.moveTask(d, t.Host, task, TaskGranted, item.Kind.String(), nil)
			return
		}
		s.record(d, Record{
			Subject: "task", Wave: task.Wave, Host: t.Host, To: "granted",
			Text: "back to " + s.RevisionName(d.App, item.Goal),
		})
	})
}

func (s *State) rollbackStarted(d *Deployment, e RollbackStarted) error {
	switch {
	case d.Status == DeploymentStatusStopping:
		return refuse(Conflict, "deployment %s is %s", d.ID, d.Status)
	case d.RevertSet:
		return refuse(Conflict, "deployment %s is rolling back already", d.ID)
	}
	g := s.group(d)
	if e.Bad {
		g.Bad[d.Revision] = d.ID
		g.forgetGood()
	}
	if e.Scope != "" && e.Scope != ScopeAll {
		return s.scopeReverted(d, e)
	}
	if d.Status == DeploymentStatusPending {
		s.end(d, DeploymentStatusCancelled, e.Cause)
		return nil
	}
	s.giveBack(d, func(int) bool { return true })
	d.RevertSet, d.ScopeRevert, d.RequestedRevert = true, nil, nil
	d.Decision, d.DecideBy = false, 0
	s.setStatus(d, DeploymentStatusRollingBack, e.Cause)
	s.adopt(d, e.Items)
	with := map[int]bool{} // a wave that was not entered may hold hosts that run the revision by another way
	for _, item := range e.Items {
		if task := d.Tasks[item.Host]; task != nil {
			with[task.Wave] = true
		}
	}
	for i := range d.Waves {
		if st := d.Waves[i].Status; !st.waits() && st != WaveStatusSkipped || with[i] {
			s.setWave(d, i, WaveStatusReverting, "")
		}
	}
	s.withdraw(g, d.ID, everyTarget, everyWave)
	for _, past := range e.Past {
		s.withdrawRevision(g, past, everyTarget, everyWave)
	}
	s.revertItems(d, e.Items)
	s.cancelWaiting(d, "rolled back")
	return nil
}

// scopeReverted opens a revert set of a part of the deployment, or adds to it.
func (s *State) scopeReverted(d *Deployment, e RollbackStarted) error {
	if !d.Status.Live() || d.Status == DeploymentStatusRollingBack {
		return refuse(Conflict, "deployment %s is %s", d.ID, d.Status)
	}
	for _, i := range e.Waves {
		if i < 0 || i >= len(d.Waves) || d.Waves[i].Status.waits() {
			return refuse(Conflict, "wave %d of deployment %s has nothing to take back", i, d.ID)
		}
	}
	then := e.Then
	if d.ScopeRevert != nil && d.ScopeRevert.Then == ThenAll {
		then = ThenAll
	}
	d.ScopeRevert, d.RequestedRevert = &Reversion{Scope: e.Scope, Cause: e.Cause, Then: then, Until: e.Until}, nil
	s.stopBakes(d)
	g, inSet := s.group(d), map[string]bool{}
	for _, item := range e.Items {
		inSet[item.Host] = true
	}
	for _, i := range e.Waves {
		s.setWave(d, i, WaveStatusReverting, e.Cause)
		for _, o := range g.open { // what a newer one had begun here begins anew
			if o.Seq > d.Seq && i < len(o.Waves) && o.Waves[i].Status == WaveStatusReverted {
				s.enterAgain(o, i)
			}
		}
	}
	s.giveBack(d, func(wave int) bool { return slices.Contains(e.Waves, wave) })
	s.adopt(d, e.Items)
	of := func(t *Target) bool { return inSet[t.Host] }
	in := func(wave string) bool {
		return slices.ContainsFunc(e.Waves, func(i int) bool { return d.Waves[i].Name == wave })
	}
	s.withdraw(g, d.ID, of, in)
	for _, past := range e.Past {
		s.withdrawRevision(g, past, of, in)
	}
	s.revertItems(d, e.Items)
	s.reassignGroup(d.App, d.Group)
	s.record(d, Record{Subject: "deployment", Wave: -1, To: "reverting " + e.Scope, Text: e.Cause})
	return nil
}

// adopt makes tasks for targets of a revert set that have none: they joined
// while the revision was being given to their wave.
func (s *State) adopt(d *Deployment, items []RevertGoal) {
	g := s.group(d)
	for _, item := range items {
		if t := g.target(item.Host); t != nil && d.adopts(g, t) {
			s.update(t, func() { d.plan(t.Host, t.place-1, s.Now, s.Wall) })
		}
	}
}

// revertExtended adds targets to an open revert set: who came back, or joined,
// with the revision that is being taken back.
func (s *State) revertExtended(d *Deployment, e RevertExtended) error {
	if d.Status != DeploymentStatusRollingBack || !d.RevertSet {
		return refuse(Conflict, "deployment %s is %s and takes nothing back", d.ID, d.Status)
	}
	g, n := s.group(d), 0
	s.adopt(d, e.Items)
	for _, item := range e.Items {
		t, task := g.target(item.Host), d.Tasks[item.Host]
		if t == nil || task == nil || task.gone() || !d.straggles(g, t, task, item.Goal) {
			continue
		}
		if st := d.Waves[task.Wave].Status; st != WaveStatusReverting {
			s.setWave(d, task.Wave, WaveStatusReverting, "")
		}
		s.revert(d, t, task, item.Goal)
		n++
	}
	return changed(n, "host", "take back")
}

func (s *State) revertItems(d *Deployment, items []RevertGoal) {
	g := s.group(d)
	for _, item := range items {
		t, task := g.target(item.Host), d.Tasks[item.Host]
		if t != nil && task != nil && !task.gone() && !d.claimed(g, t, TaskGranted) && !d.claimed(g, t, TaskReverting) {
			s.revert(d, t, task, item.Goal)
		}
	}
}

func (s *State) waveReverted(d *Deployment, w *Wave, e WaveReverted) error {
	p := d.waves[e.Wave]
	if w.Status != WaveStatusReverting || d.ScopeRevert == nil || p.tasks[TaskReverting] > 0 || p.permits > 0 {
		return refuse(Conflict, "wave %s is not reverted", w.Name)
	}
	w.EndedAt = s.Now
	s.setWave(d, e.Wave, WaveStatusReverted, "")
	return nil
}

// revert puts a task into the revert set. A target with a permit is re-targeted
// under it at once: permit and kind stay, the generation rises.
func (s *State) revert(d *Deployment, t *Target, task *Task, goal Digest) {
	s.update(t, func() {
		if goal == "" {
			s.moveTask(d, t.Host, task, TaskLeft, "no last good revision", nil)
			return
		}
		task.Goal, task.Phase = goal, 0
		task.Reverts++
		s.moveTask(d, t.Host, task, TaskReverting, "to "+s.RevisionName(d.App, goal), nil)
		if t.Permit == PermitNone {
			return
		}
		t.Gen, t.Open, t.Desired, t.GrantedAt, t.Deployment, t.CatchUp = t.Gen+1, true, goal, s.Now, d.ID, CatchUpNone
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
		s.update(t, func() {
			if item.Status == TaskLost && t.Permit != PermitNone {
				t.Permit, t.Health = PermitNone, HealthUnknown // never healthy, and Gen stays open
			}
			if task.Status.Terminal() && task.Status != TaskSettled { // left without a goal while it held a permit
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
		return task.Status == TaskWaiting && task.Phase == 0 && !d.Redeploy && t.proved(d.Revision)
	case TaskStageFailed, TaskSkipped:
		return task.Status == TaskWaiting
	case TaskLost:
		if t.Permit == PermitNone {
			gone := task.Status == TaskSettled && t.Away && d.Waves[task.Wave].Status.active()
			return task.Status == TaskReverting || gone
		}
		return t.Gen == item.Gen && t.Deployment == d.ID
	case TaskReverted:
		return task.Status == TaskReverting && t.Running == task.Goal && t.Serving()
	case TaskBroken:
		return task.Status == TaskReverting && t.Permit == PermitNone
	default:
		return false
	}
}

// tasksReopened lets targets act again that could not when they were left out.
func (s *State) tasksReopened(d *Deployment, e TasksReopened) error {
	n := 0
	for _, h := range e.Hosts {
		t, task := s.Target(h, d.App), d.Tasks[h]
		if t == nil || task == nil || !d.reopens(t, task) {
			continue
		}
		s.update(t, func() { s.moveTask(d, h, task, TaskWaiting, "can act again", nil) })
		n++
	}
	return changed(n, "host", "take in again")
}

// stagingRetried lets targets stage once more what they could not.
func (s *State) stagingRetried(e StagingRetried) error {
	n := 0
	for _, h := range e.Hosts {
		if t := s.Target(h, e.App); t != nil && t.Group == e.Group && t.StageFailed != "" {
			s.update(t, t.stageAgain)
			n++
		}
	}
	return changed(n, "host", "stage again")
}
