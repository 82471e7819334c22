package deploy

import (
	"fmt"
	"slices"
)

func (s *State) groupDefined(e GroupDefined) error {
	s.Shape = s.Index
	if e.App == "" || e.Group == "" {
		return refuse(Invalid, "a group needs an application and a name")
	}
	g := s.Groups[GroupKey(e.App, e.Group)]
	if g == nil {
		g = &Group{App: e.App, Name: e.Group, Members: map[string]bool{}, Bad: map[Digest]string{}}
		s.Groups[g.Key()] = g
	}
	g.Selector, g.Artifacts, g.Config, g.Source = e.Selector, e.Artifacts, e.Config, e.Source
	g.DefinedAt = s.Wall
	s.touchAll(e.App, e.Group)
	return nil
}

func (s *State) hostEnrolled(e HostEnrolled) error {
	s.Shape = s.Index
	if e.Host == "" || e.Name == "" {
		return refuse(Invalid, "a host needs an id and a name")
	}
	// Same name, new id: the machine was replaced, and the old one departs.
	if old := s.Hosts[s.Names[e.Name]]; old != nil && old.ID != e.Host && old.Unreachable {
		if err := s.hostLeft(HostLeft{Host: old.ID, Cause: "replaced by " + e.Host}); err != nil {
			return err
		}
	}
	h := s.Hosts[e.Host]
	if h != nil && s.Names[h.Name] == h.ID {
		delete(s.Names, h.Name) // renamed: the old name is free
	}
	s.Names[e.Name] = e.Host
	if h == nil {
		h = &Host{ID: e.Host, Targets: map[string]*Target{}}
		s.Hosts[e.Host] = h
	}
	for _, t := range sorted(h.Targets) {
		s.touch(t, func() { t.Zone = e.Zone })
	}
	h.Name, h.Zone, h.Region, h.Labels, h.Version = e.Name, e.Zone, e.Region, e.Labels, e.Version
	return nil
}

func (s *State) hostLeft(e HostLeft) error {
	s.Shape = s.Index
	h := s.Hosts[e.Host]
	switch {
	case h == nil:
		return refuse(NotFound, "no host %s", e.Host)
	case !h.Unreachable && !e.Force:
		return refuse(Conflict, "host %s is reachable; stop its agent first", h.Name)
	}
	for _, t := range sorted(h.Targets) {
		s.depart(t, e.Cause)
	}
	delete(s.Hosts, e.Host)
	if s.Names[h.Name] == h.ID {
		delete(s.Names, h.Name)
	}
	return nil
}

func (s *State) targetsJoined(e TargetsJoined) error {
	s.Shape = s.Index
	g := s.Groups[GroupKey(e.App, e.Group)]
	if g == nil {
		return refuse(NotFound, "no group %s of %s", e.Group, e.App)
	}
	joined := 0
	for _, id := range e.Hosts {
		h := s.Hosts[id]
		if h == nil || h.Targets[e.App] != nil {
			continue
		}
		t := &Target{Host: id, App: e.App, Group: e.Group, Zone: h.Zone, Away: h.Unreachable}
		if h.Targets == nil {
			h.Targets = map[string]*Target{}
		}
		h.Targets[e.App] = t
		g.Members[id] = true
		s.count(t, +1)
		joined++
	}
	return changed(joined, "host", "join")
}

// changed refuses a fact of which no item fits any more, so that whoever
// decided it sees that nothing moved.
func changed(n int, what, verb string) error {
	if n == 0 {
		return refuse(Conflict, "no %s is left to %s", what, verb)
	}
	return nil
}

