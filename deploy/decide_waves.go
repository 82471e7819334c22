package deploy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// enter opens a wave that is next, or says what holds it.
func (d *decision) enter(dep *Deployment, i int) WaveStatus {
	p, w := dep.waves[i], &dep.Waves[i]
	if o := dep.sealedBy(d.s.group(dep), i); o != nil {
		d.emit(WaveSkipped{Deployment: dep.ID, Wave: i, Cause: fmt.Sprintf("%s (%s) has sealed it", o.RevName, o.ID)})
		return WaveStatusSkipped
	}
	if dep.deserted(i) {
		return d.emptied(dep, i)
	}
	holds := d.holds(dep, i)
	if len(holds) == 0 {
		d.emit(WaveStarted{Deployment: dep.ID, Wave: i, Budget: w.Share.Down(p.total())})
		return WaveStatusDeploying
	}
	d.hold(dep, i, holds)
	return WaveStatusHeld
}

// overdue rejects a deployment that was not approved in time, and reports
// whether it did; a pause does not stop that clock.
func (d *decision) overdue(dep *Deployment) bool {
	name := dep.overdue(d.now)
	if name != "" {
		d.emit(RequestMade{
			Request: Request{
				Actor:  "coordinator",
				Reason: "gate " + name + " was not approved in time",
			}, Deployment: dep.ID,
			Verb: VerbReject, Gate: name,
		})
	}
	return name != ""
}

