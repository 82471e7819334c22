package deploy

// catchUps grants what targets that are behind need, group by group.
func (d *decision) catchUps() {
	for _, g := range d.s.groups {
		if len(g.catchingUp) > 0 {
			d.catchUpsLost(g)
		}
		if len(g.behind) == 0 || d.revertBegins[g] {
			continue // or a revert set begins, and what targets should run changes
		}
		frozen := d.s.Frozen(g) != nil
		led, x := d.ledger(g), d.groupTerms(g)
		var births, late []Grant
		var unstaged []TaskEnd
		for host := range sorted(g.behind) {
			t := d.s.Target(host, g.App)
			kind, goal := g.catchUp(t)
			if kind == CatchUpNone || d.now < t.RetryAt || d.down[host] {
				continue
			}
			if !t.HasStaged(goal) {
				if t.StageFailed == goal {
					unstaged = append(unstaged,
						TaskEnd{
							Host: host, Status: TaskStageFailed, Gen: t.Gen, Counter: t.Counter,
							Cause: "the bundle could not be staged",
						})
				}
				continue
			}
			if frozen && !t.goesBack(g) {
				continue
			}
			grant := Grant{Host: host, Gen: t.Gen + 1, Kind: PermitConditional, Goal: goal}
			if kind == CatchUpBirth {
				if led.mutex(t, x) == nil {
					led.hosts[host] = led.hosts[host] || x.exclusive
					births = append(births, grant)
				}
				continue
			}
			permit, err := led.admit(t, x)
			if err != nil {
				continue
			}
			led.take(t, permit, x)
			grant.Kind = permit
			late = append(late, grant)
		}
		if len(unstaged) > 0 {
			d.emit(TasksEnded{App: g.App, Group: g.Name, Items: unstaged})
		}
		d.emitCatchUps(g, CatchUpBirth, x, births)
		d.emitCatchUps(g, CatchUpLate, x, late)
	}
}

func (d *decision) emitCatchUps(g *Group, kind CatchUp, x terms, items []Grant) {
	if len(items) > 0 {
		d.emit(PermitsGranted{
			App: g.App, Group: g.Name, Wave: -1, CatchUp: kind, RetryAfter: catchUpRetry,
			Concurrent: x.concurrent, MaxZones: x.maxZones, Floors: x.floors, Items: items,
		})
	}
}

// catchUpsLost ends the permits of catch-ups that nobody will report on.
func (d *decision) catchUpsLost(g *Group) {
	var items []TaskEnd
	limits := g.Config.Timeouts
	for host := range sorted(g.catchingUp) {
		t := d.s.Target(host, g.App)
		if t.Permit != PermitNone && (d.away(host, limits.LostAfter) || d.now.Sub(t.GrantedAt) >= limits.Task) {
			items = append(items, TaskEnd{
				Host: host, Status: TaskLost, Gen: t.Gen, Counter: t.Counter,
				Cause: "no result",
			})
		}
	}
	if len(items) > 0 {
		d.emit(TasksEnded{App: g.App, Group: g.Name, Items: items})
	}
}
