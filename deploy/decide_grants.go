package deploy

import "errors"

// ledger opens the books of the deployment's group for this decision.
func (d *decision) ledger(dep *Deployment) *ledger {
	return d.s.ledger(d.s.Groups[GroupKey(dep.App, dep.Group)], d.hosts)
}

// terms computes the limits for work forward.
func (d *decision) terms(dep *Deployment, g *Group) terms {
	c := &dep.Config.Capacity
	zones := c.MaxZones
	if n := dep.parallel(); zones > 0 && n > zones {
		zones = n // growing parallelism raises the number of zones
	}
	return terms{
		concurrent: max(1, c.MaxConcurrent.Down(g.usage("").members)),
		maxZones:   zones,
		floors:     c.floors(g, g.Zones()),
		exclusive:  !c.SharedHost,
	}
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

// grants gives wave i the permits that fit: first to targets that do not
// serve, then in the order of the plan.
func (d *decision) grants(dep *Deployment, i int, led *ledger) {
	p, x := dep.waves[i], d.terms(dep, led.g)
	limit := grantBatch
	if dep.Waves[i].OneBox && p.tasks[TaskSettled] == 0 {
		limit = 1 - p.tasks[TaskGranted]
	}
	g := &granting{d: d, dep: dep, wave: i, led: led, x: x, limit: limit}
	g.from(p.weak)
	g.from(p.ready)
	g.emit()
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

// from grants to the members of the set while anything fits.
func (g *granting) from(set bitset) {
	set.each(func(j int) bool {
		h := g.dep.Waves[g.wave].Hosts[j]
		return g.try(h, g.dep.Revision)
	})
}

// try grants one target its goal. It returns false when no other can fit.
func (g *granting) try(host string, goal Digest) bool {
	if len(g.items) >= g.limit {
		return false
	}
	t := g.d.s.Target(host, g.dep.App)
	if t == nil || g.d.s.Hosts[host].Unreachable || !t.HasStaged(goal) {
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
