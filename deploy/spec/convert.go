package spec

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/config"
)

// config turns a written config into deploy's and checks it; path is its place.
func (p *parser) config(path, name string, f *configFile) deploy.Config {
	c, _ := deploy.Builtin("staged")
	c.Name = name
	p.capacity(path+".capacity", &c.Capacity, &f.Capacity)
	c.Gates = p.gates(path+".gates", f.Gates)
	if f.Waves != nil {
		c.Waves = p.waves(path+".waves", f.Waves)
	}
	c.OnFailure.Wave.Do = action(f.OnFailure.Wave, c.OnFailure.Wave.Do)
	c.OnFailure.Gate.Do = action(f.OnFailure.Gate, c.OnFailure.Gate.Do)
	c.FailureBudgetTotal = sharePointer(f.FailureBudgetTotal)
	c.Rollback.MaxConcurrent = shareOr(f.Rollback.MaxConcurrent, c.Rollback.MaxConcurrent)
	c.Rollback.MaxZones = zonesOr(f.Rollback.MaxZones, c.Rollback.MaxZones)
	p.timeouts(path+".timeouts", &c.Timeouts, &f.Timeouts)
	c.StopFailure = cmp.Or(f.Stop, c.StopFailure)
	p.atLeastOne(path+".rollback.maxConcurrent", c.Rollback.MaxConcurrent)
	if p.doc.Clean(path) {
		if at, err := c.Validate(); err != nil {
			p.doc.Errorf(path+"."+at, "%v", err)
		}
	}
	return c
}

func (p *parser) capacity(path string, c *deploy.Capacity, f *capacityFile) {
	c.MinHealthy = shareOr(f.MinHealthy, c.MinHealthy)
	c.MinHealthyPerZone = sharePointer(f.MinHealthyPerZone)
	c.SmallFleet = cmp.Or(f.SmallFleet, c.SmallFleet)
	c.MaxConcurrent = shareOr(f.MaxConcurrent, c.MaxConcurrent)
	c.MaxZones = zonesOr(f.MaxZones, c.MaxZones)
	c.SharedHost = f.PerHost == "shared"
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

func (p *parser) waves(path string, list []waveFile) []deploy.WaveSpec {
	out := []deploy.WaveSpec{}
	for i := range list {
		out = append(out, p.wave(fmt.Sprintf("%s[%d]", path, i), &list[i]))
	}
	return out
}

func (p *parser) wave(path string, f *waveFile) deploy.WaveSpec {
	w := deploy.WaveSpec{
		Name: f.Name, Kind: "remainder", ForEachZone: f.ForEach == "zone", Parallel: f.Parallel, OneBox: f.OneBox,
		FailureBudget: share(f.FailureBudget), BakeSpec: deploy.BakeSpec{BakeMin: f.Bake.Min}, Gates: f.Gates,
	}
	p.pick(path+".select", &w, &f.Select.part)
	if p.doc.Has(path+".parallel") && f.ForEach == "" {
		p.doc.Errorf(path+".parallel", "counts zones, so it needs forEach: zone")
	}
	if strings.ContainsAny(f.Name, "/ \t\n") {
		p.doc.Errorf(path+".name", "%q holds a blank or slash; name the wave with one word", f.Name)
	}
	return w
}

// pick reads how many targets a wave takes and from where.
func (p *parser) pick(path string, w *deploy.WaveSpec, f *selectPart) {
	switch {
	case f.Count != nil:
		w.Kind, w.Size = "count", deploy.Count(*f.Count)
	case f.Percent != nil:
		w.Kind, w.Size = "percent", share(*f.Percent)
		if p.doc.Clean(path+".percent") && (!f.Percent.Relative || f.Percent.PPM == 0) {
			p.doc.Errorf(path+".percent", "%q is no part of a fleet; write for instance 5%%, at most 100%%", f.Percent)
		}
	}
	w.Prefer, w.Balance = f.Prefer, f.Balance == "zone"
	if key, zone, ok := strings.Cut(f.From, "="); f.From != "" {
		if !ok || key != "zone" || zone == "" {
			p.doc.Errorf(path+".from", "%q names no zone; write zone=lightest or zone=NAME", f.From)
		}
		w.Zone = zone
	}
	if key, value, ok := strings.Cut(f.Prefer, "="); f.Prefer != "" && (!ok || key == "" || value == "") {
		p.doc.Errorf(path+".prefer", "%q is no label; write key=value", f.Prefer)
	}
}

func (p *parser) gates(path string, gates map[string]*gateFile) []deploy.Gate {
	var out []deploy.Gate
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		at, g := path+"."+name, gates[name]
		switch {
		case g == nil || !p.doc.Clean(at):
		case g.Probe == nil:
			p.doc.Errorf(at, "asks nothing; add probe: {http: URL}, {tcp: host:port} or {command: script}")
		default:
			out = append(out, deploy.Gate{Name: name, Probe: p.probe(at+".probe", g.Probe)})
		}
	}
	return out
}

func (p *parser) timeouts(path string, t *deploy.Timeouts, f *timeoutsFile) {
	for _, one := range []struct {
		key string
		to  *time.Duration
		is  time.Duration
	}{{"stage", &t.Stage, f.Stage}, {"task", &t.Task, f.Task}, {"lostAfter", &t.LostAfter, f.LostAfter}} {
		at := path + "." + one.key
		switch {
		case !p.doc.Has(at) || !p.doc.Clean(at):
		case one.is < time.Second:
			p.doc.Errorf(at, "%s is too short to finish anything; use at least 1s", config.FormatDuration(one.is))
		default:
			*one.to = one.is
		}
	}
}

func action(f *actionFile, def string) string {
	if f == nil {
		return def
	}
	return cmp.Or(f.Action, def)
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
