package deploy

import (
	"fmt"
	"strings"
)

// holdsChanged records why a wave that is next is not entered.
func (s *State) holdsChanged(d *Deployment, w *Wave, e HoldsChanged) error {
	if d.Status != DeploymentStatusRunning || !w.Status.waits() && !(w.Status.active() && d.deserted(e.Wave)) ||
		!d.entered(e.Wave) {
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
	if d.Status != DeploymentStatusRunning || !w.Status.waits() || !d.entered(e.Wave) || d.ScopeRevert != nil ||
		d.AskAgain != 0 {
		return refuse(Conflict, "wave %s is %s and cannot start", w.Name, w.Status)
	}
	if holds := s.orderHolds(d, s.group(d), e.Wave); len(holds) > 0 {
		return refuse(Conflict, "wave %s waits: %s", w.Name, holds[0].Text)
	}
	w.StartedAt, w.Budget, w.Holds = s.Now, e.Budget, nil
	s.evidenceAnew(w)
	w.Planned = d.waves[e.Wave].total()
	s.setWave(d, e.Wave, WaveStatusDeploying, "")
	return nil
}

func (s *State) setWave(d *Deployment, i int, to WaveStatus, text string) {
	was := d.Waves[i].Status
	d.Waves[i].Status = to
	if g := s.group(d); was.active() == to.active() && was.waits() == to.waits() {
		s.reassignBehind(g, i)
	} else {
		s.resortWave(g, i)
	}
	if p := d.Config.Stage.Prefetch; p == "wave" || p == "none" || d.Config.Stage.tastes() {
		s.reassignWave(d, i)
	}
	s.record(d, Record{Subject: "wave", Wave: i, To: to.String(), Text: text})
}

// resortBehind sorts out anew which targets of the group may need a
// catch-up, after a change of status that they depend on.
func (s *State) resortBehind(g *Group) {
	g.findGood()
	for i := range g.Layout.Waves {
		s.resortWave(g, i)
	}
}

func (s *State) resortWave(g *Group, i int) {
	if i >= len(g.byWave) {
		return
	}
	for _, t := range g.byWave[i] {
		was := t.behind
		g.setBehind(t, t.mayBeBehind(g))
		if was || t.behind {
			s.touch(t.host) // what it should stage changes
		}
	}
}

// reassignBehind tells the targets of a wave that may need a catch-up that toward
// what may have changed.
func (s *State) reassignBehind(g *Group, i int) {
	if i >= len(g.byWave) || len(g.behind) == 0 {
		return
	}
	for _, t := range g.byWave[i] {
		if t.behind {
			s.touch(t.host)
		}
	}
}

func (s *State) bakeStarted(d *Deployment, w *Wave, e BakeStarted) error {
	p := d.waves[e.Wave]
	if d.Status != DeploymentStatusRunning || w.Status != WaveStatusDeploying || p.open() > 0 || p.evidence == 0 ||
		p.failures+w.Extra > w.Budget ||
		d.ScopeRevert != nil || d.AskAgain != 0 {
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
	if d.Status != DeploymentStatusRunning || w.Status != WaveStatusBaking || d.ScopeRevert != nil || d.AskAgain != 0 ||
		early || d.failing(w) ||
		p.failures+w.Extra > w.Budget || p.sickCount > 0 && d.Config.OnFailure.Gate.Do != ActionContinue ||
		p.tasks[TaskSettled] == 0 {
		return refuse(Conflict, "wave %s is not ready to be sealed", w.Name)
	}
	seal := Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now}
	for _, t := range p.targets {
		if t == nil {
			continue
		}
		if task := d.Tasks[t.Host]; task == nil || task.Status != TaskSettled || task.Wave != e.Wave {
			continue
		}
		s.touch(t.host)
		t.Seals = sealed(t.Seals, seal)
	}
	s.sealWave(d, e.Wave, seal)
	w.EndedAt = s.Now
	s.setWave(d, e.Wave, WaveStatusSealed, fmt.Sprintf("%d of %d hosts", p.tasks[TaskSettled], p.total()))
	return nil
}

// sealWave writes into the group's history what passed in a wave of the layout.
func (s *State) sealWave(d *Deployment, i int, seal Seal) {
	g := s.group(d)
	if i >= len(g.Layout.Waves) {
		return
	}
	seal.Wave = g.Layout.Waves[i].Name
	g.seal(seal)
	for _, t := range g.byWave[i] {
		s.touch(t.host) // those without history of their own go by it
	}
}

func (s *State) waveSkipped(d *Deployment, w *Wave, e WaveSkipped) error {
	p := d.waves[e.Wave]
	newer := d.sealedBy(s.group(d), e.Wave)
	busy := p.open() > 0 && !d.promoted(w.Name, holdTargets) || p.evidence > 0 ||
		w.Status.waits() && p.failures+w.Extra > w.Budget
	if d.Status != DeploymentStatusRunning || busy && newer == nil || p.tasks[TaskGranted]+p.tasks[TaskReverting] > 0 ||
		!w.Status.waits() && !w.Status.active() ||
		d.ScopeRevert != nil || !d.entered(e.Wave) {
		return refuse(Conflict, "wave %s has work", w.Name)
	}
	switch {
	case newer != nil:
		w.LeftTo = newer.ID
	case p.tasks[TaskSkipped] == 0: // unless somebody was left out of it
		s.sealWave(d, e.Wave, Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now})
	}
	w.EndedAt, w.Holds = s.Now, nil
	s.setWave(d, e.Wave, WaveStatusSkipped, e.Cause)
	return nil
}
