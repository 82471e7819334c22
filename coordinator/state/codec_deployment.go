package state

import (
	"time"

	"github.com/groundswell/groundswell/deploy"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

// encodeDeploymentFact returns nil for a fact that is not of a deployment as a
// whole, of what people ask of it, or of a freeze.
func encodeDeploymentFact(e deploy.Event) *statev1.Event {
	switch e := e.(type) {
	case deploy.DeploymentCreated:
		return &statev1.Event{Fact: &statev1.Event_DeploymentCreated{DeploymentCreated: encodeCreated(&e)}}
	case deploy.RequestMade:
		return &statev1.Event{Fact: &statev1.Event_RequestMade{RequestMade: &statev1.RequestMade{
			Request: encodeRequest(e.Request), Deployment: e.Deployment, Verb: string(e.Verb), Gate: e.Gate,
			Zone: e.Zone,
			Wave: e.Wave, Hosts: e.Hosts, Groups: e.Groups, Fixes: string(e.Fixes), By: e.By,
		}}}
	case deploy.FreezeSet:
		return &statev1.Event{Fact: &statev1.Event_FreezeSet{FreezeSet: &statev1.FreezeSet{
			Request: encodeRequest(e.Request), App: e.App, Group: e.Group, For: int64(e.For), Own: e.Own,
		}}}
	case deploy.FreezesEnded:
		return &statev1.Event{Fact: &statev1.Event_FreezesEnded{FreezesEnded: &statev1.FreezesEnded{}}}
	case deploy.FreezeLifted:
		return &statev1.Event{Fact: &statev1.Event_FreezeLifted{FreezeLifted: &statev1.FreezeLifted{
			Request: encodeRequest(e.Request), App: e.App, Group: e.Group, Own: e.Own,
		}}}
	case deploy.TakenOver:
		return &statev1.Event{Fact: &statev1.Event_TakenOver{TakenOver: &statev1.TakenOver{
			Deployment: e.Deployment,
			By:         e.By,
		}}}
	case deploy.DeploymentStarted:
		return &statev1.Event{Fact: &statev1.Event_DeploymentStarted{DeploymentStarted: &statev1.DeploymentStarted{Deployment: e.Deployment}}}
	case deploy.RollbackStarted:
		return &statev1.Event{Fact: &statev1.Event_RollbackStarted{RollbackStarted: &statev1.RollbackStarted{
			Deployment: e.Deployment, Cause: e.Cause, Bad: e.Bad, Scope: e.Scope, Then: e.Then,
			Waves: int64s(e.Waves), Until: int64(e.Until), RevokedBy: e.RevokedBy, Past: texts(e.Past),
			Items: each(e.Items, encodeGoal),
		}}}
	case deploy.RevertExtended:
		return &statev1.Event{Fact: &statev1.Event_RevertExtended{RevertExtended: &statev1.RevertExtended{
			Deployment: e.Deployment, Items: each(e.Items, encodeGoal),
		}}}
	case deploy.RevisionProven:
		return &statev1.Event{Fact: &statev1.Event_RevisionProven{RevisionProven: &statev1.RevisionProven{Deployment: e.Deployment}}}
	case deploy.RevisionSuspected:
		return &statev1.Event{Fact: &statev1.Event_RevisionSuspected{RevisionSuspected: &statev1.RevisionSuspected{Deployment: e.Deployment, Text: e.Text}}}
	case deploy.DeploymentPaused:
		return &statev1.Event{Fact: &statev1.Event_DeploymentPaused{DeploymentPaused: &statev1.DeploymentPaused{
			Deployment: e.Deployment, Cause: e.Cause, Until: int64(e.Until),
		}}}
	case deploy.DeploymentEnded:
		return &statev1.Event{Fact: &statev1.Event_DeploymentEnded{DeploymentEnded: &statev1.DeploymentEnded{
			Deployment: e.Deployment, Status: int32(e.Status), Cause: e.Cause,
		}}}
	}
	return nil
}

func decodeDeploymentFact(p *statev1.Event) deploy.Event {
	switch f := p.Fact.(type) {
	case *statev1.Event_DeploymentCreated:
		return decodeCreated(f.DeploymentCreated)
	case *statev1.Event_RequestMade:
		e := f.RequestMade
		return deploy.RequestMade{
			Request: decodeRequest(e.Request), Deployment: e.Deployment, Verb: deploy.Verb(e.Verb), Gate: e.Gate,
			Zone: e.Zone,
			Wave: e.Wave, Hosts: e.Hosts, Groups: e.Groups, Fixes: deploy.Digest(e.Fixes), By: e.By,
		}
	case *statev1.Event_FreezeSet:
		e := f.FreezeSet
		return deploy.FreezeSet{
			Request: decodeRequest(e.Request), App: e.App, Group: e.Group, For: time.Duration(e.For), Own: e.Own,
		}
	case *statev1.Event_FreezesEnded:
		return deploy.FreezesEnded{}
	case *statev1.Event_FreezeLifted:
		e := f.FreezeLifted
		return deploy.FreezeLifted{Request: decodeRequest(e.Request), App: e.App, Group: e.Group, Own: e.Own}
	case *statev1.Event_TakenOver:
		return deploy.TakenOver{Deployment: f.TakenOver.Deployment, By: f.TakenOver.By}
	case *statev1.Event_DeploymentStarted:
		return deploy.DeploymentStarted{Deployment: f.DeploymentStarted.Deployment}
	case *statev1.Event_RollbackStarted:
		e := f.RollbackStarted
		return deploy.RollbackStarted{
			Deployment: e.Deployment, Cause: e.Cause, Bad: e.Bad, Scope: e.Scope, Then: e.Then,
			Waves: ints(e.Waves), Until: deploy.Time(e.Until), RevokedBy: e.RevokedBy, Past: digests(e.Past),
			Items: each(e.Items, decodeGoal),
		}
	case *statev1.Event_RevertExtended:
		return deploy.RevertExtended{
			Deployment: f.RevertExtended.Deployment,
			Items:      each(f.RevertExtended.Items, decodeGoal),
		}
	case *statev1.Event_RevisionProven:
		return deploy.RevisionProven{Deployment: f.RevisionProven.Deployment}
	case *statev1.Event_RevisionSuspected:
		return deploy.RevisionSuspected{Deployment: f.RevisionSuspected.Deployment, Text: f.RevisionSuspected.Text}
	case *statev1.Event_DeploymentPaused:
		e := f.DeploymentPaused
		return deploy.DeploymentPaused{Deployment: e.Deployment, Cause: e.Cause, Until: deploy.Time(e.Until)}
	case *statev1.Event_DeploymentEnded:
		e := f.DeploymentEnded
		return deploy.DeploymentEnded{
			Deployment: e.Deployment, Status: deploy.DeploymentStatus(e.Status),
			Cause: e.Cause,
		}
	}
	return nil
}

func encodeGoal(i deploy.RevertGoal) *statev1.RevertGoal {
	return &statev1.RevertGoal{Host: i.Host, Goal: string(i.Goal)}
}

func decodeGoal(i *statev1.RevertGoal) deploy.RevertGoal {
	return deploy.RevertGoal{Host: i.Host, Goal: deploy.Digest(i.Goal)}
}

func encodeCreated(e *deploy.DeploymentCreated) *statev1.DeploymentCreated {
	return &statev1.DeploymentCreated{
		Request: encodeRequest(e.Request), Id: e.ID, App: e.App, Group: e.Group, Revision: string(e.Revision),
		RevName: e.RevName, Config: encodeConfig(&e.Config), Waves: each(e.Waves,
			encodeWave), Seed: e.Seed, Undoes: e.Undoes,
		Redeploy: e.Redeploy, Repair: e.Repair, Force: e.Force, Inverse: e.Inverse, Bad: string(e.Bad), Layout: e.Layout,
		Fixes: texts(e.Fixes), Without: texts(e.Without), Preempt: e.Preempt, Emergency: e.Emergency,
		Skip: each(e.Skip, func(s deploy.Skip) *statev1.Skip {
			return &statev1.Skip{Host: s.Host, Cause: s.Cause, Intend: s.Intend}
		}),
	}
}

func decodeCreated(m *statev1.DeploymentCreated) deploy.Event {
	return deploy.DeploymentCreated{
		Request: decodeRequest(m.Request), ID: m.Id, App: m.App, Group: m.Group, Revision: deploy.Digest(m.Revision),
		RevName: m.RevName, Config: decodeConfig(m.Config), Waves: each(m.Waves,
			decodeWave), Seed: m.Seed, Undoes: m.Undoes,
		Redeploy: m.Redeploy, Repair: m.Repair, Force: m.Force, Inverse: m.Inverse, Bad: deploy.Digest(m.Bad), Layout: m.Layout,
		Fixes: digests(m.Fixes), Without: digests(m.Without), Preempt: m.Preempt,
		Emergency: m.Emergency,
		Skip: each(m.Skip, func(s *statev1.Skip) deploy.Skip {
			return deploy.Skip{Host: s.Host, Cause: s.Cause, Intend: s.Intend}
		}),
	}
}

func encodeWave(w deploy.Wave) *statev1.Wave {
	return &statev1.Wave{
		Name: w.Name, Zone: w.Zone, Spec: int64(w.Spec), Batch: int64(w.Batch), Hosts: w.Hosts, OneBox: w.OneBox,
		Share: encodeShare(&w.Share), Rehearse: w.Rehearse, PreGates: w.PreGates, Gates: w.Gates,
		BakeMin: int64(w.BakeMin), Bake: encodeBake(w.BakeSpec),
	}
}

func decodeWave(m *statev1.Wave) deploy.Wave {
	return deploy.Wave{
		Name: m.Name, Zone: m.Zone, Spec: int(m.Spec), Batch: int(m.Batch), Hosts: m.Hosts, OneBox: m.OneBox,
		Share: decodeShare(m.Share), Rehearse: m.Rehearse, PreGates: m.PreGates, Gates: m.Gates,
		BakeSpec: decodeBake(m.BakeMin, m.Bake),
	}
}

func encodeBake(b deploy.BakeSpec) *statev1.Bake {
	return &statev1.Bake{Max: int64(b.BakeMax), Samples: int64(b.Samples), Early: b.Early}
}

func decodeBake(minimum int64, m *statev1.Bake) deploy.BakeSpec {
	return deploy.BakeSpec{
		BakeMin: time.Duration(minimum), BakeMax: time.Duration(m.GetMax()), Samples: int(m.GetSamples()),
		Early: m.GetEarly(),
	}
}
