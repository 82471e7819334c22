package deploy

import (
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
	}
	if by, where := s.bad(e.App, e.Revision); by != "" && !e.Force && !e.Inverse {
		if where != e.Group {
			by += " of group " + where
		}
		return refuse(Conflict, "revision %s is marked bad by deployment %s; deploy another one, or this with --force-bad and a reason", rev.Name, by)
	}
	if err := g.admits(e); err != nil {
		return err
	}
	if s.Rules < 4 && (e.Config.Stage.tastes() || e.Config.Capacity.QuorumGroup != nil) {
		return refuse(Conflict, "not every coordinator knows warmup, taste and quorumGroup; upgrade them all")
	}
	if e.Emergency && e.Inverse {
		return refuse(Invalid, "a rollback needs no emergency: no window, freeze or approval holds it")
	}
	if e.Emergency {
		if err := s.urgent(e.Request); err != nil {
			return err
		}
	}
	d := &Deployment{
		ID: e.ID, App: e.App, Group: e.Group, Revision: e.Revision, RevName: e.RevName,
		Config: e.Config, Waves: slices.Clone(e.Waves), Seed: e.Seed, Redeploy: e.Redeploy, Repair: e.Repair,
		Inverse: e.Inverse, Undoes: e.Undoes,
		Fixes: e.Fixes, Without: e.Without, Preempt: e.Preempt,
		Actor: e.Request.Actor, Person: e.Request.person(), Reason: e.Request.Reason, CreatedAt: s.Now, Created: s.Wall,
		Tasks: map[string]*Task{},
	}
	if e.Inverse {
		return s.inverseCreated(g, d, e)
	}
	if e.Emergency {
		d.Emergency = joinText(e.Request.Actor, e.Request.Reason)
	}
	layout := g.Layout
	if e.Layout == 0 {
		layout = newLayout(e.Config.Waves, e.Waves, s.Index)
	}
	d.planWaves(g, &layout, e.Skip, s.Now, s.Wall)
	if len(d.Tasks) == 0 {
		return refuse(Conflict, "group %s of %s has no host: no enrolled host matches %s", e.Group, e.App, g.Selector)
	}
	s.admitDeployment(g, d, layout)
	return nil
}

// inverseCreated admits a deployment that takes another back, or brings the
// whole group to a revision that passed before. What it undoes is the choice of
// this package, and the layout stays the group's: it has no waves of its own.
func (s *State) inverseCreated(g *Group, d *Deployment, e DeploymentCreated) error {
	if e.Undoes != "" {
		u, err := s.Undoable(g)
		if err != nil {
			return err
		}
		if u != (Undo{Deployment: e.Undoes, Revision: e.Revision, Bad: e.Bad}) {
			return refuse(Conflict, "a rollback of %s %s takes back deployment %s now, not %s; ask again", g.App,
				g.Name, u.Deployment, e.Undoes)
		}
	} else if !slices.Contains(s.Sealed(g), e.Revision) || e.Bad != "" {
		return refuse(Conflict, "revision %s never passed on group %s, or is bad; deploy it instead", e.RevName, g.Name)
	}
	w := Wave{Name: "rollback", Status: WaveStatusPending}
	for _, lw := range slices.Backward(g.Layout.Waves) { // newest waves first
		w.Hosts = append(w.Hosts, lw.Hosts...)
	}
	for _, t := range g.list {
		if _, placed := t.wave(); !placed {
			w.Hosts = append(w.Hosts, t.Host)
		}
	}
	for _, h := range w.Hosts {
		d.Tasks[h] = &Task{Since: s.Now, Wall: s.Wall}
	}
	if len(d.Tasks) == 0 {
		return refuse(Conflict, "group %s of %s has no host: no enrolled host matches %s", e.Group, e.App, g.Selector)
	}
	d.Waves, d.Asked = []Wave{w}, joinText(e.Request.Actor, e.Request.Reason)
	if e.Undoes != "" {
		d.Leaves = s.Deployments[e.Undoes].Revision
		s.withdraw(g, e.Undoes, everyTarget, everyWave)
		s.withdrawRevision(g, d.Leaves, everyTarget, everyWave)
	}
	if e.Bad != "" {
		g.Bad[e.Bad] = d.ID
		g.forgetGood()
	}
	s.admitDeployment(g, d, g.Layout)
	return nil
}

