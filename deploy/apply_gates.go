package deploy

import "slices"

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
