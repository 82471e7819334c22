package deploy

import (
	"fmt"
	"slices"
	"time"
)

// A host that comes and goes this often, within this time, is quarantined; it
// is released after being quiet for as long.
const (
	flaps      = 3
	flapWindow = 10 * time.Minute
)

// membership turns selector answers into joins and leaves, one fact a group.
func (d *decision) membership(f Fleet) {
	joins, leaves := map[string][]string{}, map[string][]string{}
	for _, m := range f.Joins {
		if h := d.s.Hosts[m.Host]; h != nil && h.Targets[m.App] == nil {
			joins[GroupKey(m.App, m.Group)] = append(joins[GroupKey(m.App, m.Group)], m.Host)
		}
	}
	for _, m := range f.Leaves {
		if t := d.s.Target(m.Host, m.App); t != nil && t.Group == m.Group && t.Permit == PermitNone {
			leaves[GroupKey(m.App, m.Group)] = append(leaves[GroupKey(m.App, m.Group)], m.Host)
		}
	}
	for key, hosts := range sorted(leaves) {
		if g := d.s.Groups[key]; g != nil {
			d.emit(TargetsLeft{App: g.App, Group: g.Name, Hosts: hosts, Cause: "the selector no longer matches"})
		}
	}
	for key, hosts := range sorted(joins) {
		if g := d.s.Groups[key]; g != nil {
			e := TargetsJoined{App: g.App, Group: g.Name, Hosts: hosts}
			if len(g.Layout.Waves) > 0 {
				for _, h := range hosts {
					e.Waves = append(e.Waves, g.Layout.waveOf(d.s.Hosts[h]))
				}
			}
			d.emit(e)
		}
	}
}

func (d *decision) unreachable(f Fleet) {
	var items []HostDown
	for _, id := range f.Down {
		if h := d.s.Hosts[id]; h != nil && !h.Unreachable {
			items = append(items, HostDown{Host: id, Counter: h.Counter})
		}
	}
	if len(items) > 0 {
		d.emit(HostsUnreachable{Items: items})
	}
}

// quarantine isolates hosts that flap, and releases those that keep quiet.
func (d *decision) quarantine() {
	var in, out []string
	for id := range sorted(d.s.flapping) {
		h := d.s.Hosts[id]
		n := len(h.Flaps)
		switch {
		case h.Quarantine == "" && n >= flaps && d.now.Sub(h.Flaps[n-flaps]) < flapWindow:
			in = append(in, id)
		case h.Quarantine == flapCause && n > 0 && !h.Unreachable && d.now.Sub(h.Flaps[n-1]) >= flapWindow:
			out = append(out, id)
		}
	}
	if len(in) > 0 {
		d.emit(HostsQuarantined{Hosts: in, Cause: flapCause})
	}
	if len(out) > 0 {
		d.emit(HostsReleased{Hosts: out, Cause: "quiet for " + short(flapWindow)})
	}
}

// flapCause is why a host that flaps is quarantined; others need a person.
const flapCause = "it comes and goes"

// forget ends hosts that have been gone for so long that nobody waits for them,
// while none of their groups has a deployment.
func (d *decision) forget(f Fleet) {
	for _, id := range f.Down {
		h := d.s.Hosts[id]
		if h == nil || !h.Unreachable {
			continue
		}
		if other := d.s.successor(h); other != nil { // killed, wiped, enrolled again before anybody missed it
			d.emit(HostLeft{Host: id, Cause: "replaced by " + other.ID})
			continue
		}
		if len(h.Targets) == 0 || h.Drain != nil { // who has a disk replaced may take a day for it
			continue
		}
		after, busy := time.Duration(0), false
		for _, t := range sorted(h.Targets) {
			if t.group == nil || len(t.group.open) > 0 || t.Permit != PermitNone ||
				t.group.Config.Timeouts.ForgetAfter == 0 {
				busy = true
				break
			}
			after = max(after, t.group.Config.Timeouts.ForgetAfter)
		}
		if !busy && d.now.Sub(h.DownSince) >= after {
			d.emit(HostLeft{Host: id, Cause: "unreachable for " + short(after)})
		}
	}
}

// suspect notes that a revision fails after its deployment has succeeded, by its
// hosts or by its gates, and that one has been watched for long enough.
func (d *decision) suspect() {
	for _, g := range d.s.groups {
		dep := d.s.Deployments[g.Last]
		if dep == nil || dep.Config.WatchAfter == 0 || dep.Status != DeploymentStatusSucceeded || dep.Inverse ||
			dep.Suspect != "" {
			continue
		}
		if !dep.watched(g, d.now) {
			if g.Grades[dep.Revision] == GradeNone && !dep.Pruned {
				d.emit(RevisionProven{Deployment: dep.ID})
			}
			continue
		}
		if text := d.suspicion(g, dep); text != "" {
			d.emit(RevisionSuspected{Deployment: dep.ID, Text: text})
		}
	}
}

// suspicion says what speaks against a deployment that is watched; "" nothing.
func (d *decision) suspicion(g *Group, dep *Deployment) string {
	for i := range dep.Waves {
		w := &dep.Waves[i]
		for _, x := range sorted(w.Watch) {
			gate := dep.Config.gate(x.Gate)
			if gate != nil && slices.Contains(w.Gates, x.Gate) && x.failing(gate) {
				return fmt.Sprintf("gate %s fails in wave %s%s (%s)", x.Gate, w.Name, d.keyName(gate, x.Last.Key),
					x.Last.text())
			}
		}
	}
	if g.usage("").unhealthy == 0 {
		return ""
	}
	var sick []string
	for _, t := range g.list {
		if t.Health == HealthUnhealthy && t.Running == dep.Revision {
			sick = append(sick, d.s.hostName(t.Host)+": "+t.Evidence)
		}
	}
	if len(sick) == 0 {
		return ""
	}
	return fmt.Sprintf("%d hosts are unhealthy (%s)", len(sick), sick[0])
}
