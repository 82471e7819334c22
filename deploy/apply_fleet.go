package deploy

import "slices"

func (s *State) groupDefined(e GroupDefined) error {
	s.MembershipIndex = s.Index
	if e.App == "" || e.Group == "" {
		return refuse(Invalid, "a group needs an application and a name")
	}
	if s.Rules < 4 && (e.Config.Capacity.QuorumGroup != nil || e.Config.Stage.tastes()) {
		return refuse(Conflict, "not every coordinator knows warmup, taste and quorumGroup; upgrade them all")
	}
	g := s.Groups[GroupKey(e.App, e.Group)]
	before := ""
	if g != nil {
		before = g.Selector
	} else {
		g = &Group{App: e.App, Name: e.Group, Members: map[string]bool{}, Bad: map[Digest]string{}}
		if s.Rules >= 3 {
			g.Since = s.Seq
		}
		g.derive(nil)
		s.addGroup(g)
	}
	if !sameQuorum(g.Config.Capacity.QuorumGroup, e.Config.Capacity.QuorumGroup) {
		s.recount(g, func() {
			g.Config = e.Config
			g.findQuorums()
		})
	}
	g.Artifacts, g.Config, g.Traffic, g.Source = e.Artifacts, e.Config, e.Traffic, e.Source
	g.NextSelector = ""
	switch {
	case len(g.open) == 0 || g.Selector == "":
		g.Selector = e.Selector
	case e.Selector != g.Selector: // who belongs to the group stays until nothing is in flight
		g.NextSelector = e.Selector
	}
	if g.Selector != before {
		s.moved("", g.Key())
	}
	g.DefinedAt = s.Wall
	s.reassignGroup(e.App, e.Group)
	return nil
}

func sameQuorum(a, b *QuorumGroup) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func (s *State) groupDeleted(e GroupDeleted) error {
	g := s.Groups[GroupKey(e.App, e.Group)]
	if g == nil {
		return refuse(NotFound, "no group %s of %s", e.Group, e.App)
	}
	if len(g.open) > 0 {
		d := g.open[0]
		return refuse(Conflict, "deployment %s of %s to %s has not ended (%s); wait for it, or abort it", d.ID,
			d.RevName, g.Name, d.Status)
	}
	s.moved("", g.Key())
	for _, h := range g.Hosts() {
		if t := s.Target(h, g.App); t != nil && t.group == g {
			s.depart(t, "the group was deleted")
		}
	}
	s.removeGroup(g)
	return nil
}

func (s *State) hostsQuarantined(e HostsQuarantined) error {
	n := 0
	for _, id := range e.Hosts {
		h := s.Hosts[id]
		if h == nil || h.Quarantine != "" {
			continue
		}
		h.Quarantine = e.Cause
		if e.Request.Actor != "" {
			h.Quarantine = "cordoned " + joinText(e.Request.Actor, e.Request.Reason)
		}
		s.isolate(h)
		s.noteHost(h, "quarantined: "+h.Quarantine)
		n++
	}
	return changed(n, "host", "quarantine")
}

func (s *State) hostsReleased(e HostsReleased) error {
	n := 0
	for _, id := range e.Hosts {
		h := s.Hosts[id]
		if h == nil || h.Quarantine == "" {
			continue
		}
		h.Quarantine, h.Flaps = "", nil
		s.isolate(h)
		s.noteHost(h, "released")
		n++
	}
	return changed(n, "host", "release")
}

// isolate moves every target of the host in or out of quarantine.
func (s *State) isolate(h *Host) {
	s.sortFlapping(h)
	for _, t := range sorted(h.Targets) {
		s.update(t, t.isolate)
	}
}

// isolate runs between remove and add.
func (t *Target) isolate() {
	if t.Quarantined = t.keptOut() != ""; !t.Quarantined {
		t.Tries, t.RetryAt = 0, 0
		t.undrift()
	}
}

// flapped notes a coming or going; the last ones are enough to tell.
func (s *State) flapped(h *Host) {
	h.Flaps = append(slices.Clone(h.Flaps[max(0, len(h.Flaps)+1-flaps):]), s.Now)
	s.sortFlapping(h)
}

// sortFlapping keeps the hosts that Decide may quarantine or release: which came and went
// so often within so short a time, or are quarantined for it. Time alone makes no host
// one of them, and a fleet that was away once is none of them.
func (s *State) sortFlapping(h *Host) {
	n := len(h.Flaps)
	if h.Quarantine == flapCause || h.Quarantine == "" && n >= flaps && s.Now.Sub(h.Flaps[n-flaps]) < flapWindow {
		s.flapping[h.ID] = struct{}{}
	} else {
		delete(s.flapping, h.ID)
	}
}

