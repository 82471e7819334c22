package deploy

import (
	"cmp"
	"fmt"
	"strings"
)

// Describe returns a fact as one line, for traces and replays.
func Describe(e Event) string {
	switch e := e.(type) {
	case RulesRaised:
		return fmt.Sprintf("RulesRaised %d", e.Level)
	case GroupDefined:
		return fmt.Sprintf("GroupDefined %s/%s config=%s", e.App, e.Group, e.Config.Name)
	case HostEnrolled:
		return fmt.Sprintf("HostEnrolled %s zone=%s", e.Name, e.Zone)
	case HostLeft:
		return fmt.Sprintf("HostLeft %s %s", e.Host, e.Cause)
	case TargetsJoined:
		return fmt.Sprintf("TargetsJoined %s/%s %s", e.App, e.Group, list(e.Hosts))
	case TargetsLeft:
		return fmt.Sprintf("TargetsLeft %s/%s %s (%s)", e.App, e.Group, list(e.Hosts), e.Cause)
	case RevisionRegistered:
		return fmt.Sprintf("RevisionRegistered %s %s", e.App, e.Name)
	case RevisionsPruned:
		var digests []string
		for _, d := range e.Digests {
			digests = append(digests, d.Short())
		}
		return fmt.Sprintf("RevisionsPruned %s %s by %s", e.App, list(digests), e.Request.Actor)
	case HistoryMoved:
		return fmt.Sprintf("HistoryMoved %s %s", e.Pack.Object.Short(), list(e.Deployments))
	case HistoryFolded:
		return fmt.Sprintf("HistoryFolded %s packs=%d", e.Older.Object.Short(), e.Packs)
	case HostsUnreachable:
		var hosts []string
		for _, i := range e.Items {
			hosts = append(hosts, i.Host)
		}
		return "HostsUnreachable " + list(hosts)
	case HostsQuarantined:
		return fmt.Sprintf("HostsQuarantined %s %s", list(e.Hosts), cmp.Or(e.Cause, "by "+e.Request.Actor))
	case HostDrainSet:
		return fmt.Sprintf("HostDrainSet %s undo=%t by %s", e.Host, e.Undo, e.Request.Actor)
	case HostDrained:
		return "HostDrained " + e.Host
	case HostsReleased:
		return fmt.Sprintf("HostsReleased %s %s", list(e.Hosts), cmp.Or(e.Cause, "by "+e.Request.Actor))
	case GroupDeleted:
		return fmt.Sprintf("GroupDeleted %s/%s by %s", e.App, e.Group, e.Request.Actor)
	case RevisionProven:
		return "RevisionProven " + e.Deployment
	case StagingRetried:
		return fmt.Sprintf("StagingRetried %s/%s %s", e.App, e.Group, list(e.Hosts))
	case TasksReopened:
		return fmt.Sprintf("TasksReopened %s %s", e.Deployment, list(e.Hosts))
	case GatesAnswered:
		return "GatesAnswered " + e.Deployment
	case FreezeSet:
		if e.For > 0 {
			return fmt.Sprintf("FreezeSet by %s for=%s", e.Request.Actor, e.For)
		}
		return "FreezeSet by " + e.Request.Actor
	case FreezeLifted:
		return "FreezeLifted by " + e.Request.Actor
	case FreezesEnded:
		return "FreezesEnded"
	case TargetMoved:
		return fmt.Sprintf("TargetMoved %s wave=%d from=%d", e.Host, e.To, e.From)
	case TrafficSet:
		return fmt.Sprintf("TrafficSet %s %s of %s: %d", e.Host, e.Pool.Name(), e.App, e.Stage)
	case TargetsReported:
		return describeReports(e)
	}
	return describeDeployment(e)
}

func describeReports(e TargetsReported) string {
	var parts []string
	for _, r := range e.Items {
		text := fmt.Sprintf("%s gen=%d %s %s", r.Host, r.Gen, r.Result, r.Health)
		if r.StageFailed != "" {
			text += " stage-failed"
		}
		parts = append(parts, text)
	}
	return "TargetsReported " + strings.Join(parts, "; ")
}

