package deploy

import (
	"cmp"
	"errors"
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
	Emergency  bool
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
	Passed     []string // what would, were it no emergency
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
		return Planned{}, refuse(Invalid,
			"group %s of %s has no host: no enrolled host that is in no other group of it "+
				"matches `%s`; see `dctl hosts list`", in.Group, in.App, g.Selector)
	}
	var hosts []*Host
	p := Planned{}
	for _, t := range g.list {
		hosts = append(hosts, t.host)
		p.Changes = p.Changes || in.Redeploy || t.Running != in.Revision || t.Health != HealthHealthy
		if t.Away {
			p.Notes = append(p.Notes, fmt.Sprintf(
				"%s is unreachable and counts against the failure budget of its wave unless it returns", t.host.Name))
		}
	}
	c := &in.Config.Capacity
	if err := p.waves(g, in, hosts); err != nil {
		return Planned{}, err
	}
	p.Concurrent = max(1, c.MaxConcurrent.Down(len(hosts)))
	if err := p.capacity(c, hosts); err != nil {
		return Planned{}, err
	}
	p.unserved(c, hosts)
	p.estimate()
	p.blast(len(hosts), c)
	p.holds(s, g, in)
	return p, nil
}

// waves lays the hosts out, or takes the layout that deployments in flight
// follow: budgets, gates and bakes are this config's, order and hosts are not.
func (p *Planned) waves(g *Group, in PlanInput, hosts []*Host) error {
	specs, shared := in.Config.Waves, g.sharing()
	if len(shared) == 0 {
		skipped := map[string]bool{}
		for _, x := range in.Skip {
			skipped[x.Host] = true
		}
		p.Waves = Arrange(g.App, specs, hosts, func(h *Host) bool {
			return h.Unreachable || h.isolated() || skipped[h.ID]
		})
		return nil
	}
	if !g.Layout.compatible(specs) {
		d := shared[0]
		return refuse(Conflict, "the config selects other waves than deployment %s of %s, which is in flight (%s); "+
			"deployments in flight share their waves: wait for it, or abort it", d.ID, d.RevName, d.Status)
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
		return refuse(Invalid, "minHealthy %s of %d in %s is %d: no host could ever leave service; lower it, or set "+
			"capacity.smallFleet: relax", share, n, where, floor)
	case relaxed:
		p.Notes = append(p.Notes, fmt.Sprintf("minHealthy %s of %d in %s is %d, which no deployment could keep: "+
			"relaxed to %d", share, n, where, share.Up(n), floor))
	}
	if n == 1 && floor == 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s has one host: the application is down while it is replaced", where))
	}
	p.Capacity = append(p.Capacity, fmt.Sprintf("%s: %d of %d may be out at a time, at least %d stay in service", where,
		min(p.Concurrent, n-floor), n, floor))
	return nil
}

// unserved notes the domains in which so many hosts are out for reasons of
// their own that none of the others could leave service.
func (p *Planned) unserved(c *Capacity, hosts []*Host) {
	note := func(where, zone string, share Share) {
		var away []string
		n := 0
		for _, h := range hosts {
			if zone != "" && h.Zone != zone {
				continue
			}
			if n++; h.Unreachable || h.isolated() {
				away = append(away, h.Name)
			}
		}
		floor, _ := c.floor(share, n)
		if serve := n - len(away); len(away) > 0 && serve > 0 && serve <= floor {
			slices.Sort(away)
			p.Notes = append(p.Notes, fmt.Sprintf("of %d hosts in %s at most %d serve while %s are cordoned, "+
				"quarantined or unreachable, and at least %d must stay in service: no other host can leave it until "+
				"they are back or forgotten", n, where, serve, firstFew(away), floor))
		}
	}
	note("the group", "", c.MinHealthy)
	zones := map[string]bool{}
	for _, h := range hosts {
		zones[h.Zone] = true
	}
	if c.MinHealthyPerZone != nil {
		for z := range sorted(zones) {
			note("zone "+z, z, *c.MinHealthyPerZone)
		}
	}
}

// firstFew names the first of many hosts.
func firstFew(names []string) string {
	if len(names) <= 3 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
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
		p.Exposure = append(p.Exposure, fmt.Sprintf("%s: %d of %d hosts (%d %%) run it %s", w.Name, sum, n,
			(sum*100+n-1)/n, seen))
	}
	floor, _ := c.floor(c.MinHealthy, n)
	out := min(p.Concurrent, n-floor)
	p.Exposure = append(p.Exposure, fmt.Sprintf(
		"worst case: %d of %d hosts are out of service at a time, and as many as fail their way back", max(out, 0), n))
}

