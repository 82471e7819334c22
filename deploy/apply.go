package deploy

import (
	"fmt"
)

// Entry is one entry of the log: facts that become true together. The leader
// stamps it as it proposes.
type Entry struct {
	Rules  int   // level of the state as it was proposed; at least 1
	At     Time  // FSM time by the leader's monotonic clock
	Wall   int64 // Unix milliseconds, for people and for gates' queries
	Events []Event
}

// ApplyEntry applies the facts of the entry with the given log index, in order,
// and returns an answer for each: nil, or a *Refusal. An index at or below the
// last applied one changes nothing.
func (s *State) ApplyEntry(index uint64, e Entry) []error {
	out := make([]error, len(e.Events))
	if index <= s.Index {
		return out
	}
	s.Index, s.Now, s.Wall, s.clock = index, max(s.Now, e.At), max(s.Wall, e.Wall), e.Wall
	s.untouched()
	s.forgetRequests()
	for i, ev := range e.Events {
		var broken func() error
		if s.Violated != nil {
			broken = Assert(s, ev)
		}
		out[i] = s.Apply(ev)
		if broken == nil || out[i] != nil {
			continue
		}
		if err := broken(); err != nil {
			s.Violated(err)
		}
	}
	return out
}

// Apply changes the state by one fact. It is deterministic and total: a fact
// that does not fit is refused, whole or item by item, and nothing panics.
func (s *State) Apply(e Event) error {
	if req, content := request(e); req.ID != "" {
		return s.once(req, content, e)
	}
	return s.apply(e)
}

func (s *State) apply(e Event) error {
	if s.Amend != nil {
		if handled, err := s.Amend(s, e); handled {
			return err
		}
	}
	switch e := e.(type) {
	case RulesRaised:
		return s.rulesRaised(e)
	case GroupDefined:
		return s.groupDefined(e)
	case HostEnrolled:
		return s.hostEnrolled(e)
	case HostLeft:
		return s.hostLeft(e)
	case TargetsJoined:
		return s.targetsJoined(e)
	case TargetsLeft:
		return s.targetsLeft(e)
	case RevisionRegistered:
		return s.revisionRegistered(e)
	case RevisionsPruned:
		return s.revisionsPruned(e)
	case DeploymentCreated:
		return s.deploymentCreated(e)
	case GroupDeleted:
		return s.groupDeleted(e)
	case TargetMoved:
		return s.targetMoved(e)
	case FreezeSet:
		return s.freezeSet(e)
	case FreezeLifted:
		return s.freezeLifted(e)
	case FreezesEnded:
		return s.freezesEnded()
	case HostsQuarantined:
		return s.hostsQuarantined(e)
	case HostsReleased:
		return s.hostsReleased(e)
	case HostDrainSet:
		return s.hostDrainSet(e)
	case HostDrained:
		return s.hostDrained(e)
	case RevisionSuspected:
		return s.revisionSuspected(e)
	case RevisionProven:
		return s.revisionProven(e)
	case StagingRetried:
		return s.stagingRetried(e)
	case GateObserved:
		return s.gateObserved(e)
	case HostsUnreachable:
		return s.hostsUnreachable(e)
	case TargetsReported:
		return s.targetsReported(e)
	case TrafficSet:
		return s.trafficSet(e)
	case HistoryMoved:
		return s.historyMoved(e)
	case HistoryFolded:
		return s.historyFolded(e)
	}
	return s.applyDeployment(e)
}

