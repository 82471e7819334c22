package deploy

import (
	"cmp"
	"fmt"
	"slices"
)

func (s *State) deploymentCreated(e DeploymentCreated) error {
	g, rev := s.Groups[GroupKey(e.App, e.Group)], s.Revisions[e.App][e.Revision]
	switch {
	case g == nil:
		return refuse(NotFound, "no group %s of %s", e.Group, e.App)
	case rev == nil:
		return refuse(NotFound, "no revision %s of %s", e.Revision.Short(), e.App)
	case s.Deployments[e.ID] != nil || e.ID == "":
		return refuse(Exists, "deployment id %q is taken", e.ID)
	case g.Bad[e.Revision] != "" && !e.Force:
		return refuse(Conflict, "revision %s is marked bad by deployment %s; deploy another one, or this with --force-bad and a reason", rev.Name, g.Bad[e.Revision])
	}
	if d := s.Newest(e.App, e.Group); d != nil {
		return refuse(Conflict, "deployment %s of %s to %s is in flight (%s); wait for it, or abort it", d.ID, d.RevName, e.Group, d.Status)
	}
	d := &Deployment{
		ID: e.ID, App: e.App, Group: e.Group, Revision: e.Revision, RevName: e.RevName,
		Config: e.Config, Waves: slices.Clone(e.Waves), Seed: e.Seed, Redeploy: e.Redeploy, Inverse: e.Inverse, Undo: e.Bad,
		Actor: e.Request.Actor, Reason: e.Request.Reason, CreatedAt: s.Now, Created: s.Wall,
		Tasks: map[string]*Task{},
	}
	for i := range d.Waves {
		d.Waves[i].Status = WaveStatusPending
		d.Waves[i].Hosts = slices.DeleteFunc(slices.Clone(d.Waves[i].Hosts), func(h string) bool {
			if !g.Members[h] || d.Tasks[h] != nil {
				return true
			}
			d.Tasks[h] = &Task{Wave: i, Since: s.Now, Wall: s.Wall}
			t := s.Target(h, e.App)
			s.touch(t, func() { t.StageFailed, t.StageReason = "", nil }) // a new attempt
			return false
		})
	}
	if len(d.Tasks) == 0 {
		return refuse(Conflict, "group %s of %s has no host: no enrolled host matches %s", e.Group, e.App, g.Selector)
	}
	s.admitDeployment(g, d, e.Bad)
	return nil
}

// admitDeployment makes an accepted deployment part of the state.
func (s *State) admitDeployment(g *Group, d *Deployment, bad Digest) {
	s.Seq++
	d.Seq, g.Last = s.Seq, d.ID
	d.From = s.Commonest(g)
	if d.From != "" {
		d.FromName = s.RevisionName(g.App, d.From)
	}
	if d.Inverse && bad != "" {
		g.Bad[bad] = d.ID
	}
	s.touchAll(d.App, d.Group)
	d.derive()
	s.Deployments[d.ID] = d
	s.open = append(s.open, d)
	for h := range sorted(d.Tasks) {
		d.count(s.Target(h, d.App), +1)
	}
	text := d.RevName
	if d.Inverse {
		d.Status = DeploymentStatusRollingBack
		text = "rollback to " + text
	}
	s.record(d, Record{Subject: "deployment", Wave: -1, To: d.Status.String(), Text: text})
}

// Commonest returns the revision that most targets of the group run, "" when
// none runs anything.
func (s *State) Commonest(g *Group) Digest {
	n := map[string]int{}
	for h := range sorted(g.Members) {
		if t := s.Target(h, g.App); t != nil && t.Running != "" {
			n[string(t.Running)]++
		}
	}
	best, most := "", 0
	for d, c := range sorted(n) {
		if c > most {
			best, most = d, c
		}
	}
	return Digest(best)
}

func (s *State) requestMade(d *Deployment, e RequestMade) error {
	if err := s.verb(d, e.Verb); err != nil {
		return err
	}
	s.record(d, Record{Subject: "request", Wave: -1, To: string(e.Verb), Text: joinText(e.Request.Actor, e.Request.Reason)})
	return nil
}

func joinText(actor, reason string) string {
	if reason == "" {
		return "by " + actor
	}
	return "by " + actor + ": " + reason
}