func describeDeployment(e Event) string {
	switch e := e.(type) {
	case DeploymentCreated:
		if e.Inverse {
			return fmt.Sprintf("DeploymentCreated %s rollback of=%s to=%s", e.ID, cmp.Or(e.Undoes, "all"), e.RevName)
		}
		var waves []string
		for _, w := range e.Waves {
			waves = append(waves, fmt.Sprintf("%s=%s", w.Name, list(w.Hosts)))
		}
		text := fmt.Sprintf("DeploymentCreated %s %s %s", e.ID, e.RevName, strings.Join(waves, " "))
		if e.Emergency {
			text += " EMERGENCY by " + e.Request.Actor
		}
		return text
	case RequestMade:
		return fmt.Sprintf("RequestMade %s %s", e.Deployment, e.Verb) + describeRequest(e)
	case DeploymentStarted:
		return "DeploymentStarted " + e.Deployment
	case WaveStarted:
		return fmt.Sprintf("WaveStarted %d budget=%d", e.Wave, e.Budget)
	case PermitsGranted:
		var items []string
		for _, g := range e.Items {
			item := fmt.Sprintf("%s:%d:%s", g.Host, g.Gen, g.Kind)
			if e.CatchUp != CatchUpNone {
				item += "→" + g.Goal.Short()
			}
			items = append(items, item)
		}
		if e.CatchUp != CatchUpNone {
			return fmt.Sprintf("PermitsGranted %s %s", e.CatchUp, list(items))
		}
		return fmt.Sprintf("PermitsGranted wave=%d of=%d %s", e.Wave, e.Concurrent, list(items))
	case RollbackStarted:
		var items []string
		for _, g := range e.Items {
			items = append(items, g.Host+"→"+string(g.Goal))
		}
		scope := ""
		if e.Scope != "" && e.Scope != ScopeAll {
			scope = e.Scope + " "
		}
		return fmt.Sprintf("RollbackStarted %s(%s) %s", scope, e.Cause, list(items))
	case TasksEnded:
		var items []string
		for _, t := range e.Items {
			items = append(items, fmt.Sprintf("%s:%s (%s)", t.Host, t.Status, t.Cause))
		}
		return "TasksEnded " + list(items)
	case GateJudged:
		return fmt.Sprintf("GateJudged wave=%d %s %s %s", e.Wave, e.Gate, e.Verdict, e.Evidence)
	case BakeStarted:
		return fmt.Sprintf("BakeStarted %d", e.Wave)
	case WaveSealed:
		return fmt.Sprintf("WaveSealed %d", e.Wave)
	case WaveSkipped:
		return fmt.Sprintf("WaveSkipped %d (%s)", e.Wave, e.Cause)
	case HoldsChanged:
		var items []string
		for _, h := range e.Holds {
			items = append(items, h.Text)
		}
		return fmt.Sprintf("HoldsChanged %d (%s)", e.Wave, strings.Join(items, "; "))
	case RevertExtended:
		var items []string
		for _, g := range e.Items {
			items = append(items, g.Host+"→"+string(g.Goal))
		}
		return fmt.Sprintf("RevertExtended %s %s", e.Deployment, list(items))
	case WaveReverted:
		return fmt.Sprintf("WaveReverted %d", e.Wave)
	case TakenOver:
		return fmt.Sprintf("TakenOver %s by %s", e.Deployment, e.By)
	case RevisionSuspected:
		return fmt.Sprintf("RevisionSuspected %s (%s)", e.Deployment, e.Text)
	case GateObserved:
		var items []string
		for _, o := range e.Items {
			items = append(items, strings.TrimPrefix(o.Key+":", ":")+string(o.Answer))
		}
		return fmt.Sprintf("GateObserved wave=%d %s %s", e.Wave, e.Gate, list(items))
	case DeploymentPaused:
		return fmt.Sprintf("DeploymentPaused (%s)", e.Cause)
	case DeploymentEnded:
		return fmt.Sprintf("DeploymentEnded %s %s", e.Status, e.Cause)
	}
	return fmt.Sprintf("%T", e) // a test fails for a fact without a line of its own
}

// describeRequest names what a request is about, and who says yes or no.
func describeRequest(e RequestMade) string {
	text := ""
	for _, part := range []string{e.Gate, e.Wave, e.Zone, e.By, string(e.Fixes), strings.Join(e.Hosts, " ")} {
		if part != "" {
			text += " " + part
		}
	}
	if e.Verb == VerbApprove || e.Verb == VerbReject || e.Verb == VerbEmergency {
		text += " by " + e.Request.Actor
	}
	return text
}
