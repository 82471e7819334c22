package deploy

import (
	"fmt"
	"slices"
)

// failure is one reason to act, with what the config says about it.
type failure struct {
	wave   int
	action Action
	scope  string // of the gate, for an action of scope gate
	zones  []string
	hosts  []string
	cause  string
}

// failures acts on the first failed gate or exceeded budget, and reports
// whether there is one.
func (d *decision) failures(dep *Deployment) bool {
	if d.verdicts(dep) {
		return true
	}
	for i := range dep.Waves {
		if dep.Waves[i].Status.active() && (d.overBudget(dep, i) || d.barrierMissed(dep, i)) {
			return true
		}
	}
	total := dep.Config.FailureBudgetTotal
	if dep.ScopeRevert != nil || total == nil || dep.Failures <= total.Down(len(dep.Tasks)) {
		return false
	}
	for i := range dep.Waves {
		if p := dep.waves[i]; dep.Waves[i].Status.active() && p.failures+dep.Waves[i].Extra > 0 {
			return d.act(dep, failure{
				wave: i, action: dep.Config.OnFailure.Wave, zones: d.failedZones(dep, i),
				cause: fmt.Sprintf("%d hosts failed, the budget of the deployment is %d%s", dep.Failures,
					total.Down(len(dep.Tasks)), d.because(dep, i)),
			})
		}
	}
	return false
}

// verdicts acts on the first gate of a wave that fails, also while the deployment
// is paused: a verdict is taken when it is known.
func (d *decision) verdicts(dep *Deployment) bool {
	for i := range dep.Waves {
		if dep.Waves[i].Status.judged() && (d.sick(dep, i) || d.judged(dep, i)) {
			return true
		}
	}
	return false
}

// overBudget acts on the failed hosts of a wave.
func (d *decision) overBudget(dep *Deployment, i int) bool {
	p, w := dep.waves[i], &dep.Waves[i]
	failed := p.failures + w.Extra
	if failed > w.Budget {
		return d.act(dep, failure{
			wave: i, action: dep.Config.OnFailure.Wave, zones: d.failedZones(dep, i),
			cause: fmt.Sprintf("wave %s: %d failed, its budget is %d%s", w.Name, failed, w.Budget, d.because(dep, i)),
		})
	}
	host := dep.Config.OnFailure.Host
	if failed == 0 || host.Do == "" || host.Do == ActionContinue || host.Do == ActionRollback &&
		host.Scope == ScopeHost {
		return false // the host went back by itself
	}
	return d.act(dep, failure{
		wave: i, action: host, zones: d.failedZones(dep, i),
		cause: fmt.Sprintf("wave %s: a host failed%s", w.Name, d.because(dep, i)),
	})
}

// barrierMissed acts when too few targets could be staged for the quorum.
func (d *decision) barrierMissed(dep *Deployment, i int) bool {
	p, w, stage := dep.waves[i], &dep.Waves[i], dep.Config.Stage
	if w.Status != WaveStatusDeploying || w.Released || p.unstaged > 0 || stage.Barrier == "" ||
		stage.Barrier == "none" {
		return false
	}
	have, need, of := dep.quorum(i)
	if have >= need || stage.Barrier == "deployment" && d.staging(dep, i) {
		return false
	}
	return d.act(dep, failure{
		wave: i, action: dep.Config.OnFailure.Wave, zones: d.failedZones(dep, i),
		cause: fmt.Sprintf("wave %s: %d of %d targets are staged, the quorum is %d%s", w.Name, have, of, need,
			d.because(dep, i)),
	})
}

// staging reports whether targets of other waves may still stage in time: these
// have not been entered, so their tasks do not end by themselves.
func (d *decision) staging(dep *Deployment, i int) bool {
	if d.now.Sub(dep.Waves[i].StartedAt) >= dep.Config.Timeouts.Stage {
		return false
	}
	open := false
	for j, p := range dep.waves {
		p.waiting.each(func(k int) bool {
			h := dep.Waves[j].Hosts[k]
			t := d.s.Target(h, dep.App)
			open = t.StageFailed != dep.Tasks[h].goal(dep) && !t.Away && !t.Quarantined
			return !open
		})
		if open {
			return true
		}
	}
	return false
}

// because names the first failure of a wave.
func (d *decision) because(dep *Deployment, i int) string {
	text := ""
	dep.waves[i].failed.each(func(j int) bool {
		h := dep.Waves[i].Hosts[j]
		task := dep.Tasks[h]
		why := task.Cause
		if task.Failure != nil && task.Failure.Message != "" {
			why = task.Failure.Event + ": " + task.Failure.Message
		}
		text = fmt.Sprintf(" (%s: %s)", d.s.hostName(h), why)
		return false
	})
	return text
}

// failedZones lists the zones of the wave's failed tasks; all of its zones when
// none can be named.
func (d *decision) failedZones(dep *Deployment, i int) []string {
	var out []string
	dep.waves[i].failed.each(func(j int) bool {
		if h := d.s.Hosts[dep.Waves[i].Hosts[j]]; h != nil && !slices.Contains(out, h.Zone) {
			out = append(out, h.Zone)
		}
		return true
	})
	if len(out) == 0 {
		return d.waveZones(dep, i)
	}
	return out
}

func (d *decision) waveZones(dep *Deployment, i int) []string {
	var out []string
	for _, h := range dep.Waves[i].Hosts {
		if t := d.s.Target(h, dep.App); t != nil && !slices.Contains(out, t.Zone) {
			out = append(out, t.Zone)
		}
	}
	return out
}

