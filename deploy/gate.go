package deploy

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// GateKind says who answers a gate.
type GateKind string

// Gate kinds.
const (
	GateProbe    GateKind = "probe"
	GateQuery    GateKind = "prometheus"
	GateCompare  GateKind = "compare"
	GateWebhook  GateKind = "webhook"
	GateWindow   GateKind = "window"
	GateApproval GateKind = "approval"
)

// Kind returns who answers the gate.
func (g *Gate) Kind() GateKind {
	switch {
	case g.Query != nil:
		return GateQuery
	case g.Compare != nil:
		return GateCompare
	case g.Webhook != "":
		return GateWebhook
	case g.Window != "":
		return GateWindow
	case g.Approval != nil:
		return GateApproval
	}
	return GateProbe
}

// Observed reports whether coordinators ask the gate and record the answers.
func (g *Gate) Observed() bool {
	k := g.Kind()
	return k != GateProbe && k != GateApproval
}

// scope is the gate's scope; a probe asks a host, every other gate a wave.
func (g *Gate) scope() string {
	switch {
	case g.Scope != "":
		return g.Scope
	case g.Kind() == GateProbe:
		return ScopeHost
	}
	return ScopeWave
}

// every is the time between two questions of the gate.
func (g *Gate) every() time.Duration { return cmp.Or(g.Interval, defaultInterval) }

// defaultInterval is the time between two questions of a gate that names none.
const defaultInterval = 15 * time.Second

// watchKey names the answers of a gate for one scope in a wave.
func watchKey(gate, key string) string { return gate + "\n" + key }

// hostKey is the host that a key names, or "".
func hostKey(gate *Gate, key string) string {
	if gate.scope() == ScopeHost {
		return key
	}
	return ""
}

// Watched is what a gate answered for one scope of a wave so far.
type Watched struct {
	Gate    string        `json:"gate"`
	Last    Observation   `json:"last"`
	At      Time          `json:"at"`
	Fails   int           `json:"fails,omitempty"`   // failing answers in a row
	Covered time.Duration `json:"covered,omitempty"` // of the bake, by answers
	Verdict Verdict       `json:"verdict,omitempty"` // as judged; "" not yet
}