// verb is the table of requests over statuses in section 4 of the semantics.
func (s *State) verb(d *Deployment, v Verb) error {
	no := func(why string) error {
		return refuse(Conflict, "deployment %s is %s: %s", d.ID, d.Status, why)
	}
	back := d.Status == DeploymentStatusRollingBack
	switch v {
	case VerbPause:
		if back || d.Status == DeploymentStatusStopping {
			return no("it cannot be paused")
		}
		s.stopBakes(d)
		d.Status = DeploymentStatusPaused
	case VerbResume:
		if back || d.Status == DeploymentStatusStopping {
			return no("it cannot be resumed")
		}
		if d.Decision {
			return no("it waits for a decision (" + d.Cause + "): retry, or abort with --rollback or --leave")
		}
		s.goOn(d)
	case VerbRetry:
		if back || d.Status == DeploymentStatusStopping {
			return no("nothing can be retried")
		}
		s.retry(d)
	case VerbPromote:
		if back || d.Status == DeploymentStatusStopping {
			return no("nothing can be promoted")
		}
		if d.GateFail != "" {
			return no("gate " + d.GateFail + " failed; a failed gate cannot be promoted")
		}
		s.promote(d)
	case VerbAbortLeave:
		return s.abortLeave(d)
	case VerbAbortRollback:
		s.abortRollback(d)
	default:
		return refuse(Invalid, "unknown request %q", v)
	}
	return nil
}

// stopBakes stops the clock of every baking wave.
func (s *State) stopBakes(d *Deployment) {
	for i := range d.Waves {
		if w := &d.Waves[i]; w.Status == WaveStatusBaking && d.Status == DeploymentStatusRunning {
			w.BakeLeft = max(0, w.BakeUntil.Sub(s.Now))
		}
	}
}

// goOn makes a paused deployment run, its bake clocks where they stopped.
func (s *State) goOn(d *Deployment) {
	if d.Status != DeploymentStatusPaused {
		return
	}
	for i := range d.Waves {
		if w := &d.Waves[i]; w.Status == WaveStatusBaking {
			w.BakeUntil, w.BakeLeft = s.Now.Add(w.BakeLeft), 0
		}
	}
	d.Status, d.Decision, d.Cause = DeploymentStatusRunning, false, ""
}

// retry takes the failures of the open waves back and goes on.
func (s *State) retry(d *Deployment) {
	if d.Status != DeploymentStatusPaused {
		return
	}
	d.GateFail = ""
	d.Attempt++
	s.touchAll(d.App, d.Group)
	for h, task := range sorted(d.Tasks) {
		w := &d.Waves[task.Wave]
		if !task.Status.Failure() || task.gone() || w.Status.Passed() {
			continue
		}
		if w.Status == WaveStatusBaking {
			w.Status, w.BakeLeft = WaveStatusDeploying, 0
		}
		s.touch(s.Target(h, d.App), func() {
			if task.Counted {
				task.Counted = false
				d.Failures--
			}
			t := s.Target(h, d.App)
			t.StageFailed, t.StageReason, task.Refused = "", nil, 0
			s.moveTask(d, h, task, TaskWaiting, "retry", nil)
		})
	}
	s.goOn(d)
}

// promote lets every running bake count as long enough.
func (s *State) promote(d *Deployment) {
	for i := range d.Waves {
		if w := &d.Waves[i]; w.Status == WaveStatusBaking {
			w.BakeUntil, w.BakeLeft = s.Now, 0
		}
	}
}

func (s *State) abortLeave(d *Deployment) error {
	switch d.Status {
	case DeploymentStatusRollingBack:
		return refuse(Conflict, "deployment %s is rolling back: that cannot be left half way", d.ID)
	case DeploymentStatusPending:
		s.end(d, DeploymentStatusCancelled, "aborted")
	default:
		s.cancelWaiting(d, "aborted")
		s.setStatus(d, DeploymentStatusStopping, "aborted, hosts keep what they run")
	}
	return nil
}

func (s *State) abortRollback(d *Deployment) {
	switch d.Status {
	case DeploymentStatusRollingBack:
	case DeploymentStatusPending:
		s.end(d, DeploymentStatusCancelled, "aborted")
	default:
		d.Abort = true
		s.setStatus(d, DeploymentStatusRollingBack, "rollback requested")
	}
}

