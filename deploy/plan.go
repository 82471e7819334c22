package deploy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// PlanInput is what a plan is made for.
type PlanInput struct {
	App, Group string
	Revision   Digest
	Config     Config
	Redeploy   bool
	Force      bool
	Skip       []Skip
}

// Planned is what a deployment would do now: the waves that it would freeze
// and what a person should know before.
type Planned struct {
	Waves      []Wave
	Layout     uint64 // of the group, which deployments in flight share; 0: these waves make a new one
	Concurrent int
	Capacity   []string // the arithmetic, one sentence a domain
	Notes      []string
	Holds      []string // what would keep it from starting now
	Estimate   time.Duration
	Changes    bool            // some target does not run the revision
	Exposed    []int           // hosts that run the revision when each wave is done
	Starts     []time.Duration // of each wave, if nothing fails or holds: bakes alone
	Exposure   []string        // the blast radius, and the worst case
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
	for _, t := range g.list {
		hosts = append(hosts, t.host)
		p.Changes = p.Changes || in.Redeploy || t.Running != in.Revision || t.Health != HealthHealthy
		if t.Away {
			p.Notes = append(p.Notes, fmt.Sprintf("%s is unreachable and counts against the failure budget of its wave unless it returns", t.host.Name))
		}
	}
	c := &in.Config.Capacity
	if err := p.waves(g, in.Config.Waves, hosts); err != nil {
		return Planned{}, err
	}
	p.Concurrent = max(1, c.MaxConcurrent.Down(len(hosts)))
	if err := p.capacity(c, hosts); err != nil {
		return Planned{}, err
	}
	p.estimate()
	p.blast(len(hosts), c)
	p.holds(s, g, in)
	return p, nil
}

// waves lays the hosts out, or takes the layout that deployments in flight
// follow: budgets, gates and bakes are this config's, order and hosts are not.
func (p *Planned) waves(g *Group, specs []WaveSpec, hosts []*Host) error {
	if len(g.open) == 0 {
		p.Waves = Arrange(specs, hosts)
		return nil
	}
	if !g.Layout.compatible(specs) {
		d := g.open[0]
		return refuse(Conflict, "the config selects other waves than deployment %s of %s, which is in flight (%s); deployments in flight share their waves: wait for it, or abort it", d.ID, d.RevName, d.Status)
	}
	p.Layout = g.Layout.Version
	for i := range g.Layout.Waves {
		l := &g.Layout.Waves[i]
		w := specs[l.Spec].wave(l.Name, l.Zone, l.Spec, l.Batch)
		w.Hosts = slices.Clone(l.Hosts)
		p.Waves = append(p.Waves, w)
	}
	return nil
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
	last, bake := -1, time.Duration(0)
	for i, w := range p.Waves {
		p.Waves[i].Budget = w.Share.Down(len(w.Hosts))
		if w.Batch != last { // waves of a batch run together: the longest bake counts
			p.Estimate += bake
			last, bake = w.Batch, 0
		}
		p.Starts = append(p.Starts, p.Estimate)
		if len(w.Hosts) > 0 {
			bake = max(bake, w.BakeMin)
		}
	}
	p.Estimate += bake
}

// blast says how many hosts run a revision before anybody has judged it: a bad
// one that shows in the bake of a wave is on that wave and those before; and
// the most that can be out of service at once.
func (p *Planned) blast(n int, c *Capacity) {
	sum := 0
	for i := range p.Waves {
		w := &p.Waves[i]
		sum += len(w.Hosts)
		p.Exposed = append(p.Exposed, sum)
		if len(w.Hosts) == 0 {
			continue
		}
		seen := "before anything but the hooks has judged it"
		switch {
		case len(w.Gates) > 0 && w.BakeMin > 0:
			seen = fmt.Sprintf("when gates %s judge it, for %s at least", strings.Join(w.Gates, ", "), short(w.BakeMin))
		case w.BakeMin > 0:
			seen = fmt.Sprintf("while it bakes for %s", short(w.BakeMin))
		}
		p.Exposure = append(p.Exposure, fmt.Sprintf("%s: %d of %d hosts (%d %%) run it %s", w.Name, sum, n, (sum*100+n-1)/n, seen))
	}
	floor, _ := c.floor(c.MinHealthy, n)
	out := min(p.Concurrent, n-floor)
	p.Exposure = append(p.Exposure, fmt.Sprintf("worst case: %d of %d hosts are out of service at a time, and as many as fail their way back", max(out, 0), n))
}

func (p *Planned) holds(s *State, g *Group, in PlanInput) {
	for _, d := range g.open {
		text := fmt.Sprintf("deployment %s of %s is in flight (%s): each wave is entered once that one has sealed it", d.ID, d.RevName, d.Status)
		if in.Config.InFlight.Queue == QueueReject {
			text = fmt.Sprintf("deployment %s of %s is in flight (%s), and `inFlight.queue: reject` refuses a second one", d.ID, d.RevName, d.Status)
		}
		p.Holds = append(p.Holds, text)
	}
	if f := s.frozen(g); f != nil {
		p.Holds = append(p.Holds, "frozen by "+f.Actor+reason(f.Reason))
	}
	for _, name := range in.Config.PreGates {
		gate := in.Config.gate(name)
		switch {
		case gate == nil:
		case gate.Approval != nil:
			p.Holds = append(p.Holds, fmt.Sprintf("gate %s needs %d approvals", name, max(1, gate.Approval.Count)))
		case gate.Window != "":
			p.Holds = append(p.Holds, fmt.Sprintf("gate %s is open %s", name, gate.Window))
		}
	}
	if by := g.Bad[in.Revision]; by != "" && !in.Force {
		p.Holds = append(p.Holds, fmt.Sprintf("revision %s is marked bad by deployment %s", s.RevisionName(in.App, in.Revision), by))
	}
}

