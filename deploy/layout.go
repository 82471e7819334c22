package deploy

import "slices"

// Layout is the order of a group's waves, shared by every deployment in flight.
// The next deployment makes a new one when none is.
type Layout struct {
	Version uint64       `json:"version"` // index of the entry that made it
	Specs   []WaveSpec   `json:"specs,omitempty"`
	Waves   []LayoutWave `json:"waves,omitempty"`
}

// LayoutWave is one wave of a layout with its hosts. What was sealed in it
// stands in the group's history, under its name.
type LayoutWave struct {
	Name  string   `json:"name"`
	Zone  string   `json:"zone,omitempty"`
	Batch int      `json:"batch"`
	Spec  int      `json:"spec"` // position of the spec that made it
	Hosts []string `json:"hosts"`
}

// waveOf is the wave that a host belongs to which joined after the layout was
// made: a stable hash of its id against the cut-offs of the percentages, inside
// its zone; sets of a count are explicit and do not grow; the rest takes whom
// nobody else took.
func (l *Layout) waveOf(h *Host) int {
	at := hash(h.ID) % Million
	var cut uint64
	last := -1
	for i := range l.Waves {
		w, spec := &l.Waves[i], l.Specs[l.Waves[i].Spec]
		if spec.Kind == "percent" {
			if w.Zone == "" || w.Zone == h.Zone {
				cut += uint64(spec.Size.PPM)
				if at < cut {
					return i
				}
			}
			continue
		}
		if spec.Kind == "remainder" {
			if w.Zone == "" || w.Zone == h.Zone {
				return i
			}
			last = i
		}
	}
	if last < 0 {
		return len(l.Waves) - 1
	}
	return last // a zone that is new to the layout
}

// compatible reports whether waves made from these specs would have the same
// order and hosts as the layout, whatever their gates, budgets and bakes.
func (l *Layout) compatible(specs []WaveSpec) bool {
	return slices.EqualFunc(l.Specs, specs, func(a, b WaveSpec) bool {
		return a.Name == b.Name && a.Kind == b.Kind && a.Size == b.Size && a.ForEachZone == b.ForEachZone &&
			slices.Equal(a.Parallel, b.Parallel) && a.Zone == b.Zone && a.Prefer == b.Prefer && a.Balance == b.Balance
	})
}

// newLayout makes the layout that the planned waves describe.
func newLayout(specs []WaveSpec, waves []Wave, version uint64) Layout {
	l := Layout{Version: version, Specs: specs}
	for _, w := range waves {
		l.Waves = append(l.Waves, LayoutWave{
			Name: w.Name, Zone: w.Zone, Batch: w.Batch, Spec: w.Spec, Hosts: slices.Clone(w.Hosts),
		})
	}
	return l
}
