package deploy

import (
	"cmp"
	"slices"
	"strings"
)

func (s *State) requestMade(d *Deployment, e RequestMade) error {
	if err := s.verb(d, e); err != nil {
		return err
	}
	what := ""
	for _, part := range []string{e.Gate, e.Wave, e.Zone, e.By, string(e.Fixes)} {
		if part != "" {
			what += " " + part
		}
	}
	s.record(d, Record{
		Subject: "request", Wave: -1, To: string(e.Verb) + what,
		Text: joinText(e.Request.Actor, e.Request.Reason),
	})
	return nil
}

func joinText(actor, reason string) string {
	if reason == "" {
		return "by " + actor
	}
	return "by " + actor + ": " + reason
}

// verb is the table of requests over statuses in section 4 of the semantics.
func (s *State) verb(d *Deployment, e RequestMade) error {
	no := func(why string) error {
		return refuse(Conflict, "deployment %s is %s: %s", d.ID, d.Status, why)
	}
	fixed := d.Status == DeploymentStatusRollingBack || d.Status == DeploymentStatusStopping
	switch e.Verb {
	case VerbPause:
		if fixed {
			return no("it cannot be paused")
		}
		s.pauseBy(d)
	case VerbResume:
		return s.resume(d, no)
	case VerbRetry:
		if fixed || d.Status == DeploymentStatusPending {
			return no("nothing can be retried")
		}
		if d.ScopeRevert != nil {
			return no("it takes " + d.ScopeRevert.Scope + " back; retry when that is done")
		}
		s.retry(d)
	case VerbPromote:
		if fixed || d.Status == DeploymentStatusPending {
			return no("nothing can be promoted")
		}
		return s.promote(d, e)
	case VerbApprove:
		if fixed {
			return no("nothing waits for an approval")
		}
		return s.approve(d, e)
	case VerbReject:
		if fixed {
			return no("nothing waits for an approval")
		}
		if len(d.waiting(e.Gate)) == 0 {
			return refuse(Conflict, "deployment %s waits for no approval%s", d.ID, named(e.Gate))
		}
		return s.abortLeave(d, "rejected "+joinText(e.Request.Actor, e.Request.Reason))
	case VerbSkipZone:
		return s.skipZone(d, e, no)
	case VerbSkipHosts:
		return s.skipHosts(d, e, no)
	case VerbTakeOver:
		return s.takeOver(d, e)
	case VerbRollback:
		if fixed || d.Status == DeploymentStatusPending {
			return no("nothing can be taken back")
		}
		return s.ask(d, e)
	case VerbFixes:
		if fixed {
			return no("its rollback has begun")
		}
		if s.Revisions[d.App][e.Fixes] == nil {
			return refuse(NotFound, "no revision %s of %s", e.Fixes.Short(), d.App)
		}
		if !slices.Contains(d.Fixes, e.Fixes) {
			d.Fixes = append(d.Fixes, e.Fixes)
		}
	case VerbEmergency:
		return s.emergency(d, e.Request, no)
	case VerbAbortLeave:
		return s.abortLeave(d, "aborted, hosts keep what they run")
	case VerbAbortRollback:
		s.abortRollback(d, joinText(e.Request.Actor, e.Request.Reason))
	default:
		return refuse(Invalid, "unknown request %q", e.Verb)
	}
	return nil
}

// pauseBy halts by request: granted tasks finish, bake clocks stop. One that has
// not started has no clock yet.
func (s *State) pauseBy(d *Deployment) {
	switch d.Status {
	case DeploymentStatusPaused:
	case DeploymentStatusPending:
		d.Held = true
	default:
		s.stopBakes(d)
		d.Status = DeploymentStatusPaused
		s.resortBehind(s.group(d))
	}
}

func (s *State) resume(d *Deployment, no func(string) error) error {
	switch {
	case d.Status == DeploymentStatusRollingBack || d.Status == DeploymentStatusStopping:
		return no("it cannot be resumed")
	case d.Decision:
		return no("it waits for a decision (" + d.Cause + "): retry, skip-zone, take-over, or abort with --rollback or --leave")
	case slices.ContainsFunc(d.Waves, func(w Wave) bool { return w.Status == WaveStatusReverted }):
		return no("a wave was taken back; retry it, skip its zone, or abort")
	case d.Status == DeploymentStatusPending:
		d.Held = false
		return nil
	}
	s.goOn(d)
	return nil
}

