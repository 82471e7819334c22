package deploy

import (
	"fmt"
	"slices"
)

// CountSlowly is the reference model of progress: it counts every wave of every
// open deployment by hand and returns the first counter that differs.
func CountSlowly(s *State) error {
	for _, d := range s.open {
		for i := range d.Waves {
			want := s.countWave(d, i)
			if got := counters(d.waves[i]); got != counters(want) {
				return fmt.Errorf("wave %s of %s counts\n%s, by hand it is\n%s", d.Waves[i].Name, d.ID, got,
					counters(want))
			}
			if p := d.waves[i]; p.permits > 0 && p.oldest > want.oldest {
				return fmt.Errorf("wave %s of %s has a permit since %d, its bound is %d",
					d.Waves[i].Name, d.ID, want.oldest, p.oldest)
			}
		}
	}
	return nil
}

// counters writes down everything that progress counts, but for the bound.
func counters(p *progress) string {
	list := func(b bitset) (out []int) {
		b.each(func(j int) bool { out = append(out, j); return true })
		return out
	}
	return fmt.Sprint(p.tasks, " failures ", p.failures, " evidence ", p.evidence, " up ", p.settledUp,
		" sick ", list(p.sick), p.sickCount, " unstaged ", p.unstaged, list(p.waiting), " stuck ", list(p.stuck),
		" runs it ", list(p.runsIt), " serve ", list(p.stagedServing), " do not ", list(p.stagedNotServing),
		" failed ", list(p.failed), " reverting ", list(p.reverting), " granted ", list(p.granted),
		p.permits, " away ", list(p.away), p.awayCount, " vanished ", list(p.vanished))
}

// countWave counts one wave from its tasks and targets as they are.
func (s *State) countWave(d *Deployment, i int) *progress {
	p := &progress{}
	for j, h := range d.Waves[i].Hosts {
		task, t := d.Tasks[h], s.Target(h, d.App)
		p.tasks[task.Status]++
		if task.Counted && task.Status != TaskGone {
			p.failures++
		}
		if t == nil || task.Status == TaskGone || task.Left {
			continue
		}
		mine := t.Permit != PermitNone && t.Deployment == d.ID
		if mine {
			p.granted.set(j, true)
			if p.permits++; p.permits == 1 || t.GrantedAt < p.oldest {
				p.oldest = t.GrantedAt
			}
		}
		open := slices.Contains([]TaskStatus{TaskWaiting, TaskGranted, TaskReverting}, task.Status)
		if t.Away && (mine || open) {
			p.away.set(j, true)
			p.awayCount++
		}
		p.failed.set(j, slices.Contains([]TaskStatus{TaskFailed, TaskBroken, TaskStageFailed, TaskLost}, task.Status))
		switch task.Status {
		case TaskSettled:
			p.countSettled(j, d, t)
		case TaskWaiting:
			p.countWaiting(j, d, t, task)
		case TaskReverting:
			p.reverting.set(j, t.Permit == PermitNone)
			p.stuck.set(j, t.Permit == PermitNone && t.StageFailed == task.Goal)
		case TaskGranted, TaskFailed, TaskBroken, TaskStageFailed, TaskLost, TaskGone,
			TaskSkipped, TaskCancelled, TaskReverted, TaskLeft:
		}
	}
	return p
}

func (p *progress) countSettled(j int, d *Deployment, t *Target) {
	p.vanished.set(j, t.Away)
	if t.Quarantined {
		return
	}
	p.evidence++
	if t.Running != d.Revision {
		return
	}
	p.settledUp += count(t.Health == HealthHealthy)
	if t.Health == HealthUnhealthy && t.Permit == PermitNone {
		p.sick.set(j, true)
		p.sickCount++
	}
}

func (p *progress) countWaiting(j int, d *Deployment, t *Target, task *Task) {
	goal := d.Revision
	if task.Phase == 1 {
		goal = task.Goal
	}
	serves := t.Health == HealthHealthy && t.Permit == PermitNone && !t.Open && !t.Quarantined
	p.stuck.set(j, t.StageFailed == goal || t.Away || t.Quarantined)
	switch {
	case task.Phase == 0 && !d.Redeploy && serves && t.Running == d.Revision && t.Done == d.Revision:
		p.runsIt.set(j, true)
	case !slices.Contains(t.Staged, goal) ||
		d.Config.Stage.Taste != nil && !d.Inverse && !task.Tasted && task.Phase != 1:
		p.waiting.set(j, true)
		p.unstaged++
	case serves:
		p.stagedServing.set(j, true)
	default:
		p.stagedNotServing.set(j, true)
	}
}

// Overtaken reports whether another deployment changes the target, or has.
func (dep *Deployment) Overtaken(g *Group, t *Target) bool { return dep.overtaken(g, t) }
