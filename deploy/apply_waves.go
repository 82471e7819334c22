package deploy

import (
	"fmt"
	"slices"
	"strings"
)

// holdsChanged records why a wave that is next is not entered.
func (s *State) holdsChanged(d *Deployment, w *Wave, e HoldsChanged) error {
	if d.Status != DeploymentStatusRunning || !w.Status.waits() || !d.entered(e.Wave) {
		return refuse(Conflict, "wave %s is %s and not held", w.Name, w.Status)
	}
	w.Holds = e.Holds
	var text []string
	for _, h := range e.Holds {
		text = append(text, h.Text)
	}
	if w.HeldAt == 0 {
		w.HeldAt = max(s.Now, 1)
	}
	s.setWave(d, e.Wave, WaveStatusHeld, strings.Join(text, "; "))
	return nil
}

func (s *State) waveStarted(d *Deployment, w *Wave, e WaveStarted) error {
	if d.Status != DeploymentStatusRunning || !w.Status.waits() || !d.entered(e.Wave) || d.Scoped != nil {
		return refuse(Conflict, "wave %s is %s and cannot start", w.Name, w.Status)
	}
	if holds := s.orderHolds(d, s.group(d), e.Wave); len(holds) > 0 {
		return refuse(Conflict, "wave %s waits: %s", w.Name, holds[0].Text)
	}
	w.StartedAt, w.StartedWall, w.Budget, w.Holds = s.Now, s.Wall, e.Budget, nil
	s.setWave(d, e.Wave, WaveStatusDeploying, "")
	return nil
}

// entered reports whether every wave of the batches before wave i has passed.
func (d *Deployment) entered(i int) bool {
	status := make([]WaveStatus, i)
	for j := range status {
		status[j] = d.Waves[j].Status
	}
	return d.enteredBy(i, status)
}

// enteredBy is entered for waves in the given statuses.
func (d *Deployment) enteredBy(i int, status []WaveStatus) bool {
	for j := range i {
		if d.Waves[j].Batch < d.Waves[i].Batch && !status[j].Passed() {
			return false
		}
	}
	return true
}

func (s *State) setWave(d *Deployment, i int, to WaveStatus, text string) {
	d.Waves[i].Status = to
	s.restrayWave(s.group(d), i)
	if p := d.Config.Stage.Prefetch; p == "wave" || p == "none" {
		s.touchWave(d, i)
	}
	s.record(d, Record{Subject: "wave", Wave: i, To: to.String(), Text: text})
}

// restray sorts out anew which targets of the deployment's group may need an
// aside, after a change of status that they depend on.
func (s *State) restray(d *Deployment) {
	g := s.group(d)
	for i := range g.Layout.Waves {
		s.restrayWave(g, i)
	}
}

func (s *State) restrayWave(g *Group, i int) {
	if i >= len(g.Layout.Waves) {
		return
	}
	for _, h := range g.Layout.Waves[i].Hosts {
		_, was := g.strays[h]
		t := g.target(h)
		is := t != nil && t.mayStray(g)
		if is {
			g.strays[h] = struct{}{}
		} else if was {
			delete(g.strays, h)
		}
		if (is || was) && t != nil {
			t.host.touched = s.Index // what it should stage changes
		}
	}
}

func (s *State) gateJudged(d *Deployment, w *Wave, e GateJudged) error {
	if e.Verdict == VerdictFail {
		d.GateFail = e.Gate
	}
	if x := w.Watch[watchKey(e.Gate, e.Key)]; x != nil {
		x.Verdict = e.Verdict
	}
	s.record(d, Record{Subject: "gate", Wave: e.Wave, To: string(e.Verdict), Text: e.Gate + ": " + e.Evidence})
	return nil
}

func (s *State) bakeStarted(d *Deployment, w *Wave, e BakeStarted) error {
	p := d.waves[e.Wave]
	if d.Status != DeploymentStatusRunning || w.Status != WaveStatusDeploying || p.open() > 0 || p.tasks[TaskSettled] == 0 || p.failures+w.Extra > w.Budget || d.Scoped != nil {
		return refuse(Conflict, "wave %s is not ready to bake", w.Name)
	}
	w.BakeUntil, w.BakeSince = e.Until, s.Now
	for _, x := range sorted(w.Watch) {
		x.Covered = 0
	}
	s.setWave(d, e.Wave, WaveStatusBaking, fmt.Sprintf("for %s", w.BakeMin))
	return nil
}