// Holds says, in words, what a deployment waits for at FSM time now; empty when it moves
// or has ended. Every deployment that does not move has a hold (S5).
func Holds(s *State, d *Deployment, now Time) []string {
	if d.Status.Terminal() {
		return nil
	}
	var out []string
	if f := s.frozen(s.group(d)); f != nil && d.Status != DeploymentStatusRollingBack {
		out = append(out, "frozen by "+f.Actor+reason(f.Reason))
	}
	if d.ScopeRevert != nil {
		out = append(out, "takes "+d.ScopeRevert.Scope+" back: "+d.ScopeRevert.Cause)
		for i := range d.Waves {
			if d.Waves[i].Status == WaveStatusReverting {
				out = append(out, s.revertHolds(d, i)...)
			}
		}
		return out
	}
	switch {
	case d.Status == DeploymentStatusPending:
		return append(out, s.pendingHolds(d)...)
	case d.Status == DeploymentStatusPaused && d.Decision:
		text := "waits for a decision: " + d.Cause
		if d.DecideBy > 0 {
			text += fmt.Sprintf("; rolls everything back in %s", max(0, d.DecideBy.Sub(now)).Round(time.Second))
		}
		return append(out, text)
	case d.Status == DeploymentStatusPaused:
		return append(out, "paused by an operator")
	}
	for i := range d.Waves {
		w := &d.Waves[i]
		switch w.Status {
		case WaveStatusBaking:
			out = append(out, s.bakeHold(d, i, now))
		case WaveStatusDeploying:
			out = append(out, s.waveHolds(d, i)...)
		case WaveStatusReverting:
			out = append(out, s.revertHolds(d, i)...)
		case WaveStatusHeld:
			for _, h := range w.Holds {
				out = append(out, w.Name+": "+h.Text)
			}
		case WaveStatusPending, WaveStatusSealed, WaveStatusSkipped, WaveStatusReverted:
		}
	}
	return out
}

// revertHolds names whom a reverting wave waits for.
func (s *State) revertHolds(d *Deployment, i int) []string {
	p, w := d.waves[i], &d.Waves[i]
	n := p.tasks[TaskReverting]
	if n == 0 {
		return nil
	}
	out := []string{fmt.Sprintf("%s: %d hosts go back", w.Name, n)}
	if p.granted.empty() {
		out = append(out, s.floorHold(d, w))
	}
	return out
}

// pendingHolds says why a deployment has not started.
func (s *State) pendingHolds(d *Deployment) []string {
	var out []string
	if d.Held {
		out = append(out, "paused by an operator")
	}
	if d.Preempt {
		for _, gate := range d.waiting("") {
			out = append(out, d.gateHold(&d.Waves[0], gate).Text)
		}
	}
	for _, h := range s.startHolds(d, s.group(d)) {
		out = append(out, h.Text)
	}
	return out
}

func (s *State) bakeHold(d *Deployment, i int, now Time) string {
	w, p := &d.Waves[i], d.waves[i]
	if d.PausedAt > 0 {
		now = d.PausedAt
	}
	if left := w.BakeUntil.Sub(now); left > 0 {
		return fmt.Sprintf("%s: bakes for %s more", w.Name, left.Round(time.Second))
	}
	if n := p.evidence - p.settledUp; n > 0 {
		return fmt.Sprintf("%s: no health from %d of %d hosts", w.Name, n, p.evidence)
	}
	e := d.evidence(i)
	switch {
	case e.open != "":
		return fmt.Sprintf("%s: gate %s is inconclusive; waits until %s, then `onInconclusive: %s`", w.Name, e.open, short(w.Max()), cmp.Or(d.Config.OnInconclusive, "hold"))
	case e.samples < w.Samples:
		return fmt.Sprintf("%s: %d of %d samples", w.Name, e.samples, w.Samples)
	case !e.covered(now, w):
		return w.Name + ": answers cover less than 95 % of the bake"
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
	if b := d.Config.Stage.Barrier; !w.Released && b != "" && b != "none" {
		if have, need, _ := d.quorum(i); have < need {
			out = append(out, fmt.Sprintf("%s: %d of %d targets must be staged first", w.Name, have, need))
		}
	}
	if p.granted.empty() && w.OneBox && p.settledUp > 0 && !d.oneBoxPassed(i) {
		return append(out, fmt.Sprintf("%s: the gates of its first host have not passed", w.Name))
	}
	if p.granted.empty() && (!p.stagedServing.empty() || !p.stagedNotServing.empty()) {
		out = append(out, s.floorHold(d, w))
	}
	return slices.Compact(out)
}

func (s *State) floorHold(d *Deployment, w *Wave) string {
	g := s.Groups[GroupKey(d.App, d.Group)]
	u := g.usage("")
	floor := floors(g)[0].Min
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
