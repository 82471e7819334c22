package deploy

import (
	"cmp"
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
	if err := g.admits(e, rev); err != nil {
		return err
	}
	d := &Deployment{
		ID: e.ID, App: e.App, Group: e.Group, Revision: e.Revision, RevName: e.RevName,
		Config: e.Config, Waves: slices.Clone(e.Waves), Seed: e.Seed, Redeploy: e.Redeploy, Inverse: e.Inverse, Undo: e.Bad,
		Fixes: e.Fixes, Without: e.Without, Preempt: e.Preempt,
		Actor: e.Request.Actor, Person: e.Request.person(), Reason: e.Request.Reason, CreatedAt: s.Now, Created: s.Wall,
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

func (s *State) setStatus(d *Deployment, to DeploymentStatus, cause string) {
	d.Status, d.Cause = to, cause
	s.reassignGroup(d.App, d.Group)
	s.resortBehind(d)
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
		if to == DeploymentStatusStopped || to == DeploymentStatusTakenOver {
			g.intend(d)
		}
		d.Status = to
		d.derive()
	})
	s.setStatus(d, to, cause)
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

func (s *State) deploymentPaused(d *Deployment, e DeploymentPaused) error {
	if d.Status != DeploymentStatusRunning && !(d.Status == DeploymentStatusPaused && (d.ScopeRevert != nil || d.Decision)) {
		return refuse(Conflict, "deployment %s is %s", d.ID, d.Status)
	}
	if d.ScopeRevert != nil && !slices.ContainsFunc(d.Waves, func(w Wave) bool { return w.Status == WaveStatusReverting }) {
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