// sick turns unhealthy settled hosts into a failed gate, and acts on it.
func (d *decision) sick(dep *Deployment, i int) bool {
	p, w := dep.waves[i], &dep.Waves[i]
	if p.sickCount == 0 || dep.Config.OnFailure.Gate.Do == ActionContinue {
		return false
	}
	gate, scope := "health", ScopeHost
	for _, name := range w.Gates {
		if g := dep.Config.gate(name); g != nil && g.Kind() == GateProbe {
			gate, scope = name, g.scope()
			break
		}
	}
	f := failure{wave: i, action: dep.Config.OnFailure.Gate, scope: scope}
	text := ""
	p.sick.each(func(j int) bool {
		h := w.Hosts[j]
		t := d.s.Target(h, dep.App)
		if text == "" {
			text = d.s.hostName(h) + ": " + t.Evidence
		}
		f.hosts = append(f.hosts, h)
		if !slices.Contains(f.zones, t.Zone) {
			f.zones = append(f.zones, t.Zone)
		}
		return true
	})
	before := len(d.out)
	d.emit(GateJudged{Deployment: dep.ID, Wave: i, Gate: gate, Key: f.hosts[0], Verdict: VerdictFail, Evidence: text})
	f.cause = fmt.Sprintf("gate %s failed in wave %s (%s)", gate, w.Name, text)
	if !d.act(dep, f) {
		d.out = d.out[:before] // nothing follows, and it is known
		return false
	}
	return true
}

// judged makes a verdict of the failing answers of observed gates and acts on
// it. Where a newer deployment is active in the wave, it is to blame first.
func (d *decision) judged(dep *Deployment, i int) bool {
	w := &dep.Waves[i]
	if len(w.Watch) == 0 || dep.shadowed(d.s.group(dep), i) {
		return false
	}
	for _, x := range sorted(w.Watch) {
		gate := dep.Config.gate(x.Gate)
		if gate == nil || !slices.Contains(w.Gates, x.Gate) || !x.failing(gate) {
			continue
		}
		action := dep.actionFor(gate, w)
		if x.Verdict != VerdictFail {
			d.emit(GateJudged{
				Deployment: dep.ID, Wave: i, Gate: x.Gate, Key: x.Last.Key, Verdict: VerdictFail,
				Evidence: x.Last.Question + ": " + x.Last.text(),
			})
		}
		f := failure{wave: i, action: action, scope: gate.scope(), zones: d.waveZones(dep, i)}
		switch gate.scope() {
		case ScopeHost:
			f.hosts = []string{x.Last.Key}
			if h := d.s.Hosts[x.Last.Key]; h != nil {
				f.zones = []string{h.Zone}
			}
		case ScopeZone:
			f.zones = []string{x.Last.Key}
		}
		f.cause = fmt.Sprintf("gate %s failed in wave %s%s (%s)", x.Gate, w.Name, d.keyName(gate, x.Last.Key),
			x.Last.text())
		if d.act(dep, f) {
			return true
		}
	}
	return false
}

func (d *decision) keyName(gate *Gate, key string) string {
	switch gate.scope() {
	case ScopeHost:
		return ", host " + d.s.hostName(key)
	case ScopeZone:
		return ", zone " + key
	}
	return ""
}

// act commits what the config says follows a failure. It reports whether
// anything follows: an action to continue is as if within the budget.
func (d *decision) act(dep *Deployment, f failure) bool {
	if f.action.Do == ActionContinue {
		return false
	}
	waits := dep.Status == DeploymentStatusPaused && dep.Decision // people know of it, or of another failure
	pause := func(cause string) bool {
		if !waits {
			d.pause(dep, cause)
		}
		return !waits
	}
	scope := f.action.Scope
	if scope == ScopeGate {
		scope = f.scope
	}
	if scope == "" || scope == ScopeDeployment {
		scope = ScopeAll
	}
	if f.action.Do != ActionRollback {
		return pause(f.cause)
	}
	if r := d.s.Revisions[dep.App][dep.Revision]; r != nil && r.Unsafe {
		return pause(f.cause + "; the revision is marked as not safe to roll back from")
	}
	items, anyGood := d.revertSet(dep, f.within(scope))
	switch {
	case !anyGood:
		return pause(f.cause + "; no last good revision to go back to")
	case scope == ScopeAll:
		d.rollbackAll(dep, f.cause, items)
	case len(items) == 0:
		return pause(f.cause + "; nothing to take back")
	default:
		d.emit(RollbackStarted{
			Deployment: dep.ID, Cause: f.cause, Scope: scope, Then: f.action.Then, Waves: []int{f.wave},
			Until: d.decideBy(dep), Past: d.past, Items: items,
		})
	}
	return true
}

// within selects the targets of a scope, always inside the failure's wave but
// for scope all.
func (f *failure) within(scope string) func(int, *Target) bool {
	switch scope {
	case ScopeAll:
		return everything
	case ScopeHost:
		return func(w int, t *Target) bool {
			return w == f.wave && (len(f.hosts) == 0 || slices.Contains(f.hosts, t.Host))
		}
	case ScopeZone:
		return func(w int, t *Target) bool { return w == f.wave && slices.Contains(f.zones, t.Zone) }
	}
	return func(w int, _ *Target) bool { return w == f.wave }
}

func everything(int, *Target) bool { return true }

// pause asks people for a decision.
func (d *decision) pause(dep *Deployment, cause string) {
	d.emit(DeploymentPaused{Deployment: dep.ID, Cause: cause, Until: d.decideBy(dep)})
}

// decideBy is when a decision that is asked for now must have been taken; 0 is
// never.
func (d *decision) decideBy(dep *Deployment) Time {
	if c := dep.Config.Decision; c.Timeout > 0 && c.Then == ThenAll {
		return d.now.Add(c.Timeout)
	}
	return 0
}
