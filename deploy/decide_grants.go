package deploy

import (
	"errors"
	"slices"
)

// grants gives what fits, in order: reverts; then of all waves, older
// deployments and earlier waves first, targets that do not serve; then, in the
// order of the plan, targets that do.
func (d *decision) grants() {
	d.reverts()
	var waves []*granting
	for _, w := range d.fresh {
		if g := d.granting(w); g != nil {
			waves = append(waves, g)
		}
	}
	for _, g := range waves {
		g.from(g.p().weak)
	}
	for _, g := range waves {
		g.from(g.p().ready)
		g.emit()
	}
}

// reverts grants ways back, under the rates of the rollback policy.
func (d *decision) reverts() {
	for _, w := range d.back {
		dep := w.dep
		grp := d.s.group(dep)
		c, policy := &dep.Config.Capacity, dep.Config.Rollback
		x := terms{
			concurrent: max(1, policy.MaxConcurrent.Down(grp.usage("").members)), maxZones: policy.MaxZones,
			exclusive: !c.SharedHost,
		}
		if !policy.IgnoreFloor {
			x.floors = floors(grp)
		}
		g := &granting{d: d, dep: dep, wave: w.wave, led: d.ledger(grp), x: x, limit: grantBatch}
		for _, serving := range []bool{false, true} {
			g.p().reverting.each(func(j int) bool {
				h := dep.Waves[w.wave].Hosts[j]
				if d.s.Target(h, dep.App).Serving() != serving {
					return true
				}
				return g.try(h)
			})
		}
		g.emit()
	}
}

// floors returns the strictest floors of the group and of everything that is
// live on it.
func floors(g *Group) []Floor {
	zones := g.Zones()
	out := g.Config.Capacity.floors(g, zones)
	live := false
	for _, o := range g.open {
		if !o.Status.Live() {
			continue
		}
		f := o.Config.Capacity.floors(g, zones)
		if !live {
			out, live = f, true // the group's own config rules only while nothing is live
			continue
		}
		for _, x := range f {
			if i := slices.IndexFunc(out, func(y Floor) bool { return y.Zone == x.Zone }); i < 0 {
				out = append(out, x)
			} else {
				out[i].Min = max(out[i].Min, x.Min)
			}
		}
	}
	return out
}

// groupTerms computes the limits for work forward in a group: of several live
// deployments the strictest, of none the group's own.
func (d *decision) groupTerms(g *Group) terms {
	x := terms{floors: floors(g)}
	take := func(c *Capacity, parallel int) {
		n := max(1, c.MaxConcurrent.Down(g.usage("").members))
		if x.concurrent == 0 || n < x.concurrent {
			x.concurrent = n
		}
		zones := c.MaxZones
		if zones > 0 && parallel > zones {
			zones = parallel // growing parallelism raises the number of zones
		}
		if zones > 0 && (x.maxZones == 0 || zones < x.maxZones) {
			x.maxZones = zones
		}
		x.exclusive = x.exclusive || !c.SharedHost
	}
	for _, o := range g.open {
		if o.Status.Live() {
			take(&o.Config.Capacity, o.parallel())
		}
	}
	if x.concurrent == 0 {
		take(&g.Config.Capacity, 0)
	}
	return x
}

// parallel is the number of zone waves that are open together.
func (dep *Deployment) parallel() int {
	n := 0
	for i := range dep.Waves {
		if w := &dep.Waves[i]; w.Zone != "" && w.Status == WaveStatusDeploying {
			n++
		}
	}
	return n
}

// granting collects the permits of one fact.
type granting struct {
	d     *decision
	dep   *Deployment
	wave  int
	led   *ledger
	x     terms
	limit int
	items []Grant
}

func (g *granting) p() *progress { return g.dep.waves[g.wave] }