// holds says why a wave that is next is not entered. Texts hold nothing that
// changes by itself, or every change would be a fact.
func (d *decision) holds(dep *Deployment, i int) []Hold {
	g, w := d.s.group(dep), &dep.Waves[i]
	out := d.s.orderHolds(dep, g, i)
	if f := d.s.frozen(g, dep); f != nil {
		out = append(out, Hold{Kind: "freeze", Text: "frozen " + f.By()})
	}
	for _, name := range dep.preGates(i) {
		gate := dep.Config.gate(name)
		if gate == nil || dep.promoted(w.Name, name) || dep.goesPast(gate) {
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

// holdTargets is the name of the hold of a wave that has nobody left who could
// act, by which a person may let it pass.
const holdTargets = "targets"

// emptied goes on with a wave in which no target is left that could act. A
// canary must not be left out: a wave of a count or percentage takes the first
// target of a later wave that nobody holds. It is skipped if everybody departed,
// if people left everybody out by name, or if a person lets it pass; else it
// waits until one can act again.
func (d *decision) emptied(dep *Deployment, i int) WaveStatus {
	g, w, p := d.s.group(dep), &dep.Waves[i], dep.waves[i]
	if e, ok := d.replacement(dep, g, i); ok {
		d.emit(e)
		return w.Status
	}
	cause := ""
	switch {
	case p.tasks[TaskGone] == p.total():
		cause = "no target left"
	case dep.promoted(w.Name, holdTargets):
		cause = "nobody in it could act, and a person let it pass"
	case dep.leftOutByName(i):
		cause = "all of it was left out"
	}
	if cause != "" {
		d.emit(WaveSkipped{Deployment: dep.ID, Wave: i, Cause: cause})
		return WaveStatusSkipped
	}
	if !w.Status.waits() {
		d.hold(dep, i, []Hold{dep.desertedHold(d.s, i)})
		return WaveStatusHeld
	}
	var again []string
	for _, h := range w.Hosts {
		if t, task := d.s.Target(h, dep.App), dep.Tasks[h]; t != nil && !task.gone() && dep.reopens(t, task) {
			again = append(again, h)
		}
	}
	if len(again) > 0 {
		d.emit(TasksReopened{Deployment: dep.ID, Hosts: again})
	} else {
		d.hold(dep, i, []Hold{dep.desertedHold(d.s, i)})
	}
	return WaveStatusHeld
}

// hold says why a wave waits, unless that is known.
func (d *decision) hold(dep *Deployment, i int, holds []Hold) {
	if w := &dep.Waves[i]; w.Status != WaveStatusHeld || !slices.Equal(holds, w.Holds) {
		d.emit(HoldsChanged{Deployment: dep.ID, Wave: i, Holds: holds})
	}
}

// leftOutByName reports whether people left out every target of a wave that
// takes no others: one of a zone, or of what remains.
func (dep *Deployment) leftOutByName(i int) bool {
	w := &dep.Waves[i]
	return !slices.ContainsFunc(w.Hosts, func(h string) bool {
		task := dep.Tasks[h]
		return !task.gone() && !(task.Status == TaskSkipped && task.Named)
	})
}

// desertedHold names whom a wave waits for that has nobody left who could act.
func (dep *Deployment) desertedHold(s *State, i int) Hold {
	w := &dep.Waves[i]
	var who []string
	for _, h := range w.Hosts {
		task := dep.Tasks[h]
		if task.gone() || len(who) > 3 {
			continue
		}
		why := task.Cause
		if t := s.Target(h, dep.App); t != nil && t.Quarantined {
			why = t.keptOut()
		}
		who = append(who, fmt.Sprintf("%s (%s)", s.hostName(h), why))
	}
	if len(who) > 3 {
		who[3] = "..."
	}
	return Hold{Kind: holdTargets, Name: holdTargets, Text: fmt.Sprintf(
		"nobody in it can act: waits for %s; `promote --wave %s` goes on without", strings.Join(who, ", "), w.Name)}
}

// replacement finds a target for a deserted wave of a count or percentage. Only
// the oldest deployment moves targets: the waves of an older one keep theirs.
func (d *decision) replacement(dep *Deployment, g *Group, i int) (TargetMoved, bool) {
	w := &dep.Waves[i]
	if len(g.open) == 0 || g.open[0] != dep || w.Spec >= len(g.Layout.Specs) || len(g.Layout.Waves) != len(dep.Waves) {
		return TargetMoved{}, false
	}
	if kind := g.Layout.Specs[w.Spec].Kind; kind != "count" && kind != "percent" || dep.waves[i].total() == 0 {
		return TargetMoved{}, false // or it never had one
	}
	for j := i + 1; j < len(dep.Waves); j++ {
		if slices.ContainsFunc(g.open, func(o *Deployment) bool { return !o.Waves[j].Status.waits() }) {
			continue
		}
		for _, h := range dep.Waves[j].Hosts {
			t, task := d.s.Target(h, dep.App), dep.Tasks[h]
			if t != nil && task != nil && !task.gone() && task.Wave == j && task.Status == TaskWaiting &&
				t.Permit == PermitNone && t.canAct() {
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
	if p.evidence > 0 {
		d.emit(BakeStarted{Deployment: dep.ID, Wave: i, Until: d.now.Add(w.BakeMin)})
		return WaveStatusBaking
	}
	if dep.deserted(i) && (p.tasks[TaskSettled] > 0 || p.tasks[TaskGone]+p.tasks[TaskSkipped] == p.total()) {
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
	if w.Status == WaveStatusBaking && p.evidence == 0 { // nobody is left who could tell
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
	if baked < w.BakeMin {
		return WaveStatusBaking
	}
	e := dep.evidence(i)
	switch {
	case !p.covered():
		e.open = "health"
	case e.passed && e.uncovered(d.now, w) == 0 && e.samples >= w.Samples, e.passed && w.Early && e.decided:
		return seal()
	}
	if baked < w.Max() {
		return WaveStatusBaking
	}
	why := e.short(w, d.now)
	switch dep.Config.OnInconclusive {
	case "pass":
		return seal()
	case "fail":
		f := failure{wave: i, action: dep.Config.OnFailure.Bake, zones: d.waveZones(dep, i), scope: ScopeWave}
		f.cause = fmt.Sprintf("wave %s: %s after %s, and the config says `onInconclusive: fail`", w.Name, why,
			short(w.Max()))
		if f.action.Do == ActionContinue {
			return seal()
		}
		d.emit(GateJudged{
			Deployment: dep.ID, Wave: i, Gate: e.open, Verdict: VerdictInconclusive,
			Evidence: why + " after " + short(w.Max()),
		})
		d.act(dep, f)
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
