package spec

import (
	"cmp"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/config"
)

// config turns a written config into deploy's and checks it; path is its place.
func (p *parser) config(path, name string, f *configFile) deploy.Config {
	c, _ := deploy.Builtin("staged")
	c.Name = name
	p.capacity(path+".capacity", &c.Capacity, &f.Capacity)
	p.stage(path+".stage", &c.Stage, &f.Stage)
	c.Stage.Warmup, c.Stage.Taste = stageScript(f.Warmup), stageScript(f.Taste)
	c.Gates = p.gates(path+".gates", f.Gates)
	c.Metrics = p.metrics(path+".metrics", f.Metrics)
	if f.Waves != nil {
		c.Waves = p.waves(path+".waves", f.Waves)
	}
	c.PreGates, c.OnInconclusive = f.PreGates, f.OnInconclusive
	c.OnFailure = onFailure(c.OnFailure, &f.OnFailure)
	c.Decision = deploy.Decision{Timeout: f.Decision.Timeout, Then: f.Decision.Then}
	c.FailureBudgetTotal = sharePointer(f.FailureBudgetTotal)
	c.Rollback.MaxConcurrent = shareOr(f.Rollback.MaxConcurrent, c.Rollback.MaxConcurrent)
	c.Rollback.MaxZones = zonesOr(f.Rollback.MaxZones, c.Rollback.MaxZones)
	c.Rollback.IgnoreFloor = f.Rollback.Floor == "ignore"
	c.InFlight = deploy.InFlight{Serial: f.InFlight.Mode == "serial", Max: f.InFlight.Max, Queue: f.InFlight.Queue}
	p.timeouts(path+".timeouts", &c.Timeouts, &f.Timeouts)
	c.WatchAfter = f.WatchAfter
	c.StopFailure = cmp.Or(f.Stop, c.StopFailure)
	p.atLeastOne(path+".rollback.maxConcurrent", c.Rollback.MaxConcurrent)
	p.longEnough(path+".decision.timeout", f.Decision.Timeout)
	if p.doc.Clean(path) {
		if at, err := c.Validate(); err != nil {
			p.doc.Errorf(path+"."+at, "%v", err)
		}
	}
	return c
}

func (p *parser) stage(path string, s *deploy.Stage, f *stageFile) {
	*s = deploy.Stage{Prefetch: f.Prefetch, Bandwidth: int64(f.Bandwidth), Barrier: f.Barrier}
	switch {
	case f.Quorum != nil:
		s.Quorum = share(*f.Quorum)
		if s.Quorum.PPM == 0 && s.Quorum.Count == 0 && p.doc.Clean(path) {
			p.doc.Errorf(path+".quorum", "a quorum of nobody waits for nothing; write for instance 95%%, or remove the barrier")
		}
	case f.Barrier == "wave" || f.Barrier == "deployment":
		s.Quorum = deploy.Percent(100)
	}
}

func stageScript(f *stageScriptFile) *deploy.StageScript {
	if f == nil {
		return nil
	}
	return &deploy.StageScript{Script: f.Script, Timeout: f.Timeout, RunAs: f.RunAs}
}

func (p *parser) capacity(path string, c *deploy.Capacity, f *capacityFile) {
	c.MinHealthy = shareOr(f.MinHealthy, c.MinHealthy)
	c.MinHealthyPerZone = sharePointer(f.MinHealthyPerZone)
	c.SmallFleet = cmp.Or(f.SmallFleet, c.SmallFleet)
	c.MaxConcurrent = shareOr(f.MaxConcurrent, c.MaxConcurrent)
	c.MaxZones = zonesOr(f.MaxZones, c.MaxZones)
	c.SharedHost = f.PerHost == "shared"
	if q := f.QuorumGroup; q != nil {
		c.QuorumGroup = &deploy.QuorumGroup{Label: q.Label, MaxDown: q.MaxDown}
	}
	p.floor(path+".minHealthy", c.MinHealthy, c.SmallFleet)
	if c.MinHealthyPerZone != nil {
		p.floor(path+".minHealthyPerZone", *c.MinHealthyPerZone, c.SmallFleet)
	}
}

// floor refuses a floor that no fleet of any size could keep.
func (p *parser) floor(path string, s deploy.Share, smallFleet string) {
	if s.Relative && s.PPM == deploy.Million && smallFleet == "reject" {
		p.doc.Errorf(path, "with 100%% and smallFleet: reject no host could ever leave service; lower it, or set capacity.smallFleet: relax")
	}
}

func (p *parser) atLeastOne(path string, s deploy.Share) {
	if p.doc.Has(path) && s.PPM == 0 && s.Count == 0 {
		p.doc.Errorf(path, "with %s no host could ever go back; use at least 1", s)
	}
}

func (p *parser) timeouts(path string, t *deploy.Timeouts, f *timeoutsFile) {
	for _, one := range []struct {
		key string
		to  *time.Duration
		is  time.Duration
		may bool // be none
	}{
		{"stage", &t.Stage, f.Stage, false},
		{"task", &t.Task, f.Task, false},
		{"lostAfter", &t.LostAfter, f.LostAfter, false},
		{"forgetAfter", &t.ForgetAfter, time.Duration(f.ForgetAfter), true},
		{"deployment", &t.Deployment, time.Duration(f.Deployment), true},
	} {
		at := path + "." + one.key
		if !p.doc.Has(at) || !p.doc.Clean(at) {
			continue
		}
		*one.to = one.is
		if !one.may || one.is != 0 {
			p.longEnough(at, one.is)
		}
	}
}

// longEnough refuses a time that was written and is shorter than a second.
func (p *parser) longEnough(path string, d time.Duration) {
	if p.doc.Has(path) && p.doc.Clean(path) && d < time.Second {
		p.doc.Errorf(path, "%s is too short to finish anything; use at least 1s", config.FormatDuration(d))
	}
}

// onFailure lays what was written over the defaults. An action without a scope
// means the whole deployment, one host's its host, and a narrower rollback is
// followed by a pause.
func onFailure(out deploy.FailureAction, f *onFailureFile) deploy.FailureAction {
	for _, one := range []struct {
		to    *deploy.Action
		from  *actionFile
		scope string
	}{
		{&out.Host, f.Host, deploy.ScopeHost},
		{&out.Wave, f.Wave, deploy.ScopeAll},
		{&out.Gate, f.Gate, deploy.ScopeAll},
		{&out.Test, f.Test, deploy.ScopeAll},
		{&out.Bake, f.Bake, deploy.ScopeAll},
	} {
		if one.from == nil {
			continue
		}
		a := deploy.Action{Do: one.from.Action, Scope: one.from.Scope, Then: one.from.Then}
		if a.Do == deploy.ActionRollback {
			a.Scope = cmp.Or(a.Scope, one.scope)
			if a.Scope != deploy.ScopeAll && one.to != &out.Host {
				a.Then = cmp.Or(a.Then, deploy.ThenPause)
			}
		}
		*one.to = a
	}
	return out
}

func share(s config.Share) deploy.Share {
	return deploy.Share{Count: s.Count, PPM: s.PPM, Relative: s.Relative}
}

func shareOr(s *config.Share, def deploy.Share) deploy.Share {
	if s == nil {
		return def
	}
	return share(*s)
}

func sharePointer(s *config.Share) *deploy.Share {
	if s == nil {
		return nil
	}
	out := share(*s)
	return &out
}

func zonesOr(z *zones, def int) int {
	if z == nil {
		return def
	}
	return int(*z)
}
