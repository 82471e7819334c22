package deploy

import (
	"fmt"
	"slices"
	"time"
)

// enter opens a wave that is next, or says what holds it.
func (d *decision) enter(dep *Deployment, i int) WaveStatus {
	p, w := dep.waves[i], &dep.Waves[i]
	if p.open() == 0 && p.tasks[TaskSettled] == 0 && p.failures+w.Extra == 0 {
		return d.emptied(dep, i)
	}
	holds := d.holds(dep, i)
	if len(holds) == 0 {
		d.emit(WaveStarted{Deployment: dep.ID, Wave: i, Budget: w.Share.Down(p.total())})
		return WaveStatusDeploying
	}
	if !slices.Equal(holds, w.Holds) {
		d.emit(HoldsChanged{Deployment: dep.ID, Wave: i, Holds: holds})
	}
	if name := d.expired(dep, w); name != "" {
		d.emit(RequestMade{
			Request: Request{Actor: "coordinator", Reason: "gate " + name + " was not approved in time"}, Deployment: dep.ID,
			Verb: VerbReject, Gate: name,
		})
	}
	return WaveStatusHeld
}

// expired names the approval whose time to be given is over, or "".
func (d *decision) expired(dep *Deployment, w *Wave) string {
	for _, h := range w.Holds {
		if gate := dep.Config.gate(h.Name); h.Kind == "approval" && gate != nil && gate.Approval != nil &&
			gate.Approval.Timeout > 0 && d.now.Sub(w.HeldAt) >= gate.Approval.Timeout {
			return h.Name
		}
	}
	return ""
}

// holds says why a wave that is next is not entered. Texts hold nothing that
// changes by itself, or every change would be a fact.
func (d *decision) holds(dep *Deployment, i int) []Hold {
	g, w := d.s.group(dep), &dep.Waves[i]
	out := d.s.orderHolds(dep, g, i)
	if f := d.s.frozen(g); f != nil {
		out = append(out, Hold{Kind: "freeze", Text: "frozen by " + f.Actor + reason(f.Reason)})
	}
	for _, name := range dep.preGates(i) {
		gate := dep.Config.gate(name)
		if gate == nil || dep.promoted(w.Name, name) {
			continue
		}
		if h := dep.gateHold(w, gate); h.Kind != "" {
			out = append(out, h)
		}
	}
	if p := dep.waves[i]; p.awayCount > 0 && p.awayCount == p.open() {
		out = append(out, Hold{Kind: "hosts", Text: "no host of the wave is reachable"})
	}
	return out
}

// emptied ends a wave without targets, or gives it the first target of a later
// wave that nobody holds: a canary whose host departed must not be left out.
func (d *decision) emptied(dep *Deployment, i int) WaveStatus {
	g := d.s.group(dep)
	if e, ok := d.replacement(dep, g, i); ok {
		d.emit(e)
		return dep.Waves[i].Status
	}
	d.emit(WaveSkipped{Deployment: dep.ID, Wave: i, Cause: "no target left"})
	return WaveStatusSkipped
}

// replacement finds a target for an emptied wave of a count or percentage. Only
// the oldest deployment moves targets: the waves of an older one keep theirs.
func (d *decision) replacement(dep *Deployment, g *Group, i int) (TargetMoved, bool) {
	w := &dep.Waves[i]
	if len(g.open) == 0 || g.open[0] != dep || w.Spec >= len(g.Layout.Specs) || len(g.Layout.Waves) != len(dep.Waves) {
		return TargetMoved{}, false
	}
	if kind := g.Layout.Specs[w.Spec].Kind; kind != "count" && kind != "percent" {
		return TargetMoved{}, false
	}
	if p := dep.waves[i]; p.total() != p.tasks[TaskGone] || p.total() == 0 {
		return TargetMoved{}, false // it never had one, or has others that did not depart
	}
	for j := i + 1; j < len(dep.Waves); j++ {
		if slices.ContainsFunc(g.open, func(o *Deployment) bool { return !o.Waves[j].Status.waits() }) {
			continue
		}
		for _, h := range dep.Waves[j].Hosts {
			t, task := d.s.Target(h, dep.App), dep.Tasks[h]
			if t != nil && task != nil && !task.gone() && task.Wave == j && task.Status == TaskWaiting && t.Permit == PermitNone && !t.Away {
				return TargetMoved{App: g.App, Group: g.Name, Host: h, From: j, To: i}, true
			}
		}
	}
	return TargetMoved{}, false
}

// complete ends the deploying of a wave whose tasks have all ended.
func (d *decision) complete(dep *Deployment, i int) WaveStatus {
	p, w := dep.waves[i], &dep.Waves[i]
	if p.open() > 0 || len(d.settled(dep, i)) > 0 {
		return WaveStatusDeploying
	}
	if p.tasks[TaskSettled] > 0 {
		d.emit(BakeStarted{Deployment: dep.ID, Wave: i, Until: d.now.Add(w.BakeMin)})
		return WaveStatusBaking
	}
	if p.tasks[TaskGone]+p.tasks[TaskSkipped] == p.total() {
		return d.emptied(dep, i)
	}
	d.act(dep, failure{
		wave: i, action: dep.Config.OnFailure.Wave, zones: d.failedZones(dep, i),
		cause: fmt.Sprintf("wave %s: no host took the revision%s", w.Name, d.because(dep, i)),
	})
	return WaveStatusDeploying
}

// seal ends a bake that is long enough, has its samples and evidence from 95 %
// of the settled hosts and of the time; who says nothing is never taken for good.
func (d *decision) seal(dep *Deployment, i int) WaveStatus {
	p, w := dep.waves[i], &dep.Waves[i]
	if p.tasks[TaskSettled] == 0 { // every host that could tell has departed
		return d.emptied(dep, i)
	}
	seal := func() WaveStatus {
		d.emit(WaveSealed{Deployment: dep.ID, Wave: i})
		return WaveStatusSealed
	}
	if w.Status == WaveStatusBaking && dep.promoted(w.Name, "bake") {
		return seal()
	}
	baked := d.baked(dep, i)
	if baked < w.BakeMin || !p.covered() {
		return WaveStatusBaking
	}
	e := dep.evidence(i)
	switch {
	case e.passed && e.covered(d.now, w) && e.samples >= w.Samples, e.passed && w.Early && e.decided:
		return seal()
	case baked < w.Max():
		return WaveStatusBaking
	case e.passed || dep.Config.OnInconclusive == "pass":
		return seal()
	case dep.Config.OnInconclusive == "fail":
		cause := fmt.Sprintf("wave %s: %s is inconclusive after %s", w.Name, e.open, short(w.Max()))
		d.emit(GateJudged{Deployment: dep.ID, Wave: i, Gate: e.open, Verdict: VerdictFail, Evidence: "inconclusive after " + short(w.Max())})
		d.act(dep, failure{wave: i, action: dep.Config.OnFailure.Bake, zones: d.waveZones(dep, i), scope: ScopeWave, cause: cause})
	}
	return WaveStatusBaking
}

// baked is how long the wave has been baking.
func (d *decision) baked(dep *Deployment, i int) time.Duration {
	w := &dep.Waves[i]
	if w.Status != WaveStatusBaking {
		return 0 // this decision starts it
	}
	return d.now.Sub(w.BakeSince)
}
