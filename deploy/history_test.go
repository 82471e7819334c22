package deploy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The history of a group beside a model that keeps everything that ever happened
// and replays it from the beginning for each question.

// happened is one thing that happened to a group.
type happened struct {
	what       string // seal | succeed | bad | good again | grade | withdraw | undo | layout
	deployment string
	revision   Digest
	wave       string
	hosts      []string // seal: who settled; withdraw: of whom
	grade      Grade
	layout     map[string]string // host -> wave
}

// replayed is what is left after everything has happened.
type replayed struct {
	lines  []Seal // of the group, and by waves
	own    map[string][]Seal
	bad    map[Digest]bool
	grades map[Digest]Grade
	wave   map[string]string // of each host
}

func replay(all []happened) *replayed {
	r := &replayed{
		own: map[string][]Seal{}, bad: map[Digest]bool{}, grades: map[Digest]Grade{},
		wave: map[string]string{},
	}
	for i := range all {
		r.add(&all[i])
	}
	return r
}

func (r *replayed) add(h *happened) {
	drop := func(list []Seal, of func(Seal) bool) (out []Seal) {
		for _, x := range list {
			if !of(x) {
				out = append(out, x)
			}
		}
		return out
	}
	line := Seal{Deployment: h.deployment, Revision: h.revision}
	switch h.what {
	case "seal":
		for _, host := range h.hosts {
			r.own[host] = append(r.own[host], line)
		}
		line.Wave = h.wave
		r.lines = append(r.lines, line)
	case "succeed":
		r.lines = append(r.lines, line)
	case "bad", "good again":
		r.bad[h.revision] = h.what == "bad"
	case "grade":
		r.grades[h.revision] = h.grade
	case "layout":
		r.wave = h.layout
	case "withdraw":
		r.lines = drop(r.lines, func(x Seal) bool {
			return x.Deployment == h.deployment && (x.Wave == "" || h.wave == "" || x.Wave == h.wave)
		})
		for _, host := range h.hosts {
			r.own[host] = drop(r.own[host], func(x Seal) bool { return x.Deployment == h.deployment })
		}
	case "undo":
		of := func(x Seal) bool { return x.Deployment == h.deployment || x.Revision == h.revision }
		r.lines = drop(r.lines, of)
		for host := range r.own {
			r.own[host] = drop(r.own[host], of)
		}
	}
}

// candidates are the revisions that a host can go back to, the best first.
func (r *replayed) candidates(host string, but func(Seal) bool) (out []Digest) {
	lines := slices.Clone(r.own[host])
	slices.Reverse(lines)
	for _, x := range slices.Backward(r.lines) {
		if x.Wave == "" || x.Wave == r.wave[host] {
			lines = append(lines, x)
		}
	}
	for _, x := range lines {
		if !r.bad[x.Revision] && !but(x) {
			out = append(out, x.Revision)
		}
	}
	return out
}

func (r *replayed) back(host string, but func(Seal) bool, ill Digest) Digest {
	list := r.candidates(host, but)
	if len(list) == 0 {
		return ""
	}
	if first := list[0]; r.grades[first] == GradeSuspect || first == ill {
		for _, d := range list[1:] {
			if d != first && r.grades[d] == GradeProven {
				return d
			}
		}
	}
	return list[0]
}

// runs is what a wave runs when nothing is in flight.
func (r *replayed) runs(wave string) Digest {
	for _, x := range slices.Backward(r.lines) {
		if (x.Wave == "" || x.Wave == wave) && !r.bad[x.Revision] {
			return x.Revision
		}
	}
	return ""
}

// told is the group under test, and everything that happened to it.
type told struct {
	s   *State
	g   *Group
	r   *rand.Rand
	all []happened
	n   int // deployments
}

func newTold(seed uint64) *told {
	x := &told{s: NewState(), r: rand.New(rand.NewPCG(seed, 3))}
	_ = x.s.Apply(GroupDefined{App: "www", Group: "prod", Selector: "true"})
	var hosts []string
	for i := range 5 {
		id := fmt.Sprint("h", i)
		hosts = append(hosts, id)
		_ = x.s.Apply(HostEnrolled{Host: id, Name: id})
	}
	_ = x.s.Apply(TargetsJoined{App: "www", Group: "prod", Hosts: hosts})
	x.g = x.s.Groups["www/prod"]
	x.layout()
	return x
}