func (p *Planned) holds(s *State, g *Group, in PlanInput) {
	for _, d := range g.open {
		text := fmt.Sprintf("deployment %s of %s is in flight (%s): each wave is entered once that one has sealed it",
			d.ID, d.RevName, d.Status)
		if in.Config.InFlight.Queue == QueueReject {
			text = fmt.Sprintf("deployment %s of %s is in flight (%s), and `inFlight.queue: reject` refuses a "+
				"second one", d.ID, d.RevName, d.Status)
		}
		p.Holds = append(p.Holds, text)
	}
	passed := &p.Holds
	if in.Emergency {
		passed = &p.Passed
	}
	if f := s.Frozen(g); f != nil {
		*passed = append(*passed, "frozen "+f.By())
	}
	for _, name := range in.Config.PreGates {
		gate := in.Config.gate(name)
		switch {
		case gate == nil:
		case gate.Approval != nil:
			*passed = append(*passed, fmt.Sprintf("gate %s needs %d approvals", name, max(1, gate.Approval.Count)))
		case gate.Window != "":
			*passed = append(*passed, fmt.Sprintf("gate %s is open %s", name, gate.Window))
		}
	}
	if by, where := s.bad(in.App, in.Revision); by != "" && !in.Force {
		p.Holds = append(p.Holds, fmt.Sprintf("revision %s is marked bad by deployment %s of group %s",
			s.RevisionName(in.App, in.Revision), by, where))
	}
}

// Holds says, in words, what a deployment waits for at FSM time now; empty when it moves
// or has ended. Every deployment that does not move has a hold (S5).
func Holds(s *State, d *Deployment, now Time) []string {
	if d.Status.Terminal() {
		return nil
	}
	var out []string
	if f := s.frozen(s.group(d), d); f != nil && d.Status != DeploymentStatusRollingBack {
		out = append(out, "frozen "+f.By())
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
		return append(append(out, "paused by an operator"), d.approvalHolds(now)...)
	}
	if d.AskAgain != 0 && d.Status == DeploymentStatusRunning {
		out = append(out, "asks gate "+s.unanswered(d)+" once more before it goes on")
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
				out = append(out, w.Name+": "+h.Text+d.approvalLeft(i, h, now))
			}
		case WaveStatusPending, WaveStatusSealed, WaveStatusSkipped, WaveStatusReverted:
		}
	}
	return out
}

// approvalHolds lists the approvals whose time passes while the deployment is
// paused.
func (d *Deployment) approvalHolds(now Time) []string {
	var out []string
	for i := range d.Waves {
		for _, h := range d.Waves[i].Holds {
			if left := d.approvalLeft(i, h, now); left != "" {
				out = append(out, d.Waves[i].Name+": "+h.Text+left)
			}
		}
	}
	return out
}

// approvalLeft says how long an approval may still be given; "" for ever, or it
// is none.
func (d *Deployment) approvalLeft(i int, h Hold, now Time) string {
	gate := d.Config.gate(h.Name)
	if gate == nil || d.approvalEnds(i, gate) == 0 {
		return ""
	}
	return fmt.Sprintf(", within %s", max(0, d.approvalEnds(i, gate).Sub(now)).Round(time.Second))
}

// revertHolds names whom a reverting wave waits for.
func (s *State) revertHolds(d *Deployment, i int) []string {
	p, w := d.waves[i], &d.Waves[i]
	n := p.tasks[TaskReverting]
	if n == 0 {
		return nil
	}
	out := []string{fmt.Sprintf("%s: %d hosts go back", w.Name, n)}
	if text := s.stagingHold(d, i); text != "" {
		return append(out, text)
	}
	if p.granted.empty() {
		out = append(out, s.floorHold(d, w))
	}
	return out
}

// stagingHold names whom a reverting wave waits for because the bundle cannot be
// fetched; staging for a way back is tried without end.
func (s *State) stagingHold(d *Deployment, i int) string {
	var hosts []string
	why := ""
	d.waves[i].reverting.each(func(j int) bool {
		h := d.Waves[i].Hosts[j]
		if t := s.Target(h, d.App); t.StageFailed != "" && t.StageFailed == d.Tasks[h].Goal {
			hosts = append(hosts, s.hostName(h))
			if t.StageReason != nil {
				why = ": " + t.StageReason.Message
			}
		}
		return true
	})
	if len(hosts) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: the artifact cannot be fetched by %s%s; tried again", d.Waves[i].Name, few(hosts), why)
}

