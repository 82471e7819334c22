package deploy

import (
	"fmt"
	"slices"
)

// Check returns the first invariant that the state breaks, or nil. It is
// linear in the state: tests call it after every fact, production never does
// (CheckEntry is the cheap part).
func Check(s *State) error {
	for id, h := range sorted(s.Hosts) {
		for app, t := range sorted(h.Targets) {
			if err := s.checkTarget(id, app, t); err != nil {
				return err
			}
		}
	}
	for key, g := range sorted(s.Groups) {
		if at, found := s.findGroup(g.App, g.Name); !found || len(s.groups) != len(s.Groups) || s.groups[at] != g {
			return fmt.Errorf("group %s is not where it belongs among %d of %d", key, len(s.groups), len(s.Groups))
		}
		if err := s.checkGroup(key, g); err != nil {
			return err
		}
	}
	for _, d := range s.open {
		if err := s.checkDeployment(d); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) checkTarget(host, app string, t *Target) error {
	g := s.Groups[GroupKey(app, t.Group)]
	switch {
	case t.Host != host || t.App != app:
		return fmt.Errorf("target %s/%s is filed under %s/%s", t.App, t.Host, app, host)
	case g == nil || !g.Members[host]:
		return fmt.Errorf("target %s/%s is no member of its group %s", app, host, t.Group)
	case t.Permit != PermitNone && !t.Open:
		return fmt.Errorf("I2: target %s/%s holds a permit on a closed generation %d", app, host, t.Gen)
	case t.Permit != PermitNone && t.CatchUp != CatchUpNone && t.Deployment == "":
		return nil
	case t.Permit != PermitNone && s.Deployments[t.Deployment] == nil:
		return fmt.Errorf("I2: permit of %s/%s belongs to no deployment", app, host)
	case t.Permit != PermitNone && s.Deployments[t.Deployment].Status.Terminal():
		return fmt.Errorf("I2: permit of %s/%s belongs to %s, which has ended", app, host, t.Deployment)
	}
	return nil
}

// checkGroup compares the counters with a count by hand, and I3.
func (s *State) checkGroup(key string, g *Group) error {
	want := map[string]*usage{"": {}}
	for h := range sorted(g.Members) {
		t := s.Target(h, g.App)
		if t == nil {
			return fmt.Errorf("member %s of %s has no target", h, key)
		}
		for _, z := range slices.Compact([]string{"", t.Zone}) {
			if want[z] == nil {
				want[z] = &usage{}
			}
			want[z].members++
			want[z].registered += count(t.EverHealthy)
			want[z].serving += count(t.Serving())
			want[z].permits += count(t.Permit != PermitNone && t.CatchUp != CatchUpBirth)
			want[z].unhealthy += count(t.Health == HealthUnhealthy)
		}
	}
	for z, w := range sorted(want) {
		if got := g.usage(z); got != *w {
			return fmt.Errorf("counters of %s zone %q are %+v, a count says %+v", key, z, got, *w)
		}
	}
	for i := range g.Layout.Waves {
		live := ""
		for _, d := range g.open {
			if i < len(d.Waves) && d.Waves[i].Status.active() {
				if live != "" {
					return fmt.Errorf("I3: %s and %s are both live in wave %d of %s", live, d.ID, i, key)
				}
				live = d.ID
			}
		}
	}
	return nil
}

func (s *State) checkDeployment(d *Deployment) error {
	counted := 0
	for h, task := range sorted(d.Tasks) {
		t := s.Target(h, d.App)
		if t == nil && !task.gone() {
			return fmt.Errorf("task %s of %s has no target and is %s", h, d.ID, task.Status)
		}
		if t != nil && task.Status == TaskGranted && (t.Permit == PermitNone || t.Gen != task.Gen) {
			return fmt.Errorf("task %s of %s is granted generation %d, its target is at %d with permit %s", h, d.ID,
				task.Gen, t.Gen, t.Permit)
		}
		if t != nil && !task.gone() && t.Permit != PermitNone && t.Deployment == d.ID && task.Status.Terminal() &&
			task.Status != TaskLeft {
			return fmt.Errorf("task %s of %s is %s and holds a permit", h, d.ID, task.Status)
		}
		counted += count(task.Counted)
	}
	for i := range d.Waves {
		counted += d.Waves[i].Extra
	}
	if counted != d.Failures {
		return fmt.Errorf("S12: %s counts %d failures, its tasks %d", d.ID, d.Failures, counted)
	}
	for i := range d.Waves {
		if err := s.checkWave(d, i); err != nil {
			return err
		}
	}
	return nil
}

// checkWave compares a wave's counters with its tasks, and I4 within the
// deployment: no wave has started before the batch before it has passed.
func (s *State) checkWave(d *Deployment, i int) error {
	w, p := &d.Waves[i], d.waves[i]
	var tasks [taskStatuses]int
	granted := 0
	for _, h := range w.Hosts {
		tasks[d.Tasks[h].Status]++
		if t := s.Target(h, d.App); t != nil && !d.Tasks[h].gone() && t.Permit != PermitNone && t.Deployment == d.ID {
			granted++
		}
	}
	if tasks != p.tasks {
		return fmt.Errorf("wave %s of %s counts %v, its tasks are %v", w.Name, d.ID, p.tasks, tasks)
	}
	if n := d.permits(i); n != granted {
		return fmt.Errorf("wave %s of %s counts %d permits, there are %d", w.Name, d.ID, n, granted)
	}
	if !w.Status.active() { // a sealed one stays when an earlier wave is opened again
		return nil
	}
	for j := range i {
		if before := &d.Waves[j]; before.Batch < w.Batch && !before.Status.Passed() &&
			before.Status != WaveStatusReverting && before.Status != WaveStatusReverted {
			return fmt.Errorf("S12: wave %s of %s is %s while %s is %s", w.Name, d.ID, w.Status, before.Name,
				before.Status)
		}
	}
	return nil
}

// Witness looks at the state before a fact is applied and returns a test of what
// the fact did to it, to be called right after: that grants kept the permit rule
// (I1, I2), that nobody was overtaken (I3, I4), that no wave was sealed early
// (S12) and that nothing counts as settled without saying so (S14). It counts
// by itself, over the group's targets, and returns nil for facts without a test.
func Witness(s *State, e Event) func() error {
	switch e := e.(type) {
	case PermitsGranted:
		return s.witnessGrants(e)
	case DeploymentCreated:
		return s.witnessCreated(e)
	case RequestMade:
		if d := s.Deployments[e.Deployment]; d != nil && e.Verb != VerbEmergency {
			was := d.Emergency
			return func() error { return checkUrgent(d, was) }
		}
	case DeploymentEnded:
		if d := s.Deployments[e.Deployment]; d != nil && !d.Status.Terminal() {
			return func() error { return s.checkEnd(d) }
		}
	case GateJudged:
		return func() error { return s.checkVerdict(e) }
	case WaveStarted:
		if d := s.Deployments[e.Deployment]; d != nil && e.Wave < len(d.Waves) {
			was := d.Waves[e.Wave].Status
			return func() error { return s.checkStart(d, e.Wave, was) }
		}
	case WaveSealed:
		if d := s.Deployments[e.Deployment]; d != nil && e.Wave < len(d.Waves) {
			was := d.Waves[e.Wave].Status
			return func() error { return s.checkSeal(d, e.Wave, was) }
		}
	case TasksEnded:
		if d := s.Deployments[e.Deployment]; d != nil {
			return func() error { return s.checkSettled(d, e.Items) }
		}
	case HostDrained:
		if h := s.Hosts[e.Host]; h != nil && !h.drained() {
			return s.witnessDrained(h)
		}
	}
	return nil
}

// witnessDrained is I1 for a drain by hand.
func (s *State) witnessDrained(h *Host) func() error {
	floor, served := map[string][]Floor{}, map[string]bool{}
	for app, t := range sorted(h.Targets) {
		if t.group != nil {
			floor[app], served[app] = floors(t.group), t.EverHealthy && !t.Quarantined
		}
	}
	return func() error {
		for app, t := range sorted(h.Targets) {
			if !h.drained() || t.group == nil || !served[app] {
				continue
			}
			domains := s.domains(t.group)
			for _, f := range floor[app] {
				if d := domains[f.Zone]; d != nil && (f.Zone == "" || f.Zone == t.Zone) && d.serving < f.Min {
					return fmt.Errorf("I1: the drain of %s leaves %d serving in zone %q of %s, the floor is %d", h.Name,
						d.serving, f.Zone, t.group.Key(), f.Min)
				}
			}
		}
		return nil
	}
}

// Assert is the part of Witness whose cost does not grow with the fleet, for
// production: of grants it looks at the counters instead of counting by hand.
func Assert(s *State, e Event) func() error {
	p, ok := e.(PermitsGranted)
	if !ok {
		return Witness(s, e)
	}
	d := s.Deployments[p.Deployment]
	if d == nil {
		return nil
	}
	g, held := s.group(d), s.heldForward(d)
	return func() error {
		if err := held(p.Items); err != nil {
			return err
		}
		for _, item := range p.Items {
			t := s.Target(item.Host, d.App)
			if t == nil || t.Gen != item.Gen || t.Permit != PermitNormal || t.GrantedAt != s.Now {
				continue
			}
			for _, f := range p.Floors {
				if u := g.usage(f.Zone); (f.Zone == "" || f.Zone == t.Zone) && u.serving < f.Min {
					return fmt.Errorf("I1: a grant to %s leaves %d serving in zone %q of %s, the floor is %d",
						item.Host, u.serving, f.Zone, g.Key(), f.Min)
				}
			}
			if n := g.usage("").permits; n > p.Concurrent {
				return fmt.Errorf("I2: %d permits are out in %s, %d may be", n, g.Key(), p.Concurrent)
			}
		}
		return nil
	}
}

// domain counts a group or zone by hand.
type domain struct{ serving, permits int }

func (s *State) domains(g *Group) map[string]*domain {
	out := map[string]*domain{"": {}}
	for h := range sorted(g.Members) {
		t := s.Target(h, g.App)
		for _, z := range slices.Compact([]string{"", t.Zone}) {
			if out[z] == nil {
				out[z] = &domain{}
			}
			out[z].serving += count(t.Serving())
			out[z].permits += count(t.Permit != PermitNone && t.CatchUp != CatchUpBirth)
		}
	}
	return out
}

func (s *State) witnessGrants(e PermitsGranted) func() error {
	app, group := e.App, e.Group
	if d := s.Deployments[e.Deployment]; d != nil {
		app, group = d.App, d.Group
	}
	g := s.Groups[GroupKey(app, group)]
	if g == nil {
		return nil
	}
	before, had, untasted := s.domains(g), map[string]bool{}, map[string]bool{}
	held := s.heldForward(s.Deployments[e.Deployment])
	for _, item := range e.Items {
		t := s.Target(item.Host, app)
		had[item.Host] = t != nil && t.Permit != PermitNone
		if d := s.Deployments[e.Deployment]; d != nil && !d.Inverse && item.Goal == d.Revision {
			task := d.Tasks[item.Host]
			untasted[item.Host] = d.Config.Stage.tastes() && (task == nil || !task.Tasted) && !d.takesBack(item.Host)
		}
	}
	return func() error {
		if err := held(e.Items); err != nil {
			return err
		}
		after, normal, granted := s.domains(g), map[string]bool{}, 0
		for _, item := range e.Items {
			t := s.Target(item.Host, app)
			if t == nil || t.Permit == PermitNone || t.Gen != item.Gen || had[item.Host] {
				continue
			}
			granted++
			if untasted[item.Host] {
				return fmt.Errorf("I18: %s was granted a permit for %s, whose taste has not passed there",
					item.Host, app)
			}
			if t.Permit == PermitNormal {
				normal[""], normal[t.Zone] = true, true
			}
			if other := s.disrupted(t); other != "" && e.CatchUp != CatchUpBirth {
				return fmt.Errorf("I2: %s was granted a permit for %s while %s has one", item.Host, app, other)
			}
		}
		for _, item := range e.Items {
			if t := s.Target(item.Host, app); t != nil && t.Permit == PermitNormal && t.Gen == item.Gen &&
				!had[item.Host] && len(e.Floors) > 0 {
				if err := s.checkQuorum(g, t); err != nil {
					return err
				}
			}
		}
		for _, f := range e.Floors {
			if d := after[f.Zone]; d != nil && normal[f.Zone] && d.serving < f.Min {
				return fmt.Errorf("I1: grants in zone %q of %s leave %d of %d serving, the floor is %d", f.Zone,
					g.Key(), d.serving, before[f.Zone].serving, f.Min)
			}
		}
		if p := after[""].permits; e.CatchUp != CatchUpBirth && granted > 0 && p > e.Concurrent {
			return fmt.Errorf("I2: %d permits are out in %s, %d may be", p, g.Key(), e.Concurrent)
		}
		zones, was := 0, 0
		for z, d := range sorted(after) {
			zones += count(z != "" && d.permits > 0)
			was += count(z != "" && before[z] != nil && before[z].permits > 0)
		}
		if e.MaxZones > 0 && zones > e.MaxZones && zones > was {
			return fmt.Errorf("I2: permits are out in %d zones of %s, at most %d may have them", zones, g.Key(),
				e.MaxZones)
		}
		return nil
	}
}

// disrupted names another application of the target's host that holds a permit
// although one of the two wants to be alone.
func (s *State) disrupted(t *Target) string {
	for app, other := range sorted(t.host.Targets) {
		if app != t.App && other.Permit != PermitNone && (s.exclusive(t) || s.exclusive(other)) {
			return app
		}
	}
	return ""
}

func (s *State) checkStart(d *Deployment, i int, was WaveStatus) error {
	if d.Waves[i].Status != WaveStatusDeploying || !was.waits() {
		return nil
	}
	for _, o := range s.group(d).open {
		if o.Seq < d.Seq && (o.Inverse || !o.Waves[i].Status.Passed() || o.Status != DeploymentStatusRunning) {
			return fmt.Errorf("I4: wave %s of %s was entered while %s is %s", d.Waves[i].Name, d.ID, o.ID, o.Status)
		}
	}
	for _, name := range d.preGates(i) {
		gate := d.Config.gate(name)
		if gate != nil && gate.Approval != nil && d.Emergency == "" && d.approvals(gate) < max(gate.Approval.Count, 1) {
			return fmt.Errorf("I17: wave %s of %s, which is no emergency, was entered without the approvals of gate %s",
				d.Waves[i].Name, d.ID, name)
		}
	}
	for j := range i {
		if d.Waves[j].Batch < d.Waves[i].Batch && !s.judgedOrMeant(d, j) {
			return fmt.Errorf("I13: wave %s of %s was entered, and nobody of %s was judged", d.Waves[i].Name, d.ID,
				d.Waves[j].Name)
		}
	}
	return nil
}

// judgedOrMeant is I13 of one wave that was passed: somebody settled in it, or
// everybody left it, or people let it pass by its name or its hosts' names, or it
// is a newer deployment's.
func (s *State) judgedOrMeant(d *Deployment, j int) bool {
	w, p := &d.Waves[j], d.waves[j]
	if w.BakeMin == 0 && len(w.Gates) == 0 || w.Status != WaveStatusSkipped {
		return true
	}
	return p.tasks[TaskGone] == p.total() || d.promoted(w.Name, holdTargets) || d.leftOutByName(j) ||
		w.LeftTo != "" ||
		p.tasks[TaskSettled] > 0
}

// checkQuorum is I1 for who has one value of a label, counted by hand.
func (s *State) checkQuorum(g *Group, of *Target) error {
	for _, q := range g.quorums {
		v, down := of.host.Labels[q.Label], 0
		for _, t := range g.list {
			down += count(v != "" && t.host.Labels[q.Label] == v && t.EverHealthy && !t.Serving())
		}
		if down > q.MaxDown {
			return fmt.Errorf("I1: with a permit of %s %d hosts of %s=%s are down, %d may be", of.Host, down, q.Label,
				v, q.MaxDown)
		}
	}
	return nil
}

// takesBack reports whether a permit of the host is for a way back.
func (d *Deployment) takesBack(host string) bool {
	task := d.Tasks[host]
	return task != nil && task.Status == TaskReverting
}

// witnessCreated is I12: the waves of a deployment are those of its config, and
// a way back changes no layout.
func (s *State) witnessCreated(e DeploymentCreated) func() error {
	g := s.Groups[GroupKey(e.App, e.Group)]
	if g == nil || s.Deployments[e.ID] != nil {
		return nil
	}
	version := g.Layout.Version
	return func() error {
		d := s.Deployments[e.ID]
		switch {
		case d == nil:
			return nil
		case d.Inverse && g.Layout.Version != version:
			return fmt.Errorf("I12: %s takes %s back and made a layout of its own", d.ID, g.Key())
		case d.Inverse:
			return nil
		}
		for i := range d.Waves {
			w := &d.Waves[i]
			if w.Spec >= len(d.Config.Waves) {
				return fmt.Errorf("I12: wave %s of %s is of no spec of its config", w.Name, d.ID)
			}
			spec := &d.Config.Waves[w.Spec]
			named := w.Name == spec.Name || w.Name == spec.Name+"/"+w.Zone
			if !named || w.BakeSpec != spec.BakeSpec || !slices.Equal(w.Gates, spec.Gates) || w.OneBox != spec.OneBox {
				return fmt.Errorf("I12: wave %s of %s is not as its config has it", w.Name, d.ID)
			}
		}
		return nil
	}
}

// checkEnd is I14: a deployment that ended rolled back left nobody who can be
// reached on its revision, unless it names who.
func (s *State) checkEnd(d *Deployment) error {
	g := s.group(d)
	back := d.Status == DeploymentStatusRolledBack || d.Inverse && d.Status == DeploymentStatusSucceeded
	if !back || g == nil {
		return nil
	}
	for _, t := range g.list {
		task := d.Tasks[t.Host]
		if t.Away || t.Declared || task == nil && !d.adopts(g, t) || d.overtaken(g, t) {
			continue
		}
		goal := d.Revision
		if d.Inverse {
			goal, _ = d.backTo(g, t)
		} else if back, _ := g.wayBack(t, nil, nil); back != "" {
			goal = back
		}
		if task != nil {
			switch task.Status { // these are named at the end
			case TaskBroken, TaskLost, TaskLeft:
				continue
			case TaskGone:
				task = nil
			case TaskWaiting, TaskGranted, TaskSettled, TaskFailed, TaskStageFailed, TaskSkipped, TaskCancelled, TaskReverting, TaskReverted:
			}
		}
		if d.straggles(g, t, task, goal) {
			return fmt.Errorf("I14: %s has ended %s, and %s runs %s", d.ID, d.Status, t.Host, t.Running.Short())
		}
	}
	return nil
}

// checkUrgent is I17 of what people ask for else: it makes no emergency.
func checkUrgent(d *Deployment, was string) error {
	if d.Emergency != was {
		return fmt.Errorf("I17: %s became an emergency, and nobody asked for that", d.ID)
	}
	return nil
}

// heldForward is I17 of grants, as of before them: under a freeze nothing is granted
// forward but to an emergency.
func (s *State) heldForward(d *Deployment) func([]Grant) error {
	if d == nil || d.Emergency != "" || s.Frozen(s.group(d)) == nil {
		return func([]Grant) error { return nil }
	}
	return func(items []Grant) error {
		for _, item := range items {
			if task := d.Tasks[item.Host]; task != nil && task.Status == TaskGranted && task.Gen == item.Gen &&
				s.Target(item.Host, d.App).GrantedAt == s.Now {
				return fmt.Errorf("I17: %s was granted a permit by %s, which is no emergency, under a freeze", item.Host, d.ID)
			}
		}
		return nil
	}
}

// checkVerdict is I16: no verdict rests on evidence from before its attempt.
func (s *State) checkVerdict(e GateJudged) error {
	d := s.Deployments[e.Deployment]
	if d == nil || e.Wave < 0 || e.Wave >= len(d.Waves) {
		return nil
	}
	w := &d.Waves[e.Wave]
	if x := w.Watch[watchKey(e.Gate, e.Key)]; x != nil && w.Status.judged() && x.Last.From < w.EvidenceFrom {
		return fmt.Errorf("I16: gate %s of %s was judged by what it saw before wave %s was entered or tried again",
			e.Gate, d.ID, w.Name)
	}
	return nil
}

func (s *State) checkSeal(d *Deployment, i int, was WaveStatus) error {
	w := &d.Waves[i]
	if w.Status != WaveStatusSealed || was == WaveStatusSealed {
		return nil
	}
	if s.Now.Sub(w.BakeSince) < w.BakeMin && !d.promoted(w.Name, "bake") {
		return fmt.Errorf("S12: wave %s of %s was sealed after %s, its bake is %s", w.Name, d.ID,
			s.Now.Sub(w.BakeSince), w.BakeMin)
	}
	for _, h := range w.Hosts {
		t, task := s.Target(h, d.App), d.Tasks[h]
		if t != nil && task.Status == TaskSettled && task.Wave == i && task.Gen > 0 && t.Permit == PermitNone &&
			len(t.Seals) == 0 {
			return fmt.Errorf("S12: %s settled in wave %s of %s and was not sealed", h, w.Name, d.ID)
		}
	}
	return nil
}

// checkSettled is S14 for tasks that settled without a permit.
func (s *State) checkSettled(d *Deployment, items []TaskEnd) error {
	for _, item := range items {
		t, task := s.Target(item.Host, d.App), d.Tasks[item.Host]
		if item.Status == TaskSettled && t != nil && task != nil && task.Status == TaskSettled && task.Since == s.Now &&
			(!t.proved(d.Revision)) {
			return fmt.Errorf("S14: %s counts as settled in %s and runs %s, %s", item.Host, d.ID, t.Running.Short(),
				t.Health)
		}
	}
	return nil
}

// sawDone reports whether the log granted the target the revision, saw it done,
// and the report says that it serves it.
func (s *State) sawDone(r *Report, d Digest) bool {
	t := s.Target(r.Host, r.App)
	return t != nil && t.Done == d && r.Running == d && r.Health == HealthHealthy
}

// witnessReport is S10 and S14 for one report, to be called before it is applied
// and its test after: a late report changes no task, and no task settles without
// a report of the revision.
func (s *State) witnessReport(r *Report) func() error {
	t := s.Target(r.Host, r.App)
	if t == nil || len(s.openOn(t)) == 0 {
		return func() error { return nil }
	}
	was := map[string]TaskStatus{}
	for _, d := range s.openOn(t) {
		if task := d.Tasks[r.Host]; task != nil {
			was[d.ID] = task.Status
		}
	}
	return func() error {
		for _, d := range s.openOn(t) {
			task := d.Tasks[r.Host]
			old, ok := was[d.ID]
			if task == nil || !ok || task.Status == old {
				continue
			}
			switch {
			case r.Gen < task.Gen:
				return fmt.Errorf("S10: a report of generation %d moved task %s of %s, which is at %d", r.Gen, r.Host,
					d.ID, task.Gen)
			case task.Status == TaskSettled && !s.sawDone(r, d.Revision):
				return fmt.Errorf("S14: %s settled in %s by a report of %s, %s", r.Host, d.ID, r.Running.Short(),
					r.Health)
			}
		}
		return nil
	}
}