// applyDeployment applies the facts that concern one open deployment.
func (s *State) applyDeployment(e Event) error {
	switch e := e.(type) {
	case RequestMade:
		return s.with(e.Deployment, func(d *Deployment) error { return s.requestMade(d, e) })
	case DeploymentStarted:
		return s.with(e.Deployment, s.deploymentStarted)
	case WaveStarted:
		return s.withWave(e.Deployment, e.Wave, func(d *Deployment, w *Wave) error { return s.waveStarted(d, w, e) })
	case PermitsGranted:
		if e.CatchUp != CatchUpNone {
			return s.catchUpsGranted(e)
		}
		return s.withWave(e.Deployment, e.Wave, func(d *Deployment, w *Wave) error { return s.permitsGranted(d, w, e) })
	case RollbackStarted:
		return s.with(e.Deployment, func(d *Deployment) error { return s.rollbackStarted(d, e) })
	case RevertExtended:
		return s.with(e.Deployment, func(d *Deployment) error { return s.revertExtended(d, e) })
	case TasksEnded:
		if e.Deployment == "" {
			return s.catchUpsEnded(e)
		}
		return s.with(e.Deployment, func(d *Deployment) error { return s.tasksEnded(d, e) })
	case TakenOver:
		return s.with(e.Deployment, func(d *Deployment) error { return s.takenOver(d, e) })
	case HoldsChanged:
		return s.withWave(e.Deployment, e.Wave, func(d *Deployment, w *Wave) error { return s.holdsChanged(d, w, e) })
	case WaveReverted:
		return s.withWave(e.Deployment, e.Wave, func(d *Deployment, w *Wave) error { return s.waveReverted(d, w, e) })
	case TasksReopened:
		return s.with(e.Deployment, func(d *Deployment) error { return s.tasksReopened(d, e) })
	case GatesAnswered:
		return s.with(e.Deployment, s.gatesAnswered)
	case GateJudged:
		return s.withWave(e.Deployment, e.Wave, func(d *Deployment, w *Wave) error { return s.gateJudged(d, w, e) })
	case BakeStarted:
		return s.withWave(e.Deployment, e.Wave, func(d *Deployment, w *Wave) error { return s.bakeStarted(d, w, e) })
	case WaveSealed:
		return s.withWave(e.Deployment, e.Wave, func(d *Deployment, w *Wave) error { return s.waveSealed(d, w, e) })
	case WaveSkipped:
		return s.withWave(e.Deployment, e.Wave, func(d *Deployment, w *Wave) error { return s.waveSkipped(d, w, e) })
	case DeploymentPaused:
		return s.with(e.Deployment, func(d *Deployment) error { return s.deploymentPaused(d, e) })
	case DeploymentEnded:
		return s.with(e.Deployment, func(d *Deployment) error { return s.deploymentEnded(d, e) })
	}
	return refuse(Invalid, "unknown fact %T", e)
}

// with finds an open deployment for a fact about it.
func (s *State) with(id string, f func(*Deployment) error) error {
	d := s.Deployments[id]
	switch {
	case d == nil:
		return refuse(NotFound, "no deployment %s", id)
	case d.Status.Terminal():
		return refuse(Conflict, "deployment %s has ended: %s", id, d.Status)
	}
	return f(d)
}

func (s *State) withWave(id string, wave int, f func(*Deployment, *Wave) error) error {
	return s.with(id, func(d *Deployment) error {
		if wave < 0 || wave >= len(d.Waves) {
			return refuse(Invalid, "deployment %s has no wave %d", id, wave)
		}
		return f(d, &d.Waves[wave])
	})
}

// request returns the request of a fact of control, and its content as text
// with everything that a repetition may change left out.
func request(e Event) (Request, string) {
	switch e := e.(type) {
	case GroupDefined:
		return e.Request, "group " + e.App + " " + e.Group + " " + e.Source
	case HostLeft:
		return e.Request, "host-left " + e.Host
	case RevisionRegistered:
		return e.Request, "revision " + e.App + " " + e.Name + " " + string(e.Digest)
	case RevisionsPruned:
		return e.Request, "prune " + e.App
	case DeploymentCreated:
		content := fmt.Sprint("deployment ", e.App, " ", e.Group, " ", e.Revision, " ", e.Inverse, e.Fixes, e.Preempt)
		if e.Emergency { // of all others it is what older builds have remembered
			content += " emergency"
		}
		return e.Request, content
	case RequestMade:
		return e.Request, fmt.Sprint("verb ", e.Deployment, " ", e.Verb, " ", e.Gate, " ", e.Zone, " ", e.Wave, e.Hosts,
			e.Fixes, e.By)
	case GroupDeleted:
		return e.Request, "group-deleted " + e.App + " " + e.Group
	case FreezeSet:
		return e.Request, fmt.Sprint("freeze ", e.App, " ", e.Group, " ", e.For)
	case FreezeLifted:
		return e.Request, "unfreeze " + e.App + " " + e.Group
	case HostsQuarantined:
		return e.Request, fmt.Sprint("quarantine ", e.Hosts)
	case HostsReleased:
		return e.Request, fmt.Sprint("release ", e.Hosts)
	case HostDrainSet:
		return e.Request, fmt.Sprint("drain ", e.Host, " ", e.Undo)
	}
	return Request{}, ""
}