// granting opens a wave for permits forward, or returns nil when a hold keeps
// every grant of it back.
func (d *decision) granting(w openWave) *granting {
	grp := d.s.group(w.dep)
	p, wave := w.dep.waves[w.wave], &w.dep.Waves[w.wave]
	if p.weak.empty() && p.ready.empty() || d.s.frozen(grp) != nil {
		return nil
	}
	if b := w.dep.Config.Stage.Barrier; !wave.Released && b != "" && b != "none" {
		if have, need, _ := w.dep.quorum(w.wave); have < need {
			return nil
		}
	}
	limit := grantBatch
	if (wave.OneBox || wave.Rehearse && wave.Rehearsed == 0 && w.dep.rehearsable(grp, w.wave)) && !w.dep.oneBoxPassed(w.wave) {
		if limit = 1 - p.permits; limit <= 0 || wave.OneBox && p.settledUp > 0 { // the first host's gates have not passed
			return nil
		}
	}
	return &granting{d: d, dep: w.dep, wave: w.wave, led: d.ledger(grp), x: d.groupTerms(grp), limit: limit}
}

// oneBoxPassed reports whether the first host of the wave is settled and the
// gates that ask hosts have passed there.
func (dep *Deployment) oneBoxPassed(i int) bool {
	p, w := dep.waves[i], &dep.Waves[i]
	if p.tasks[TaskSettled] == 0 || p.settledUp == 0 {
		return false
	}
	for _, name := range w.Gates {
		gate := dep.Config.gate(name)
		if gate == nil || !gate.Observed() || gate.scope() != ScopeHost || dep.promoted(w.Name, name) {
			continue
		}
		passed := false
		for _, x := range sorted(w.Watch) {
			passed = passed || x.Gate == name && x.Last.Answer == VerdictPass
		}
		if !passed {
			return false
		}
	}
	return true
}

// from grants to the members of the set while anything fits.
func (g *granting) from(set bitset) {
	set.each(func(j int) bool { return g.try(g.dep.Waves[g.wave].Hosts[j]) })
}

// try grants one target its goal. It returns false when no other can fit.
func (g *granting) try(host string) bool {
	if len(g.items) >= g.limit {
		return false
	}
	t, goal := g.d.s.Target(host, g.dep.App), g.dep.Tasks[host].goal(g.dep)
	if t == nil || t.host.Unreachable || t.Quarantined && g.dep.Tasks[host].Status == TaskWaiting || !t.HasStaged(goal) {
		return true
	}
	if g.dep.claimed(g.led.g, t, TaskReverting) {
		return true
	}
	kind, err := g.led.admit(t, g.x)
	if err != nil {
		var floor *floorError
		full := errors.As(err, &floor) && floor.Zone == ""
		return !full && g.led.g.usage("").permits+g.led.taken[""] < g.x.concurrent
	}
	g.led.take(t, kind, g.x)
	g.items = append(g.items, Grant{Host: host, Gen: t.Gen + 1, Kind: kind, Goal: goal})
	return true
}

func (g *granting) emit() {
	if len(g.items) == 0 {
		return
	}
	g.d.emit(PermitsGranted{
		Deployment: g.dep.ID, Wave: g.wave, Concurrent: g.x.concurrent, MaxZones: g.x.maxZones,
		Floors: g.x.floors, Items: g.items,
	})
}

// goal is what the task moves its target to now.
func (task *Task) goal(dep *Deployment) Digest {
	if task.Status == TaskReverting || task.Phase == 1 {
		return task.Goal
	}
	return dep.Revision
}

// rehearsable reports whether some target of the wave has another good revision
// to go back to; without one a rehearsal is left out.
func (dep *Deployment) rehearsable(g *Group, i int) bool {
	for _, h := range dep.Waves[i].Hosts {
		if t, task := g.target(h), dep.Tasks[h]; t != nil && task != nil && !task.Status.Terminal() && dep.rehearsalGoal(t) != "" {
			return true
		}
	}
	return false
}

// rehearsalGoal is the revision that a rehearsal goes back to, or "".
func (dep *Deployment) rehearsalGoal(t *Target) Digest {
	return t.lastGood(func(seal Seal) bool { return seal.Deployment == dep.ID || seal.Revision == dep.Revision })
}