// cancelWaiting ends every task that has not been granted.
func (s *State) cancelWaiting(d *Deployment, cause string) {
	for h, task := range sorted(d.Tasks) {
		if task.Status == TaskWaiting {
			s.touch(s.Target(h, d.App), func() {
				task.Status, task.Since, task.Cause = TaskCancelled, s.Now, cause
			})
		}
	}
}

func (s *State) setStatus(d *Deployment, to DeploymentStatus, cause string) {
	d.Status, d.Cause = to, cause
	s.touchAll(d.App, d.Group)
	s.record(d, Record{Subject: "deployment", Wave: -1, To: to.String(), Text: cause})
}

// end makes the deployment terminal and lets go of its indexes.
func (s *State) end(d *Deployment, to DeploymentStatus, cause string) {
	s.cancelWaiting(d, cause)
	d.EndedAt, d.Ended = s.Now, s.Wall
	s.setStatus(d, to, cause)
	s.open = slices.DeleteFunc(s.open, func(o *Deployment) bool { return o == d })
	s.prune(d.App, d.Group)
}

// historyKept is how many ended deployments of a group keep their tasks and
// records; of older ones only the outline stays, so that state does not grow
// with every deployment times every host.
const historyKept = 50

// prune drops tasks, hosts and records of all but the newest ended deployments.
func (s *State) prune(app, group string) {
	var full []*Deployment
	for _, d := range sorted(s.Deployments) {
		if d.App == app && d.Group == group && d.Status.Terminal() && !d.Pruned {
			full = append(full, d)
		}
	}
	slices.SortFunc(full, func(a, b *Deployment) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, d := range full[:max(0, len(full)-historyKept)] {
		d.Pruned, d.Tasks, d.Records = true, nil, nil
		for i := range d.Waves {
			d.Waves[i].Hosts = nil
		}
		d.derive()
	}
}

func (s *State) deploymentStarted(d *Deployment) error {
	if d.Status != DeploymentStatusPending {
		return refuse(Conflict, "deployment %s is %s", d.ID, d.Status)
	}
	s.setStatus(d, DeploymentStatusRunning, "")
	return nil
}

func (s *State) waveStarted(d *Deployment, w *Wave, e WaveStarted) error {
	if d.Status != DeploymentStatusRunning || w.Status != WaveStatusPending || !d.entered(e.Wave) {
		return refuse(Conflict, "wave %s is %s and cannot start", w.Name, w.Status)
	}
	w.StartedAt, w.Budget = s.Now, e.Budget
	s.setWave(d, e.Wave, WaveStatusDeploying, "")
	return nil
}

// entered reports whether every wave of the batches before wave i has passed.
func (d *Deployment) entered(i int) bool {
	return !slices.ContainsFunc(d.Waves[:i], func(w Wave) bool {
		return w.Batch < d.Waves[i].Batch && !w.Status.Passed()
	})
}

func (s *State) setWave(d *Deployment, i int, to WaveStatus, text string) {
	d.Waves[i].Status = to
	s.record(d, Record{Subject: "wave", Wave: i, To: to.String(), Text: text})
}

func (s *State) gateJudged(d *Deployment, e GateJudged) error {
	if e.Verdict == VerdictFail {
		d.GateFail = e.Gate
	}
	s.record(d, Record{Subject: "gate", Wave: e.Wave, To: string(e.Verdict), Text: e.Gate + ": " + e.Evidence})
	return nil
}

func (s *State) bakeStarted(d *Deployment, w *Wave, e BakeStarted) error {
	p := d.waves[e.Wave]
	if d.Status != DeploymentStatusRunning || w.Status != WaveStatusDeploying || p.open() > 0 || p.tasks[TaskSettled] == 0 || p.failures > w.Budget {
		return refuse(Conflict, "wave %s is not ready to bake", w.Name)
	}
	w.BakeUntil = e.Until
	s.setWave(d, e.Wave, WaveStatusBaking, fmt.Sprintf("for %s", w.BakeMin))
	return nil
}

func (s *State) waveSealed(d *Deployment, w *Wave, e WaveSealed) error {
	p := d.waves[e.Wave]
	if d.Status != DeploymentStatusRunning || w.Status != WaveStatusBaking || d.GateFail != "" || s.Now < w.BakeUntil || p.failures > w.Budget || p.sicks > 0 || p.tasks[TaskSettled] == 0 {
		return refuse(Conflict, "wave %s is not ready to be sealed", w.Name)
	}
	for _, h := range w.Hosts {
		t := s.Target(h, d.App)
		if task := d.Tasks[h]; t == nil || task == nil || task.Status != TaskSettled || task.Wave != e.Wave {
			continue
		}
		s.Hosts[h].touched = s.Index
		t.Seals = append(t.Seals, Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now})
		if len(t.Seals) > sealMemory {
			t.Seals = slices.Delete(t.Seals, 0, len(t.Seals)-sealMemory)
		}
	}
	w.EndedAt = s.Now
	s.setWave(d, e.Wave, WaveStatusSealed, fmt.Sprintf("%d of %d hosts", p.tasks[TaskSettled], p.total()))
	return nil
}

