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
	case t.Permit != PermitNone && t.Aside != AsideNone && t.Deployment == "":
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
			want[z].permits += count(t.Permit != PermitNone && t.Aside != AsideBirth)
			want[z].unhealthy += count(t.Health == HealthUnhealthy)
		}
	}
	for z, w := range sorted(want) {
		if got := g.usage(z); *got != *w {
			return fmt.Errorf("counters of %s zone %q are %+v, a count says %+v", key, z, *got, *w)
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

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *State) checkDeployment(d *Deployment) error {
	counted := 0
	for h, task := range sorted(d.Tasks) {
		t := s.Target(h, d.App)
		if t == nil && !task.gone() {
			return fmt.Errorf("task %s of %s has no target and is %s", h, d.ID, task.Status)
		}
		if t != nil && task.Status == TaskGranted && (t.Permit == PermitNone || t.Gen != task.Gen) {
			return fmt.Errorf("task %s of %s is granted generation %d, its target is at %d with permit %s", h, d.ID, task.Gen, t.Gen, t.Permit)
		}
		if t != nil && !task.gone() && t.Permit != PermitNone && t.Deployment == d.ID && task.Status.Terminal() && task.Status != TaskLeft {
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
	if w.Status.waits() || w.Status == WaveStatusReverting || w.Status == WaveStatusReverted {
		return nil
	}
	for j := range i {
		if before := &d.Waves[j]; before.Batch < w.Batch && !before.Status.Passed() && before.Status != WaveStatusReverting && before.Status != WaveStatusReverted &&
			!(before.Status == WaveStatusDeploying && d.Attempt > 0) { // opened again after it had been sealed
			return fmt.Errorf("S12: wave %s of %s is %s while %s is %s", w.Name, d.ID, w.Status, before.Name, before.Status)
		}
	}
	return nil
}

// CheckEvent asserts, before the fact is applied, that it respects the permit
// rule, by a count of its own over the group's targets: I1 and I2. It returns
// nil for every fact but PermitsGranted.
func CheckEvent(s *State, e Event) error {
	p, ok := e.(PermitsGranted)
	if !ok || s.Deployments[p.Deployment] == nil {
		return nil
	}
	d := s.Deployments[p.Deployment]
	for _, f := range p.Floors {
		serving, normal := 0, 0
		for h := range sorted(s.Groups[GroupKey(d.App, d.Group)].Members) {
			t := s.Target(h, d.App)
			if f.Zone != "" && t.Zone != f.Zone {
				continue
			}
			serving += count(t.Serving())
			normal += count(t.Serving() && slices.ContainsFunc(p.Items, func(g Grant) bool { return g.Host == h }))
		}
		if normal > 0 && serving-normal < f.Min {
			return fmt.Errorf("I1: %d grants in zone %q of %s leave %d serving, the floor is %d", normal, f.Zone, d.ID, serving-normal, f.Min)
		}
	}
	return nil
}
