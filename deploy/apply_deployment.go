package deploy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
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
	if err := g.admits(e, rev); err != nil {
		return err
	}
	d := &Deployment{
		ID: e.ID, App: e.App, Group: e.Group, Revision: e.Revision, RevName: e.RevName,
		Config: e.Config, Waves: slices.Clone(e.Waves), Seed: e.Seed, Redeploy: e.Redeploy, Inverse: e.Inverse, Undo: e.Bad,
		Fixes: e.Fixes, Without: e.Without, Preempt: e.Preempt,
		Actor: e.Request.Actor, Reason: e.Request.Reason, CreatedAt: s.Now, Created: s.Wall,
		Tasks: map[string]*Task{},
	}
	layout := g.Layout
	if e.Layout == 0 {
		layout = g.newLayout(e.Config.Waves, e.Waves, s.Index)
	}
	d.planWaves(g, &layout, e.Skip, s.Now, s.Wall)
	if len(d.Tasks) == 0 {
		return refuse(Conflict, "group %s of %s has no host: no enrolled host matches %s", e.Group, e.App, g.Selector)
	}
	s.admitDeployment(g, d, layout, e.Bad)
	return nil
}

// admits tests a new deployment against those in flight on the group.
func (g *Group) admits(e DeploymentCreated, rev *Revision) error {
	for _, d := range g.open {
		name := fmt.Sprintf("deployment %s of %s to %s is in flight (%s)", d.ID, d.RevName, e.Group, d.Status)
		switch {
		case d.Revision == e.Revision && d.Status != DeploymentStatusRollingBack:
			return refuse(Conflict, "%s and brings the same revision; follow it with `dctl watch %s`", name, d.ID)
		case e.Inverse:
			return refuse(Conflict, "%s; take that one back with `dctl abort %s --rollback`", name, d.ID)
		case e.Config.InFlight.Queue == QueueReject:
			return refuse(Conflict, "%s, and the config says `inFlight.queue: reject`; wait for it, or abort it", name)
		case e.Layout == 0:
			return refuse(Conflict, "%s; deployments in flight share their waves: plan again", name)
		}
	}
	if e.Layout != 0 && (e.Layout != g.Layout.Version || len(e.Waves) != len(g.Layout.Waves)) {
		return refuse(Conflict, "the waves of %s %s were laid out anew meanwhile; plan again", e.App, e.Group)
	}
	if e.Preempt && !e.Config.preGateApproval() {
		return refuse(Invalid, "a deployment that takes over others needs an approval gate in preGates: people must agree")
	}
	return nil
}

// preGateApproval reports whether people are asked before the first wave.
func (c *Config) preGateApproval() bool {
	return slices.ContainsFunc(c.PreGates, func(name string) bool {
		gate := c.gate(name)
		return gate != nil && gate.Approval != nil
	})
}

// newLayout makes the layout that the planned waves describe. What was sealed
// in a wave of the same name stays with it.
func (g *Group) newLayout(specs []WaveSpec, waves []Wave, version uint64) Layout {
	l := Layout{Version: version, Specs: specs}
	for _, w := range waves {
		one := LayoutWave{Name: w.Name, Zone: w.Zone, Batch: w.Batch, Spec: w.Spec, Hosts: slices.Clone(w.Hosts)}
		for _, old := range g.Layout.Waves {
			if old.Name == w.Name {
				one.Seals = old.Seals
			}
		}
		l.Waves = append(l.Waves, one)
	}
	return l
}

// planWaves makes the tasks: of the members that the layout names, each once,
// and drops from the layout who is none. Members that no wave names, because
// they joined after the plan, go into the last one.
func (d *Deployment) planWaves(g *Group, l *Layout, skip []Skip, now Time, wall int64) {
	skipped := map[string]Skip{}
	for _, x := range skip {
		skipped[x.Host] = x
	}
	add := func(host string, i int) {
		task := &Task{Wave: i, Since: now, Wall: wall}
		if x, ok := skipped[host]; ok {
			task.Status, task.Cause, task.Intend = TaskSkipped, x.Cause, x.Intend
		}
		d.Tasks[host] = task
	}
	for i := range d.Waves {
		d.Waves[i].Status = WaveStatusPending
		l.Waves[i].Hosts = slices.DeleteFunc(l.Waves[i].Hosts, func(h string) bool {
			if !g.Members[h] || d.Tasks[h] != nil {
				return true
			}
			add(h, i)
			return false
		})
	}
	last := len(l.Waves) - 1
	for _, h := range g.Hosts() {
		if d.Tasks[h] == nil && last >= 0 {
			l.Waves[last].Hosts = append(l.Waves[last].Hosts, h)
			add(h, last)
		}
	}
	for i := range d.Waves {
		d.Waves[i].Hosts = slices.Clone(l.Waves[i].Hosts)
	}
}

