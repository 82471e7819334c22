package state

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/deploy"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

// Entry is one log entry: facts of deployments and facts of the cluster itself.
type Entry struct {
	deploy.Entry
	Cluster []ClusterEvent // applied after the others
}

// Encode returns the log's bytes of an entry.
func Encode(e Entry) ([]byte, error) {
	out := &statev1.Entry{At: int64(e.At), WallMs: e.Wall}
	for _, ev := range e.Events {
		p, err := encodeEvent(ev)
		if err != nil {
			return nil, err
		}
		out.Events = append(out.Events, p)
	}
	for _, ev := range e.Cluster {
		out.Events = append(out.Events, encodeCluster(ev))
	}
	b, err := proto.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode entry of %d facts: %w", len(out.Events), err)
	}
	return b, nil
}

// Decode reads an entry; bytes of a newer version with an unknown fact are an
// error, because skipping a fact would let replicas disagree.
func Decode(b []byte) (Entry, error) {
	var in statev1.Entry
	if err := proto.Unmarshal(b, &in); err != nil {
		return Entry{}, fmt.Errorf("decode log entry: %w", err)
	}
	out := Entry{Entry: deploy.Entry{At: deploy.Time(in.At), Wall: in.WallMs}}
	for i, p := range in.Events {
		if c := decodeCluster(p); c != nil {
			out.Cluster = append(out.Cluster, c)
			continue
		}
		ev, err := decodeEvent(p)
		if err != nil {
			return Entry{}, fmt.Errorf("decode fact %d of a log entry: %w", i, err)
		}
		out.Events = append(out.Events, ev)
	}
	return out, nil
}

func encodeRequest(r deploy.Request) *statev1.Request {
	return &statev1.Request{Id: r.ID, Actor: r.Actor, Reason: r.Reason}
}

func decodeRequest(r *statev1.Request) deploy.Request {
	return deploy.Request{ID: r.GetId(), Actor: r.GetActor(), Reason: r.GetReason()}
}

func encodeEvent(e deploy.Event) (*statev1.Event, error) {
	switch e := e.(type) {
	case deploy.GroupDefined:
		return &statev1.Event{Fact: &statev1.Event_GroupDefined{GroupDefined: &statev1.GroupDefined{
			Request: encodeRequest(e.Request), App: e.App, Group: e.Group, Selector: e.Selector,
			Artifacts: e.Artifacts, Config: encodeConfig(&e.Config), Source: e.Source,
		}}}, nil
	case deploy.HostEnrolled:
		return &statev1.Event{Fact: &statev1.Event_HostEnrolled{HostEnrolled: &statev1.HostEnrolled{
			Host: e.Host, Name: e.Name, Zone: e.Zone, Region: e.Region, Labels: e.Labels, Version: e.Version,
		}}}, nil
	case deploy.HostLeft:
		return &statev1.Event{Fact: &statev1.Event_HostLeft{HostLeft: &statev1.HostLeft{
			Request: encodeRequest(e.Request), Host: e.Host, Cause: e.Cause, Force: e.Force,
		}}}, nil
	case deploy.TargetsJoined:
		return &statev1.Event{Fact: &statev1.Event_TargetsJoined{TargetsJoined: &statev1.TargetsJoined{
			App: e.App, Group: e.Group, Hosts: e.Hosts,
		}}}, nil
	case deploy.TargetsLeft:
		return &statev1.Event{Fact: &statev1.Event_TargetsLeft{TargetsLeft: &statev1.TargetsLeft{
			App: e.App, Group: e.Group, Hosts: e.Hosts, Cause: e.Cause,
		}}}, nil
	case deploy.RevisionRegistered:
		return &statev1.Event{Fact: &statev1.Event_RevisionRegistered{RevisionRegistered: &statev1.RevisionRegistered{
			Request: encodeRequest(e.Request), App: e.App, Name: e.Name, Digest: string(e.Digest),
			Size: e.Size, Files: e.Files, Message: e.Message,
		}}}, nil
	case deploy.HostsUnreachable:
		return encodeUnreachable(e), nil
	case deploy.TargetsReported:
		return encodeReports(e), nil
	}
	return encodeDeploymentEvent(e)
}

