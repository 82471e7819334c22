package deploy

import (
	"maps"
	"time"
)

// How much FSM time a change of leader may cost: where a deployment or a host waits
// for a time; where nothing but the end of a freeze is waited for, which may be months
// away and would cost an entry a second.
const (
	dueWithin    = time.Second
	freezeWithin = time.Minute
)

// NextWake returns the next FSM time after now at which Decide must be asked
// again although nothing changed, and false if time alone changes nothing. What
// was due by now is no reason: Decide was asked and waits for something else.
// Within is how much of the time until then a change of leader may cost.
func NextWake(s *State, now Time) (at Time, within time.Duration, ok bool) {
	w := wake{now: now}
	for _, dep := range s.open {
		w.deployment(s, dep)
	}
	for _, g := range s.groups {
		w.group(s, g)
	}
	for id := range maps.Keys(s.flapping) {
		if h := s.Hosts[id]; len(h.Flaps) > 0 && h.Quarantine == flapCause {
			w.at(h.Flaps[len(h.Flaps)-1].Add(flapWindow))
		}
	}
	within = freezeWithin
	if w.set {
		within = dueWithin
	}
	for _, f := range s.Freezes {
		w.at(f.Until)
	}
	return w.time, within, w.set
}

type wake struct {
	now  Time
	time Time
	set  bool
}

func (w *wake) at(t Time) {
	if t > w.now && (!w.set || t < w.time) {
		w.time, w.set = t, true
	}
}

func (w *wake) deployment(s *State, dep *Deployment) {
	limits, running := dep.Config.Timeouts, dep.Status == DeploymentStatusRunning
	if dep.DecideBy > 0 {
		w.at(dep.DecideBy)
	}
	if running && limits.Deployment > 0 {
		w.at(dep.LimitFrom.Add(limits.Deployment))
	}
	for i := range dep.Waves {
		p, wave := dep.waves[i], &dep.Waves[i]
		if running && wave.Status == WaveStatusBaking {
			w.at(wave.BakeUntil)
			w.at(wave.BakeSince.Add(wave.Max()))
		}
		if running && wave.Status == WaveStatusDeploying {
			p.waiting.each(func(j int) bool {
				w.at(max(wave.StartedAt, dep.Tasks[wave.Hosts[j]].Since).Add(limits.Stage))
				return true
			})
		}
		if running && wave.Status == WaveStatusDeploying && !wave.Released && dep.Config.Stage.Barrier == "deployment" {
			w.at(wave.StartedAt.Add(limits.Stage))
		}
		if wave.Status.waits() {
			for _, name := range dep.preGates(i) {
				if gate := dep.Config.gate(name); gate != nil {
					w.at(dep.approvalEnds(i, gate))
				}
			}
		}
		p.stuck.each(func(j int) bool {
			if h := wave.Hosts[j]; dep.Tasks[h].Status == TaskReverting {
				w.at(s.Target(h, dep.App).restages())
			}
			return true
		})
		w.tasks(s, dep, i)
		w.hosts(s, dep, i)
	}
}

// tasks adds the moment at which the oldest permit times out. The bound that
// the counters keep is good until it passes, then the permits are looked at.
func (w *wake) tasks(s *State, dep *Deployment, i int) {
	p, limit := dep.waves[i], dep.Config.Timeouts.Task
	if p.permits == 0 {
		return
	}
	if at := p.oldest.Add(limit); at > w.now {
		w.at(at)
		return
	}
	p.granted.each(func(j int) bool {
		w.at(s.Target(dep.Waves[i].Hosts[j], dep.App).GrantedAt.Add(limit))
		return true
	})
}

// hosts adds the moments at which unreachable hosts become lost.
func (w *wake) hosts(s *State, dep *Deployment, i int) {
	for _, set := range []bitset{dep.waves[i].away, dep.waves[i].vanished} {
		set.each(func(j int) bool {
			if h := s.Hosts[dep.Waves[i].Hosts[j]]; h != nil && h.Unreachable {
				w.at(h.DownSince.Add(dep.Config.Timeouts.LostAfter))
			}
			return true
		})
	}
}

// group adds the moments at which catchingUp time out or may be tried again.
func (w *wake) group(s *State, g *Group) {
	limits := g.Config.Timeouts
	if dep := s.Deployments[g.Last]; dep != nil && dep.watched(g, w.now) {
		w.at(dep.EndedAt.Add(dep.Config.WatchAfter))
	}
	for host := range maps.Keys(g.catchingUp) { // the first moment is the same in any order
		t := g.targets[host]
		if t.Permit != PermitNone {
			w.at(t.GrantedAt.Add(limits.Task))
			if t.Away {
				w.at(t.host.DownSince.Add(limits.LostAfter))
			}
		}
	}
	for host := range maps.Keys(g.behind) {
		if t := g.targets[host]; t.RetryAt > 0 {
			w.at(t.RetryAt)
		}
	}
}