func (s *State) waveSealed(d *Deployment, w *Wave, e WaveSealed) error {
	p := d.waves[e.Wave]
	early := s.Now < w.BakeUntil && !d.promoted(w.Name, "bake")
	if d.Status != DeploymentStatusRunning || w.Status != WaveStatusBaking || d.Scoped != nil || early || d.failing(w) ||
		p.failures+w.Extra > w.Budget || p.sicks > 0 && d.Config.OnFailure.Gate.Do != ActionContinue || p.tasks[TaskSettled] == 0 {
		return refuse(Conflict, "wave %s is not ready to be sealed", w.Name)
	}
	seal := Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now}
	for _, h := range w.Hosts {
		t := s.Target(h, d.App)
		if task := d.Tasks[h]; t == nil || task == nil || task.Status != TaskSettled || task.Wave != e.Wave {
			continue
		}
		t.host.touched = s.Index
		t.Seals = sealed(t.Seals, seal)
	}
	s.sealLayout(d, e.Wave, seal)
	w.EndedAt = s.Now
	s.setWave(d, e.Wave, WaveStatusSealed, fmt.Sprintf("%d of %d hosts", p.tasks[TaskSettled], p.total()))
	return nil
}

// failing reports whether a gate of the wave has a failed verdict that counts.
func (d *Deployment) failing(w *Wave) bool {
	for _, x := range sorted(w.Watch) {
		gate := d.Config.gate(x.Gate)
		if gate != nil && slices.Contains(w.Gates, x.Gate) && x.failing(gate) && d.actionFor(gate, w).Do != ActionContinue {
			return true
		}
	}
	return false
}

// sealed appends to a history and bounds it.
func sealed(seals []Seal, one Seal) []Seal {
	seals = append(seals, one)
	if len(seals) > sealMemory {
		seals = slices.Delete(seals, 0, len(seals)-sealMemory)
	}
	return seals
}

// sealLayout remembers what was sealed in a wave, for targets without history.
func (s *State) sealLayout(d *Deployment, i int, seal Seal) {
	if l := &s.group(d).Layout; i < len(l.Waves) {
		l.Waves[i].Seals = sealed(l.Waves[i].Seals, seal)
		for _, h := range l.Waves[i].Hosts {
			s.Hosts[h].touched = s.Index // those without history go by it
		}
	}
}

func (s *State) waveSkipped(d *Deployment, w *Wave, e WaveSkipped) error {
	p := d.waves[e.Wave]
	if d.Status != DeploymentStatusRunning || p.open() > 0 || p.tasks[TaskSettled] > 0 ||
		!w.Status.waits() && !w.Status.active() || w.Status.waits() && p.failures+w.Extra > 0 || d.Scoped != nil || !d.entered(e.Wave) {
		return refuse(Conflict, "wave %s has work", w.Name)
	}
	if p.tasks[TaskSkipped] == 0 { // unless it was skipped by a person
		s.sealLayout(d, e.Wave, Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now})
	}
	w.EndedAt, w.Holds = s.Now, nil
	s.setWave(d, e.Wave, WaveStatusSkipped, e.Cause)
	return nil
}

// permits is the number of permits held in wave i.
func (d *Deployment) permits(i int) int { return d.waves[i].permits }

// revisionSuspected notes what was seen after the deployment succeeded.
func (s *State) revisionSuspected(e RevisionSuspected) error {
	d := s.Deployments[e.Deployment]
	if d == nil || !d.Status.Terminal() || d.Suspect != "" {
		return refuse(Conflict, "deployment %s cannot be suspected", e.Deployment)
	}
	d.Suspect = e.Text
	if !d.Pruned {
		s.record(d, Record{Subject: "deployment", Wave: -1, To: "suspect", Text: e.Text})
	}
	return nil
}
