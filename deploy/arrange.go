package deploy

import (
	"cmp"
	"slices"
	"strings"
)

// Arrange turns wave specs into waves with the hosts of an application's group.
// It is deterministic: the same hosts in any order give the same waves. Every
// host is in exactly one wave; the last spec takes what is left. A wave of a
// count or percentage takes hosts that can act, else it would be no canary: idle
// tells who cannot, nil is nobody. Which of them is a hash of application and
// host, so that one host is not every application's canary.
func Arrange(app string, specs []WaveSpec, hosts []*Host, idle func(*Host) bool) []Wave {
	if idle == nil {
		idle = func(*Host) bool { return false }
	}
	l := &layout{app: app, all: len(hosts), zones: map[string]int{}}
	all := make([]candidate, len(hosts))
	for i, h := range hosts {
		l.zones[h.Zone]++
		all[i] = candidate{Host: h, idle: idle(h)}
		l.pool = append(l.pool, &all[i])
	}
	slices.SortFunc(l.pool, func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	for i, spec := range specs {
		l.spec = i
		l.place(spec)
	}
	return l.waves
}

type layout struct {
	app  string
	pool []*candidate // not yet placed, by zone and name
	// the same by the hash, once a wave of a count or percentage asks; a remainder takes all of them
	byHash []*candidate
	all    int            // hosts in the group
	zones  map[string]int // hosts in each zone of the group
	waves  []Wave
	spec   int
	batch  int
}

// wave is one wave made from the spec, without hosts.
func (spec *WaveSpec) wave(name, zone string, at, batch int) Wave {
	return Wave{
		Name: name, Zone: zone, Spec: at, Batch: batch, OneBox: spec.OneBox, Share: spec.FailureBudget,
		Rehearse: spec.Rehearse, PreGates: spec.PreGates, Gates: spec.Gates, BakeSpec: spec.BakeSpec, Hosts: []string{},
	}
}

func (l *layout) place(spec WaveSpec) {
	if spec.Kind == "remainder" && spec.ForEachZone {
		l.placeZones(spec)
		return
	}
	l.add(spec, spec.Name, l.zone(spec.Zone, spec), l.take(spec))
	l.batch++
}

// placeZones makes one wave of each zone that is left, lightest first, in
// batches that grow as spec.Parallel says; its last number repeats.
func (l *layout) placeZones(spec WaveSpec) {
	for batch := 0; len(l.pool) > 0; batch++ {
		for range parallelAt(spec.Parallel, batch) {
			zone, ok := l.lightest()
			if !ok {
				break
			}
			l.add(spec, spec.Name+"/"+zone, zone, l.inZone(zone))
		}
		l.batch++
	}
}

func parallelAt(parallel []int, batch int) int {
	if len(parallel) == 0 {
		return 1
	}
	return max(1, parallel[min(batch, len(parallel)-1)])
}

func (l *layout) add(spec WaveSpec, name, zone string, hosts []*candidate) {
	w := spec.wave(name, zone, l.spec, l.batch)
	for _, h := range hosts {
		w.Hosts = append(w.Hosts, h.ID)
	}
	l.waves = append(l.waves, w)
}

// zone resolves the zone of a spec; "" is any.
func (l *layout) zone(zone string, spec WaveSpec) string {
	if zone != "lightest" {
		return zone
	}
	z, _ := l.lightest()
	return z
}

// lightest returns the zone with the fewest targets of the group among those
// that still have unplaced hosts, first of all hosts that can act; ties go by name.
func (l *layout) lightest() (string, bool) {
	var best *candidate
	less := func(a, b *candidate) bool {
		return cmp.Or(cmp.Compare(count(a.idle), count(b.idle)), cmp.Compare(l.zones[a.Zone], l.zones[b.Zone]),
			cmp.Compare(a.Zone, b.Zone)) < 0
	}
	for _, h := range l.pool {
		if best == nil || less(h, best) {
			best = h
		}
	}
	if best == nil {
		return "", false
	}
	return best.Zone, true
}

// take removes the hosts that a spec selects from the pool.
func (l *layout) take(spec WaveSpec) []*candidate {
	n := len(l.pool)
	switch spec.Kind {
	case "count":
		n = spec.Size.Count
	case "percent":
		n = max(1, spec.Size.Up(l.all))
	case "remainder":
		out := l.pool
		l.pool = nil
		return out
	}
	zone := l.zone(spec.Zone, spec)
	if spec.Balance && zone == "" {
		return l.balance(n, spec.Prefer)
	}
	return l.pick(n, zone, zone == "", spec.Prefer)
}

// balance takes n hosts in proportion to the zones, by largest remainder, and
// orders them zone by turns.
func (l *layout) balance(n int, prefer string) []*candidate {
	n = min(n, len(l.pool))
	left := map[string]int{}
	for _, h := range l.pool {
		left[h.Zone]++
	}
	type part struct {
		zone        string
		whole, rest int
	}
	var parts []part
	sum := 0
	for z, c := range sorted(left) {
		whole := c * n / len(l.pool)
		parts = append(parts, part{z, whole, c * n % len(l.pool)})
		sum += whole
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(b.rest, a.rest) })
	for i := 0; sum < n; i, sum = i+1, sum+1 {
		parts[i%len(parts)].whole++
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.zone, b.zone) })
	var byZone [][]*candidate
	for _, p := range parts {
		byZone = append(byZone, l.pick(p.whole, p.zone, false, prefer))
	}
	return interleave(byZone)
}

func interleave(lists [][]*candidate) []*candidate {
	var out []*candidate
	for i := 0; ; i++ {
		added := false
		for _, l := range lists {
			if i < len(l) {
				out, added = append(out, l[i]), true
			}
		}
		if !added {
			return out
		}
	}
}

// inZone removes every host of the zone, in order.
func (l *layout) inZone(zone string) []*candidate {
	var out []*candidate
	l.pool = slices.DeleteFunc(l.pool, func(c *candidate) bool {
		if c.Zone == zone {
			out = append(out, c)
		}
		return c.Zone == zone
	})
	return out
}

// candidate is a host that is to be placed.
type candidate struct {
	*Host
	idle   bool   // it cannot act
	hash   uint64 // by which a wave of a count or percentage chooses
	placed bool
}

// pick removes up to n hosts of the zone from the pool, "" are those that name
// none unless any is meant: of those that can act, preferred ones first, by the hash.
func (l *layout) pick(n int, zone string, any bool, prefer string) []*candidate {
	if len(l.pool) == 0 {
		return nil
	}
	if l.byHash == nil { // once for all waves
		l.byHash = slices.Clone(l.pool)
		for _, c := range l.byHash {
			c.hash = hash(l.app + "/" + c.ID)
		}
		slices.SortFunc(l.byHash, func(a, b *candidate) int {
			return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.ID, b.ID))
		})
	}
	key, val, _ := strings.Cut(prefer, "=")
	var byRank [4][]*candidate
	for _, c := range l.byHash {
		if !c.placed && (any || c.Zone == zone) {
			rank := 2*count(c.idle) + count(prefer != "" && c.Labels[key] != val)
			if byRank[rank] = append(byRank[rank], c); len(byRank[0]) >= n {
				break
			}
		}
	}
	out := slices.Concat(byRank[:]...)
	out = out[:min(max(n, 0), len(out))]
	for _, c := range out {
		c.placed = true
	}
	isPlaced := func(c *candidate) bool { return c.placed }
	l.pool, l.byHash = slices.DeleteFunc(l.pool, isPlaced), slices.DeleteFunc(l.byHash, isPlaced)
	return out
}