func (x *told) revision() Digest { return Digest(fmt.Sprint("v", x.r.IntN(6))) }

// layout lays the hosts out in waves anew; some names stay, others are new.
func (x *told) layout() {
	l, of := Layout{Version: uint64(len(x.all) + 1)}, map[string]string{}
	for i := range 1 + x.r.IntN(3) {
		l.Waves = append(l.Waves, LayoutWave{Name: fmt.Sprint("w", 2*i+x.r.IntN(2))})
	}
	for _, t := range x.g.list {
		if x.r.IntN(8) == 0 {
			continue // it is in no wave
		}
		w := &l.Waves[x.r.IntN(len(l.Waves))]
		w.Hosts, of[t.Host] = append(w.Hosts, t.Host), w.Name
	}
	x.g.Layout = l
	x.s.Rebuild()
	x.all = append(x.all, happened{what: "layout", layout: of})
}

func (x *told) some() (out []string) {
	for _, t := range x.g.list {
		if x.r.IntN(3) > 0 {
			out = append(out, t.Host)
		}
	}
	return out
}

// step lets one thing happen, to the group and in the model.
func (x *told) step() {
	d := fmt.Sprint("d", x.r.IntN(x.n+1))
	h := happened{deployment: d, revision: x.revision()}
	in := func(host string) bool { return slices.Contains(h.hosts, host) }
	switch x.r.IntN(9) {
	case 0:
		x.layout()
		return
	case 1, 2:
		x.n++
		h.what, h.wave, h.hosts = "seal", x.g.Layout.Waves[x.r.IntN(len(x.g.Layout.Waves))].Name, x.some()
		for _, t := range x.g.list {
			if in(t.Host) {
				t.Seals = sealed(t.Seals, Seal{Deployment: d, Revision: h.revision})
			}
		}
		x.g.seal(Seal{Deployment: d, Revision: h.revision, Wave: h.wave})
	case 3:
		h.what = "succeed"
		x.g.seal(Seal{Deployment: d, Revision: h.revision})
	case 4:
		h.what = "bad"
		x.g.Bad[h.revision] = d
		x.g.forgetGood()
	case 5:
		h.what = "good again"
		delete(x.g.Bad, h.revision)
		x.g.forgetGood()
	case 6:
		h.what, h.grade = "grade", []Grade{GradeProven, GradeSuspect, GradeNone}[x.r.IntN(3)]
		x.g.Grades[h.revision] = h.grade
	case 7:
		h.what, h.hosts = "withdraw", x.some()
		if x.r.IntN(2) == 0 {
			h.wave = x.g.Layout.Waves[0].Name
		}
		of := func(t *Target) bool { return in(t.Host) }
		x.s.withdraw(x.g, d, of, func(w string) bool { return h.wave == "" || w == h.wave })
	case 8:
		h.what = "undo"
		x.s.withdraw(x.g, d, everyTarget, everyWave)
		x.s.withdrawRevision(x.g, h.revision, everyTarget, everyWave)
	}
	x.all = append(x.all, h)
}

// compare asks the group and the model everything.
func (x *told) compare() error {
	r := replay(x.all)
	for i, w := range x.g.Layout.Waves {
		if got, want := x.g.goodIn(i), r.runs(w.Name); got != want {
			return fmt.Errorf("wave %s runs %q, by replay %q", w.Name, got, want)
		}
	}
	d, rev, ill := fmt.Sprint("d", x.r.IntN(x.n+1)), x.revision(), x.revision()
	nobody := func(Seal) bool { return false }
	of := func(s Seal) bool { return s.Deployment == d || s.Revision == rev || x.undone(s.Deployment) }
	for _, t := range x.g.list {
		back, _ := x.g.wayBack(t, nil, nil)
		if got, want := back, r.back(t.Host, nobody, "-"); got != want {
			return fmt.Errorf("%s goes back to %q, by replay to %q", t.Host, got, want)
		}
		back, _ = x.g.without(t, d, rev)
		if got, want := back, r.back(t.Host, of, "-"); got != want {
			return fmt.Errorf("%s goes back to %q without %s of %s, by replay to %q", t.Host, got, d, rev, want)
		}
		shaky := func(d Digest) bool { return d == ill }
		back, _ = x.g.wayBack(t, nil, shaky)
		if got, want := back, r.back(t.Host, nobody, ill); got != want {
			return fmt.Errorf("%s goes back to %q while %s is ill, by replay to %q", t.Host, got, ill, want)
		}
	}
	return x.compareUndo(r)
}

