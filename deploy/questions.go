package deploy

import "time"

// Question is one gate that the leader must ask now, with everything that the
// question needs, so that whoever asks keeps no pointer into the state.
type Question struct {
	Deployment string
	Attempt    int // of the deployment; goes back in the GateObserved
	Wave       int
	Gate       Gate
	Metric     Metric // of a comparison
	App, Group string
	WaveName   string
	Revision   string   // the name of what is deployed
	Base       string   // the name of what was there before; "" for nothing
	Key        string   // of the Observation: zone, or host id; "" for wider scopes
	Host       string   // name, where Key is a host
	Zone       string   // where Key is a zone or a host
	Candidates []string // names of the hosts in the scope that run the revision
	Baseline   []string // names of the hosts of the group that serve another one
	// Comparisons is how many the deployment makes: of one, its part of the false alarms.
	Comparisons int
	Since       int64 // Unix milliseconds: evidence from before is void
	Interval    time.Duration
}

// questionBatch bounds the questions of one call: host gates of a large fleet
// are asked in turns.
const questionBatch = 500

// Questions returns the gates that must be asked at FSM time now, and how long
// it is to the next one; 0 when there is none. It is asked on the leader, by
// whoever does the I/O, and its answers enter as GateObserved.
func Questions(s *State, now Time) (due []Question, wait time.Duration) {
	q := &questions{s: s, now: now}
	for _, dep := range s.open {
		if dep.Status == DeploymentStatusRunning || dep.Status == DeploymentStatusPaused {
			q.deployment(dep)
		}
	}
	for _, g := range s.groups {
		if dep := s.Deployments[g.Last]; dep != nil && dep.Status.Terminal() && dep.watched(g, now) {
			for i := range dep.Waves {
				if dep.Waves[i].Status == WaveStatusSealed {
					q.wave(dep, i)
				}
			}
		}
	}
	return q.due, q.wait
}

type questions struct {
	s    *State
	now  Time
	due  []Question
	wait time.Duration
}

func (q *questions) deployment(dep *Deployment) {
	g := q.s.group(dep)
	before := true // every wave of the batches before has passed
	for i := range dep.Waves {
		w := &dep.Waves[i]
		if i > 0 && w.Batch != dep.Waves[i-1].Batch {
			for j := range i {
				before = before && dep.Waves[j].Status.Passed()
			}
		}
		switch {
		case w.Status.waits() && before:
			for _, name := range dep.preGates(i) {
				if gate := dep.Config.gate(name); gate != nil && gate.Observed() && !dep.promoted(w.Name, name) {
					q.ask(dep, i, gate, "", nil)
				}
			}
		case w.Status.judged():
			if dep.asks(i) && !dep.shadowed(g, i) {
				q.wave(dep, i)
			}
		}
	}
}

// wave asks the gates of a wave that has settled hosts, each in its scope.
func (q *questions) wave(dep *Deployment, i int) {
	w := &dep.Waves[i]
	for _, name := range w.Gates {
		gate := dep.Config.gate(name)
		if gate == nil || !gate.Observed() {
			continue
		}
		for key, hosts := range sorted(q.s.asked(dep, i, gate)) {
			q.ask(dep, i, gate, key, hosts)
		}
	}
}

// ask adds a question that is due, or notes when it will be.
func (q *questions) ask(dep *Deployment, i int, gate *Gate, key string, hosts []string) {
	w := &dep.Waves[i]
	if x := w.Watch[watchKey(gate.Name, key)]; x != nil {
		if at := x.At.Add(gate.every()); at > q.now && x.At >= dep.AskAgain {
			if left := at.Sub(q.now); q.wait == 0 || left < q.wait {
				q.wait = left
			}
			return
		}
	}
	if gate.Query != nil && !w.Status.waits() {
		if left := w.EvidenceSince.Add(gate.Query.Window).Sub(q.now); left > 0 { // it would look at what was before
			if q.wait == 0 || left < q.wait {
				q.wait = left
			}
			return
		}
	}
	if len(q.due) >= questionBatch {
		q.wait = time.Millisecond
		return
	}
	one := Question{
		Deployment: dep.ID, Attempt: dep.Attempt, Wave: i, Gate: *gate, App: dep.App, Group: dep.Group, WaveName: w.Name,
		Revision: dep.RevName, Base: dep.FromName, Key: key, Candidates: hosts, Since: w.EvidenceFrom, Interval: gate.every(),
	}
	switch gate.scope() {
	case ScopeHost:
		if h := q.s.Hosts[key]; h != nil {
			one.Host, one.Zone = h.Name, h.Zone
		}
	case ScopeZone:
		one.Zone = key
	}
	if gate.Compare != nil {
		one.Comparisons = dep.Comparisons(q.s.group(dep))
		one.Metric, _ = dep.Config.MetricOf(gate.Compare.Metric)
		for _, h := range q.s.group(dep).Hosts() {
			if t := q.s.Target(h, dep.App); t.Running != dep.Revision && t.Running != "" && t.Serving() {
				one.Baseline = append(one.Baseline, q.s.hostName(h))
			}
		}
	}
	q.due = append(q.due, one)
}

// Comparisons is how many answers of comparisons may fail the deployment: of each wave
// and gate, one a host, a zone or a wave, as the gate's scope says.
func (d *Deployment) Comparisons(g *Group) int {
	n := 0
	for i := range d.Waves {
		w := &d.Waves[i]
		for _, name := range w.Gates {
			gate := d.Config.gate(name)
			switch {
			case gate == nil || gate.Compare == nil:
			case gate.scope() == ScopeHost:
				n += max(1, len(w.Hosts))
			case gate.scope() == ScopeZone && w.Zone == "":
				n += max(1, len(g.Zones()))
			default:
				n++
			}
		}
	}
	return n
}
