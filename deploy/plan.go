package deploy

import (
	"fmt"
	"slices"
	"time"
)

// PlanInput is what a plan is made for.
type PlanInput struct {
	App, Group string
	Revision   Digest
	Config     Config
	Redeploy   bool
	Force      bool
}

// Planned is what a deployment would do now: the waves that it would freeze
// and what a person should know before.
type Planned struct {
	Waves      []Wave
	Concurrent int
	Capacity   []string // the arithmetic, one sentence a domain
	Notes      []string
	Holds      []string // what would keep it from starting now
	Estimate   time.Duration
	Changes    bool // some target does not run the revision
}

// Plan lays the group's present targets out in waves and checks that the
// config can be kept. It refuses what could never proceed.
func Plan(s *State, in PlanInput) (Planned, error) {
	g := s.Groups[GroupKey(in.App, in.Group)]
	if g == nil {
		return Planned{}, refuse(NotFound, "no group %s of %s", in.Group, in.App)
	}
	if len(g.Members) == 0 {
		return Planned{}, refuse(Invalid, "group %s of %s has no host: no enrolled host matches `%s`; see `dctl hosts list`", in.Group, in.App, g.Selector)
	}
	var hosts []*Host
	p := Planned{}
	for _, id := range g.Hosts() {
		hosts = append(hosts, s.Hosts[id])
		t := s.Target(id, in.App)
		p.Changes = p.Changes || in.Redeploy || t.Running != in.Revision || t.Health != HealthHealthy
		if t.Away {
			p.Notes = append(p.Notes, fmt.Sprintf("%s is unreachable and counts against the failure budget of its wave unless it returns", s.hostName(id)))
		}
	}
	c := &in.Config.Capacity
	p.Waves = Arrange(in.Config.Waves, hosts)
	p.Concurrent = max(1, c.MaxConcurrent.Down(len(hosts)))
	if err := p.capacity(c, hosts); err != nil {
		return Planned{}, err
	}
	p.estimate()
	p.holds(s, g, in)
	return p, nil
}

// capacity checks the floors as they will be once every target is healthy.
func (p *Planned) capacity(c *Capacity, hosts []*Host) error {
	zones := map[string]int{}
	for _, h := range hosts {
		zones[h.Zone]++
	}
	if err := p.domain(c, "the group", c.MinHealthy, len(hosts)); err != nil {
		return err
	}
	if c.MinHealthyPerZone == nil {
		return nil
	}
	for z, n := range sorted(zones) {
		if err := p.domain(c, "zone "+z, *c.MinHealthyPerZone, n); err != nil {
			return err
		}
	}
	return nil
}

func (p *Planned) domain(c *Capacity, where string, share Share, n int) error {
	floor, relaxed := c.floor(share, n)
	switch {
	case floor >= n && floor > 0:
		return refuse(Invalid, "minHealthy %s of %d in %s is %d: no host could ever leave service; lower it, or set capacity.smallFleet: relax", share, n, where, floor)
	case relaxed:
		p.Notes = append(p.Notes, fmt.Sprintf("minHealthy %s of %d in %s is %d, which no deployment could keep: relaxed to %d", share, n, where, share.Up(n), floor))
	}
	if n == 1 && floor == 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s has one host: the application is down while it is replaced", where))
	}
	p.Capacity = append(p.Capacity, fmt.Sprintf("%s: %d of %d may be out at a time, at least %d stay in service", where, min(p.Concurrent, n-floor), n, floor))
	return nil
}

func (p *Planned) estimate() {
	last := -1
	for i, w := range p.Waves {
		if len(w.Hosts) == 0 {
			continue
		}
		if w.Batch != last {
			p.Estimate += w.BakeMin
			last = w.Batch
		}
		p.Waves[i].Budget = w.Share.Down(len(w.Hosts))
	}
}

func (p *Planned) holds(s *State, g *Group, in PlanInput) {
	if d := s.Newest(in.App, in.Group); d != nil {
		p.Holds = append(p.Holds, fmt.Sprintf("deployment %s of %s is in flight (%s)", d.ID, d.RevName, d.Status))
	}
	if by := g.Bad[in.Revision]; by != "" && !in.Force {
		p.Holds = append(p.Holds, fmt.Sprintf("revision %s is marked bad by deployment %s", s.RevisionName(in.App, in.Revision), by))
	}
}

// Holds says, in words, what a deployment waits for at FSM time now; empty when it moves
// or has ended. Every deployment that does not move has a hold (S5).
func Holds(s *State, d *Deployment, now Time) []string {
	switch {
	case d.Status.Terminal():
		return nil
	case d.Status == DeploymentStatusPaused && d.Decision:
		return []string{"waits for a decision: " + d.Cause}
	case d.Status == DeploymentStatusPaused:
		return []string{"paused by an operator"}
	}
	var out []string
	for i := range d.Waves {
		w, p := &d.Waves[i], d.waves[i]
		switch w.Status {
		case WaveStatusBaking:
			out = append(out, s.bakeHold(d, i, now))
		case WaveStatusDeploying:
			out = append(out, s.waveHolds(d, i)...)
		case WaveStatusReverting:
			if n := p.tasks[TaskReverting]; n > 0 {
				out = append(out, fmt.Sprintf("%s: %d hosts go back", w.Name, n))
				if p.granted.empty() {
					out = append(out, s.floorHold(d, w))
				}
			}
		case WaveStatusPending, WaveStatusSealed, WaveStatusSkipped, WaveStatusReverted:
		}
	}
	return out
}

func (s *State) bakeHold(d *Deployment, i int, now Time) string {
	w, p := &d.Waves[i], d.waves[i]
	if left := w.BakeUntil.Sub(now); left > 0 {
		return fmt.Sprintf("%s: bakes for %s more", w.Name, left.Round(time.Second))
	}
	if n := p.tasks[TaskSettled] - p.settledUp; n > 0 {
		return fmt.Sprintf("%s: no health from %d of %d hosts", w.Name, n, p.tasks[TaskSettled])
	}
	return w.Name + ": bake is over"
}

// waveHolds names whom a deploying wave waits for.
func (s *State) waveHolds(d *Deployment, i int) []string {
	w, p := &d.Waves[i], d.waves[i]
	var out []string
	name := func(set bitset, why string) {
		var hosts []string
		set.each(func(j int) bool {
			hosts = append(hosts, s.hostName(w.Hosts[j]))
			return len(hosts) < 4
		})
		if len(hosts) > 3 {
			hosts = append(hosts[:3], "...")
		}
		if len(hosts) > 0 {
			out = append(out, fmt.Sprintf("%s: %s: %v", w.Name, why, hosts))
		}
	}
	name(p.stuck, "unreachable or not staged")
	name(p.granted, "works on")
	if p.granted.empty() && (!p.ready.empty() || !p.weak.empty()) {
		out = append(out, s.floorHold(d, w))
	}
	return slices.Compact(out)
}

func (s *State) floorHold(d *Deployment, w *Wave) string {
	g := s.Groups[GroupKey(d.App, d.Group)]
	u := g.usage("")
	floor, _ := d.Config.Capacity.floor(d.Config.Capacity.MinHealthy, u.registered)
	text := fmt.Sprintf("%s: %d of %d serve, the floor is %d", w.Name, u.serving, u.registered, floor)
	n := 0
	for _, id := range g.Hosts() {
		if t := s.Target(id, d.App); t.EverHealthy && !t.Serving() {
			if n++; n > 5 {
				return text + "; ..."
			}
			text += "; " + s.hostName(id) + " is " + t.Health.String()
		}
	}
	return text
}
