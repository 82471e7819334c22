package deploy

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Seal is one line of history: a revision that passed, on a target, in a wave of
// a group, or on the group as a whole.
type Seal struct {
	Deployment string `json:"deployment"`
	Revision   Digest `json:"revision"`
	At         Time   `json:"at"`
	// Wave is the name of the wave that it passed in; "" is the whole group: its
	// deployment succeeded, or people went back to it. A target's own has none.
	Wave string `json:"wave,omitempty"`
}

// sealMemory bounds the history of a target, of a wave and of a group as a
// whole: a last good revision, its predecessor and room for revisions that were
// marked bad later.
const sealMemory = 16

// sealed returns a target's history with one more line, bounded.
func sealed(seals []Seal, one Seal) []Seal {
	return append(slices.Clone(seals[max(0, len(seals)+1-sealMemory):]), one)
}

// unsealed returns a target's history without the lines that gone takes.
func unsealed(seals []Seal, gone func(Seal) bool) []Seal {
	if !slices.ContainsFunc(seals, gone) {
		return seals
	}
	return slices.DeleteFunc(slices.Clone(seals), gone)
}

// seal appends to the group's history, which is in order of time and outlives
// hosts, layouts and selectors. The oldest line of the same wave makes room, and
// of waves that are older than everything the whole group has.
func (g *Group) seal(one Seal) {
	g.forgetGood()
	g.History = append(g.History, one)
	same := func(s Seal) bool { return s.Wave == one.Wave }
	n := 0
	for _, s := range g.History {
		n += count(same(s))
	}
	if n > sealMemory {
		i := slices.IndexFunc(g.History, same)
		g.History = slices.Delete(g.History, i, i+1)
	}
	if oldest := slices.IndexFunc(g.History, func(s Seal) bool { return s.Wave == "" }); n > sealMemory &&
		one.Wave == "" && oldest > 0 {
		g.History = slices.Delete(g.History, 0, oldest)
	}
}

// Grade says how far a revision can be trusted on a group.
type Grade string

// Grades. A sealed revision passed its deployment; it is proven once watchAfter
// has gone by without suspicion. Both a suspect and a bad one are good for
// nothing that goes back.
const (
	GradeNone    Grade = ""
	GradeSealed  Grade = "sealed"
	GradeProven  Grade = "proven"
	GradeSuspect Grade = "suspect"
	GradeBad     Grade = "bad"
)

// Grade returns how far the revision can be trusted on the group.
func (g *Group) Grade(d Digest) Grade {
	switch {
	case g.Bad[d] != "":
		return GradeBad
	case g.Grades[d] != GradeNone:
		return g.Grades[d]
	case slices.ContainsFunc(g.History, func(s Seal) bool { return s.Revision == d }):
		return GradeSealed
	}
	return GradeNone
}

// seals is a part of a history to look at, newest last.
type seals struct {
	list []Seal
	wave string // lines of this wave and of the whole group
	own  bool   // a target's: every line
}

// newest returns the newest revision of the history that is not bad and that ok
// takes; a nil ok takes every one.
func (g *Group) newest(of seals, ok func(Seal) bool) Digest {
	for _, s := range slices.Backward(of.list) {
		if (of.own || s.Wave == "" || s.Wave == of.wave) && g.Bad[s.Revision] == "" && (ok == nil || ok(s)) {
			return s.Revision
		}
	}
	return ""
}

// history is the group's, as the wave at a place in the layout sees it; -1 sees
// what concerned the whole group.
func (g *Group) history(wave int) seals {
	if wave < 0 || wave >= len(g.Layout.Waves) {
		return seals{list: g.History}
	}
	return seals{list: g.History, wave: g.Layout.Waves[wave].Name}
}

// goodIn is what a wave runs when nothing is in flight: the newest good line of
// its history. Births and late tasks go by it.
func (g *Group) goodIn(wave int) Digest {
	if wave < 0 || wave >= len(g.Layout.Waves) {
		return g.newest(g.history(wave), nil)
	}
	if g.good == nil { // who reads must not write
		return g.newest(g.history(wave), nil)
	}
	return g.good[wave]
}

// findGood finds the newest good line of every wave, while nobody reads.
func (g *Group) findGood() {
	if g.good != nil {
		return
	}
	good := make([]Digest, len(g.Layout.Waves))
	for i := range good {
		good[i] = g.newest(g.history(i), nil)
	}
	g.good = good
}

// forgetGood is called with every change of the history, of what is bad, and of
// the layout.
func (g *Group) forgetGood() { g.good = nil }

