package state

import (
	"github.com/groundswell/groundswell/deploy"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

// encodeFleetFact returns nil for a fact that is not of groups, hosts, targets
// or revisions.
func encodeFleetFact(e deploy.Event) *statev1.Event {
	switch e := e.(type) {
	case deploy.HistoryMoved:
		return &statev1.Event{Fact: &statev1.Event_HistoryMoved{HistoryMoved: &statev1.HistoryMoved{
			Pack: encodePack(e.Pack), Deployments: e.Deployments,
		}}}
	case deploy.HistoryFolded:
		return &statev1.Event{Fact: &statev1.Event_HistoryFolded{HistoryFolded: &statev1.HistoryFolded{
			First: string(e.First), Packs: int64(e.Packs), Older: encodePack(e.Older),
		}}}
	case deploy.RulesRaised:
		return &statev1.Event{Fact: &statev1.Event_RulesRaised{RulesRaised: &statev1.RulesRaised{Level: int64(e.Level)}}}
	case deploy.GroupDefined:
		return &statev1.Event{Fact: &statev1.Event_GroupDefined{GroupDefined: &statev1.GroupDefined{
			Request: encodeRequest(e.Request), App: e.App, Group: e.Group, Selector: e.Selector,
			Artifacts: e.Artifacts, Config: encodeConfig(&e.Config), Source: e.Source, Traffic: encodeTraffic(e.Traffic),
		}}}
	case deploy.TrafficSet:
		return &statev1.Event{Fact: &statev1.Event_TrafficSet{TrafficSet: &statev1.TrafficSet{
			Host: e.Host, App: e.App, Pool: encodePool(e.Pool), Stage: int64(e.Stage), Found: e.Found,
		}}}
	case deploy.GroupDeleted:
		return &statev1.Event{Fact: &statev1.Event_GroupDeleted{GroupDeleted: &statev1.GroupDeleted{
			Request: encodeRequest(e.Request), App: e.App, Group: e.Group,
		}}}
	case deploy.HostEnrolled:
		return &statev1.Event{Fact: &statev1.Event_HostEnrolled{HostEnrolled: &statev1.HostEnrolled{
			Host: e.Host, Name: e.Name, Zone: e.Zone, Region: e.Region, Labels: e.Labels, Version: e.Version,
			Says: encodeAttributes(e.Says), Approved: e.Approved,
		}}}
	case deploy.HostLeft:
		return &statev1.Event{Fact: &statev1.Event_HostLeft{HostLeft: &statev1.HostLeft{
			Request: encodeRequest(e.Request), Host: e.Host, Cause: e.Cause, Force: e.Force,
		}}}
	case deploy.HostsUnreachable:
		return &statev1.Event{Fact: &statev1.Event_HostsUnreachable{HostsUnreachable: &statev1.HostsUnreachable{
			Items: each(e.Items, func(i deploy.HostDown) *statev1.HostDown {
				return &statev1.HostDown{Host: i.Host, Counter: i.Counter}
			}),
		}}}
	case deploy.HostsQuarantined:
		return &statev1.Event{Fact: &statev1.Event_HostsQuarantined{HostsQuarantined: &statev1.HostsQuarantined{
			Request: encodeRequest(e.Request), Hosts: e.Hosts, Cause: e.Cause,
		}}}
	case deploy.HostDrainSet:
		return &statev1.Event{Fact: &statev1.Event_HostDrainSet{HostDrainSet: &statev1.HostDrainSet{
			Request: encodeRequest(e.Request), Host: e.Host, Undo: e.Undo,
		}}}
	case deploy.HostDrained:
		return &statev1.Event{Fact: &statev1.Event_HostDrained{HostDrained: &statev1.HostDrained{Host: e.Host}}}
	case deploy.HostsReleased:
		return &statev1.Event{Fact: &statev1.Event_HostsReleased{HostsReleased: &statev1.HostsReleased{
			Request: encodeRequest(e.Request), Hosts: e.Hosts, Cause: e.Cause,
		}}}
	case deploy.TargetsJoined:
		return &statev1.Event{Fact: &statev1.Event_TargetsJoined{TargetsJoined: &statev1.TargetsJoined{
			App: e.App, Group: e.Group, Hosts: e.Hosts, Waves: int64s(e.Waves),
		}}}
	case deploy.TargetsLeft:
		return &statev1.Event{Fact: &statev1.Event_TargetsLeft{TargetsLeft: &statev1.TargetsLeft{
			App: e.App, Group: e.Group, Hosts: e.Hosts, Cause: e.Cause,
		}}}
	case deploy.TargetsReported:
		return &statev1.Event{Fact: &statev1.Event_TargetsReported{TargetsReported: &statev1.TargetsReported{Items: each(e.Items, encodeReport)}}}
	case deploy.RevisionsPruned:
		return &statev1.Event{Fact: &statev1.Event_RevisionsPruned{RevisionsPruned: &statev1.RevisionsPruned{
			Request: encodeRequest(e.Request), App: e.App, Digests: texts(e.Digests),
		}}}
	case deploy.RevisionRegistered:
		return &statev1.Event{Fact: &statev1.Event_RevisionRegistered{RevisionRegistered: &statev1.RevisionRegistered{
			Request: encodeRequest(e.Request), App: e.App, Name: e.Name, Digest: string(e.Digest),
			Size: e.Size, Files: e.Files, Message: e.Message, Ancestry: e.Ancestry, Unsafe: e.Unsafe,
		}}}
	}
	return nil
}

func decodeFleetFact(p *statev1.Event) deploy.Event {
	switch f := p.Fact.(type) {
	case *statev1.Event_RulesRaised:
		return deploy.RulesRaised{Level: int(f.RulesRaised.Level)}
	case *statev1.Event_GroupDefined:
		e := f.GroupDefined
		return deploy.GroupDefined{
			Request: decodeRequest(e.Request), App: e.App, Group: e.Group, Selector: e.Selector,
			Artifacts: e.Artifacts, Config: decodeConfig(e.Config), Source: e.Source, Traffic: decodeTraffic(e.Traffic),
		}
	case *statev1.Event_TrafficSet:
		e := f.TrafficSet
		return deploy.TrafficSet{
			Host: e.Host, App: e.App, Pool: decodePool(e.Pool), Stage: deploy.TrafficStage(e.Stage), Found: e.Found,
		}
	case *statev1.Event_GroupDeleted:
		e := f.GroupDeleted
		return deploy.GroupDeleted{Request: decodeRequest(e.Request), App: e.App, Group: e.Group}
	case *statev1.Event_HostEnrolled:
		e := f.HostEnrolled
		return deploy.HostEnrolled{
			Host: e.Host, Name: e.Name, Zone: e.Zone, Region: e.Region, Labels: e.Labels,
			Version: e.Version, Says: decodeAttributes(e.Says), Approved: e.Approved,
		}
	case *statev1.Event_HostLeft:
		e := f.HostLeft
		return deploy.HostLeft{Request: decodeRequest(e.Request), Host: e.Host, Cause: e.Cause, Force: e.Force}
	case *statev1.Event_HostsUnreachable:
		return deploy.HostsUnreachable{Items: each(f.HostsUnreachable.Items, func(i *statev1.HostDown) deploy.HostDown {
			return deploy.HostDown{Host: i.Host, Counter: i.Counter}
		})}
	case *statev1.Event_HostsQuarantined:
		e := f.HostsQuarantined
		return deploy.HostsQuarantined{Request: decodeRequest(e.Request), Hosts: e.Hosts, Cause: e.Cause}
	case *statev1.Event_HostDrainSet:
		e := f.HostDrainSet
		return deploy.HostDrainSet{Request: decodeRequest(e.Request), Host: e.Host, Undo: e.Undo}
	case *statev1.Event_HostDrained:
		return deploy.HostDrained{Host: f.HostDrained.Host}
	case *statev1.Event_HostsReleased:
		e := f.HostsReleased
		return deploy.HostsReleased{Request: decodeRequest(e.Request), Hosts: e.Hosts, Cause: e.Cause}
	case *statev1.Event_TargetsJoined:
		e := f.TargetsJoined
		return deploy.TargetsJoined{App: e.App, Group: e.Group, Hosts: e.Hosts, Waves: ints(e.Waves)}
	case *statev1.Event_TargetsLeft:
		e := f.TargetsLeft
		return deploy.TargetsLeft{App: e.App, Group: e.Group, Hosts: e.Hosts, Cause: e.Cause}
	case *statev1.Event_TargetsReported:
		return deploy.TargetsReported{Items: each(f.TargetsReported.Items, decodeReport)}
	case *statev1.Event_HistoryMoved:
		return deploy.HistoryMoved{Pack: decodePack(f.HistoryMoved.Pack), Deployments: f.HistoryMoved.Deployments}
	case *statev1.Event_HistoryFolded:
		e := f.HistoryFolded
		return deploy.HistoryFolded{First: deploy.Digest(e.First), Packs: int(e.Packs), Older: decodePack(e.Older)}
	case *statev1.Event_RevisionsPruned:
		e := f.RevisionsPruned
		return deploy.RevisionsPruned{Request: decodeRequest(e.Request), App: e.App, Digests: digests(e.Digests)}
	case *statev1.Event_RevisionRegistered:
		e := f.RevisionRegistered
		return deploy.RevisionRegistered{
			Request: decodeRequest(e.Request), App: e.App, Name: e.Name, Digest: deploy.Digest(e.Digest),
			Size: e.Size, Files: e.Files, Message: e.Message, Ancestry: e.Ancestry, Unsafe: e.Unsafe,
		}
	}
	return nil
}

// encodeAttributes keeps nil, nothing said, apart from what is empty.
func encodeAttributes(a *deploy.Attributes) *statev1.Attributes {
	if a == nil {
		return nil
	}
	return &statev1.Attributes{Name: a.Name, Zone: a.Zone, Region: a.Region, Labels: a.Labels}
}

func decodeAttributes(p *statev1.Attributes) *deploy.Attributes {
	if p == nil {
		return nil
	}
	return &deploy.Attributes{Name: p.Name, Zone: p.Zone, Region: p.Region, Labels: p.Labels}
}

func encodeReport(r deploy.Report) *statev1.Report {
	return &statev1.Report{
		Host: r.Host, App: r.App, Counter: r.Counter, Gen: r.Gen, Result: int32(r.Result),
		Running: string(r.Running), Health: int32(r.Health), Evidence: r.Evidence, Staged: texts(r.Staged),
		StageFailed: string(r.StageFailed), Failure: encodeFailure(r.Failure), Edits: encodeEdits(r.Edits),
		StageKey: r.StageKey, Out: int32(r.Out), OutKey: r.OutKey,
	}
}

func encodeEdits(e *deploy.Edits) *statev1.Edits {
	if e == nil {
		return nil
	}
	return &statev1.Edits{Files: int64(e.Files), Paths: e.Paths}
}

func decodeEdits(e *statev1.Edits) *deploy.Edits {
	if e == nil {
		return nil
	}
	return &deploy.Edits{Files: int(e.Files), Paths: e.Paths}
}

func decodeReport(p *statev1.Report) deploy.Report {
	return deploy.Report{
		Host: p.Host, App: p.App, Counter: p.Counter, Gen: p.Gen, Result: deploy.Result(p.Result),
		Running: deploy.Digest(p.Running), Health: deploy.Health(p.Health), Evidence: p.Evidence,
		Staged:      digests(p.Staged),
		StageFailed: deploy.Digest(p.StageFailed), Failure: decodeFailure(p.Failure), Edits: decodeEdits(p.Edits),
		StageKey: p.StageKey, Out: deploy.Out(p.Out), OutKey: p.OutKey,
	}
}

func encodeFailure(f *deploy.Failure) *statev1.Failure {
	if f == nil {
		return nil
	}
	return &statev1.Failure{
		Event: f.Event, Script: f.Script, Code: int64(f.Code), Exit: f.Exit, Message: f.Message,
		Tail: f.Tail, DurationMs: f.Duration,
	}
}

func decodeFailure(f *statev1.Failure) *deploy.Failure {
	if f == nil {
		return nil
	}
	return &deploy.Failure{
		Event: f.Event, Script: f.Script, Code: int(f.Code), Exit: f.Exit, Message: f.Message,
		Tail: f.Tail, Duration: f.DurationMs,
	}
}

func encodePack(p deploy.Pack) *statev1.Pack {
	return &statev1.Pack{Object: string(p.Object), Bytes: p.Bytes, Items: int64(p.Items), From: p.From, To: p.To}
}

func decodePack(p *statev1.Pack) deploy.Pack {
	return deploy.Pack{
		Object: deploy.Digest(p.GetObject()), Bytes: p.GetBytes(), Items: int(p.GetItems()), From: p.GetFrom(), To: p.GetTo(),
	}
}
