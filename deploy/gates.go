package deploy

import (
	"cmp"
	"slices"
	"time"
)

// defaultInterval is the time between two questions of a gate that names none.
const defaultInterval = 15 * time.Second

// questionBatch bounds the questions of one call: host gates of a large fleet
// are asked in turns.
const questionBatch = 500

// every is the time between two questions of the gate.
func (g *Gate) every() time.Duration { return cmp.Or(g.Interval, defaultInterval) }

// watchKey names the answers of a gate for one scope in a wave.
func watchKey(gate, key string) string { return gate + "\n" + key }

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
		case w.Status.active() || w.Status == WaveStatusSealed:
			if p := dep.waves[i]; p.evidence > 0 && !dep.shadowed(g, i) {
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
		settled := map[string][]string{} // by key
		for j := range dep.Waves {
			if j != i && gate.scope() != ScopeDeployment {
				continue
			}
			for _, h := range dep.Waves[j].Hosts {
				t, task := q.s.Target(h, dep.App), dep.Tasks[h]
				if t == nil || task == nil || task.Status != TaskSettled || task.Left || t.Running != dep.Revision || t.Quarantined {
					continue
				}
				key := ""
				switch gate.scope() {
				case ScopeHost:
					key = h
				case ScopeZone:
					key = t.Zone
				}
				settled[key] = append(settled[key], q.s.hostName(h))
			}
		}
		for key, hosts := range sorted(settled) {
			q.ask(dep, i, gate, key, hosts)
		}
	}
}

// ask adds a question that is due, or notes when it will be.
func (q *questions) ask(dep *Deployment, i int, gate *Gate, key string, hosts []string) {
	w := &dep.Waves[i]
	if x := w.Watch[watchKey(gate.Name, key)]; x != nil {
		if at := x.At.Add(gate.every()); at > q.now {
			if left := at.Sub(q.now); q.wait == 0 || left < q.wait {
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
		Revision: dep.RevName, Base: dep.FromName, Key: key, Candidates: hosts, Since: w.StartedWall, Interval: gate.every(),
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
		one.Metric, _ = dep.Config.MetricOf(gate.Compare.Metric)
		for _, h := range q.s.group(dep).Hosts() {
			if t := q.s.Target(h, dep.App); t.Running != dep.Revision && t.Running != "" && t.Serving() {
				one.Baseline = append(one.Baseline, q.s.hostName(h))
			}
		}
	}
	q.due = append(q.due, one)
}

// gateObserved keeps the newest answer of each scope, and counts failures in a
// row and the part of the bake that answers cover. An inconclusive answer
// neither adds to a row of failures nor ends it.
func (s *State) gateObserved(d *Deployment, w *Wave, e GateObserved) error {
	gate := d.Config.gate(e.Gate)
	if gate == nil || !gate.Observed() || e.Attempt != d.Attempt {
		return refuse(Conflict, "gate %s of deployment %s is not asked any more", e.Gate, d.ID)
	}
	pre, bakes := slices.Contains(d.preGates(e.Wave), e.Gate), slices.Contains(w.Gates, e.Gate)
	if !(w.Status.waits() && pre || (w.Status.active() || w.Status == WaveStatusSealed) && bakes) {
		return refuse(Conflict, "wave %s is %s and does not ask %s", w.Name, w.Status, e.Gate)
	}
	taken := 0
	for _, item := range e.Items {
		if item.Answer != VerdictPass && item.Answer != VerdictFail {
			item.Answer = VerdictInconclusive
		}
		key := watchKey(e.Gate, item.Key)
		x := w.Watch[key]
		if x != nil && item.To <= x.Last.To {
			continue // a repetition, or an answer that was overtaken
		}
		if x == nil {
			x = &Watched{Gate: e.Gate}
			if w.Watch == nil {
				w.Watch = map[string]*Watched{}
			}
			w.Watch[key] = x
		}
		s.watched(d, w, e, x, gate, item)
		taken++
	}
	return changed(taken, "answer", "record")
}

// watched adds one answer.
func (s *State) watched(d *Deployment, w *Wave, e GateObserved, x *Watched, gate *Gate, item Observation) {
	if w.Status == WaveStatusBaking && d.PausedAt == 0 && item.Answer != VerdictInconclusive {
		from := max(w.BakeSince, x.At)
		x.Covered += min(s.Now.Sub(from), 2*gate.every())
	}
	if x.Last.Answer != item.Answer || x.At == 0 {
		s.record(d, Record{Subject: "gate", Wave: e.Wave, Host: hostKey(gate, item.Key), To: string(item.Answer), Text: e.Gate + ": " + item.Question + ": " + item.text()})
	}
	switch item.Answer {
	case VerdictFail:
		x.Fails++
	case VerdictPass:
		x.Fails, x.Verdict = 0, ""
	case VerdictInconclusive:
	}
	x.Last, x.At = item, s.Now
}

// hostKey is the host that a key names, or "".
func hostKey(gate *Gate, key string) string {
	if gate.scope() == ScopeHost {
		return key
	}
	return ""
}
