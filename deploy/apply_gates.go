package deploy

import "slices"

// gateObserved keeps the newest answer of each scope, and counts failures in a
// row and the part of the bake that answers cover. An inconclusive answer
// neither adds to a row of failures nor ends it. A deployment that succeeded is
// asked on while it is watched.
func (s *State) gateObserved(e GateObserved) error {
	d := s.Deployments[e.Deployment]
	switch {
	case d == nil:
		return refuse(NotFound, "no deployment %s", e.Deployment)
	case d.Status.Terminal() && !d.watched(s.group(d), s.Now):
		return refuse(Conflict, "deployment %s has ended: %s", d.ID, d.Status)
	case e.Wave < 0 || e.Wave >= len(d.Waves):
		return refuse(Invalid, "deployment %s has no wave %d", d.ID, e.Wave)
	}
	w, gate := &d.Waves[e.Wave], d.Config.gate(e.Gate)
	if gate == nil || !gate.Observed() || e.Attempt != d.Attempt {
		return refuse(Conflict, "gate %s of deployment %s is not asked any more", e.Gate, d.ID)
	}
	pre, bakes := slices.Contains(d.preGates(e.Wave), e.Gate), slices.Contains(w.Gates, e.Gate)
	if !(w.Status.waits() && pre || w.Status.judged() && bakes) {
		return refuse(Conflict, "wave %s is %s and does not ask %s", w.Name, w.Status, e.Gate)
	}
	taken := 0
	for _, item := range e.Items {
		if item.Answer != VerdictPass && item.Answer != VerdictFail {
			item.Answer = VerdictInconclusive
		}
		key := watchKey(e.Gate, item.Key)
		x := w.Watch[key]
		if x != nil && item.To <= x.Last.To || !w.Status.waits() && item.From < w.EvidenceFrom {
			continue // a repetition, an answer that was overtaken, or one about what was before (I16)
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
	if w.Status == WaveStatusBaking && d.PausedAt == 0 && (item.Answer != VerdictInconclusive || item.Few) {
		from := max(w.BakeSince, x.At)
		x.Covered += min(s.Now.Sub(from), 2*gate.every())
	}
	if x.Last.Answer != item.Answer || x.At == 0 {
		s.record(d, Record{
			Subject: "gate", Wave: e.Wave, Host: hostKey(gate, item.Key), To: string(item.Answer),
			Text: e.Gate + ": " + item.Question + ": " + item.text(),
		})
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

// revisionSuspected notes what was seen after the deployment succeeded: nobody
// goes back to the revision while a proven one is there.
func (s *State) revisionSuspected(e RevisionSuspected) error {
	d := s.Deployments[e.Deployment]
	if d == nil || d.Status != DeploymentStatusSucceeded || d.Suspect != "" {
		return refuse(Conflict, "deployment %s cannot be suspected", e.Deployment)
	}
	d = s.rewrite(d)
	d.Suspect = e.Text
	if g := s.group(d); g != nil {
		g.Grades[d.Revision] = GradeSuspect
		s.reassignGroup(d.App, d.Group)
	}
	if !d.Pruned {
		s.record(d, Record{Subject: "deployment", Wave: -1, To: "suspect", Text: e.Text})
	}
	return nil
}

// revisionProven makes the revision a way back that is trusted.
func (s *State) revisionProven(e RevisionProven) error {
	d := s.Deployments[e.Deployment]
	if d == nil || d.Status != DeploymentStatusSucceeded || d.Suspect != "" || d.Inverse {
		return refuse(Conflict, "deployment %s cannot prove its revision", e.Deployment)
	}
	g := s.group(d)
	if g == nil || g.Grades[d.Revision] != GradeNone {
		return refuse(Conflict, "revision %s has a grade already", d.RevName)
	}
	g.Grades[d.Revision] = GradeProven
	s.reassignGroup(d.App, d.Group)
	if !d.Pruned {
		s.record(s.rewrite(d), Record{
			Subject: "deployment", Wave: -1, To: "proven",
			Text: "watched for " + short(d.Config.WatchAfter) + " without suspicion",
		})
	}
	return nil
}

// gatesAnswered lets a deployment that a person let go on go on.
func (s *State) gatesAnswered(d *Deployment) error {
	if d.AskAgain == 0 || s.unanswered(d) != "" {
		return refuse(Conflict, "deployment %s waits for no gate, or still for one", d.ID)
	}
	d.AskAgain = 0
	return nil
}
