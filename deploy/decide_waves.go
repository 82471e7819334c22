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

// preGates names the gates that must be passed before wave i is entered.
func (dep *Deployment) preGates(i int) []string {
	if i > 0 {
		return dep.Waves[i].PreGates
	}
	return append(slices.Clone(dep.Config.PreGates), dep.Waves[i].PreGates...)
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
	if p := dep.waves[i]; p.aways > 0 && p.aways == p.open() {
		out = append(out, Hold{Kind: "hosts", Text: "no host of the wave is reachable"})
	}
	return out
}

func reason(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// gateHold says why a gate before a wave holds it; its kind is empty when the
// gate has passed.
func (dep *Deployment) gateHold(w *Wave, gate *Gate) Hold {
	if a := gate.Approval; a != nil {
		if dep.approved(gate) {
			return Hold{}
		}
		need := max(a.Count, 1)
		who := "an operator"
		if a.Group != "" {
			who = "group " + a.Group
		}
		return Hold{Kind: "approval", Name: gate.Name, Text: fmt.Sprintf("%s needs %d of %d approvals by %s", gate.Name, need-dep.approvals(gate), need, who)}
	}
	kind := "gate"
	if gate.Window != "" {
		kind = "window"
	}
	watched := w.Watch[watchKey(gate.Name, "")]
	switch {
	case watched == nil:
		return Hold{Kind: kind, Name: gate.Name, Text: gate.Name + " has not answered yet"}
	case watched.Last.Answer == VerdictPass:
		return Hold{}
	}
	return Hold{Kind: kind, Name: gate.Name, Text: fmt.Sprintf("%s: %s", gate.Name, watched.Last.text())}
}

// text is an observation in words.
func (o *Observation) text() string {
	out := string(o.Answer)
	if o.Value != "" {
		out += ", value " + o.Value
	}
	if o.Threshold != "" {
		out += ", limit " + o.Threshold
	}
	if o.Samples > 0 {
		out += fmt.Sprintf(", %d samples", o.Samples)
	}
	if o.Detail != "" {
		out += ", " + o.Detail
	}
	return out
}

// approved reports whether enough people said yes to the gate.
func (dep *Deployment) approved(gate *Gate) bool {
	return dep.approvals(gate) >= max(gate.Approval.Count, 1)
}

func (dep *Deployment) approvals(gate *Gate) int {
	n := 0
	for _, a := range dep.Approvals {
		n += count(a.Gate == gate.Name)
	}
	return n
}

// promoted reports whether a person let the named hold of the wave pass.
func (dep *Deployment) promoted(wave, name string) bool {
	return slices.Contains(dep.Promoted, wave+"/"+name)
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

// evidence sums up what the observed gates of a wave have answered.
type evidence struct {
	passed  bool // every gate's last answers are passes
	decided bool // every sequential gate has decided for the revision
	open    string
	samples int
	watched []*Watched
	every   []time.Duration // interval of each
}

// evidence sums up the observed gates of wave i, over every scope of theirs.
func (dep *Deployment) evidence(i int) evidence {
	w := &dep.Waves[i]
	e := evidence{passed: true, decided: true}
	for _, name := range w.Gates {
		gate := dep.Config.gate(name)
		if gate == nil || !gate.Observed() || dep.promoted(w.Name, name) {
			continue
		}
		asked, samples := 0, 0
		for _, x := range sorted(w.Watch) {
			if x.Gate != name {
				continue
			}
			if task := dep.Tasks[x.Last.Key]; gate.scope() == ScopeHost && (task == nil || task.gone() || task.Status != TaskSettled) {
				continue // the host departed, or is on its way
			}
			asked++
			samples += x.Last.Samples
			e.watched, e.every = append(e.watched, x), append(e.every, gate.every())
			if x.Last.Answer != VerdictPass {
				e.passed, e.open = false, name
			}
			e.decided = e.decided && (gate.Compare == nil || x.Last.Final && x.Last.Answer == VerdictPass)
		}
		e.samples = max(e.samples, samples)
		if asked == 0 {
			e.passed, e.decided, e.open = false, false, name
		}
	}
	return e
}

// covered reports whether answers cover 95 % of the bake and none is stale.
func (e *evidence) covered(now Time, w *Wave) bool {
	for i, x := range e.watched {
		if x.At < w.BakeSince || now.Sub(x.At) > 2*e.every[i] || x.Covered*100 < x.At.Sub(w.BakeSince)*95 {
			return false
		}
	}
	return true
}
