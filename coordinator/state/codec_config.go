package state

import (
	"time"

	"github.com/groundswell/groundswell/deploy"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

func encodeShare(s *deploy.Share) *statev1.Share {
	if s == nil {
		return nil
	}
	return &statev1.Share{Count: int64(s.Count), Ppm: s.PPM, Relative: s.Relative}
}

func decodeShare(s *statev1.Share) deploy.Share {
	return deploy.Share{Count: int(s.GetCount()), PPM: s.GetPpm(), Relative: s.GetRelative()}
}

func decodeOptionalShare(s *statev1.Share) *deploy.Share {
	if s == nil {
		return nil
	}
	out := decodeShare(s)
	return &out
}

func encodeQuorum(q *deploy.QuorumGroup) *statev1.QuorumGroup {
	if q == nil {
		return nil
	}
	return &statev1.QuorumGroup{Label: q.Label, MaxDown: int64(q.MaxDown)}
}

func decodeQuorum(m *statev1.QuorumGroup) *deploy.QuorumGroup {
	if m == nil {
		return nil
	}
	return &deploy.QuorumGroup{Label: m.Label, MaxDown: int(m.MaxDown)}
}

func encodeStageScript(s *deploy.StageScript) *statev1.StageScript {
	if s == nil {
		return nil
	}
	return &statev1.StageScript{Script: s.Script, Timeout: int64(s.Timeout), RunAs: s.RunAs}
}

func decodeStageScript(m *statev1.StageScript) *deploy.StageScript {
	if m == nil {
		return nil
	}
	return &deploy.StageScript{Script: m.Script, Timeout: time.Duration(m.Timeout), RunAs: m.RunAs}
}

func encodeConfig(c *deploy.Config) *statev1.Config {
	return &statev1.Config{
		Name: c.Name,
		Capacity: &statev1.Capacity{
			MinHealthy:        encodeShare(&c.Capacity.MinHealthy),
			MinHealthyPerZone: encodeShare(c.Capacity.MinHealthyPerZone),
			SmallFleet:        c.Capacity.SmallFleet, MaxConcurrent: encodeShare(&c.Capacity.MaxConcurrent),
			MaxZones: int64(c.Capacity.MaxZones), SharedHost: c.Capacity.SharedHost,
			QuorumGroup: encodeQuorum(c.Capacity.QuorumGroup),
		},
		Stage: &statev1.Stage{
			Prefetch: c.Stage.Prefetch, Bandwidth: c.Stage.Bandwidth, Barrier: c.Stage.Barrier,
			Quorum: encodeShare(&c.Stage.Quorum),
			Warmup: encodeStageScript(c.Stage.Warmup), Taste: encodeStageScript(c.Stage.Taste),
		},
		Waves: each(c.Waves, encodeWaveSpec), Gates: each(c.Gates, encodeGate), Metrics: each(c.Metrics, encodeMetric),
		PreGates: c.PreGates, OnInconclusive: c.OnInconclusive,
		OnFailure: encodeOnFailure(c.OnFailure), OnFailureWave: c.OnFailure.Wave.Do, OnFailureGate: c.OnFailure.Gate.Do,
		Decision:           &statev1.Decision{Timeout: int64(c.Decision.Timeout), Then: c.Decision.Then},
		FailureBudgetTotal: encodeShare(c.FailureBudgetTotal),
		RollbackConcurrent: encodeShare(&c.Rollback.MaxConcurrent), RollbackZones: int64(c.Rollback.MaxZones),
		RollbackIgnoreFloor: c.Rollback.IgnoreFloor,
		InFlight: &statev1.InFlight{
			Serial: c.InFlight.Serial, Max: int64(c.InFlight.Max),
			Queue: c.InFlight.Queue,
		},
		TimeoutStage: int64(c.Timeouts.Stage), TimeoutTask: int64(c.Timeouts.Task),
		TimeoutLost: int64(c.Timeouts.LostAfter), TimeoutForget: int64(c.Timeouts.ForgetAfter),
		TimeoutDeployment: int64(c.Timeouts.Deployment),
		WatchAfter:        int64(c.WatchAfter), StopFailure: c.StopFailure,
	}
}

func decodeConfig(m *statev1.Config) deploy.Config {
	if m == nil {
		return deploy.Config{}
	}
	capacity := m.Capacity
	return deploy.Config{
		Name: m.Name,
		Capacity: deploy.Capacity{
			MinHealthy:        decodeShare(capacity.GetMinHealthy()),
			MinHealthyPerZone: decodeOptionalShare(capacity.GetMinHealthyPerZone()),
			SmallFleet:        capacity.GetSmallFleet(), MaxConcurrent: decodeShare(capacity.GetMaxConcurrent()),
			MaxZones: int(capacity.GetMaxZones()), SharedHost: capacity.GetSharedHost(),
			QuorumGroup: decodeQuorum(capacity.GetQuorumGroup()),
		},
		Stage: deploy.Stage{
			Prefetch: m.Stage.GetPrefetch(), Bandwidth: m.Stage.GetBandwidth(), Barrier: m.Stage.GetBarrier(),
			Quorum: decodeShare(m.Stage.GetQuorum()),
			Warmup: decodeStageScript(m.Stage.GetWarmup()), Taste: decodeStageScript(m.Stage.GetTaste()),
		},
		Waves: each(m.Waves, decodeWaveSpec), Gates: each(m.Gates, decodeGate), Metrics: each(m.Metrics, decodeMetric),
		PreGates: m.PreGates, OnInconclusive: m.OnInconclusive, OnFailure: decodeOnFailure(m),
		Decision: deploy.Decision{
			Timeout: time.Duration(m.Decision.GetTimeout()),
			Then:    m.Decision.GetThen(),
		},
		FailureBudgetTotal: decodeOptionalShare(m.FailureBudgetTotal),
		Rollback: deploy.RollbackPolicy{
			MaxConcurrent: decodeShare(m.RollbackConcurrent), MaxZones: int(m.RollbackZones),
			IgnoreFloor: m.RollbackIgnoreFloor,
		},
		InFlight: deploy.InFlight{
			Serial: m.InFlight.GetSerial(), Max: int(m.InFlight.GetMax()),
			Queue: m.InFlight.GetQueue(),
		},
		Timeouts: deploy.Timeouts{
			Stage: time.Duration(m.TimeoutStage), Task: time.Duration(m.TimeoutTask),
			LostAfter: time.Duration(m.TimeoutLost), ForgetAfter: time.Duration(m.TimeoutForget),
			Deployment: time.Duration(m.TimeoutDeployment),
		},
		WatchAfter: time.Duration(m.WatchAfter), StopFailure: m.StopFailure,
	}
}

func encodeAction(a deploy.Action) *statev1.Action {
	return &statev1.Action{Do: a.Do, Scope: a.Scope, Then: a.Then}
}

func decodeAction(m *statev1.Action) deploy.Action {
	return deploy.Action{Do: m.GetDo(), Scope: m.GetScope(), Then: m.GetThen()}
}

func encodeOnFailure(f deploy.FailureAction) *statev1.FailureAction {
	return &statev1.FailureAction{
		Host: encodeAction(f.Host), Wave: encodeAction(f.Wave), Gate: encodeAction(f.Gate), Test: encodeAction(f.Test),
		Bake: encodeAction(f.Bake),
	}
}

// decodeOnFailure reads also version 1: one word, of the whole deployment.
func decodeOnFailure(c *statev1.Config) deploy.FailureAction {
	m := c.OnFailure
	if m == nil {
		return deploy.FailureAction{
			Wave: deploy.Action{Do: c.OnFailureWave, Scope: deploy.ScopeAll},
			Gate: deploy.Action{Do: c.OnFailureGate, Scope: deploy.ScopeAll},
		}
	}
	return deploy.FailureAction{
		Host: decodeAction(m.Host), Wave: decodeAction(m.Wave), Gate: decodeAction(m.Gate), Test: decodeAction(m.Test),
		Bake: decodeAction(m.Bake),
	}
}

func encodeWaveSpec(w deploy.WaveSpec) *statev1.WaveSpec {
	return &statev1.WaveSpec{
		Name: w.Name, Kind: w.Kind, Size: encodeShare(&w.Size), ForEachZone: w.ForEachZone,
		Parallel: int64s(w.Parallel),
		Zone:     w.Zone, Prefer: w.Prefer, Balance: w.Balance, OneBox: w.OneBox, Rehearse: w.Rehearse,
		FailureBudget: encodeShare(&w.FailureBudget), PreGates: w.PreGates, Gates: w.Gates,
		BakeMin: int64(w.BakeMin), Bake: encodeBake(w.BakeSpec),
	}
}

func decodeWaveSpec(m *statev1.WaveSpec) deploy.WaveSpec {
	return deploy.WaveSpec{
		Name: m.Name, Kind: m.Kind, Size: decodeShare(m.Size), ForEachZone: m.ForEachZone, Parallel: ints(m.Parallel),
		Zone: m.Zone, Prefer: m.Prefer, Balance: m.Balance, OneBox: m.OneBox, Rehearse: m.Rehearse,
		FailureBudget: decodeShare(m.FailureBudget), PreGates: m.PreGates, Gates: m.Gates,
		BakeSpec: decodeBake(m.BakeMin, m.Bake),
	}
}

func encodeMetric(m deploy.Metric) *statev1.Metric {
	return &statev1.Metric{Name: m.Name, Total: m.Total, Bad: m.Bad, Samples: m.Samples}
}

func decodeMetric(m *statev1.Metric) deploy.Metric {
	return deploy.Metric{Name: m.Name, Total: m.Total, Bad: m.Bad, Samples: m.Samples}
}

func encodeGate(g deploy.Gate) *statev1.Gate {
	p := g.Probe
	m := &statev1.Gate{
		Name: g.Name, Scope: g.Scope, Http: p.HTTP, Expect: int64(p.Expect), Tcp: p.TCP, Command: p.Command,
		Consecutive: int64(p.Consecutive), Failures: int64(p.Failures), Interval: int64(p.Interval),
		Timeout: int64(p.Timeout),
		Webhook: g.Webhook, Window: g.Window,
		MinSamples: int64(g.MinSamples), FailLimit: int64(g.FailLimit), AskInterval: int64(g.Interval),
	}
	if q := g.Query; q != nil {
		m.Query = &statev1.QueryGate{
			Query: q.Query, Max: q.Max, Min: q.Min, Window: int64(q.Window), HostLabel: q.HostLabel,
			Presence: q.Presence,
		}
	}
	if c := g.Compare; c != nil {
		m.Compare = &statev1.CompareGate{Metric: c.Metric, Test: c.Test, Effect: c.Effect}
	}
	if a := g.Approval; a != nil {
		m.Approval = &statev1.ApprovalGate{Group: a.Group, Count: int64(a.Count), Timeout: int64(a.Timeout)}
	}
	return m
}

func decodeGate(m *statev1.Gate) deploy.Gate {
	g := deploy.Gate{
		Name: m.Name, Scope: m.Scope,
		Probe: deploy.Probe{
			HTTP: m.Http, Expect: int(m.Expect), TCP: m.Tcp, Command: m.Command, Consecutive: int(m.Consecutive),
			Failures: int(m.Failures), Interval: time.Duration(m.Interval), Timeout: time.Duration(m.Timeout),
		},
		Webhook: m.Webhook, Window: m.Window,
		MinSamples: int(m.MinSamples), FailLimit: int(m.FailLimit), Interval: time.Duration(m.AskInterval),
	}
	if q := m.Query; q != nil {
		g.Query = &deploy.QueryGate{
			Query: q.Query, Max: q.Max, Min: q.Min, Window: time.Duration(q.Window), HostLabel: q.HostLabel,
			Presence: q.Presence,
		}
	}
	if c := m.Compare; c != nil {
		g.Compare = &deploy.CompareGate{Metric: c.Metric, Test: c.Test, Effect: c.Effect}
	}
	if a := m.Approval; a != nil {
		g.Approval = &deploy.ApprovalGate{Group: a.Group, Count: int(a.Count), Timeout: time.Duration(a.Timeout)}
	}
	return g
}
