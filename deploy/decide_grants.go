package deploy

import "errors"

// grants gives what fits, in order: reverts; then of all waves, older
// deployments and earlier waves first, targets that do not serve; then, in the
// order of the plan, targets that do.
func (d *decision) grants() {
	d.reverts()
	var waves []*granting
	for _, w := range d.forward {
		if g := d.granting(w); g != nil {
			waves = append(waves, g)
		}
	}
	for _, g := range waves {
		g.from(g.p().stagedNotServing)
	}
	for _, g := range waves {
		g.from(g.p().stagedServing)
		g.emit()
	}
}

// reverts grants ways back, under the rates of the rollback policy.
func (d *decision) reverts() {
	for _, w := range d.backward {
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
				if t := g.p().targets[j]; t.Serving() == serving {
					return g.try(t)
				}
				return true
			})
		}
		g.emit()
	}
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
	if p.stagedNotServing.empty() && p.stagedServing.empty() || d.s.frozen(grp, w.dep) != nil {
		return nil
	}
	if b := w.dep.Config.Stage.Barrier; !wave.Released && b != "" && b != "none" {
		if have, need, _ := w.dep.quorum(w.wave); have < need {
			return nil
		}
	}
	limit := grantBatch
	if (wave.OneBox || wave.Rehearse && wave.Rehearsed == 0 && w.dep.rehearsable(grp, w.wave)) &&
		!w.dep.oneBoxPassed(w.wave) {
		// the first host's gates have not passed
		if limit = 1 - p.permits; limit <= 0 || wave.OneBox && p.settledUp > 0 {
			return nil
		}
	}
	return &granting{d: d, dep: w.dep, wave: w.wave, led: d.ledger(grp), x: d.groupTerms(grp), limit: limit}
}

// from grants to the members of the set while anything fits.
func (g *granting) from(set bitset) {
	set.each(func(j int) bool { return g.try(g.p().targets[j]) })
}

// try grants one target its goal. It returns false when no other can fit.
func (g *granting) try(t *Target) bool {
	if len(g.items) >= g.limit {
		return false
	}
	task := g.dep.Tasks[t.Host]
	goal := task.goal(g.dep)
	if t.host.Unreachable || task.Status == TaskWaiting && (t.Quarantined || !g.dep.ready(t, task)) ||
		!t.HasStaged(goal) {
		return true
	}
	if g.dep.claimed(g.led.g, t, TaskReverting) {
		return true
	}
	kind, err := g.led.admit(t, g.x)
	if err != nil {
		var floor *floorError
		full := errors.As(err, &floor) && floor.Zone == "" && floor.Label == ""
		return !full && g.led.g.usage("").permits+g.led.taken[""] < g.x.concurrent
	}
	g.led.take(t, kind, g.x)
	g.items = append(g.items, Grant{Host: t.Host, Gen: t.Gen + 1, Kind: kind, Goal: goal})
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