// grantHold says why no target of a deploying wave gets a permit: what stands in
// the way of the first one.
func (s *State) grantHold(d *Deployment, i int) string {
	w, p, g := &d.Waves[i], d.waves[i], s.group(d)
	x := terms{
		concurrent: max(1, d.Config.Capacity.MaxConcurrent.Down(g.usage("").members)),
		maxZones:   d.Config.Capacity.MaxZones,
		floors:     floors(g), exclusive: !d.Config.Capacity.SharedHost,
	}
	text := ""
	for _, set := range []bitset{p.stagedNotServing, p.stagedServing} {
		set.each(func(j int) bool {
			if t := s.Target(w.Hosts[j], d.App); text == "" && t.canAct() {
				var floor *floorError
				if _, err := s.ledger(g, nil).admit(t, x); err != nil &&
					(!errors.As(err, &floor) || floor.Label != "") {
					text = w.Name + ": " + err.Error()
				}
			}
			return false
		})
	}
	return cmp.Or(text, s.floorHold(d, w))
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
	e, until := d.evidence(i), w.BakeSince.Add(w.Max()).Sub(now).Round(time.Second)
	if n := p.evidence - p.settledUp; n > 0 && !p.covered() {
		return fmt.Sprintf("%s: no health from %d of %d hosts%s", w.Name, n, p.evidence, d.undecided(until))
	}
	switch {
	case e.open != "" || e.samples < w.Samples:
		return fmt.Sprintf("%s: %s%s", w.Name, e.short(w, now), d.undecided(until))
	case e.uncovered(now, w) > 0:
		return fmt.Sprintf("%s: bakes for %s more, until answers of its gates cover %s", w.Name,
			e.uncovered(now, w).Round(time.Second), short(w.BakeMin))
	}
	return w.Name + ": bake is over"
}

// undecided says what becomes of a bake that stays so.
func (d *Deployment) undecided(left time.Duration) string {
	then := cmp.Or(d.Config.OnInconclusive, "hold")
	switch {
	case left > 0:
		return fmt.Sprintf("; for %s more, then `onInconclusive: %s`", left, then)
	case then == "hold":
		return "; `onInconclusive: hold` waits for `promote`"
	}
	return ""
}

// waveHolds names whom a deploying wave waits for.
func (s *State) waveHolds(d *Deployment, i int) []string {
	w, p := &d.Waves[i], d.waves[i]
	var out []string
	name := func(set bitset, why, then string) {
		var hosts []string
		set.each(func(j int) bool {
			hosts = append(hosts, s.hostName(w.Hosts[j]))
			return len(hosts) < 4
		})
		if len(hosts) > 3 {
			hosts = append(hosts[:3], "...")
		}
		if len(hosts) > 0 {
			out = append(out, fmt.Sprintf("%s: %s: %v%s", w.Name, why, hosts, then))
		}
	}
	name(p.stuck, "unreachable or not staged", "; `skip-host` goes on without them")
	name(p.granted, "works on", "")
	if d.Config.Stage.tastes() && p.unstaged > 0 {
		out = append(out, w.Name+": hosts stage the revision, and run warmup and taste, before any permit")
	}
	if b := d.Config.Stage.Barrier; !w.Released && b != "" && b != "none" {
		if have, need, _ := d.quorum(i); have < need {
			out = append(out, fmt.Sprintf("%s: %d of %d targets must be staged first", w.Name, have, need))
		}
	}
	if p.granted.empty() && w.OneBox && p.settledUp > 0 && !d.oneBoxPassed(i) {
		return append(out, fmt.Sprintf("%s: the gates of its first host have not passed", w.Name))
	}
	if p.granted.empty() && (!p.stagedServing.empty() || !p.stagedNotServing.empty()) {
		out = append(out, s.grantHold(d, i))
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
			why := t.Health.String()
			switch {
			case t.Quarantined:
				why = "kept out: " + t.keptOut()
			case t.Out != OutNone:
				why = "not back in its pools yet"
			case t.Permit != PermitNone || t.Open:
				why = "at work"
			}
			text += "; " + t.host.Name + " is " + why
		}
	}
	return text
}
