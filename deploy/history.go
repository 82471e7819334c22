package deploy

import (
	"cmp"
	"slices"
)

// Seal is one entry of a target's history.
type Seal struct {
	Deployment string `json:"deployment"`
	Revision   Digest `json:"revision"`
	At         Time   `json:"at"`
}

// sealMemory bounds a target's history: a last good revision, its predecessor
// and room for revisions that were marked bad later.
const sealMemory = 16

// sealed appends to a history and bounds it.
func sealed(seals []Seal, one Seal) []Seal {
	seals = append(seals, one)
	if len(seals) > sealMemory {
		seals = slices.Delete(seals, 0, len(seals)-sealMemory)
	}
	return seals
}

// LastGood returns the target's last good revision: the newest seal whose
// revision is not marked bad, skipping the deployment's own seals. Empty = none.
func (s *State) LastGood(t *Target, deployment string) Digest {
	return t.lastGood(func(seal Seal) bool { return seal.Deployment == deployment })
}

// lastGood is LastGood, skipping the seals that skip names. A target without
// any history goes where its wave was.
func (t *Target) lastGood(skip func(Seal) bool) Digest {
	g := t.group
	if g == nil {
		return ""
	}
	if len(t.Seals) > 0 {
		return newestGood(g, t.Seals, skip)
	}
	if w, ok := g.place[t.Host]; ok {
		return g.lastGoodWave(w, skip)
	}
	return ""
}

// lastGoodWave is the last good revision of a wave: for targets without
// history. It is the newest good seal of the wave under this layout, else the
// newest good revision that went through the group.
func (g *Group) lastGoodWave(w int, skip func(Seal) bool) Digest {
	if w >= 0 && w < len(g.Layout.Waves) {
		if d := newestGood(g, g.Layout.Waves[w].Seals, skip); d != "" {
			return d
		}
	}
	return newestGood(g, g.Succeeded, skip)
}

func newestGood(g *Group, seals []Seal, skip func(Seal) bool) Digest {
	for i := len(seals) - 1; i >= 0; i-- {
		if g.Bad[seals[i].Revision] == "" && (skip == nil || !skip(seals[i])) {
			return seals[i].Revision
		}
	}
	return ""
}

// Sealed returns the revisions that were sealed on the group and are not bad,
// the one sealed last first.
func (s *State) Sealed(g *Group) []Digest {
	last := map[string]Time{}
	for _, t := range g.list {
		for _, seal := range t.Seals {
			if g.Bad[seal.Revision] == "" {
				last[string(seal.Revision)] = max(last[string(seal.Revision)], seal.At)
			}
		}
	}
	var out []Digest
	for d := range sorted(last) {
		out = append(out, Digest(d))
	}
	slices.SortStableFunc(out, func(a, b Digest) int { return cmp.Compare(last[string(b)], last[string(a)]) })
	return out
}

// want is the revision that a target without a task should run: what its wave
// is being given, once one target took it; else the wave's last good revision.
// A wave that is still deploying takes a tenth more than it planned.
func (g *Group) want(t *Target) Digest {
	w, ok := g.place[t.Host]
	if !ok {
		return ""
	}
	for i := len(g.open) - 1; i >= 0; i-- {
		d := g.open[i]
		if w >= len(d.Waves) || d.Status != DeploymentStatusRunning || d.ScopeRevert != nil || d.waves[w].tasks[TaskSettled] == 0 {
			continue
		}
		room := len(g.Layout.Waves[w].Hosts)*10 <= d.waves[w].total()*11
		if st := d.Waves[w].Status; st == WaveStatusBaking || st == WaveStatusDeploying && room {
			return d.Revision
		}
	}
	return g.lastGoodWave(w, nil)
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
	for _, h := range g.Hosts() {
		t := g.target(h)
		want := g.want(t)
		if want == t.Running && t.Drift != "" { // left out on purpose, and so was its wave
			want = newestGood(g, g.Succeeded, nil)
		}
		if want == "" || want == t.Running || t.Permit != PermitNone {
			continue
		}
		x := Drifted{Host: h, Runs: t.Running, Wants: want, Why: t.Drift}
		switch {
		case t.Away:
			x.Why = "unreachable"
		case t.Quarantined:
			x.Why = t.host.Quarantine
		case t.Open:
			x.Why = "its last generation has no result"
		case x.Why == "" && !t.mayBeBehind(g):
			continue // a deployment decides
		}
		out = append(out, x)
	}
	return out
}