// undone reports whether people have taken the deployment back.
func (x *told) undone(id string) bool {
	return slices.ContainsFunc(x.g.all, func(d *Deployment) bool { return d.ID == id && d.Undone })
}

// compareUndo ends a deployment in some way and asks what a rollback takes back.
func (x *told) compareUndo(r *replayed) error {
	x.g.all = nil
	for i := range x.n {
		x.g.all = append(x.g.all, &Deployment{
			ID: fmt.Sprint("d", i), Revision: x.revision(),
			Inverse: x.r.IntN(4) == 0, Granted: x.r.IntN(4) > 0, Undone: x.r.IntN(4) == 0,
			Status: []DeploymentStatus{
				DeploymentStatusSucceeded, DeploymentStatusStopped, DeploymentStatusTakenOver, DeploymentStatusRolledBack,
				DeploymentStatusCancelled, DeploymentStatusSuperseded, DeploymentStatusRunning,
			}[x.r.IntN(7)],
		})
	}
	got, err := x.s.Undoable(x.g)
	var newest *Deployment
	for _, d := range x.g.all {
		kept := slices.Contains(
			[]DeploymentStatus{DeploymentStatusSucceeded, DeploymentStatusStopped, DeploymentStatusTakenOver}, d.Status)
		if kept && d.Granted && !d.Inverse && !d.Undone {
			newest = d
		}
	}
	if newest == nil {
		if err == nil {
			return fmt.Errorf("a rollback takes back %s, by replay there is nothing to take back", got.Deployment)
		}
		return nil
	}
	goals, bad := map[string]int{}, newest.Revision
	of := func(s Seal) bool {
		return s.Deployment == newest.ID || s.Revision == newest.Revision || x.undone(s.Deployment)
	}
	for _, t := range x.g.list {
		if d := r.back(t.Host, of, "-"); d != "" {
			goals[string(d)]++
		}
	}
	for _, s := range r.lines {
		if s.Wave == "" && s.Revision == newest.Revision && s.Deployment != newest.ID {
			bad = ""
		}
	}
	want := Undo{Deployment: newest.ID, Revision: commonest(goals), Bad: bad}
	if want.Revision == "" && err == nil || want.Revision != "" && got != want {
		return fmt.Errorf("a rollback takes back %+v (%v), by replay %+v", got, err, want)
	}
	return nil
}

// TestHistoryAgreesWithAReplay: whatever happened, in whatever order.
func TestHistoryAgreesWithAReplay(t *testing.T) {
	answers := map[Digest]bool{}
	for seed := range uint64(1000) {
		x := newTold(seed)
		for range 1 + x.r.IntN(24) { // fewer lines than are remembered
			x.step()
			if err := x.compare(); err != nil {
				var lines []string
				for _, h := range x.all {
					lines = append(lines, fmt.Sprint(h))
				}
				t.Fatalf("seed %d: %v after\n%s", seed, err, strings.Join(lines, "\n"))
			}
		}
		for _, target := range x.g.list {
			back, _ := x.g.wayBack(target, nil, nil)
			answers[back] = true
		}
	}
	if len(answers) < 7 {
		t.Errorf("only %d different answers: the test is vacuous", len(answers))
	}
}

// TestHistoryIsBounded: the oldest line of a wave makes room, the newest stays.
func TestHistoryIsBounded(t *testing.T) {
	x := newTold(1)
	names := map[string]int{}
	for i := range 500 {
		wave := []string{"", "one", "rest"}[x.r.IntN(3)]
		line := Seal{Deployment: fmt.Sprint("d", i), Revision: Digest(fmt.Sprint("v", i)), Wave: wave}
		x.g.seal(line)
		clear(names)
		for _, s := range x.g.History {
			names[s.Wave]++
		}
		if last := x.g.History[len(x.g.History)-1]; last != line {
			t.Fatalf("the newest line is %v, not %v", last, line)
		}
		for wave, n := range names {
			if n > sealMemory {
				t.Fatalf("%d lines of wave %q are kept", n, wave)
			}
		}
	}
	if names[""] != sealMemory {
		t.Errorf("%d lines of the group are kept, of %d", names[""], sealMemory)
	}
}