// failing reports whether the gate's answers make a failed verdict.
func (x *Watched) failing(gate *Gate) bool {
	return x.Fails >= max(1, gate.FailLimit) || x.Fails > 0 && x.Last.Final
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

// actionFor is what the config says of a failing observed gate: a webhook is the
// test of a pipeline, and a gate without a scope is ruled by bake while baking.
func (d *Deployment) actionFor(gate *Gate, w *Wave) Action {
	switch c := &d.Config.OnFailure; {
	case gate.Webhook != "" && c.Test.Do != "":
		return c.Test
	case gate.Scope == "" && w.Status == WaveStatusBaking && c.Bake.Do != "":
		return c.Bake
	default:
		return c.Gate
	}
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
		return Hold{
			Kind: "approval", Name: gate.Name,
			Text: fmt.Sprintf("%s needs %d of %d approvals by %s", gate.Name, need-dep.approvals(gate), need, who),
		}
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

// approved reports whether enough people said yes to the gate, or need not.
func (dep *Deployment) approved(gate *Gate) bool {
	return dep.goesPast(gate) || dep.approvals(gate) >= max(gate.Approval.Count, 1)
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

// promotable lists what holds the wave that a person may let pass.
func (d *Deployment) promotable(i int) []string {
	w := &d.Waves[i]
	var out []string
	if w.Status == WaveStatusBaking {
		out = append(out, "bake")
		for _, name := range w.Gates {
			if gate := d.Config.gate(name); gate != nil && gate.Observed() {
				out = append(out, name)
			}
		}
	}
	if w.Status == WaveStatusDeploying && w.OneBox && d.waves[i].settledUp > 0 && !d.oneBoxPassed(i) {
		out = append(out, w.Gates...)
	}
	for _, h := range w.Holds {
		if h.Kind == "window" || h.Kind == "gate" || h.Kind == holdTargets {
			out = append(out, h.Name)
		}
	}
	return out
}

// approvalEnds is when the gate's time to be approved is over for a wave that
// it holds, or for a deployment that waits to take over others; 0 is never. It
// passes while the deployment is paused too: it is people's.
func (d *Deployment) approvalEnds(i int, gate *Gate) Time {
	if gate.Approval == nil || gate.Approval.Timeout == 0 {
		return 0
	}
	w := &d.Waves[i]
	switch {
	case d.Status == DeploymentStatusPending && d.Preempt && i == 0:
		return d.CreatedAt.Add(gate.Approval.Timeout)
	case w.Status == WaveStatusHeld && slices.ContainsFunc(w.Holds, func(h Hold) bool { return h.Name == gate.Name }):
		return w.HeldAt.Add(gate.Approval.Timeout)
	}
	return 0
}

// overdueFor reports whether the gate's time to be approved is over.
func (d *Deployment) overdueFor(gate *Gate, now Time) bool {
	for i := range d.Waves {
		if end := d.approvalEnds(i, gate); end > 0 && now >= end {
			return true
		}
	}
	return false
}

// overdue names an approval that was not given in time, or "".
func (d *Deployment) overdue(now Time) string {
	for i := range d.Waves {
		if !d.Waves[i].Status.waits() {
			continue
		}
		for _, name := range d.preGates(i) {
			gate := d.Config.gate(name)
			if gate == nil || gate.Approval == nil || d.approved(gate) {
				continue
			}
			if end := d.approvalEnds(i, gate); end > 0 && now >= end {
				return name
			}
		}
	}
	return ""
}

// unanswered names a gate that has not answered since the deployment was let go
// on; "" when every one has.
func (s *State) unanswered(d *Deployment) string {
	g := s.group(d)
	for i := range d.Waves {
		w := &d.Waves[i]
		if !d.asks(i) || d.shadowed(g, i) {
			continue
		}
		for _, name := range w.Gates {
			gate := d.Config.gate(name)
			if gate == nil || !gate.Observed() {
				continue
			}
			for key := range sorted(s.asked(d, i, gate)) {
				if x := w.Watch[watchKey(name, key)]; x == nil || x.At < d.AskAgain {
					return name
				}
			}
		}
	}
	return ""
}

// asks reports whether the gates of wave i are asked now: some of its hosts give
// evidence, or it is about to be tried again.
func (d *Deployment) asks(i int) bool {
	st := d.Waves[i].Status
	return st.judged() && (d.waves[i].evidence > 0 || d.AskAgain != 0 && st.active())
}

// asked lists the names of the hosts that run the revision, by the key of each
// scope that the gate is asked about in a wave. Before a wave that was taken back
// is tried again, a gate that speaks of more than the revision's own hosts is
// asked about all that are to take it.
func (s *State) asked(d *Deployment, i int, gate *Gate) map[string][]string {
	out := map[string][]string{}
	again := d.AskAgain != 0 && d.waves[i].evidence == 0 && gate.Compare == nil && gate.scope() != ScopeHost
	for j := range d.Waves {
		if j != i && gate.scope() != ScopeDeployment {
			continue
		}
		for _, h := range d.Waves[j].Hosts {
			t, task := s.Target(h, d.App), d.Tasks[h]
			if t == nil || task == nil || task.gone() || t.Quarantined {
				continue
			}
			if (task.Status != TaskSettled || t.Running != d.Revision) && !(again && task.Status == TaskWaiting) {
				continue
			}
			key := ""
			switch gate.scope() {
			case ScopeHost:
				key = h
			case ScopeZone:
				key = t.Zone
			}
			out[key] = append(out[key], s.hostName(h))
		}
	}
	return out
}

// waiting lists the approvals that the deployment needs before it may enter a
// wave, or start; of one gate, or of all.
func (d *Deployment) waiting(gate string) []*Gate {
	var out []*Gate
	add := func(name string) {
		g := d.Config.gate(name)
		if g != nil && g.Approval != nil && (gate == "" || gate == name) && !d.approved(g) && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	for i := range d.Waves {
		if d.Waves[i].Status.waits() {
			for _, name := range d.preGates(i) {
				add(name)
			}
		}
	}
	return out
}

// WaitsFor lists the approval gates that hold the deployment now: before a wave
// that is next, or before a deployment that preempts starts.
func (d *Deployment) WaitsFor() []*Gate {
	var out []*Gate
	if d.Status == DeploymentStatusPending && d.Preempt {
		out = d.waiting("")
	}
	for i := range d.Waves {
		for _, h := range d.Waves[i].Holds {
			if g := d.Config.gate(h.Name); h.Kind == "approval" && g != nil && d.Waves[i].Status == WaveStatusHeld &&
				!d.approved(g) {
				out = append(out, g)
			}
		}
	}
	return out
}

// evidence sums up what the observed gates of a wave have answered.
type evidence struct {
	passed  bool // every gate's last answers are passes
	decided bool // every sequential gate has decided for the revision
	open    string
	samples int
	watched []*Watched
	every   []time.Duration // interval of each
	need    []time.Duration // of each: what its answers must cover
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
			need := w.BakeMin
			if gate.scope() == ScopeHost {
				task := dep.Tasks[x.Last.Key]
				if task == nil || task.gone() || task.Status != TaskSettled {
					continue // the host departed, or is on its way
				}
				need = min(need, x.At.Sub(max(w.BakeSince, task.Since))) // less of who joined in the bake
			}
			e.need = append(e.need, need)
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

// uncovered is how much of the bake answers still have to cover, the most of all
// gates, or a moment when one is stale: answers must cover 95 % of the minimum,
// so a gap prolongs the bake by its length.
func (e *evidence) uncovered(now Time, w *Wave) time.Duration {
	left := time.Duration(0)
	for i, x := range e.watched {
		if x.At < w.BakeSince || now.Sub(x.At) > 2*e.every[i] {
			left = max(left, e.every[i])
		}
		left = max(left, e.need[i]*95/100-x.Covered)
	}
	return left
}

// short says, in words, what a bake that is over still lacks.
func (e *evidence) short(w *Wave, now Time) string {
	switch {
	case e.open == "health":
		return "some hosts do not say how they are"
	case e.open != "":
		return "gate " + e.open + " is inconclusive"
	case e.samples < w.Samples:
		return fmt.Sprintf("%d of %d samples", e.samples, w.Samples)
	}
	return fmt.Sprintf("answers of gates are %s short of the bake", short(e.uncovered(now, w)))
}

func reason(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

func named(gate string) string {
	if gate == "" {
		return ""
	}
	return " at gate " + gate
}
