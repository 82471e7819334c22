package state

import (
	"time"

	"github.com/groundswell/groundswell/deploy"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

func encodeUnreachable(e deploy.HostsUnreachable) *statev1.Event {
	m := &statev1.HostsUnreachable{}
	for _, i := range e.Items {
		m.Items = append(m.Items, &statev1.HostDown{Host: i.Host, Counter: i.Counter})
	}
	return &statev1.Event{Fact: &statev1.Event_HostsUnreachable{HostsUnreachable: m}}
}

func decodeUnreachable(m *statev1.HostsUnreachable) deploy.Event {
	var e deploy.HostsUnreachable
	for _, i := range m.Items {
		e.Items = append(e.Items, deploy.HostDown{Host: i.Host, Counter: i.Counter})
	}
	return e
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

func encodeReports(e deploy.TargetsReported) *statev1.Event {
	m := &statev1.TargetsReported{}
	for _, r := range e.Items {
		p := &statev1.Report{
			Host: r.Host, App: r.App, Counter: r.Counter, Gen: r.Gen, Result: int32(r.Result),
			Running: string(r.Running), Health: int32(r.Health), Evidence: r.Evidence,
			StageFailed: string(r.StageFailed), Failure: encodeFailure(r.Failure),
		}
		for _, d := range r.Staged {
			p.Staged = append(p.Staged, string(d))
		}
		m.Items = append(m.Items, p)
	}
	return &statev1.Event{Fact: &statev1.Event_TargetsReported{TargetsReported: m}}
}

func decodeReports(m *statev1.TargetsReported) deploy.Event {
	var e deploy.TargetsReported
	for _, p := range m.Items {
		r := deploy.Report{
			Host: p.Host, App: p.App, Counter: p.Counter, Gen: p.Gen, Result: deploy.Result(p.Result),
			Running: deploy.Digest(p.Running), Health: deploy.Health(p.Health), Evidence: p.Evidence,
			StageFailed: deploy.Digest(p.StageFailed), Failure: decodeFailure(p.Failure),
		}
		for _, d := range p.Staged {
			r.Staged = append(r.Staged, deploy.Digest(d))
		}
		e.Items = append(e.Items, r)
	}
	return e
}

func encodeCreated(e deploy.DeploymentCreated) *statev1.Event {
	m := &statev1.DeploymentCreated{
		Request: encodeRequest(e.Request), Id: e.ID, App: e.App, Group: e.Group, Revision: string(e.Revision),
		RevName: e.RevName, Config: encodeConfig(&e.Config), Seed: e.Seed, Redeploy: e.Redeploy,
		Force: e.Force, Inverse: e.Inverse, Bad: string(e.Bad),
	}
	for _, w := range e.Waves {
		m.Waves = append(m.Waves, &statev1.Wave{
			Name: w.Name, Zone: w.Zone, Batch: int64(w.Batch), Hosts: w.Hosts, OneBox: w.OneBox,
			Share: encodeShare(&w.Share), BakeMin: int64(w.BakeMin), Gates: w.Gates,
		})
	}
	return &statev1.Event{Fact: &statev1.Event_DeploymentCreated{DeploymentCreated: m}}
}

func decodeCreated(m *statev1.DeploymentCreated) deploy.Event {
	e := deploy.DeploymentCreated{
		Request: decodeRequest(m.Request), ID: m.Id, App: m.App, Group: m.Group, Revision: deploy.Digest(m.Revision),
		RevName: m.RevName, Config: decodeConfig(m.Config), Seed: m.Seed, Redeploy: m.Redeploy,
		Force: m.Force, Inverse: m.Inverse, Bad: deploy.Digest(m.Bad),
	}
	for _, w := range m.Waves {
		e.Waves = append(e.Waves, deploy.Wave{
			Name: w.Name, Zone: w.Zone, Batch: int(w.Batch), Hosts: w.Hosts, OneBox: w.OneBox,
			Share: decodeShare(w.Share), BakeSpec: deploy.BakeSpec{BakeMin: time.Duration(w.BakeMin)}, Gates: w.Gates,
		})
	}
	return e
}

func encodeGrants(e deploy.PermitsGranted) *statev1.Event {
	m := &statev1.PermitsGranted{
		Deployment: e.Deployment, Wave: int64(e.Wave), Concurrent: int64(e.Concurrent), MaxZones: int64(e.MaxZones),
	}
	for _, f := range e.Floors {
		m.Floors = append(m.Floors, &statev1.Floor{Zone: f.Zone, Min: int64(f.Min)})
	}
	for _, g := range e.Items {
		m.Items = append(m.Items, &statev1.Grant{Host: g.Host, Gen: g.Gen, Kind: int32(g.Kind), Goal: string(g.Goal)})
	}
	return &statev1.Event{Fact: &statev1.Event_PermitsGranted{PermitsGranted: m}}
}

func decodeGrants(m *statev1.PermitsGranted) deploy.Event {
	e := deploy.PermitsGranted{
		Deployment: m.Deployment, Wave: int(m.Wave), Concurrent: int(m.Concurrent), MaxZones: int(m.MaxZones),
	}
	for _, f := range m.Floors {
		e.Floors = append(e.Floors, deploy.Floor{Zone: f.Zone, Min: int(f.Min)})
	}
	for _, g := range m.Items {
		e.Items = append(e.Items, deploy.Grant{Host: g.Host, Gen: g.Gen, Kind: deploy.Permit(g.Kind), Goal: deploy.Digest(g.Goal)})
	}
	return e
}

func encodeRollback(e deploy.RollbackStarted) *statev1.Event {
	m := &statev1.RollbackStarted{Deployment: e.Deployment, Cause: e.Cause, Bad: e.Bad}
	for _, i := range e.Items {
		m.Items = append(m.Items, &statev1.RevertGoal{Host: i.Host, Goal: string(i.Goal)})
	}
	return &statev1.Event{Fact: &statev1.Event_RollbackStarted{RollbackStarted: m}}
}

func decodeRollback(m *statev1.RollbackStarted) deploy.Event {
	e := deploy.RollbackStarted{Deployment: m.Deployment, Cause: m.Cause, Bad: m.Bad}
	for _, i := range m.Items {
		e.Items = append(e.Items, deploy.RevertGoal{Host: i.Host, Goal: deploy.Digest(i.Goal)})
	}
	return e
}

func encodeEnds(e deploy.TasksEnded) *statev1.Event {
	m := &statev1.TasksEnded{Deployment: e.Deployment}
	for _, i := range e.Items {
		m.Items = append(m.Items, &statev1.TaskEnd{
			Host: i.Host, Status: int32(i.Status), Gen: i.Gen, Counter: i.Counter, Cause: i.Cause,
		})
	}
	return &statev1.Event{Fact: &statev1.Event_TasksEnded{TasksEnded: m}}
}

func decodeEnds(m *statev1.TasksEnded) deploy.Event {
	e := deploy.TasksEnded{Deployment: m.Deployment}
	for _, i := range m.Items {
		e.Items = append(e.Items, deploy.TaskEnd{
			Host: i.Host, Status: deploy.TaskStatus(i.Status), Gen: i.Gen, Counter: i.Counter, Cause: i.Cause,
		})
	}
	return e
}

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

func encodeConfig(c *deploy.Config) *statev1.Config {
	m := &statev1.Config{
		Name: c.Name,
		Capacity: &statev1.Capacity{
			MinHealthy: encodeShare(&c.Capacity.MinHealthy), MinHealthyPerZone: encodeShare(c.Capacity.MinHealthyPerZone),
			SmallFleet: c.Capacity.SmallFleet, MaxConcurrent: encodeShare(&c.Capacity.MaxConcurrent),
			MaxZones: int64(c.Capacity.MaxZones), SharedHost: c.Capacity.SharedHost,
		},
		OnFailureWave: c.OnFailure.Wave.Do, OnFailureGate: c.OnFailure.Gate.Do,
		FailureBudgetTotal: encodeShare(c.FailureBudgetTotal),
		RollbackConcurrent: encodeShare(&c.Rollback.MaxConcurrent), RollbackZones: int64(c.Rollback.MaxZones),
		TimeoutStage: int64(c.Timeouts.Stage), TimeoutTask: int64(c.Timeouts.Task), TimeoutLost: int64(c.Timeouts.LostAfter),
		StopFailure: c.StopFailure,
	}
	for _, w := range c.Waves {
		m.Waves = append(m.Waves, encodeWaveSpec(w))
	}
	for _, g := range c.Gates {
		p := g.Probe
		m.Gates = append(m.Gates, &statev1.Gate{
			Name: g.Name, Http: p.HTTP, Expect: int64(p.Expect), Tcp: p.TCP, Command: p.Command,
			Consecutive: int64(p.Consecutive), Failures: int64(p.Failures),
			Interval: int64(p.Interval), Timeout: int64(p.Timeout),
		})
	}
	return m
}

func encodeWaveSpec(w deploy.WaveSpec) *statev1.WaveSpec {
	m := &statev1.WaveSpec{
		Name: w.Name, Kind: w.Kind, Size: encodeShare(&w.Size), ForEachZone: w.ForEachZone, Zone: w.Zone,
		Prefer: w.Prefer, Balance: w.Balance, OneBox: w.OneBox, FailureBudget: encodeShare(&w.FailureBudget),
		BakeMin: int64(w.BakeMin), Gates: w.Gates,
	}
	for _, n := range w.Parallel {
		m.Parallel = append(m.Parallel, int64(n))
	}
	return m
}

func decodeWaveSpec(m *statev1.WaveSpec) deploy.WaveSpec {
	w := deploy.WaveSpec{
		Name: m.Name, Kind: m.Kind, Size: decodeShare(m.Size), ForEachZone: m.ForEachZone, Zone: m.Zone,
		Prefer: m.Prefer, Balance: m.Balance, OneBox: m.OneBox, FailureBudget: decodeShare(m.FailureBudget),
		BakeSpec: deploy.BakeSpec{BakeMin: time.Duration(m.BakeMin)}, Gates: m.Gates,
	}
	for _, n := range m.Parallel {
		w.Parallel = append(w.Parallel, int(n))
	}
	return w
}

func decodeConfig(m *statev1.Config) deploy.Config {
	cap := m.GetCapacity()
	c := deploy.Config{
		Name: m.GetName(),
		Capacity: deploy.Capacity{
			MinHealthy: decodeShare(cap.GetMinHealthy()), MinHealthyPerZone: decodeOptionalShare(cap.GetMinHealthyPerZone()),
			SmallFleet: cap.GetSmallFleet(), MaxConcurrent: decodeShare(cap.GetMaxConcurrent()),
			MaxZones: int(cap.GetMaxZones()), SharedHost: cap.GetSharedHost(),
		},
		OnFailure:          deploy.FailureAction{Wave: deploy.Action{Do: m.GetOnFailureWave()}, Gate: deploy.Action{Do: m.GetOnFailureGate()}},
		FailureBudgetTotal: decodeOptionalShare(m.GetFailureBudgetTotal()),
		Rollback:           deploy.RollbackPolicy{MaxConcurrent: decodeShare(m.GetRollbackConcurrent()), MaxZones: int(m.GetRollbackZones())},
		Timeouts: deploy.Timeouts{
			Stage: time.Duration(m.GetTimeoutStage()), Task: time.Duration(m.GetTimeoutTask()), LostAfter: time.Duration(m.GetTimeoutLost()),
		},
		StopFailure: m.GetStopFailure(),
	}
	for _, w := range m.GetWaves() {
		c.Waves = append(c.Waves, decodeWaveSpec(w))
	}
	for _, g := range m.GetGates() {
		c.Gates = append(c.Gates, deploy.Gate{Name: g.Name, Probe: deploy.Probe{
			HTTP: g.Http, Expect: int(g.Expect), TCP: g.Tcp, Command: g.Command,
			Consecutive: int(g.Consecutive), Failures: int(g.Failures),
			Interval: time.Duration(g.Interval), Timeout: time.Duration(g.Timeout),
		}})
	}
	return c
}
