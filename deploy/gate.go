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

// promotable lists what holds the wave that a person may let pass.
func (d *Deployment) promotable(i int) []string {
	w := &d.Waves[i]
	var out []string
	if w.Status == WaveStatusBaking {
		out = append(out, "bake")
	}
	if w.Status == WaveStatusDeploying && w.OneBox && d.waves[i].settledUp > 0 && !d.oneBoxPassed(i) {
		out = append(out, w.Gates...)
	}
	for _, h := range w.Holds {
		if h.Kind == "window" || h.Kind == "gate" {
			out = append(out, h.Name)
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
			if g := d.Config.gate(h.Name); h.Kind == "approval" && g != nil && d.Waves[i].Status == WaveStatusHeld && !d.approved(g) {
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