func everyTarget(*Target) bool { return true }

func everyWave(string) bool { return true }

// bad returns the deployment that marked the revision bad, and its group: in
// any group of the application.
func (s *State) bad(app string, d Digest) (deployment, group string) {
	for _, g := range s.groupsOf(app) {
		if g.Bad[d] != "" {
			return g.Bad[d], g.Name
		}
	}
	return "", ""
}

// preGateApproval reports whether people are asked before the first wave.
func (c *Config) preGateApproval() bool {
	return slices.ContainsFunc(c.PreGates, func(name string) bool {
		gate := c.gate(name)
		return gate != nil && gate.Approval != nil
	})
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
			task.Status, task.Cause, task.Intend, task.Named = TaskSkipped, x.Cause, x.Intend, x.Intend
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
func (s *State) admitDeployment(g *Group, d *Deployment, layout Layout) {
	s.Seq++
	d.Seq, g.Last = s.Seq, d.ID
	d.From = s.Commonest(g)
	if d.From != "" {
		d.FromName = s.RevisionName(g.App, d.From)
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
		g.forgetGood()
		for _, t := range g.list {
			t.place = 0
		}
		g.placeAll(g.target)
		s.Deployments[d.ID] = d
		s.open, g.open, g.all = append(s.open, d), append(g.open, d), append(g.all, d)
		g.findQuorums()
		for _, t := range g.list { // a new attempt
			task := d.Tasks[t.Host]
			if task == nil {
				continue
			}
			if d.Inverse && t.Declared && t.LeftBy == "" {
				continue // left out on purpose until the next deployment
			}
			t.stageAgain()
			t.Drift, t.Declared, t.LeftBy, t.Tries, t.RetryAt = "", false, "", 0, 0
			if task.Intend {
				t.Drift, t.Declared = task.Cause, true
			}
		}
	})
	text := d.RevName
	if d.Inverse {
		d.Status = DeploymentStatusRollingBack
		text = "rollback to " + text
	}
	if d.Emergency != "" {
		text += ", an EMERGENCY past windows, freezes and approvals " + d.Emergency
	}
	s.record(d, Record{Subject: "deployment", Wave: -1, To: d.Status.String(), Text: text})
}

func (s *State) setStatus(d *Deployment, to DeploymentStatus, cause string) {
	d.Status, d.Cause = to, cause
	s.reassignGroup(d.App, d.Group)
	s.resortBehind(s.group(d))
	s.record(d, Record{Subject: "deployment", Wave: -1, To: to.String(), Text: cause})
}

// end makes the deployment terminal and lets go of its indexes.
func (s *State) end(d *Deployment, to DeploymentStatus, cause string) {
	s.cancelWaiting(d, cause)
	d.EndedAt, d.Ended, d.ScopeRevert, d.RequestedRevert, d.Decision, d.DecideBy = s.Now, s.Wall, nil, nil, false, 0
	for i := range d.Waves {
		d.Waves[i].Holds = nil
	}
	g := s.group(d)
	isIt := func(o *Deployment) bool { return o == d }
	s.recount(g, func() {
		s.open, g.open = slices.DeleteFunc(s.open, isIt), slices.DeleteFunc(g.open, isIt)
		g.findQuorums()
		if to == DeploymentStatusStopped || to == DeploymentStatusTakenOver {
			g.intend(d)
		}
		d.Status = to
		d.derive()
	})
	s.setStatus(d, to, cause)
	s.whole.add(d)
	s.prune(g)
	s.dropOutlines(d.Seq)
	s.selectNext(g)
}

// historyKept is how many ended deployments of a group keep their tasks and
// records below level 4; of older ones only the outline stays, so that state does not
// grow with every deployment times every host. From level 4 on bytes alone bound them:
// who moves them to a store has time to.
const historyKept = 50

// prune drops tasks, hosts and records of all but the newest ended deployments.
func (s *State) prune(g *Group) {
	kept := 0
	for _, d := range slices.Backward(g.all) {
		if s.Rules >= 4 {
			break
		}
		if !d.Status.Terminal() {
			continue
		}
		if d.Pruned {
			break
		}
		if kept++; kept > historyKept {
			s.outline(d)
		}
	}
	if s.Rules >= 2 {
		s.outlineOldest()
	}
}