func (s *State) waveSkipped(d *Deployment, w *Wave, e WaveSkipped) error {
	p := d.waves[e.Wave]
	if d.Status != DeploymentStatusRunning || p.open() > 0 || p.tasks[TaskSettled] > 0 ||
		(w.Status != WaveStatusPending && w.Status != WaveStatusDeploying && w.Status != WaveStatusBaking) {
		return refuse(Conflict, "wave %s has work", w.Name)
	}
	w.EndedAt = s.Now
	s.setWave(d, e.Wave, WaveStatusSkipped, e.Cause)
	return nil
}

func (s *State) deploymentPaused(d *Deployment, e DeploymentPaused) error {
	if d.Status != DeploymentStatusRunning {
		return refuse(Conflict, "deployment %s is %s", d.ID, d.Status)
	}
	s.stopBakes(d)
	d.Decision = true
	s.setStatus(d, DeploymentStatusPaused, e.Cause)
	return nil
}

func (s *State) deploymentEnded(d *Deployment, e DeploymentEnded) error {
	if !d.endable(e.Status) {
		return refuse(Conflict, "deployment %s is %s and cannot end %s", d.ID, d.Status, e.Status)
	}
	for i := range d.waves {
		if n := d.permits(i); n > 0 {
			return refuse(Conflict, "deployment %s holds %d permits in wave %s", d.ID, n, d.Waves[i].Name)
		}
	}
	g := s.Groups[GroupKey(d.App, d.Group)]
	if e.Status == DeploymentStatusSucceeded && g != nil {
		delete(g.Bad, d.Revision)
	}
	for i := range d.Waves {
		if d.Waves[i].Status == WaveStatusReverting {
			d.Waves[i].EndedAt = s.Now
			s.setWave(d, i, WaveStatusReverted, "")
		}
	}
	s.end(d, e.Status, e.Cause)
	return nil
}

// endable reports whether the deployment, as it is now, may end so: a request
// or a report may have come between Decide and this fact.
func (d *Deployment) endable(to DeploymentStatus) bool {
	switch d.Status {
	case DeploymentStatusRunning:
		sealed, passed := 0, 0
		for i := range d.Waves {
			sealed += count(d.Waves[i].Status == WaveStatusSealed)
			passed += count(d.Waves[i].Status.Passed())
		}
		return passed == len(d.Waves) && d.GateFail == "" &&
			(to == DeploymentStatusSucceeded && sealed > 0 || to == DeploymentStatusStopped && sealed == 0)
	case DeploymentStatusStopping:
		return to == DeploymentStatusStopped
	case DeploymentStatusRollingBack:
		for _, p := range d.waves {
			if p.tasks[TaskReverting] > 0 {
				return false
			}
		}
		return d.Revert && (to == DeploymentStatusRolledBack || to == DeploymentStatusStopped ||
			to == DeploymentStatusSucceeded && d.Inverse)
	case DeploymentStatusPending, DeploymentStatusPaused, DeploymentStatusSucceeded, DeploymentStatusRolledBack,
		DeploymentStatusStopped, DeploymentStatusCancelled:
	}
	return false
}

// permits is the number of permits held in wave i.
func (d *Deployment) permits(i int) int { return d.waves[i].permits }