func (s *State) hostEnrolled(e HostEnrolled) error {
	s.MembershipIndex = s.Index
	if e.Host == "" || e.Name == "" {
		return refuse(Invalid, "a host needs an id and a name")
	}
	h := s.Hosts[e.Host]
	if h != nil && e.Approved < h.Approved {
		return refuse(Conflict, "what host %s is was changed in this moment; connect again", h.Name)
	}
	// Same name, new id: the machine was replaced, and the old one departs, at once or
	// once it does not answer (see forget). One that answers keeps the name, and the
	// other is its namesake: one credential must not push any neighbour out.
	var drain *Drain // goes over to the machine that comes in the place of a drained one
	if old := s.Hosts[s.Names[e.Name]]; old != nil && old.ID != e.Host {
		switch {
		case old.Unreachable && h == nil && (s.Rules < 2 || old.Quarantine == "" || old.Quarantine == flapCause):
			drain = old.Drain
			if err := s.hostLeft(HostLeft{Host: old.ID, Cause: "replaced by " + e.Host}); err != nil {
				return err
			}
		case s.Rules < 2:
			return refuse(Conflict, "host %s has that name; give this one another, or forget that one first "+
				"(`dctl hosts forget %s`)", old.ID, e.Name)
		}
	}
	if h == nil {
		h = &Host{ID: e.Host, Name: e.Name, Drain: drain, Targets: map[string]*Target{}}
		s.sortDraining(h)
		if s.Rules >= 2 {
			h.Came = s.Now
		}
		s.Hosts[e.Host] = h
		s.called(h)
	} else if h.Name != e.Name { // renamed: the old name is free
		s.unnamed(h)
		h.Name = e.Name
		s.called(h)
	}
	for _, t := range sorted(h.Targets) { // they are counted by zone and labels
		s.remove(t)
	}
	h.Labels = e.Labels
	for _, t := range sorted(h.Targets) {
		t.Zone = e.Zone
		s.add(t)
	}
	s.moved(h.ID, "")
	s.touch(h)
	h.Name, h.Zone, h.Region, h.Version = e.Name, e.Zone, e.Region, e.Version
	h.Says, h.Approved = e.Says, e.Approved
	return nil
}

func (s *State) hostLeft(e HostLeft) error {
	s.MembershipIndex = s.Index
	h := s.Hosts[e.Host]
	switch {
	case h == nil:
		return refuse(NotFound, "no host %s", e.Host)
	case !h.Unreachable && !e.Force:
		return refuse(Conflict, "host %s is reachable; stop its agent first", h.Name)
	}
	if other := s.successor(h); other != nil && h.Drain != nil {
		again := *h.Drain
		again.Granted = false // the floor is asked anew: this one may serve
		other.Drain = &again
		s.sortDraining(other)
	}
	for _, t := range sorted(h.Targets) {
		s.depart(t, e.Cause)
	}
	s.moved(h.ID, "")
	s.touch(h)
	delete(s.Hosts, e.Host)
	delete(s.flapping, e.Host)
	delete(s.draining, e.Host)
	s.unnamed(h)
	return nil
}

// called gives a host its name, if nobody has it, or makes it a namesake.
func (s *State) called(h *Host) {
	s.namesakes[h.Name]++
	if s.Hosts[s.Names[h.Name]] == nil {
		s.Names[h.Name] = h.ID
	}
}

// unnamed takes a host's name away, and gives it to a namesake.
func (s *State) unnamed(h *Host) {
	if s.namesakes[h.Name]--; s.namesakes[h.Name] == 0 {
		delete(s.namesakes, h.Name)
	}
	if s.Names[h.Name] != h.ID {
		return
	}
	delete(s.Names, h.Name)
	for _, id := range s.Named(h.Name) {
		if id != h.ID {
			s.Names[h.Name] = id
			return
		}
	}
}

func (s *State) targetsJoined(e TargetsJoined) error {
	s.MembershipIndex = s.Index
	g := s.Groups[GroupKey(e.App, e.Group)]
	if g == nil {
		return refuse(NotFound, "no group %s of %s", e.Group, e.App)
	}
	joined := 0
	for i, id := range e.Hosts {
		h := s.Hosts[id]
		if h == nil || h.Targets[e.App] != nil {
			continue
		}
		t := &Target{
			Host: id, App: e.App, Group: e.Group, Zone: h.Zone, Away: h.Unreachable,
			Quarantined: h.isolated(), Joined: s.Index,
		}
		if h.drained() {
			t.Out, t.OutKey = OutMoving, s.Index
		}
		if h.Targets == nil {
			h.Targets = map[string]*Target{}
		}
		h.Targets[e.App] = t
		g.Members[id] = true
		if i < len(e.Waves) && e.Waves[i] >= 0 && e.Waves[i] < len(g.Layout.Waves) {
			w, given := e.Waves[i], g.givenIn(e.Waves[i])
			s.joinWave(g, t, w)
			s.attach(h, t)
			if g.givenIn(w) != given { // it has become too large for what its newcomers were to be born on
				s.resortWave(g, w)
			}
		} else {
			s.attach(h, t)
		}
		s.moved(id, "")
		joined++
	}
	if g.stagesNext() {
		s.reassignGroup(e.App, e.Group) // how many are next to stage depends on how many there are
	}
	return changed(joined, "host", "join")
}