// stopBakes stops the clock of every baking wave.
func (s *State) stopBakes(d *Deployment) {
	if d.PausedAt == 0 {
		d.PausedAt = max(s.Now, 1)
	}
}

// goOn makes a paused deployment run, its clocks where they stopped. Gates are
// asked once more before anything is granted.
func (s *State) goOn(d *Deployment) {
	if d.Status != DeploymentStatusPaused {
		return
	}
	if d.PausedAt > 0 {
		gap := s.Now.Sub(d.PausedAt)
		d.LimitFrom = d.LimitFrom.Add(gap)
		for i := range d.Waves {
			if w := &d.Waves[i]; w.Status == WaveStatusBaking {
				w.BakeUntil, w.BakeSince = w.BakeUntil.Add(gap), w.BakeSince.Add(gap)
			}
		}
	}
	d.Status, d.Decision, d.DecideBy, d.PausedAt, d.Cause = DeploymentStatusRunning, false, 0, 0, ""
	d.AskAgain = max(s.Now, 1)
	if s.unanswered(d) == "" {
		d.AskAgain = 0
	}
	s.resortBehind(s.group(d))
}

// retry opens what failed or was taken back again and goes on, with new evidence,
// bakes, promotions and deadlines: what was before is void.
func (s *State) retry(d *Deployment) {
	if d.Status != DeploymentStatusPaused {
		return
	}
	d.GateFail = ""
	d.Attempt++
	s.reassignGroup(d.App, d.Group)
	for i := range d.Waves {
		w := &d.Waves[i]
		w.Extra, d.Failures = 0, d.Failures-w.Extra
		s.evidenceAnew(w)
		if !w.Status.waits() {
			d.Promoted = slices.DeleteFunc(d.Promoted, func(p string) bool { return strings.HasPrefix(p, w.Name+"/") })
		}
		switch {
		case (w.Status == WaveStatusReverted || w.Status.active()) && !d.entered(i),
			w.Status == WaveStatusReverted && len(s.orderHolds(d, s.group(d), i)) > 0:
			s.reopen(d, i, WaveStatusPending) // an earlier wave, or another deployment, comes first
		case w.Status == WaveStatusReverted:
			s.reopen(d, i, WaveStatusDeploying)
		case w.Status.Passed():
		case d.waves[i].failures > 0:
			if w.Status == WaveStatusBaking {
				s.setWave(d, i, WaveStatusDeploying, "retry")
			}
			s.reopen(d, i, w.Status)
		}
	}
	s.goOn(d)
	d.LimitFrom = s.Now
	for i := range d.Waves {
		switch w := &d.Waves[i]; {
		case w.Status == WaveStatusBaking:
			w.BakeSince, w.BakeUntil = s.Now, s.Now.Add(w.BakeMin)
		case w.Status.waits():
			w.HeldAt = 0
		}
	}
}

// reopen lets the failed and reverted tasks of a wave wait again, and sets the
// wave's status.
func (s *State) reopen(d *Deployment, i int, to WaveStatus) {
	w := &d.Waves[i]
	for _, h := range w.Hosts {
		task, t := d.Tasks[h], s.Target(h, d.App)
		again := task.Status.Failure() || task.Status == TaskReverted || task.Status == TaskLeft
		if t == nil || task.gone() || task.Wave != i || !again {
			continue
		}
		s.update(t, func() {
			if task.Counted {
				task.Counted = false
				d.Failures--
			}
			t.stageAgain()
			t.undrift()
			task.Refused, task.Reverts, task.Goal, task.Phase = 0, 0, "", 0
			s.moveTask(d, h, task, TaskWaiting, "retry", nil)
		})
	}
	s.evidenceAnew(w)
	if w.Status != to {
		w.StartedAt = s.Now
		s.setWave(d, i, to, "opened again")
	}
}

// promote lets a named hold, window or bake count as passed, or every one that
// waits now; never a failed gate.
func (s *State) promote(d *Deployment, e RequestMade) error {
	if d.GateFail != "" {
		return refuse(Conflict, "gate %s failed; a failed gate cannot be promoted", d.GateFail)
	}
	found := false
	for i := range d.Waves {
		w := &d.Waves[i]
		if e.Wave != "" && e.Wave != w.Name || !w.Status.active() && !w.Status.waits() {
			continue
		}
		for _, name := range d.promotable(i) {
			if e.Gate == "" || e.Gate == name {
				found = true
				if !d.promoted(w.Name, name) {
					d.Promoted = append(d.Promoted, w.Name+"/"+name)
				}
			}
		}
	}
	if !found {
		return refuse(Conflict, "deployment %s has no wave that bakes or is held%s; see `dctl status %s`", d.ID,
			named(e.Gate), d.ID)
	}
	return nil
}