func (s *State) deploymentStarted(d *Deployment) error {
	if d.Status != DeploymentStatusPending {
		return refuse(Conflict, "deployment %s is %s", d.ID, d.Status)
	}
	if live := s.group(d); d.Held || len(s.startHolds(d, live)) > 0 {
		return refuse(Conflict, "deployment %s cannot start yet", d.ID)
	}
	d.StartedAt, d.LimitFrom = s.Now, s.Now
	s.setStatus(d, DeploymentStatusRunning, "")
	return nil
}

func (s *State) deploymentPaused(d *Deployment, e DeploymentPaused) error {
	if d.Status != DeploymentStatusRunning && d.Status != DeploymentStatusPaused {
		return refuse(Conflict, "deployment %s is %s", d.ID, d.Status)
	}
	if d.ScopeRevert != nil && !slices.ContainsFunc(d.Waves,
		func(w Wave) bool { return w.Status == WaveStatusReverting }) {
		d.ScopeRevert = nil // the scope is back
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
	switch {
	case e.Status == DeploymentStatusSucceeded && g != nil:
		s.succeeded(g, d)
	case g != nil && !d.Inverse && !d.sealedAny(): // what passed nowhere is no line of a wave that was skipped
		s.withdraw(g, d.ID, everyTarget, everyWave)
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

// succeeded writes into history what the group runs from now on.
func (s *State) succeeded(g *Group, d *Deployment) {
	if d.Inverse {
		s.wentBack(g, d)
		return
	}
	for _, other := range s.groupsOf(g.App) { // a mark is lifted by a success, wherever it was made
		delete(other.Bad, d.Revision)
		other.forgetGood()
	}
	line := Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now}
	g.seal(line)
	for _, t := range g.list { // also of a wave that a person let pass
		task := d.Tasks[t.Host]
		settled := task != nil && task.Status == TaskSettled && t.Running == d.Revision
		if settled && g.newest(seals{list: t.Seals, own: true}, nil) != d.Revision {
			t.Seals = sealed(t.Seals, line)
		}
	}
	delete(g.Grades, d.Revision)
	if d.Config.WatchAfter == 0 {
		g.Grades[d.Revision] = GradeProven
	}
}

// wentBack writes into history what an inverse deployment brought back: on its
// targets, also those that are away and come back to it later; and for the whole
// group where it brought all of it to one revision. What was deployed since that
// revision first passed is undone by it.
func (s *State) wentBack(g *Group, d *Deployment) {
	for _, t := range g.list {
		task := d.Tasks[t.Host]
		if task == nil || task.gone() || t.Declared {
			continue
		}
		if goal, _ := d.backTo(g, t); goal != "" && g.newest(seals{list: t.Seals, own: true}, nil) != goal {
			t.Seals = sealed(t.Seals, Seal{Deployment: d.ID, Revision: goal, At: s.Now})
		}
	}
	s.undo(g, d)
	if d.Undoes == "" {
		g.seal(Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now})
	}
}

// undo marks the deployments that an inverse one has taken back: what it names,
// with everything of the same revision, or all since its goal first passed.
func (s *State) undo(g *Group, d *Deployment) {
	passed := false
	for _, o := range slices.Clone(g.all) {
		undone := false
		switch {
		case o.Inverse || o.Seq >= d.Seq:
		case d.Undoes != "":
			undone = o.Revision == d.Leaves
		case passed:
			undone = true
		}
		if undone && !o.Undone {
			s.rewrite(o).Undone = true
		}
		passed = passed || o.Revision == d.Revision && o.Status == DeploymentStatusSucceeded
	}
}

// backTo is where an inverse deployment takes a target.
func (d *Deployment) backTo(g *Group, t *Target) (back, past Digest) {
	if d.Undoes == "" {
		return d.Revision, ""
	}
	return g.without(t, d.Undoes, d.Leaves)
}

// selectNext lets a selector that was changed meanwhile take effect once nothing
// is in flight on the group.
func (s *State) selectNext(g *Group) {
	if g.NextSelector != "" && len(g.open) == 0 {
		g.Selector, g.NextSelector = g.NextSelector, ""
		s.moved("", g.Key())
	}
}