// joinWave puts a new host into a wave of the layout. Deployments that have not
// entered the wave plan it; where they have, it is not theirs: see catchingUp.
func (s *State) joinWave(g *Group, t *Target, wave int) {
	host := t.Host
	g.Layout.Waves[wave].Hosts = append(g.Layout.Waves[wave].Hosts, host)
	g.place(t, wave)
	for _, d := range g.open {
		if !d.Inverse && wave < len(d.Waves) && d.Waves[wave].Status.waits() && d.forward() &&
			(d.Tasks[host] == nil || d.Tasks[host].Status == TaskGone) {
			d.plan(host, wave, s.Now, s.Wall)
		}
	}
}

// plan adds a task at the end of a wave. A host that departed and is back gets
// its own again.
func (d *Deployment) plan(host string, wave int, now Time, wall int64) {
	if old := d.Tasks[host]; old != nil && old.Status == TaskGone {
		d.waves[old.Wave].tasks[TaskGone]--
		d.Tasks[host] = &Task{Wave: old.Wave, Since: now, Wall: wall}
		return
	}
	d.order[host] = len(d.Waves[wave].Hosts)
	d.Waves[wave].Hosts = append(d.Waves[wave].Hosts, host)
	d.Tasks[host] = &Task{Wave: wave, Since: now, Wall: wall}
}

// targetMoved gives an emptied wave a target of a later one, in the layout and
// in every deployment that holds neither.
func (s *State) targetMoved(e TargetMoved) error {
	g := s.Groups[GroupKey(e.App, e.Group)]
	if g == nil || e.From < 0 || e.To < 0 || e.From >= len(g.Layout.Waves) || e.To >= len(g.Layout.Waves) {
		return refuse(Invalid, "no wave to move a host of %s %s to", e.App, e.Group)
	}
	t := g.target(e.Host)
	if t == nil || t.Permit != PermitNone || t.place-1 != e.From {
		return refuse(Conflict, "host %s cannot be moved", e.Host)
	}
	for _, d := range g.open {
		if d.Inverse || !d.Waves[e.From].Status.waits() || d.Waves[e.To].Status.Passed() {
			return refuse(Conflict, "deployment %s holds a wave that host %s would move between", d.ID, e.Host)
		}
	}
	isHost := func(h string) bool { return h == e.Host }
	s.recount(g, func() {
		from, to := &g.Layout.Waves[e.From], &g.Layout.Waves[e.To]
		from.Hosts = slices.DeleteFunc(from.Hosts, isHost)
		to.Hosts = append(to.Hosts, e.Host)
		g.place(t, e.To)
		for _, d := range g.open {
			task := d.Tasks[e.Host]
			if task == nil || task.gone() || task.Wave != e.From {
				continue
			}
			w := &d.Waves[e.From]
			w.Hosts = slices.DeleteFunc(w.Hosts, isHost)
			for j, h := range w.Hosts {
				d.order[h] = j
			}
			d.order[e.Host] = len(d.Waves[e.To].Hosts)
			d.Waves[e.To].Hosts = append(d.Waves[e.To].Hosts, e.Host)
			task.Wave = e.To
			s.record(d, Record{Subject: "task", Wave: e.To, Host: e.Host, To: "moved", Text: "from wave " + from.Name})
		}
	})
	for _, d := range g.open {
		if d.Waves[e.To].Status == WaveStatusBaking {
			d.Waves[e.To].StartedAt = s.Now
			s.setWave(d, e.To, WaveStatusDeploying, "its hosts departed, another takes their place")
		}
	}
	return nil
}

func (s *State) targetsLeft(e TargetsLeft) error {
	s.MembershipIndex = s.Index
	g := s.Groups[GroupKey(e.App, e.Group)]
	if g == nil {
		return refuse(NotFound, "no group %s of %s", e.Group, e.App)
	}
	left := 0
	for _, id := range e.Hosts {
		if t := s.Target(id, e.App); t != nil && t.Group == e.Group && t.Permit == PermitNone {
			s.depart(t, e.Cause)
			left++
		}
	}
	return changed(left, "host", "leave")
}