// wayBack is where a target goes when what it runs is taken back: the newest
// good revision of its own history that ok takes, else of its wave's, else of
// the group's. Past one that is suspect, or that shaky names, it is the newest
// proven one, where there is one; past is what it leads past, "" nothing.
func (g *Group) wayBack(t *Target, ok func(Seal) bool, shaky func(Digest) bool) (back, past Digest) {
	wave, placed := t.wave()
	if !placed {
		wave = -1
	}
	look := func(ok func(Seal) bool) Digest {
		if d := g.newest(seals{list: t.Seals, own: true}, ok); d != "" {
			return d
		}
		return g.newest(g.history(wave), ok)
	}
	d := look(ok)
	if d == "" || g.Grades[d] != GradeSuspect && (shaky == nil || !shaky(d)) {
		return d, ""
	}
	proven := look(func(s Seal) bool {
		return s.Revision != d && g.Grades[s.Revision] == GradeProven && (ok == nil || ok(s))
	})
	if proven != "" {
		return proven, d
	}
	return d, ""
}

// LastGood returns where the target would go back to now; "" is nowhere.
func (s *State) LastGood(t *Target) Digest {
	if t.group == nil {
		return ""
	}
	back, _ := t.group.wayBack(t, nil, nil)
	return back
}

// withdraw takes the deployment's lines out of the histories of the targets
// that of takes, and of the waves that in takes; the whole group's as well.
func (s *State) withdraw(g *Group, deployment string, of func(*Target) bool, in func(wave string) bool) {
	g.forgetGood()
	g.History = slices.DeleteFunc(g.History, func(seal Seal) bool {
		return seal.Deployment == deployment && (seal.Wave == "" || in(seal.Wave))
	})
	for _, t := range g.list {
		if of(t) {
			t.Seals = unsealed(t.Seals, func(seal Seal) bool { return seal.Deployment == deployment })
		}
	}
	s.resortBehind(g)
}

// withdrawRevision takes a revision's lines out of the histories of the targets
// that of takes, and of the waves that in takes; the whole group's as well: who
// leaves it, or goes back past it, does not come to it by what was before.
func (s *State) withdrawRevision(g *Group, revision Digest, of func(*Target) bool, in func(wave string) bool) {
	g.forgetGood()
	g.History = slices.DeleteFunc(g.History, func(seal Seal) bool {
		return seal.Revision == revision && (seal.Wave == "" || in(seal.Wave))
	})
	for _, t := range g.list {
		if of(t) {
			t.Seals = unsealed(t.Seals, func(seal Seal) bool { return seal.Revision == revision })
		}
	}
	s.resortBehind(g)
}

// sealedBefore reports whether the whole group had passed the revision by
// another deployment.
func (g *Group) sealedBefore(d Digest, deployment string) bool {
	return slices.ContainsFunc(g.History, func(s Seal) bool {
		return s.Wave == "" && s.Revision == d && s.Deployment != deployment
	})
}

// Wanted is what a target should run, and why.
type Wanted struct {
	Revision Digest
	Why      string // in words, for people
}

// Wants says what the target should run now, and why: what a deployment in
// flight moves it to or has moved it to, what it was left with on purpose, what
// its wave is being given, or the newest good line of its wave's history.
func (s *State) Wants(t *Target) Wanted {
	g := t.group
	if g == nil {
		return Wanted{t.Running, "it belongs to no group"}
	}
	for _, d := range slices.Backward(g.open) {
		task := d.Tasks[t.Host]
		switch {
		case task == nil || task.gone():
		case task.Status == TaskReverting || task.Goal != "" && task.Status != TaskWaiting:
			return Wanted{task.Goal, d.ID + " takes it back"}
		case task.Status == TaskGranted || task.Status == TaskSettled && t.Running == d.Revision:
			return Wanted{task.goal(d), "deployment " + d.ID}
		}
	}
	if t.Declared {
		return Wanted{t.Running, t.Drift}
	}
	if d := g.given(t); d != nil {
		return Wanted{d.Revision, fmt.Sprintf("deployment %s gives it to its wave", d.ID)}
	}
	wave, placed := t.wave()
	if !placed {
		return Wanted{"", "it has no wave yet"}
	}
	good := g.goodIn(wave)
	if good == "" {
		return Wanted{"", "nothing is sealed in its wave"}
	}
	return Wanted{good, fmt.Sprintf("wave %s runs it (%s)", g.Layout.Waves[wave].Name, g.Grade(good))}
}

// given returns the deployment whose revision the target's wave is being given,
// once one of its targets took it; nil for none. A wave that is still deploying
// takes a tenth more hosts than it planned.
func (g *Group) given(t *Target) *Deployment {
	w, placed := t.wave()
	if !placed {
		return nil
	}
	return g.givenIn(w)
}

func (g *Group) givenIn(w int) *Deployment {
	for _, d := range slices.Backward(g.open) {
		if d.Inverse || w >= len(d.Waves) || d.Status != DeploymentStatusRunning || d.ScopeRevert != nil ||
			d.waves[w].tasks[TaskSettled] == 0 {
			continue
		}
		room := len(g.Layout.Waves[w].Hosts)*10 <= d.Waves[w].Planned*11
		if st := d.Waves[w].Status; st == WaveStatusBaking || st == WaveStatusDeploying && room {
			return d
		}
	}
	return nil
}

