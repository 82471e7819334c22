package deploy

import (
	"fmt"
	"slices"
)

// floor returns the floor of a domain with n registered targets, and whether
// it had to be relaxed. A count is never relaxed, nor is anything in a
// config that says reject.
func (c *Capacity) floor(share Share, n int) (floor int, relaxed bool) {
	f := share.Up(n)
	if f < n || n == 0 || f == 0 || !share.Relative || c.SmallFleet == "reject" {
		return f, false
	}
	return n - 1, true
}

// floors returns the floors of every domain of the group that has one.
func (c *Capacity) floors(g *Group, zones []string) []Floor {
	f, _ := c.floor(c.MinHealthy, g.usage("").registered)
	out := []Floor{{Zone: "", Min: f}}
	if c.MinHealthyPerZone != nil {
		for _, z := range zones {
			f, _ := c.floor(*c.MinHealthyPerZone, g.usage(z).registered)
			out = append(out, Floor{Zone: z, Min: f})
		}
	}
	return out
}

// terms are the limits under which permits are granted. They are computed by
// Decide and written in the fact.
type terms struct {
	concurrent int
	maxZones   int
	floors     []Floor
	exclusive  bool
}

// ledger answers the permit rule. Apply asks it of the committed state; Decide
// takes what it grants in the same fact, so that it never plans more than fits.
type ledger struct {
	s        *State
	g        *Group
	taken    map[string]int  // zone -> permits granted in this fact
	disabled map[string]int  // zone -> serving targets taken in this fact
	hosts    map[string]bool // hosts granted in this decision, whether alone; shared by its ledgers
}

func (s *State) ledger(g *Group, hosts map[string]bool) *ledger {
	return &ledger{s: s, g: g, taken: map[string]int{}, disabled: map[string]int{}, hosts: hosts}
}

// admit returns the kind of permit that the target may have now, or why not.
func (l *ledger) admit(t *Target, x terms) (Permit, error) {
	if t.Permit != PermitNone {
		return PermitNone, fmt.Errorf("%s holds a permit", t.Host)
	}
	if p := l.g.usage("").permits + l.taken[""]; p >= x.concurrent {
		return PermitNone, fmt.Errorf("%d of %d permits are out", p, x.concurrent)
	}
	if err := l.zone(t, x); err != nil {
		return PermitNone, err
	}
	if err := l.mutex(t, x); err != nil {
		return PermitNone, err
	}
	if !t.Serving() && !t.aside() {
		return PermitConditional, nil
	}
	for _, f := range x.floors {
		if f.Zone != "" && f.Zone != t.Zone {
			continue
		}
		s := l.g.usage(f.Zone).serving - l.disabled[f.Zone] + count(t.aside()) // who is not counted takes nothing away
		if s-1 < f.Min {
			return PermitNone, &floorError{Zone: f.Zone, Serving: s, Min: f.Min}
		}
	}
	if len(x.floors) > 0 { // else the policy ignores them
		if err := l.quorum(t); err != nil {
			return PermitNone, err
		}
	}
	return PermitNormal, nil
}

// quorum tests the floor of everybody who has the target's value of a label.
func (l *ledger) quorum(t *Target) error {
	for _, q := range l.g.quorums {
		key := q.domain(t.host)
		if key == "" {
			continue
		}
		u := l.g.usage(key)
		s, least := u.serving-l.disabled[key]+count(t.aside()), u.registered-q.MaxDown
		if s-count(t.Serving() || t.aside()) < least {
			return &floorError{Label: q.Label + "=" + t.host.Labels[q.Label], Serving: s, Min: least}
		}
	}
	return nil
}

// domain is the key of the usage of whom the host shares the label's value with; "" for
// a host without it. No zone is called so.
func (q QuorumGroup) domain(h *Host) string {
	v := h.Labels[q.Label]
	if v == "" {
		return ""
	}
	return "\x00" + q.Label + "=" + v
}

// findQuorums derives what quorum groups bind work in the group: those of every live
// deployment, of none the group's own. It runs while nothing is counted.
func (g *Group) findQuorums() {
	g.quorums = nil
	add := func(q *QuorumGroup) {
		if q == nil {
			return
		}
		i := slices.IndexFunc(g.quorums, func(o QuorumGroup) bool { return o.Label == q.Label })
		if i < 0 {
			g.quorums = append(g.quorums, *q)
		} else {
			g.quorums[i].MaxDown = min(g.quorums[i].MaxDown, q.MaxDown)
		}
	}
	for _, d := range g.open {
		add(d.Config.Capacity.QuorumGroup)
	}
	if len(g.open) == 0 {
		add(g.Config.Capacity.QuorumGroup)
	}
}

// take books a grant that admit allowed.
func (l *ledger) take(t *Target, kind Permit, x terms) {
	for _, z := range []string{"", t.Zone} {
		l.taken[z]++
		if kind == PermitNormal && t.Serving() {
			l.disabled[z]++
		}
		if t.Zone == "" {
			break
		}
	}
	for _, q := range l.g.quorums {
		if key := q.domain(t.host); key != "" && kind == PermitNormal && t.Serving() {
			l.disabled[key]++
		}
	}
	l.hosts[t.Host] = l.hosts[t.Host] || x.exclusive
}

// zone tests how many zones have permits outstanding.
func (l *ledger) zone(t *Target, x terms) error {
	if x.maxZones <= 0 || l.busy(t.Zone) {
		return nil
	}
	n := 0
	for _, z := range l.g.Zones() {
		if l.busy(z) {
			n++
		}
	}
	if n >= x.maxZones {
		return fmt.Errorf("%d zones have permits out, the most at a time", n)
	}
	return nil
}

func (l *ledger) busy(zone string) bool { return l.g.usage(zone).permits+l.taken[zone] > 0 }

// mutex tests that no other application of the host is being disrupted, when
// either of the two wants to be alone.
func (l *ledger) mutex(t *Target, x terms) error {
	if len(l.hosts) > 0 {
		if alone, granted := l.hosts[t.Host]; granted && (alone || x.exclusive) {
			return fmt.Errorf("%s was granted a permit just now", t.host.Name)
		}
	}
	if len(t.host.Targets) == 1 {
		return nil
	}
	for _, other := range sorted(t.host.Targets) {
		if other.Permit != PermitNone && (x.exclusive || l.s.exclusive(other)) {
			return fmt.Errorf("%s is busy with another application, and one of the two wants the host alone",
				t.host.Name) // whose, is not for everybody who reads this
		}
	}
	return nil
}

// floorError says that a grant would break a floor.
type floorError struct {
	Zone         string
	Label        string // key=value of a quorum group
	Serving, Min int
}

func (e *floorError) Error() string {
	where := "the group"
	switch {
	case e.Zone != "":
		where = "zone " + e.Zone
	case e.Label != "":
		where = e.Label
	}
	return fmt.Sprintf("%s serves with %d, the floor is %d", where, e.Serving, e.Min)
}