func encodeDeploymentEvent(e deploy.Event) (*statev1.Event, error) {
	switch e := e.(type) {
	case deploy.DeploymentCreated:
		return encodeCreated(e), nil
	case deploy.RequestMade:
		return &statev1.Event{Fact: &statev1.Event_RequestMade{RequestMade: &statev1.RequestMade{
			Request: encodeRequest(e.Request), Deployment: e.Deployment, Verb: string(e.Verb),
		}}}, nil
	case deploy.DeploymentStarted:
		return &statev1.Event{Fact: &statev1.Event_DeploymentStarted{DeploymentStarted: &statev1.DeploymentStarted{Deployment: e.Deployment}}}, nil
	case deploy.WaveStarted:
		return &statev1.Event{Fact: &statev1.Event_WaveStarted{WaveStarted: &statev1.WaveStarted{
			Deployment: e.Deployment, Wave: int64(e.Wave), Budget: int64(e.Budget),
		}}}, nil
	case deploy.PermitsGranted:
		return encodeGrants(e), nil
	case deploy.RollbackStarted:
		return encodeRollback(e), nil
	case deploy.TasksEnded:
		return encodeEnds(e), nil
	case deploy.GateJudged:
		return &statev1.Event{Fact: &statev1.Event_GateJudged{GateJudged: &statev1.GateJudged{
			Deployment: e.Deployment, Wave: int64(e.Wave), Gate: e.Gate, Pass: e.Verdict == deploy.VerdictPass, Evidence: e.Evidence,
		}}}, nil
	case deploy.BakeStarted:
		return &statev1.Event{Fact: &statev1.Event_BakeStarted{BakeStarted: &statev1.BakeStarted{
			Deployment: e.Deployment, Wave: int64(e.Wave), Until: int64(e.Until),
		}}}, nil
	case deploy.WaveSealed:
		return &statev1.Event{Fact: &statev1.Event_WaveSealed{WaveSealed: &statev1.WaveSealed{Deployment: e.Deployment, Wave: int64(e.Wave)}}}, nil
	case deploy.WaveSkipped:
		return &statev1.Event{Fact: &statev1.Event_WaveSkipped{WaveSkipped: &statev1.WaveSkipped{
			Deployment: e.Deployment, Wave: int64(e.Wave), Cause: e.Cause,
		}}}, nil
	case deploy.DeploymentPaused:
		return &statev1.Event{Fact: &statev1.Event_DeploymentPaused{DeploymentPaused: &statev1.DeploymentPaused{Deployment: e.Deployment, Cause: e.Cause}}}, nil
	case deploy.DeploymentEnded:
		return &statev1.Event{Fact: &statev1.Event_DeploymentEnded{DeploymentEnded: &statev1.DeploymentEnded{
			Deployment: e.Deployment, Status: int32(e.Status), Cause: e.Cause,
		}}}, nil
	}
	return nil, fmt.Errorf("fact %T has no message in proto/state/v1", e)
}

