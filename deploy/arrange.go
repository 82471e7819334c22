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
	l := &layout{app: app, idle: idle, pool: slices.Clone(hosts), all: len(hosts), zones: map[string]int{}}
	slices.SortFunc(l.pool, func(a, b *Host) int {
		return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	for _, h := range hosts {
		l.zones[h.Zone]++
	}
	for i, spec := range specs {
		l.spec = i
		l.place(spec)
	}
	return l.waves
}

type layout struct {
	app   string
	idle  func(*Host) bool
	pool  []*Host        // not yet placed, by zone and name
	all   int            // hosts in the group
	zones map[string]int // hosts in each zone of the group
	waves []Wave
	spec  int
	batch int
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

func (l *layout) add(spec WaveSpec, name, zone string, hosts []*Host) {
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
	var best *Host
	less := func(a, b *Host) bool {
		return cmp.Or(cmp.Compare(count(l.idle(a)), count(l.idle(b))), cmp.Compare(l.zones[a.Zone], l.zones[b.Zone]),
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
func (l *layout) take(spec WaveSpec) []*Host {
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
	return l.pick(n, zone, spec.Prefer)
}

// balance takes n hosts in proportion to the zones, by largest remainder, and
// orders them zone by turns.
func (l *layout) balance(n int, prefer string) []*Host {
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
	var byZone [][]*Host
	for _, p := range parts {
		byZone = append(byZone, l.pickIn(p.whole, p.zone, prefer))
	}
	return interleave(byZone)
}

func interleave(lists [][]*Host) []*Host {
	var out []*Host
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

// pick removes up to n hosts of the zone ("" any), preferred ones first.
func (l *layout) pick(n int, zone, prefer string) []*Host {
	if zone != "" {
		return l.pickIn(n, zone, prefer)
	}
	return l.from(slices.Clone(l.pool), n, prefer)
}

// pickIn is pick in exactly this zone; "" are the hosts that name none.
func (l *layout) pickIn(n int, zone, prefer string) []*Host {
	in := slices.DeleteFunc(slices.Clone(l.pool), func(h *Host) bool { return h.Zone != zone })
	return l.from(in, n, prefer)
}

// inZone removes every host of the zone, in order.
func (l *layout) inZone(zone string) []*Host {
	var out []*Host
	l.pool = slices.DeleteFunc(l.pool, func(h *Host) bool {
		if h.Zone == zone {
			out = append(out, h)
		}
		return h.Zone == zone
	})
	return out
}

// from removes up to n of the given hosts from the pool: of those that can act,
// preferred ones first, by the hash.
func (l *layout) from(in []*Host, n int, prefer string) []*Host {
	key, val, _ := strings.Cut(prefer, "=")
	type candidate struct {
		host *Host
		rank int
		hash uint64
	}
	all := make([]candidate, len(in)) // asked once for each host, not with each comparison
	for i, h := range in {
		wanted := prefer == "" || h.Labels[key] == val
		all[i] = candidate{h, 2*count(l.idle(h)) + count(!wanted), hash(l.app + "/" + h.ID)}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.hash, b.hash), cmp.Compare(a.host.ID, b.host.ID))
	})
	for i := range all {
		in[i] = all[i].host
	}
	in = in[:min(max(n, 0), len(in))]
	picked := make(map[*Host]bool, len(in))
	for _, h := range in {
		picked[h] = true
	}
	l.pool = slices.DeleteFunc(l.pool, func(h *Host) bool { return picked[h] })
	return in
}
