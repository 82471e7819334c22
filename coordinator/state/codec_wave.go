package state

import (
	"time"

	"github.com/groundswell/groundswell/deploy"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

// encodeWaveFact returns nil for a fact that is not of waves, permits, tasks or
// gates.
func encodeWaveFact(e deploy.Event) *statev1.Event {
	switch e := e.(type) {
	case deploy.HoldsChanged:
		return &statev1.Event{Fact: &statev1.Event_HoldsChanged{HoldsChanged: &statev1.HoldsChanged{
			Deployment: e.Deployment, Wave: int64(e.Wave), Holds: each(e.Holds, func(h deploy.Hold) *statev1.Hold {
				return &statev1.Hold{Kind: h.Kind, Name: h.Name, Text: h.Text}
			}),
		}}}
	case deploy.TargetMoved:
		return &statev1.Event{Fact: &statev1.Event_TargetMoved{TargetMoved: &statev1.TargetMoved{
			App: e.App, Group: e.Group, Host: e.Host, From: int64(e.From), To: int64(e.To),
		}}}
	case deploy.WaveStarted:
		return &statev1.Event{Fact: &statev1.Event_WaveStarted{WaveStarted: &statev1.WaveStarted{
			Deployment: e.Deployment, Wave: int64(e.Wave), Budget: int64(e.Budget),
		}}}
	case deploy.PermitsGranted:
		return &statev1.Event{Fact: &statev1.Event_PermitsGranted{PermitsGranted: encodeGrants(&e)}}
	case deploy.TasksEnded:
		return &statev1.Event{Fact: &statev1.Event_TasksEnded{TasksEnded: &statev1.TasksEnded{
			Deployment: e.Deployment, App: e.App, Group: e.Group, Items: each(e.Items,
				func(i deploy.TaskEnd) *statev1.TaskEnd {
					return &statev1.TaskEnd{
						Host: i.Host, Status: int32(i.Status), Gen: i.Gen, Counter: i.Counter,
						Cause: i.Cause,
					}
				}),
		}}}
	case deploy.GateObserved:
		return &statev1.Event{Fact: &statev1.Event_GateObserved{GateObserved: &statev1.GateObserved{
			Deployment: e.Deployment, Wave: int64(e.Wave), Gate: e.Gate, Attempt: int64(e.Attempt), Items: each(e.Items,
				encodeObservation),
		}}}
	case deploy.TasksReopened:
		return &statev1.Event{Fact: &statev1.Event_TasksReopened{TasksReopened: &statev1.TasksReopened{
			Deployment: e.Deployment, Hosts: e.Hosts,
		}}}
	case deploy.StagingRetried:
		return &statev1.Event{Fact: &statev1.Event_StagingRetried{StagingRetried: &statev1.StagingRetried{
			App: e.App, Group: e.Group, Hosts: e.Hosts,
		}}}
	case deploy.GatesAnswered:
		return &statev1.Event{Fact: &statev1.Event_GatesAnswered{GatesAnswered: &statev1.GatesAnswered{Deployment: e.Deployment}}}
	case deploy.GateJudged:
		return &statev1.Event{Fact: &statev1.Event_GateJudged{GateJudged: &statev1.GateJudged{
			Deployment: e.Deployment, Wave: int64(e.Wave), Gate: e.Gate, Key: e.Key, Evidence: e.Evidence,
			Verdict: string(e.Verdict), Pass: e.Verdict == deploy.VerdictPass,
		}}}
	case deploy.BakeStarted:
		return &statev1.Event{Fact: &statev1.Event_BakeStarted{BakeStarted: &statev1.BakeStarted{
			Deployment: e.Deployment, Wave: int64(e.Wave), Until: int64(e.Until),
		}}}
	case deploy.WaveSealed:
		return &statev1.Event{Fact: &statev1.Event_WaveSealed{WaveSealed: &statev1.WaveSealed{
			Deployment: e.Deployment,
			Wave:       int64(e.Wave),
		}}}
	case deploy.WaveSkipped:
		return &statev1.Event{Fact: &statev1.Event_WaveSkipped{WaveSkipped: &statev1.WaveSkipped{
			Deployment: e.Deployment, Wave: int64(e.Wave), Cause: e.Cause,
		}}}
	case deploy.WaveReverted:
		return &statev1.Event{Fact: &statev1.Event_WaveReverted{WaveReverted: &statev1.WaveReverted{Deployment: e.Deployment, Wave: int64(e.Wave)}}}
	}
	return nil
}

func decodeWaveFact(p *statev1.Event) deploy.Event {
	switch f := p.Fact.(type) {
	case *statev1.Event_HoldsChanged:
		e := f.HoldsChanged
		return deploy.HoldsChanged{
			Deployment: e.Deployment, Wave: int(e.Wave),
			Holds: each(e.Holds, func(h *statev1.Hold) deploy.Hold {
				return deploy.Hold{Kind: h.Kind, Name: h.Name, Text: h.Text}
			}),
		}
	case *statev1.Event_TargetMoved:
		e := f.TargetMoved
		return deploy.TargetMoved{App: e.App, Group: e.Group, Host: e.Host, From: int(e.From), To: int(e.To)}
	case *statev1.Event_WaveStarted:
		e := f.WaveStarted
		return deploy.WaveStarted{Deployment: e.Deployment, Wave: int(e.Wave), Budget: int(e.Budget)}
	case *statev1.Event_PermitsGranted:
		return decodeGrants(f.PermitsGranted)
	case *statev1.Event_TasksEnded:
		e := f.TasksEnded
		return deploy.TasksEnded{
			Deployment: e.Deployment, App: e.App, Group: e.Group,
			Items: each(e.Items, func(i *statev1.TaskEnd) deploy.TaskEnd {
				return deploy.TaskEnd{
					Host: i.Host, Status: deploy.TaskStatus(i.Status), Gen: i.Gen, Counter: i.Counter,
					Cause: i.Cause,
				}
			}),
		}
	case *statev1.Event_GateObserved:
		e := f.GateObserved
		return deploy.GateObserved{
			Deployment: e.Deployment, Wave: int(e.Wave), Gate: e.Gate, Attempt: int(e.Attempt), Items: each(e.Items,
				decodeObservation),
		}
	case *statev1.Event_TasksReopened:
		return deploy.TasksReopened{Deployment: f.TasksReopened.Deployment, Hosts: f.TasksReopened.Hosts}
	case *statev1.Event_StagingRetried:
		e := f.StagingRetried
		return deploy.StagingRetried{App: e.App, Group: e.Group, Hosts: e.Hosts}
	case *statev1.Event_GatesAnswered:
		return deploy.GatesAnswered{Deployment: f.GatesAnswered.Deployment}
	case *statev1.Event_GateJudged:
		e := f.GateJudged
		return deploy.GateJudged{
			Deployment: e.Deployment, Wave: int(e.Wave), Gate: e.Gate, Key: e.Key,
			Evidence: e.Evidence, Verdict: verdict(e),
		}
	case *statev1.Event_BakeStarted:
		e := f.BakeStarted
		return deploy.BakeStarted{Deployment: e.Deployment, Wave: int(e.Wave), Until: deploy.Time(e.Until)}
	case *statev1.Event_WaveSealed:
		return deploy.WaveSealed{Deployment: f.WaveSealed.Deployment, Wave: int(f.WaveSealed.Wave)}
	case *statev1.Event_WaveSkipped:
		e := f.WaveSkipped
		return deploy.WaveSkipped{Deployment: e.Deployment, Wave: int(e.Wave), Cause: e.Cause}
	case *statev1.Event_WaveReverted:
		return deploy.WaveReverted{Deployment: f.WaveReverted.Deployment, Wave: int(f.WaveReverted.Wave)}
	}
	return nil
}

// verdict reads also version 1, which knew pass or not.
func verdict(m *statev1.GateJudged) deploy.Verdict {
	switch {
	case m.Verdict != "":
		return deploy.Verdict(m.Verdict)
	case m.Pass:
		return deploy.VerdictPass
	}
	return deploy.VerdictFail
}

func encodeGrants(e *deploy.PermitsGranted) *statev1.PermitsGranted {
	return &statev1.PermitsGranted{
		Deployment: e.Deployment, Wave: int64(e.Wave), App: e.App, Group: e.Group, CatchUp: int32(e.CatchUp),
		RetryAfter: int64(e.RetryAfter), Concurrent: int64(e.Concurrent), MaxZones: int64(e.MaxZones),
		Floors: each(e.Floors, func(f deploy.Floor) *statev1.Floor {
			return &statev1.Floor{Zone: f.Zone, Min: int64(f.Min)}
		}),
		Items: each(e.Items, func(g deploy.Grant) *statev1.Grant {
			return &statev1.Grant{Host: g.Host, Gen: g.Gen, Kind: int32(g.Kind), Goal: string(g.Goal)}
		}),
	}
}

func decodeGrants(m *statev1.PermitsGranted) deploy.Event {
	return deploy.PermitsGranted{
		Deployment: m.Deployment, Wave: int(m.Wave), App: m.App, Group: m.Group, CatchUp: deploy.CatchUp(m.CatchUp),
		RetryAfter: time.Duration(m.RetryAfter), Concurrent: int(m.Concurrent), MaxZones: int(m.MaxZones),
		Floors: each(m.Floors, func(f *statev1.Floor) deploy.Floor {
			return deploy.Floor{Zone: f.Zone, Min: int(f.Min)}
		}),
		Items: each(m.Items, func(g *statev1.Grant) deploy.Grant {
			return deploy.Grant{Host: g.Host, Gen: g.Gen, Kind: deploy.Permit(g.Kind), Goal: deploy.Digest(g.Goal)}
		}),
	}
}

func encodeObservation(o deploy.Observation) *statev1.Observation {
	return &statev1.Observation{
		Key: o.Key, FromMs: o.From, ToMs: o.To, Question: o.Question, Value: o.Value, Threshold: o.Threshold,
		Samples: int64(o.Samples), Answer: string(o.Answer), Final: o.Final, Detail: o.Detail, Few: o.Few,
	}
}

func decodeObservation(m *statev1.Observation) deploy.Observation {
	return deploy.Observation{
		Key: m.Key, From: m.FromMs, To: m.ToMs, Question: m.Question, Value: m.Value, Threshold: m.Threshold,
		Samples: int(m.Samples), Answer: deploy.Verdict(m.Answer), Final: m.Final, Detail: m.Detail, Few: m.Few,
	}
}