// depart ends a target: its task is gone, which is no failure, and N shrinks.
func (s *State) depart(t *Target, cause string) {
	var given *Deployment
	if t.group != nil {
		given = t.group.given(t)
	}
	s.remove(t)
	for _, d := range s.openOn(t) {
		task := d.Tasks[t.Host]
		if task == nil || task.gone() {
			continue
		}
		if task.Status.Failure() { // what failed stays a failure, also when its host is replaced
			task.Left = true
		} else {
			s.moveTask(d, t.Host, task, TaskGone, cause, nil)
		}
		d.waves[task.Wave].leave(task)
	}
	if g := t.group; g != nil {
		g.detach(t)
		if w, ok := t.wave(); ok {
			lw := &g.Layout.Waves[w]
			lw.Hosts = slices.DeleteFunc(lw.Hosts, func(h string) bool { return h == t.Host })
			g.place(t, -1)
			if g.givenIn(w) != given { // nobody is left, say, on what newcomers were to be born on
				s.resortWave(g, w)
			}
		}
	}
	delete(s.Hosts[t.Host].Targets, t.App)
	s.moved(t.Host, "")
}

func (s *State) revisionRegistered(e RevisionRegistered) error {
	if e.App == "" || e.Name == "" || e.Digest == "" {
		return refuse(Invalid, "a revision needs an application, a name and a digest")
	}
	all := s.Revisions[e.App]
	if all == nil {
		all = map[Digest]*Revision{}
		s.Revisions[e.App] = all
	}
	for _, r := range sortedRevisions(all) {
		if r.Digest != e.Digest && slices.Contains(r.Names, e.Name) {
			return refuse(Exists, "revision %s of %s is already %s; a revision is immutable, push under a new name",
				e.Name, e.App, r.Digest)
		}
	}
	r := all[e.Digest]
	renamed := r != nil && r.Name != e.Name
	if r == nil {
		r = &Revision{App: e.App, Digest: e.Digest, Size: e.Size, Files: e.Files, At: s.Wall, Index: s.Index}
		all[e.Digest] = r
	}
	if !slices.Contains(r.Names, e.Name) {
		r.Names = append(r.Names, e.Name)
	}
	r.Name, r.Actor = e.Name, e.Request.Actor
	if e.Message != "" {
		r.Message = e.Message
	}
	if len(e.Ancestry) > 0 {
		r.Ancestry = e.Ancestry
	}
	r.Unsafe = r.Unsafe || e.Unsafe
	if !renamed {
		return nil
	}
	for _, g := range s.groupsOf(e.App) { // assignments carry the newest name
		s.reassignGroup(g.App, g.Name)
	}
	return nil
}

func (s *State) hostsUnreachable(e HostsUnreachable) error {
	down := 0
	for _, item := range e.Items {
		h := s.Hosts[item.Host]
		if h == nil || h.Unreachable || h.Counter > item.Counter {
			continue
		}
		h.Unreachable, h.DownSince = true, s.Now
		s.touch(h)
		s.flapped(h)
		for _, t := range sorted(h.Targets) {
			s.update(t, func() { t.Away, t.Health, t.Evidence = true, HealthUnknown, "host unreachable" })
		}
		s.noteHost(h, "unreachable")
		down++
	}
	return changed(down, "host", "call unreachable")
}

// noteHost writes a host's coming or going into the open deployments it is in.
func (s *State) noteHost(h *Host, to string) {
	for _, d := range s.open {
		if task := d.Tasks[h.ID]; task != nil {
			s.record(d, Record{Subject: "host", Wave: task.Wave, Host: h.ID, To: to})
		}
	}
}

// reassignWave marks every host of a wave as to be assigned anew.
func (s *State) reassignWave(d *Deployment, i int) {
	for _, h := range d.Waves[i].Hosts {
		if x := s.Hosts[h]; x != nil {
			s.touch(x)
		}
	}
}

// moveTask changes a task's status and writes it down. It runs inside update,
// or between remove and add.
func (s *State) moveTask(d *Deployment, host string, task *Task, to TaskStatus, cause string, f *Failure) {
	if task.Status == to {
		return
	}
	task.Status, task.Since, task.Wall, task.Cause = to, s.Now, s.Wall, cause
	if to == TaskSettled && d.waves[task.Wave].tasks[TaskSettled] == 0 {
		s.resortWave(s.group(d), task.Wave) // new hosts of the wave may follow now
	}
	if f != nil {
		task.Failure = f
	}
	if to.Failure() && !task.Counted && d.Status != DeploymentStatusRollingBack {
		task.Counted = true
		d.Failures++
	}
	if to.Failure() && to != TaskLost {
		if t := s.Target(host, d.App); t != nil {
			t.Drift, t.Declared = to.String()+" in "+d.ID, false // until a retry or the next deployment
		}
	}
	if d.Config.Stage.Prefetch == "none" {
		s.reassignWave(d, task.Wave)
	}
	r := Record{Subject: "task", Wave: task.Wave, Host: host, To: to.String(), Text: cause}
	if to.Failure() {
		r.Failure = task.Failure
	}
	s.record(d, r)
}