// approve records one person's yes. Four eyes: who asked for the deployment
// does not count, nor does anybody twice.
func (s *State) approve(d *Deployment, e RequestMade) error {
	waiting := d.waiting(e.Gate)
	if len(waiting) == 0 {
		return refuse(Conflict, "deployment %s waits for no approval%s", d.ID, named(e.Gate))
	}
	var last error
	given := false
	for _, g := range waiting {
		err := d.mayApprove(g, e)
		if err == nil && d.overdueFor(g, s.Now) {
			err = refuse(Conflict, "the time to approve gate %s is over; the deployment counts as rejected, deploy again", g.Name)
		}
		if err != nil {
			last = err
			continue
		}
		d.Approvals = append(d.Approvals, Approval{
			Gate: g.Name, Actor: e.Request.Actor, Person: e.Request.person(), Reason: e.Request.Reason, Wall: s.Wall,
		})
		given = true
	}
	if given {
		return nil
	}
	return last
}

// mayApprove says why somebody's yes to a gate does not count.
func (d *Deployment) mayApprove(g *Gate, e RequestMade) error {
	who := e.Request.Actor
	if e.Request.person() == cmp.Or(d.Person, d.Actor) {
		return refuse(Conflict, "%s asked for deployment %s; somebody else must approve it%s", d.Actor, d.ID,
			sameAs(who, d.Actor))
	}
	if g.Approval.Group != "" && !slices.Contains(e.Groups, g.Approval.Group) {
		return refuse(Conflict, "gate %s needs somebody of group %s; %s is not in it", g.Name, g.Approval.Group, who)
	}
	for _, a := range d.Approvals {
		if a.Gate == g.Name && cmp.Or(a.Person, a.Actor) == e.Request.person() {
			return refuse(Conflict, "%s approved gate %s already; it needs different people%s", a.Actor, g.Name,
				sameAs(who, a.Actor))
		}
	}
	return nil
}

// sameAs explains why two names count as one.
func sameAs(a, b string) string {
	if a == b {
		return ""
	}
	return ", and " + a + " counts as the same person (see `dctl access list`)"
}

// skipZone excludes a zone that was taken back or failed, and goes on without
// it. Its hosts keep what they run until the next deployment.
func (s *State) skipZone(d *Deployment, e RequestMade, no func(string) error) error {
	if d.Status != DeploymentStatusPaused || d.ScopeRevert != nil {
		return no("a zone is skipped while the deployment waits for a decision")
	}
	n := 0
	for h, task := range sorted(d.Tasks) {
		t := s.Target(h, d.App)
		if t == nil || t.Zone != e.Zone || task.gone() || t.Permit != PermitNone || task.Status == TaskSettled ||
			d.Waves[task.Wave].Status.Passed() {
			continue
		}
		s.update(t, func() {
			s.uncount(d, task)
			task.Intend, task.Named, t.Drift, t.Declared = true, true, "zone "+e.Zone+" was skipped", true
			s.moveTask(d, h, task, TaskSkipped, t.Drift, nil)
		})
		n++
	}
	if n == 0 {
		return refuse(Conflict, "no target of zone %q is left to skip", e.Zone)
	}
	s.retry(d)
	return nil
}

// uncount takes a failure back.
func (s *State) uncount(d *Deployment, task *Task) {
	if task.Counted {
		task.Counted = false
		d.Failures--
	}
}

// skipHosts leaves targets out that have no permit yet; they are caught up with
// after their wave is sealed.
func (s *State) skipHosts(d *Deployment, e RequestMade, no func(string) error) error {
	if !d.forward() {
		return no("nothing is left to skip")
	}
	n := 0
	for _, h := range e.Hosts {
		t, task := s.Target(h, d.App), d.Tasks[h]
		if t == nil || task == nil || task.gone() || task.Status != TaskWaiting {
			continue
		}
		s.update(t, func() {
			task.Named = true
			s.moveTask(d, h, task, TaskSkipped, joinText(e.Request.Actor, e.Request.Reason), nil)
		})
		n++
	}
	if n == 0 {
		return refuse(Conflict, "none of these hosts waits in deployment %s", d.ID)
	}
	return nil
}

