package deploy

import (
	"fmt"
	"time"
)

// Asides: a new host gets what its wave runs (birth), and one that was lost,
// offline, skipped or changed by hand is caught up with (late task). Both are
// outside of every wave: they delay none, and a late task obeys the permit rule.
const (
	catchUpTries = 3                // then the target is left alone and listed
	catchUpRetry = 10 * time.Minute // doubled with each failure
)

// sortBehind puts the target among those that have a catch-up, or may need one.
func (s *State) sortBehind(g *Group, t *Target) {
	if t.Open && t.CatchUp != CatchUpNone {
		g.catchingUp[t.Host] = struct{}{}
	}
	if t.mayBeBehind(g) {
		g.behind[t.Host] = struct{}{}
	} else if len(g.behind) > 0 {
		delete(g.behind, t.Host)
	}
}

// catchUpsGranted applies grants that belong to no deployment.
func (s *State) catchUpsGranted(e PermitsGranted) error {
	g := s.Groups[GroupKey(e.App, e.Group)]
	if g == nil {
		return refuse(NotFound, "no group %s of %s", e.Group, e.App)
	}
	if f := s.frozen(g); f != nil {
		return refuse(Conflict, "a freeze by %s holds every grant", f.Actor)
	}
	x := terms{concurrent: e.Concurrent, maxZones: e.MaxZones, floors: e.Floors, exclusive: !g.Config.Capacity.SharedHost}
	granted := 0
	for _, item := range e.Items {
		t := s.Target(item.Host, e.App)
		if t == nil || t.group != g || item.Gen != t.Gen+1 || s.Now < t.RetryAt || !t.HasStaged(item.Goal) {
			continue
		}
		if kind, goal := g.catchUp(t); kind != e.CatchUp || goal != item.Goal {
			continue
		}
		led := s.ledger(g, nil)
		if e.CatchUp == CatchUpBirth {
			if item.Kind != PermitConditional || led.mutex(t, x) != nil {
				continue
			}
		} else if kind, err := led.admit(t, x); err != nil || kind != item.Kind {
			continue
		}
		s.update(t, func() {
			t.Gen, t.Open, t.Permit, t.Desired = item.Gen, true, item.Kind, item.Goal
			t.Deployment, t.GrantedAt, t.CatchUp = "", s.Now, e.CatchUp
			t.RetryAt = s.Now.Add(e.RetryAfter << min(t.Tries, 10))
		})
		granted++
	}
	return changed(granted, "target", "bring up to date")
}

// catchUpsEnded applies the loss of catchingUp, and staging for them that failed,
// which is tried again like they are.
func (s *State) catchUpsEnded(e TasksEnded) error {
	ended := 0
	for _, item := range e.Items {
		t := s.Target(item.Host, e.App)
		if t != nil && t.Group == e.Group && item.Status == TaskStageFailed && t.StageFailed != "" && t.Gen == item.Gen && t.Permit == PermitNone {
			s.update(t, func() {
				t.StageFailed, t.StageReason = "", nil
				t.RetryAt = s.Now.Add(catchUpRetry << min(t.Tries, 10))
				s.catchUpFailed(t, item.Cause)
			})
			ended++
			continue
		}
		if t == nil || t.Group != e.Group || t.CatchUp == CatchUpNone || t.Permit == PermitNone ||
			item.Status != TaskLost || item.Gen != t.Gen || t.Counter > item.Counter {
			continue
		}
		s.update(t, func() {
			t.Permit, t.Health = PermitNone, HealthUnknown // the generation stays open
			s.catchUpFailed(t, item.Cause)
		})
		ended++
	}
	return changed(ended, "target", "end")
}

// catchUpResult applies the result of a catch-up. It runs in update.
func (s *State) catchUpResult(t *Target, kind CatchUp, r *Report) {
	if r.Result == ResultDone && t.Running == t.Desired && t.Health == HealthHealthy {
		t.Tries, t.RetryAt = 0, 0
		return
	}
	cause := r.Result.String()
	if r.Failure != nil {
		cause = r.Failure.Event + ": " + r.Failure.Message
	}
	s.birthFailed(t, kind)
	s.catchUpFailed(t, cause)
}

// catchUpFailed counts a try; after the last one the target is left alone.
func (s *State) catchUpFailed(t *Target, cause string) {
	if t.Tries++; t.Tries < catchUpTries {
		return
	}
	t.Drift = fmt.Sprintf("%d tries failed: %s", t.Tries, cause)
	if t.Running == "" {
		t.host.Quarantine = "it could not be brought to what its wave runs; " + t.Drift
		t.Quarantined = true
	}
}

// birthFailed lets the failure of a birth count against the wave that is being
// given the revision.
func (s *State) birthFailed(t *Target, kind CatchUp) {
	w, ok := t.group.place[t.Host]
	if kind != CatchUpBirth || !ok {
		return
	}
	for _, d := range t.group.open {
		if w < len(d.Waves) && d.Revision == t.Desired && d.Waves[w].Status.active() {
			d.Waves[w].Extra++
			d.Failures++
		}
	}
}