// want is the revision that a target without a task should run.
func (g *Group) want(t *Target) Digest {
	if d := g.given(t); d != nil {
		return d.Revision
	}
	w, placed := t.wave()
	if !placed {
		return ""
	}
	return g.goodIn(w)
}

// Drifted is a target that does not run what its wave asks.
type Drifted struct {
	Host  string
	Runs  Digest
	Wants Digest
	Why   string // why nothing is done about it; "" when it is being brought up to date
}

// Drift lists the group's targets that do not run what their wave asks and that
// no deployment in flight is about to change.
func (s *State) Drift(g *Group) []Drifted {
	var out []Drifted
	for _, t := range g.list {
		want := g.want(t)
		if want == t.Running && t.Drift != "" { // left out on purpose, and so was its wave
			want = g.newest(g.history(-1), nil)
		}
		if want == "" || want == t.Running || t.Permit != PermitNone {
			continue
		}
		x := Drifted{Host: t.Host, Runs: t.Running, Wants: want, Why: t.Drift}
		switch {
		case t.Away:
			x.Why = "unreachable"
		case t.Quarantined:
			x.Why = t.keptOut()
		case t.Open:
			x.Why = "its last generation has no result"
		case x.Why == "" && !t.mayBeBehind(g):
			continue // a deployment decides
		case x.Why == "":
			x.Why = s.catchUpHold(g, t)
		}
		out = append(out, x)
	}
	return out
}

// catchUpHold says what keeps a target from being brought up to date now: a
// freeze, or a floor; "" when nothing does.
func (s *State) catchUpHold(g *Group, t *Target) string {
	if f := s.Frozen(g); f != nil && !t.goesBack(g) {
		return "frozen " + f.By()
	}
	var floor *floorError
	if kind, _ := g.catchUp(t); kind == CatchUpLate {
		x := terms{concurrent: math.MaxInt, floors: floors(g)}
		if _, err := s.ledger(g, nil).admit(t, x); errors.As(err, &floor) {
			return "waits: " + err.Error()
		}
	}
	return ""
}

// Undo is what a rollback of a group takes back, and what to: the choice of
// this package, which a fact must name as it stands.
type Undo struct {
	Deployment string // that is taken back
	Revision   Digest // that most targets go to
	Bad        Digest // that is marked bad by it; "" for one that the whole group had passed before
}

// Undoable returns what a rollback without a goal takes back: the newest
// deployment that changed what targets run, and was not taken back since.
func (s *State) Undoable(g *Group) (Undo, error) {
	var newest *Deployment
	for _, d := range slices.Backward(g.all) {
		if d.effective() {
			newest = d
			break
		}
	}
	if newest == nil {
		return Undo{}, refuse(Conflict, "nothing that could be taken back was deployed to group %s of %s",
			g.Name, g.App)
	}
	u := Undo{Deployment: newest.ID}
	if !g.sealedBefore(newest.Revision, newest.ID) {
		u.Bad = newest.Revision
	}
	goals := map[string]int{}
	for _, t := range g.list {
		if goal, _ := g.without(t, newest.ID, newest.Revision); goal != "" {
			goals[string(goal)]++
		}
	}
	if u.Revision = commonest(goals); u.Revision == "" {
		return Undo{}, refuse(Conflict, "group %s of %s has no last good revision before %s (deployment %s); name one with --to",
			g.Name, g.App, newest.RevName, newest.ID)
	}
	return u, nil
}

// without is where a target goes when an ended deployment of a revision is
// undone. Who passed that revision before leaves it too, and nobody comes to what
// people had left already when they went back by name.
func (g *Group) without(t *Target, deployment string, revision Digest) (back, past Digest) {
	return g.wayBack(t, func(seal Seal) bool {
		return seal.Deployment != deployment && seal.Revision != revision && !g.undone(seal.Deployment)
	}, nil)
}

// undone reports whether people have taken the deployment back after its end.
func (g *Group) undone(deployment string) bool {
	for _, d := range slices.Backward(g.all) {
		if d.ID == deployment {
			return d.Undone
		}
	}
	return false
}

// effective reports whether the ended deployment changed what targets run, and
// nobody has taken that back.
func (d *Deployment) effective() bool {
	return d.Status.Terminal() && !d.Inverse && d.Granted && !d.Undone &&
		d.Status != DeploymentStatusRolledBack && d.Status != DeploymentStatusCancelled &&
		d.Status != DeploymentStatusSuperseded
}

// Sealed returns the revisions that passed on the group and are not bad, the
// newest first.
func (s *State) Sealed(g *Group) []Digest {
	var out []Digest
	add := func(list []Seal) {
		for _, seal := range slices.Backward(list) {
			if g.Bad[seal.Revision] == "" && !slices.Contains(out, seal.Revision) {
				out = append(out, seal.Revision)
			}
		}
	}
	add(g.History)
	for _, t := range g.list {
		if len(out) < sealMemory {
			add(t.Seals)
		}
	}
	return out
}