// takeOver ends the deployment in favour of a newer one of its group.
func (s *State) takeOver(d *Deployment, e RequestMade) error {
	by := e.By
	for _, o := range s.group(d).open {
		if o.Seq > d.Seq && (by == "" || by == o.ID) {
			return s.takenOver(d, TakenOver{Deployment: d.ID, By: o.ID})
		}
	}
	if by != "" {
		return refuse(Conflict, "%s is no newer deployment in flight on %s", by, d.Group)
	}
	return refuse(Conflict, "no newer deployment is in flight on %s; deploy a repair first (--fixes %s)", d.Group,
		d.RevName)
}

// takenOver lets the deployment stop and its targets stay until the newer one
// comes to them. One that rolls back stops only for a deployment that preempts.
func (s *State) takenOver(d *Deployment, e TakenOver) error {
	by := s.Deployments[e.By]
	switch {
	case by == nil || by.Status.Terminal() || by.Seq <= d.Seq || by.App != d.App || by.Group != d.Group:
		return refuse(Conflict, "%s is no newer deployment in flight on %s", e.By, d.Group)
	case d.Status == DeploymentStatusRollingBack && !by.Preempt:
		return refuse(Conflict, "deployment %s is rolling back; only a deployment with --preempt takes over", d.ID)
	case d.Status == DeploymentStatusStopping:
		d.TakenBy = by.ID
		return nil
	}
	if d.Status == DeploymentStatusPending {
		s.end(d, DeploymentStatusSuperseded, "superseded by "+by.RevName+" ("+by.ID+")")
		return nil
	}
	d.TakenBy = by.ID
	s.stop(d, "taken over by "+by.RevName+" ("+by.ID+")")
	return nil
}

// stop lets granted tasks finish and starts no other.
func (s *State) stop(d *Deployment, cause string) {
	s.cancelWaiting(d, cause)
	for h, task := range sorted(d.Tasks) {
		if t := s.Target(h, d.App); task.Status == TaskReverting && t != nil && t.Permit == PermitNone {
			s.update(t, func() { s.moveTask(d, h, task, TaskLeft, cause, nil) })
		}
	}
	d.ScopeRevert, d.RequestedRevert, d.Decision, d.DecideBy = nil, nil, false, 0
	s.setStatus(d, DeploymentStatusStopping, cause)
}

// ask notes that a person wants a zone or wave back.
func (s *State) ask(d *Deployment, e RequestMade) error {
	scope := ScopeZone
	if e.Zone == "" {
		scope = ScopeWave
	}
	for i := range d.Waves {
		w := &d.Waves[i]
		if w.Status.waits() || w.Status == WaveStatusSkipped || e.Wave != "" && w.Name != e.Wave {
			continue
		}
		for _, h := range w.Hosts {
			if t := s.Target(h, d.App); t != nil && (e.Zone == "" || t.Zone == e.Zone) {
				d.RequestedRevert = &Reversion{
					Scope: scope, Zone: e.Zone, Wave: e.Wave,
					Cause: "asked for " + joinText(e.Request.Actor, e.Request.Reason),
				}
				return nil
			}
		}
	}
	return refuse(Conflict, "deployment %s has brought nothing to %s%s", d.ID, e.Zone, e.Wave)
}

func (s *State) abortLeave(d *Deployment, cause string) error {
	switch d.Status {
	case DeploymentStatusRollingBack:
		return refuse(Conflict, "deployment %s is rolling back: that cannot be left half way", d.ID)
	case DeploymentStatusPending:
		s.end(d, DeploymentStatusCancelled, cause)
	case DeploymentStatusStopping:
	default:
		s.stop(d, cause)
	}
	return nil
}

func (s *State) abortRollback(d *Deployment, asked string) {
	switch d.Status {
	case DeploymentStatusRollingBack:
	case DeploymentStatusPending:
		s.end(d, DeploymentStatusCancelled, "aborted")
	default:
		d.Asked, d.ScopeRevert, d.RequestedRevert, d.Decision, d.DecideBy, d.TakenBy = asked, nil, nil, false, 0, ""
		s.setStatus(d, DeploymentStatusRollingBack, "rollback requested "+asked)
	}
}

// cancelWaiting ends every task that has not been granted.
func (s *State) cancelWaiting(d *Deployment, cause string) {
	for _, t := range s.group(d).list {
		if task := d.Tasks[t.Host]; task != nil && task.Status == TaskWaiting {
			s.update(t, func() { task.Status, task.Since, task.Cause = TaskCancelled, s.Now, cause })
		}
	}
}
