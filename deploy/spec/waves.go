package spec

import (
	"fmt"
	"strings"

	"github.com/groundswell/groundswell/deploy"
)

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
		Rehearse: f.RehearseRollback, FailureBudget: share(f.FailureBudget), PreGates: f.PreGates, Gates: f.Gates,
		BakeSpec: deploy.BakeSpec{
			BakeMin: f.Bake.Min, BakeMax: f.Bake.Max, Samples: f.Bake.Samples.Requests,
			Early: f.Bake.Early != "",
		},
	}
	p.pick(path+".select", &w, &f.Select.part)
	if p.doc.Has(path+".parallel") && f.ForEach == "" {
		p.doc.Errorf(path+".parallel", "counts zones, so it needs forEach: zone")
	}
	if f.OneBox && f.Select.remainder && f.ForEach == "" {
		p.doc.Errorf(path+".oneBox", "gates the first host of each zone, so it needs forEach: zone; else begin with a wave of select: {count: 1}")
	}
	if p.doc.Has(path+".bake.max") && f.Bake.Max == 0 && p.doc.Clean(path+".bake.max") {
		p.doc.Errorf(path+".bake.max", "a bake of no time decides nothing; use at least bake.min, or remove it")
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