func decodeEvent(p *statev1.Event) (deploy.Event, error) {
	switch f := p.Fact.(type) {
	case *statev1.Event_GroupDefined:
		e := f.GroupDefined
		return deploy.GroupDefined{
			Request: decodeRequest(e.Request), App: e.App, Group: e.Group, Selector: e.Selector,
			Artifacts: e.Artifacts, Config: decodeConfig(e.Config), Source: e.Source,
		}, nil
	case *statev1.Event_HostEnrolled:
		e := f.HostEnrolled
		return deploy.HostEnrolled{Host: e.Host, Name: e.Name, Zone: e.Zone, Region: e.Region, Labels: e.Labels, Version: e.Version}, nil
	case *statev1.Event_HostLeft:
		e := f.HostLeft
		return deploy.HostLeft{Request: decodeRequest(e.Request), Host: e.Host, Cause: e.Cause, Force: e.Force}, nil
	case *statev1.Event_TargetsJoined:
		e := f.TargetsJoined
		return deploy.TargetsJoined{App: e.App, Group: e.Group, Hosts: e.Hosts}, nil
	case *statev1.Event_TargetsLeft:
		e := f.TargetsLeft
		return deploy.TargetsLeft{App: e.App, Group: e.Group, Hosts: e.Hosts, Cause: e.Cause}, nil
	case *statev1.Event_RevisionRegistered:
		e := f.RevisionRegistered
		return deploy.RevisionRegistered{
			Request: decodeRequest(e.Request), App: e.App, Name: e.Name, Digest: deploy.Digest(e.Digest),
			Size: e.Size, Files: e.Files, Message: e.Message,
		}, nil
	case *statev1.Event_HostsUnreachable:
		return decodeUnreachable(f.HostsUnreachable), nil
	case *statev1.Event_TargetsReported:
		return decodeReports(f.TargetsReported), nil
	}
	return decodeDeploymentEvent(p)
}

func decodeDeploymentEvent(p *statev1.Event) (deploy.Event, error) {
	switch f := p.Fact.(type) {
	case *statev1.Event_DeploymentCreated:
		return decodeCreated(f.DeploymentCreated), nil
	case *statev1.Event_RequestMade:
		e := f.RequestMade
		return deploy.RequestMade{Request: decodeRequest(e.Request), Deployment: e.Deployment, Verb: deploy.Verb(e.Verb)}, nil
	case *statev1.Event_DeploymentStarted:
		return deploy.DeploymentStarted{Deployment: f.DeploymentStarted.Deployment}, nil
	case *statev1.Event_WaveStarted:
		e := f.WaveStarted
		return deploy.WaveStarted{Deployment: e.Deployment, Wave: int(e.Wave), Budget: int(e.Budget)}, nil
	case *statev1.Event_PermitsGranted:
		return decodeGrants(f.PermitsGranted), nil
	case *statev1.Event_RollbackStarted:
		return decodeRollback(f.RollbackStarted), nil
	case *statev1.Event_TasksEnded:
		return decodeEnds(f.TasksEnded), nil
	case *statev1.Event_GateJudged:
		e := f.GateJudged
		v := deploy.VerdictFail
		if e.Pass {
			v = deploy.VerdictPass
		}
		return deploy.GateJudged{Deployment: e.Deployment, Wave: int(e.Wave), Gate: e.Gate, Verdict: v, Evidence: e.Evidence}, nil
	case *statev1.Event_BakeStarted:
		e := f.BakeStarted
		return deploy.BakeStarted{Deployment: e.Deployment, Wave: int(e.Wave), Until: deploy.Time(e.Until)}, nil
	case *statev1.Event_WaveSealed:
		return deploy.WaveSealed{Deployment: f.WaveSealed.Deployment, Wave: int(f.WaveSealed.Wave)}, nil
	case *statev1.Event_WaveSkipped:
		e := f.WaveSkipped
		return deploy.WaveSkipped{Deployment: e.Deployment, Wave: int(e.Wave), Cause: e.Cause}, nil
	case *statev1.Event_DeploymentPaused:
		return deploy.DeploymentPaused{Deployment: f.DeploymentPaused.Deployment, Cause: f.DeploymentPaused.Cause}, nil
	case *statev1.Event_DeploymentEnded:
		e := f.DeploymentEnded
		return deploy.DeploymentEnded{Deployment: e.Deployment, Status: deploy.DeploymentStatus(e.Status), Cause: e.Cause}, nil
	}
	return nil, fmt.Errorf("unknown fact %T; a newer coordinator wrote it, upgrade this one", p.Fact)
}