// admitDeployment makes an accepted deployment part of the state.
func (s *State) admitDeployment(g *Group, d *Deployment, layout Layout, bad Digest) {
	s.Seq++
	d.Seq, g.Last = s.Seq, d.ID
	d.From = s.Commonest(g)
	if d.From != "" {
		d.FromName = s.RevisionName(g.App, d.From)
	}
	if d.Inverse && bad != "" {
		g.Bad[bad] = d.ID
	}
	if !d.Inverse && d.Config.InFlight.Queue != QueueAll {
		for _, o := range slices.Clone(g.open) {
			if o.Status == DeploymentStatusPending {
				s.end(o, DeploymentStatusSuperseded, "superseded by "+d.RevName+" ("+d.ID+")")
			}
		}
	}
	d.derive()
	s.recount(g, func() {
		g.Layout = layout
		g.place = map[string]int{}
		for i := range layout.Waves {
			for _, h := range layout.Waves[i].Hosts {
				g.place[h] = i
			}
		}
		s.Deployments[d.ID] = d
		s.open, g.open = append(s.open, d), append(g.open, d)
		for _, t := range g.list { // a new attempt
			task := d.Tasks[t.Host]
			if task == nil {
				continue
			}
			t.StageFailed, t.StageReason, t.Drift, t.Tries, t.RetryAt = "", nil, "", 0, 0
			if task.Intend {
				t.Drift = task.Cause
			}
		}
	})
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
	for _, t := range g.list {
		if t.Running != "" {
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
	if err := s.verb(d, e); err != nil {
		return err
	}
	what := ""
	for _, part := range []string{e.Gate, e.Wave, e.Zone, e.By, string(e.Fixes)} {
		if part != "" {
			what += " " + part
		}
	}
	s.record(d, Record{Subject: "request", Wave: -1, To: string(e.Verb) + what, Text: joinText(e.Request.Actor, e.Request.Reason)})
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
		if d.Scoped != nil {
			return no("it takes " + d.Scoped.Scope + " back; retry when that is done")
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
	case VerbAbortLeave:
		return s.abortLeave(d, "aborted, hosts keep what they run")
	case VerbAbortRollback:
		s.abortRollback(d)
	default:
		return refuse(Invalid, "unknown request %q", e.Verb)
	}
	return nil
}

func named(gate string) string {
	if gate == "" {
		return ""
	}
	return " at gate " + gate
}

// pauseBy halts by request: granted tasks finish, bake clocks stop.
func (s *State) pauseBy(d *Deployment) {
	if d.Status == DeploymentStatusPaused {
		return
	}
	s.stopBakes(d)
	d.Held = d.Status == DeploymentStatusPending
	if !d.Held {
		d.Status = DeploymentStatusPaused
		s.restray(d)
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

// goOn makes a paused deployment run, its bake clocks where they stopped.
func (s *State) goOn(d *Deployment) {
	if d.Status != DeploymentStatusPaused {
		return
	}
	if d.PausedAt > 0 {
		gap := s.Now.Sub(d.PausedAt)
		for i := range d.Waves {
			if w := &d.Waves[i]; w.Status == WaveStatusBaking {
				w.BakeUntil, w.BakeSince = w.BakeUntil.Add(gap), w.BakeSince.Add(gap)
			}
		}
	}
	d.Status, d.Decision, d.DecideBy, d.PausedAt, d.Cause = DeploymentStatusRunning, false, 0, 0, ""
	s.restray(d)
}

// retry opens what failed or was taken back again and goes on. What gates said
// before is void.
func (s *State) retry(d *Deployment) {
	if d.Status != DeploymentStatusPaused {
		return
	}
	d.GateFail = ""
	d.Attempt++
	s.touchAll(d.App, d.Group)
	for i := range d.Waves {
		w := &d.Waves[i]
		w.Extra, d.Failures = 0, d.Failures-w.Extra
		w.Watch = nil
		switch {
		case w.Status == WaveStatusReverted && d.passedOn(s.group(d), i):
			s.setWave(d, i, WaveStatusSkipped, "a newer deployment has it")
		case (w.Status == WaveStatusReverted || w.Status.active()) && !d.entered(i),
			w.Status == WaveStatusReverted && len(s.orderHolds(d, s.group(d), i)) > 0:
			s.reopen(d, i, WaveStatusPending) // an earlier wave, or an older deployment, comes first again
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
}

// passedOn reports whether a newer deployment has entered the wave: it was
// sealed before it was taken back, and it is not this one's any more.
func (d *Deployment) passedOn(g *Group, i int) bool {
	return slices.ContainsFunc(g.open, func(o *Deployment) bool {
		return o.Seq > d.Seq && i < len(o.Waves) && (o.Waves[i].Status.active() || o.Waves[i].Status == WaveStatusSealed)
	})
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
		s.touch(t, func() {
			if task.Counted {
				task.Counted = false
				d.Failures--
			}
			t.StageFailed, t.StageReason, t.Drift = "", nil, ""
			task.Refused, task.Goal, task.Phase = 0, "", 0
			s.moveTask(d, h, task, TaskWaiting, "retry", nil)
		})
	}
	w.Watch = nil
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
		return refuse(Conflict, "deployment %s has no wave that bakes or is held%s; see `dctl status %s`", d.ID, named(e.Gate), d.ID)
	}
	return nil
}

// promotable lists what holds the wave that a person may let pass.
func (d *Deployment) promotable(i int) []string {
	w := &d.Waves[i]
	var out []string
	if w.Status == WaveStatusBaking {
		out = append(out, "bake")
	}
	for _, h := range w.Holds {
		if h.Kind == "window" || h.Kind == "gate" {
			out = append(out, h.Name)
		}
	}
	return out
}

// waiting lists the approvals that the deployment needs before it may enter a
// wave, or start; of one gate, or of all.
func (d *Deployment) waiting(gate string) []*Gate {
	var out []*Gate
	add := func(name string) {
		g := d.Config.gate(name)
		if g != nil && g.Approval != nil && (gate == "" || gate == name) && !d.approved(g) && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	for i := range d.Waves {
		if d.Waves[i].Status.waits() {
			for _, name := range d.preGates(i) {
				add(name)
			}
		}
	}
	return out
}

// WaitsFor lists the approval gates that hold the deployment now: before a wave
// that is next, or before a deployment that preempts starts.
func (d *Deployment) WaitsFor() []*Gate {
	var out []*Gate
	if d.Status == DeploymentStatusPending && d.Preempt {
		out = d.waiting("")
	}
	for i := range d.Waves {
		for _, h := range d.Waves[i].Holds {
			if g := d.Config.gate(h.Name); h.Kind == "approval" && g != nil && d.Waves[i].Status == WaveStatusHeld && !d.approved(g) {
				out = append(out, g)
			}
		}
	}
	return out
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
		switch {
		case e.Request.Actor == d.Actor:
			last = refuse(Conflict, "%s asked for deployment %s; somebody else must approve it", d.Actor, d.ID)
		case g.Approval.Group != "" && !slices.Contains(e.Groups, g.Approval.Group):
			last = refuse(Conflict, "gate %s needs somebody of group %s; %s is not in it", g.Name, g.Approval.Group, e.Request.Actor)
		case slices.ContainsFunc(d.Approvals, func(a Approval) bool { return a.Gate == g.Name && a.Actor == e.Request.Actor }):
			last = refuse(Conflict, "%s approved gate %s already; it needs different people", e.Request.Actor, g.Name)
		default:
			d.Approvals = append(d.Approvals, Approval{Gate: g.Name, Actor: e.Request.Actor, Reason: e.Request.Reason, Wall: s.Wall})
			given = true
		}
	}
	if given {
		return nil
	}
	return last
}

// skipZone excludes a zone that was taken back or failed, and goes on without
// it. Its hosts keep what they run until the next deployment.
func (s *State) skipZone(d *Deployment, e RequestMade, no func(string) error) error {
	if d.Status != DeploymentStatusPaused || d.Scoped != nil {
		return no("a zone is skipped while the deployment waits for a decision")
	}
	n := 0
	for h, task := range sorted(d.Tasks) {
		t := s.Target(h, d.App)
		if t == nil || t.Zone != e.Zone || task.gone() || t.Permit != PermitNone || task.Status == TaskSettled || d.Waves[task.Wave].Status.Passed() {
			continue
		}
		s.touch(t, func() {
			s.uncount(d, task)
			task.Intend, t.Drift = true, "zone "+e.Zone+" was skipped"
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
		s.touch(t, func() { s.moveTask(d, h, task, TaskSkipped, joinText(e.Request.Actor, e.Request.Reason), nil) })
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
	return refuse(Conflict, "no newer deployment is in flight on %s; deploy a repair first (--fixes %s)", d.Group, d.RevName)
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
			s.touch(t, func() { s.moveTask(d, h, task, TaskLeft, cause, nil) })
		}
	}
	d.Scoped, d.Asked, d.Decision, d.DecideBy = nil, nil, false, 0
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
				d.Asked = &ScopedRevert{Scope: scope, Zone: e.Zone, Wave: e.Wave, Cause: "asked for " + joinText(e.Request.Actor, e.Request.Reason)}
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

func (s *State) abortRollback(d *Deployment) {
	switch d.Status {
	case DeploymentStatusRollingBack:
	case DeploymentStatusPending:
		s.end(d, DeploymentStatusCancelled, "aborted")
	default:
		d.Abort, d.Scoped, d.Asked, d.Decision, d.DecideBy, d.TakenBy = true, nil, nil, false, 0, ""
		s.setStatus(d, DeploymentStatusRollingBack, "rollback requested")
	}
}

// cancelWaiting ends every task that has not been granted.
func (s *State) cancelWaiting(d *Deployment, cause string) {
	for _, t := range s.group(d).list {
		if task := d.Tasks[t.Host]; task != nil && task.Status == TaskWaiting {
			s.touch(t, func() { task.Status, task.Since, task.Cause = TaskCancelled, s.Now, cause })
		}
	}
}

func (s *State) setStatus(d *Deployment, to DeploymentStatus, cause string) {
	d.Status, d.Cause = to, cause
	s.touchAll(d.App, d.Group)
	s.restray(d)
	s.record(d, Record{Subject: "deployment", Wave: -1, To: to.String(), Text: cause})
}

// end makes the deployment terminal and lets go of its indexes.
func (s *State) end(d *Deployment, to DeploymentStatus, cause string) {
	s.cancelWaiting(d, cause)
	d.EndedAt, d.Ended, d.Scoped, d.Asked, d.Decision, d.DecideBy = s.Now, s.Wall, nil, nil, false, 0
	for i := range d.Waves {
		d.Waves[i].Holds = nil
	}
	g := s.group(d)
	isIt := func(o *Deployment) bool { return o == d }
	s.recount(g, func() {
		s.open, g.open = slices.DeleteFunc(s.open, isIt), slices.DeleteFunc(g.open, isIt)
		if to == DeploymentStatusStopped || to == DeploymentStatusTakenOver {
			g.intend(d)
		}
		d.Status = to
		d.derive()
	})
	s.setStatus(d, to, cause)
	s.prune(d.App, d.Group)
}

// intend marks what a deployment leaves half done as meant to be so: nothing
// but the next deployment changes it.
func (g *Group) intend(d *Deployment) {
	for _, t := range g.list {
		if d.Tasks[t.Host] != nil && t.Drift == "" && t.Running == d.Revision && t.Running != g.want(t) {
			t.Drift = "left as it is by " + d.ID
		}
	}
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
			d.Waves[i].Hosts, d.Waves[i].Watch = nil, nil
		}
		d.derive()
	}
}

func (s *State) deploymentStarted(d *Deployment) error {
	if d.Status != DeploymentStatusPending {
		return refuse(Conflict, "deployment %s is %s", d.ID, d.Status)
	}
	if live := s.group(d); d.Held || len(s.startHolds(d, live)) > 0 {
		return refuse(Conflict, "deployment %s cannot start yet", d.ID)
	}
	d.StartedAt = s.Now
	s.setStatus(d, DeploymentStatusRunning, "")
	return nil
}

// holdsChanged records why a wave that is next is not entered.
func (s *State) holdsChanged(d *Deployment, w *Wave, e HoldsChanged) error {
	if d.Status != DeploymentStatusRunning || !w.Status.waits() || !d.entered(e.Wave) {
		return refuse(Conflict, "wave %s is %s and not held", w.Name, w.Status)
	}
	w.Holds = e.Holds
	var text []string
	for _, h := range e.Holds {
		text = append(text, h.Text)
	}
	if w.HeldAt == 0 {
		w.HeldAt = max(s.Now, 1)
	}
	s.setWave(d, e.Wave, WaveStatusHeld, strings.Join(text, "; "))
	return nil
}

func (s *State) waveStarted(d *Deployment, w *Wave, e WaveStarted) error {
	if d.Status != DeploymentStatusRunning || !w.Status.waits() || !d.entered(e.Wave) || d.Scoped != nil {
		return refuse(Conflict, "wave %s is %s and cannot start", w.Name, w.Status)
	}
	if holds := s.orderHolds(d, s.group(d), e.Wave); len(holds) > 0 {
		return refuse(Conflict, "wave %s waits: %s", w.Name, holds[0].Text)
	}
	w.StartedAt, w.StartedWall, w.Budget, w.Holds = s.Now, s.Wall, e.Budget, nil
	s.setWave(d, e.Wave, WaveStatusDeploying, "")
	return nil
}

// entered reports whether every wave of the batches before wave i has passed.
func (d *Deployment) entered(i int) bool {
	status := make([]WaveStatus, i)
	for j := range status {
		status[j] = d.Waves[j].Status
	}
	return d.enteredBy(i, status)
}

// enteredBy is entered for waves in the given statuses.
func (d *Deployment) enteredBy(i int, status []WaveStatus) bool {
	for j := range i {
		if d.Waves[j].Batch < d.Waves[i].Batch && !status[j].Passed() {
			return false
		}
	}
	return true
}

func (s *State) setWave(d *Deployment, i int, to WaveStatus, text string) {
	d.Waves[i].Status = to
	s.restrayWave(s.group(d), i)
	if p := d.Config.Stage.Prefetch; p == "wave" || p == "none" {
		s.touchWave(d, i)
	}
	s.record(d, Record{Subject: "wave", Wave: i, To: to.String(), Text: text})
}

// restray sorts out anew which targets of the deployment's group may need an
// aside, after a change of status that they depend on.
func (s *State) restray(d *Deployment) {
	g := s.group(d)
	for i := range g.Layout.Waves {
		s.restrayWave(g, i)
	}
}

func (s *State) restrayWave(g *Group, i int) {
	if i >= len(g.Layout.Waves) {
		return
	}
	for _, h := range g.Layout.Waves[i].Hosts {
		_, was := g.strays[h]
		t := g.target(h)
		is := t != nil && t.mayStray(g)
		if is {
			g.strays[h] = struct{}{}
		} else if was {
			delete(g.strays, h)
		}
		if (is || was) && t != nil {
			t.host.touched = s.Index // what it should stage changes
		}
	}
}

func (s *State) gateJudged(d *Deployment, w *Wave, e GateJudged) error {
	if e.Verdict == VerdictFail {
		d.GateFail = e.Gate
	}
	if x := w.Watch[watchKey(e.Gate, e.Key)]; x != nil {
		x.Verdict = e.Verdict
	}
	s.record(d, Record{Subject: "gate", Wave: e.Wave, To: string(e.Verdict), Text: e.Gate + ": " + e.Evidence})
	return nil
}

func (s *State) bakeStarted(d *Deployment, w *Wave, e BakeStarted) error {
	p := d.waves[e.Wave]
	if d.Status != DeploymentStatusRunning || w.Status != WaveStatusDeploying || p.open() > 0 || p.tasks[TaskSettled] == 0 || p.failures+w.Extra > w.Budget || d.Scoped != nil {
		return refuse(Conflict, "wave %s is not ready to bake", w.Name)
	}
	w.BakeUntil, w.BakeSince = e.Until, s.Now
	for _, x := range sorted(w.Watch) {
		x.Covered = 0
	}
	s.setWave(d, e.Wave, WaveStatusBaking, fmt.Sprintf("for %s", w.BakeMin))
	return nil
}

func (s *State) waveSealed(d *Deployment, w *Wave, e WaveSealed) error {
	p := d.waves[e.Wave]
	early := s.Now < w.BakeUntil && !d.promoted(w.Name, "bake")
	if d.Status != DeploymentStatusRunning || w.Status != WaveStatusBaking || d.Scoped != nil || early || d.failing(w) ||
		p.failures+w.Extra > w.Budget || p.sicks > 0 && d.Config.OnFailure.Gate.Do != ActionContinue || p.tasks[TaskSettled] == 0 {
		return refuse(Conflict, "wave %s is not ready to be sealed", w.Name)
	}
	seal := Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now}
	for _, h := range w.Hosts {
		t := s.Target(h, d.App)
		if task := d.Tasks[h]; t == nil || task == nil || task.Status != TaskSettled || task.Wave != e.Wave {
			continue
		}
		t.host.touched = s.Index
		t.Seals = sealed(t.Seals, seal)
	}
	s.sealLayout(d, e.Wave, seal)
	w.EndedAt = s.Now
	s.setWave(d, e.Wave, WaveStatusSealed, fmt.Sprintf("%d of %d hosts", p.tasks[TaskSettled], p.total()))
	return nil
}

// failing reports whether a gate of the wave has a failed verdict that counts.
func (d *Deployment) failing(w *Wave) bool {
	for _, x := range sorted(w.Watch) {
		gate := d.Config.gate(x.Gate)
		if gate != nil && slices.Contains(w.Gates, x.Gate) && x.failing(gate) && d.actionFor(gate, w).Do != ActionContinue {
			return true
		}
	}
	return false
}

// sealed appends to a history and bounds it.
func sealed(seals []Seal, one Seal) []Seal {
	seals = append(seals, one)
	if len(seals) > sealMemory {
		seals = slices.Delete(seals, 0, len(seals)-sealMemory)
	}
	return seals
}

// sealLayout remembers what was sealed in a wave, for targets without history.
func (s *State) sealLayout(d *Deployment, i int, seal Seal) {
	if l := &s.group(d).Layout; i < len(l.Waves) {
		l.Waves[i].Seals = sealed(l.Waves[i].Seals, seal)
		for _, h := range l.Waves[i].Hosts {
			s.Hosts[h].touched = s.Index // those without history go by it
		}
	}
}

func (s *State) waveSkipped(d *Deployment, w *Wave, e WaveSkipped) error {
	p := d.waves[e.Wave]
	if d.Status != DeploymentStatusRunning || p.open() > 0 || p.tasks[TaskSettled] > 0 ||
		!w.Status.waits() && !w.Status.active() || w.Status.waits() && p.failures+w.Extra > 0 || d.Scoped != nil || !d.entered(e.Wave) {
		return refuse(Conflict, "wave %s has work", w.Name)
	}
	if p.tasks[TaskSkipped] == 0 { // unless it was skipped by a person
		s.sealLayout(d, e.Wave, Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now})
	}
	w.EndedAt, w.Holds = s.Now, nil
	s.setWave(d, e.Wave, WaveStatusSkipped, e.Cause)
	return nil
}

func (s *State) deploymentPaused(d *Deployment, e DeploymentPaused) error {
	if d.Status != DeploymentStatusRunning && !(d.Status == DeploymentStatusPaused && (d.Scoped != nil || d.Decision)) {
		return refuse(Conflict, "deployment %s is %s", d.ID, d.Status)
	}
	if d.Scoped != nil && !slices.ContainsFunc(d.Waves, func(w Wave) bool { return w.Status == WaveStatusReverting }) {
		d.Scoped = nil // the scope is back
	}
	s.stopBakes(d)
	d.Decision, d.DecideBy = true, e.Until
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
		if !d.Inverse {
			g.Succeeded = sealed(g.Succeeded, Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now})
		}
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
		return passed == len(d.Waves) && d.Scoped == nil &&
			(to == DeploymentStatusSucceeded && sealed > 0 || to == DeploymentStatusStopped && sealed == 0)
	case DeploymentStatusStopping:
		return to == d.stopsAs()
	case DeploymentStatusRollingBack:
		for _, p := range d.waves {
			if p.tasks[TaskReverting] > 0 {
				return false
			}
		}
		return d.Revert && (to == DeploymentStatusRolledBack || to == DeploymentStatusStopped ||
			to == DeploymentStatusSucceeded && d.Inverse)
	case DeploymentStatusPending, DeploymentStatusPaused, DeploymentStatusSucceeded, DeploymentStatusRolledBack,
		DeploymentStatusStopped, DeploymentStatusCancelled, DeploymentStatusTakenOver, DeploymentStatusSuperseded:
	}
	return false
}

// permits is the number of permits held in wave i.
func (d *Deployment) permits(i int) int { return d.waves[i].permits }

// revisionSuspected notes what was seen after the deployment succeeded.
func (s *State) revisionSuspected(e RevisionSuspected) error {
	d := s.Deployments[e.Deployment]
	if d == nil || !d.Status.Terminal() || d.Suspect != "" {
		return refuse(Conflict, "deployment %s cannot be suspected", e.Deployment)
	}
	d.Suspect = e.Text
	if !d.Pruned {
		s.record(d, Record{Subject: "deployment", Wave: -1, To: "suspect", Text: e.Text})
	}
	return nil
}