func (s *State) targetsLeft(e TargetsLeft) error {
	s.Shape = s.Index
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
	s.count(t, -1)
	for _, d := range s.open {
		task := d.Tasks[t.Host]
		if d.App != t.App || d.Group != t.Group || task == nil || task.gone() {
			continue
		}
		if task.Status.Failure() { // what failed stays a failure, also when its host is replaced
			task.Left = true
		} else {
			s.moveTask(d, t.Host, task, TaskGone, cause, nil)
		}
		d.waves[task.Wave].leave(task)
	}
	if g := s.Groups[GroupKey(t.App, t.Group)]; g != nil {
		delete(g.Members, t.Host)
	}
	delete(s.Hosts[t.Host].Targets, t.App)
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
			return refuse(Exists, "revision %s of %s is already %s; a revision is immutable, push under a new name", e.Name, e.App, r.Digest)
		}
	}
	r := all[e.Digest]
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
	for _, g := range sorted(s.Groups) { // assignments carry the newest name
		if g.App == e.App {
			s.touchAll(g.App, g.Name)
		}
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
		for _, t := range sorted(h.Targets) {
			s.touch(t, func() { t.Away, t.Health, t.Evidence = true, HealthUnknown, "host unreachable" })
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

func (s *State) targetsReported(e TargetsReported) error {
	for i := range e.Items {
		s.reported(&e.Items[i])
	}
	return nil
}

// reported applies one whole-state report: section 1 of the semantics.
func (s *State) reported(r *Report) {
	h := s.Hosts[r.Host]
	if !r.valid() {
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
		for _, other := range sorted(h.Targets) {
			s.touch(other, func() { other.Away = false })
		}
		s.noteHost(h, "reachable")
	}
	if t == nil {
		return
	}
	var ended *Deployment
	s.touch(t, func() {
		t.Counter, t.Staged = r.Counter, r.Staged
		t.StageFailed, t.StageReason = r.StageFailed, nil
		if r.StageFailed != "" {
			t.StageReason = r.Failure
		}
		ended = s.closeGeneration(t, r)
	})
	if ended != nil {
		s.taskResult(ended, t, r)
	}
}

// valid reports whether result and health have values that mean something. An
// agent is not trusted: a report that says anything else says nothing.
func (r *Report) valid() bool {
	return r.Result >= ResultNone && r.Result <= ResultIdle && r.Health >= HealthUnknown && r.Health <= HealthUnhealthy
}

// closeGeneration applies generation, result and health of a report, and
// returns the deployment whose task the result may end. It runs in touch.
func (s *State) closeGeneration(t *Target, r *Report) *Deployment {
	if r.Gen < t.Gen {
		return nil
	}
	if r.Gen > t.Gen { // the log was restored from a backup: the host knows more
		s.overtaken(t)
		t.Gen, t.Open, t.Permit, t.Deployment = r.Gen, true, PermitNone, ""
	}
	var ended *Deployment
	if t.Open && r.Result != ResultNone {
		if t.Permit != PermitNone {
			ended = s.Deployments[t.Deployment]
		}
		t.Open, t.Permit = false, PermitNone
	}
	if !t.Open {
		t.Running, t.Health, t.Evidence = r.Running, r.Health, r.Evidence
		t.EverHealthy = t.EverHealthy || r.Health == HealthHealthy
	}
	return ended
}

// overtaken lets a granted task wait again when its target is at a generation
// that this log never granted: no result of the task's own will come.
func (s *State) overtaken(t *Target) {
	for _, d := range s.open {
		if task := d.Tasks[t.Host]; d.App == t.App && d.Group == t.Group && task != nil && task.Status == TaskGranted {
			s.moveTask(d, t.Host, task, TaskWaiting, "the host is at a later generation", nil)
		}
	}
}

// refusals is how often a target may hand permits back before that counts as a
// failure: an agent that never says the same twice must not keep the log busy.
const refusals = 20

// taskResult ends the task that a permit was for.
func (s *State) taskResult(d *Deployment, t *Target, r *Report) {
	task := d.Tasks[t.Host]
	if task == nil || task.gone() || d.Status.Terminal() || task.Status.Terminal() || task.Gen != r.Gen {
		return
	}
	move := func(to TaskStatus, cause string) {
		s.touch(t, func() { s.moveTask(d, t.Host, task, to, cause, r.Failure) })
	}
	goal := d.Revision
	good, waiting := TaskSettled, TaskWaiting
	if task.Status == TaskReverting {
		goal, good, waiting = task.Goal, TaskReverted, TaskReverting
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

// moveTask changes a task's status and writes it down. It runs inside touch,
// or between the two counts that depart makes itself.
func (s *State) moveTask(d *Deployment, host string, task *Task, to TaskStatus, cause string, f *Failure) {
	if task.Status == to {
		return
	}
	task.Status, task.Since, task.Wall, task.Cause = to, s.Now, s.Wall, cause
	if f != nil {
		task.Failure = f
	}
	if to.Failure() && !task.Counted && d.Status != DeploymentStatusRollingBack {
		task.Counted = true
		d.Failures++
	}
	r := Record{Subject: "task", Wave: task.Wave, Host: host, To: to.String(), Text: cause}
	if to.Failure() {
		r.Failure = task.Failure
	}
	s.record(d, r)
}
