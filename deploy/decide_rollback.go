package deploy

import (
	"fmt"
	"slices"
	"strings"
)

// revertSet lists where each target that the deployment touched goes, newest
// waves first, and whether any target of the deployment has a last good revision.
func (d *decision) revertSet(dep *Deployment) (items []RevertGoal, anyGood bool) {
	for i := range slices.Backward(dep.Waves) {
		for _, h := range dep.Waves[i].Hosts {
			t, task := d.s.Target(h, dep.App), dep.Tasks[h]
			if t == nil || task == nil || task.gone() || task.Wave != i {
				continue
			}
			goal := d.goal(dep, t)
			anyGood = anyGood || goal != ""
			if task.touched(t, goal, dep) {
				items = append(items, RevertGoal{Host: h, Goal: goal})
			}
		}
	}
	return items, anyGood
}

// goal is where a target goes when the deployment is undone: its last good
// revision without the deployment's own seals and without the revision itself
// unless it was there before.
func (d *decision) goal(dep *Deployment, t *Target) Digest {
	if dep.Inverse {
		if dep.Undo == "" || t.Running != dep.Undo {
			return dep.Revision
		}
		return d.s.LastGood(t, "")
	}
	g := d.s.LastGood(t, dep.ID)
	if g == dep.Revision {
		return d.s.lastGoodBefore(t, dep)
	}
	return g
}

// lastGoodBefore skips every seal of the deployment's revision, which is about
// to be marked bad.
func (s *State) lastGoodBefore(t *Target, dep *Deployment) Digest {
	g := s.Groups[GroupKey(t.App, t.Group)]
	for _, seal := range slices.Backward(t.Seals) {
		if seal.Revision != dep.Revision && g.Bad[seal.Revision] == "" {
			return seal.Revision
		}
	}
	return ""
}

// touched reports whether the target must move to be on its goal again.
func (task *Task) touched(t *Target, goal Digest, dep *Deployment) bool {
	switch task.Status {
	case TaskGranted, TaskSettled, TaskBroken, TaskLost:
		return true
	case TaskFailed:
		return goal != "" && (t.Running != goal || !t.Serving())
	case TaskWaiting, TaskCancelled, TaskStageFailed, TaskSkipped:
		// Granted before a retry, or on the revision by another way.
		was := task.Gen > 0 || t.Running == dep.Revision || dep.Inverse && t.Running != ""
		return was && (t.Running != goal || !t.Serving())
	case TaskGone, TaskReverting, TaskReverted, TaskLeft:
	}
	return false
}

// rollback moves a revert set on: no gate, window or bake can hold it, the
// floor and the rate of the rollback policy do.
func (d *decision) rollback(dep *Deployment) {
	if !dep.Revert {
		items, _ := d.revertSet(dep)
		cause := dep.Cause
		if cause == "" {
			cause = "rollback requested"
		}
		d.emit(RollbackStarted{Deployment: dep.ID, Cause: cause, Bad: !dep.Inverse, Items: items})
		return
	}
	if d.reverted(dep) {
		return
	}
	led := d.ledger(dep)
	c, policy := &dep.Config.Capacity, dep.Config.Rollback
	x := terms{
		concurrent: max(1, policy.MaxConcurrent.Down(led.g.usage("").members)), maxZones: policy.MaxZones,
		floors: c.floors(led.g, led.g.Zones()), exclusive: !c.SharedHost,
	}
	open := 0
	for i := range slices.Backward(dep.Waves) {
		open += dep.waves[i].tasks[TaskReverting]
		g := &granting{d: d, dep: dep, wave: i, led: led, x: x, limit: grantBatch}
		for _, serving := range []bool{false, true} {
			dep.waves[i].reverting.each(func(j int) bool {
				h := dep.Waves[i].Hosts[j]
				if d.s.Target(h, dep.App).Serving() != serving {
					return true
				}
				return g.try(h, dep.Tasks[h].Goal)
			})
		}
		g.emit()
	}
	if open == 0 && dep.held() == 0 {
		d.endRollback(dep)
	}
}

// reverted ends the reverting tasks that need no permit: targets that are back
// already, and hosts that are away, which are listed and converge on return.
func (d *decision) reverted(dep *Deployment) bool {
	var items []TaskEnd
	for i := range dep.Waves {
		dep.waves[i].reverting.each(func(j int) bool {
			h := dep.Waves[i].Hosts[j]
			t, task := d.s.Target(h, dep.App), dep.Tasks[h]
			switch {
			case t.Running == task.Goal && t.Serving():
				items = append(items, TaskEnd{Host: h, Status: TaskReverted, Counter: t.Counter, Cause: "runs it already"})
			case d.away(h, dep.Config.Timeouts.LostAfter):
				items = append(items, TaskEnd{Host: h, Status: TaskLost, Gen: t.Gen, Counter: t.Counter, Cause: "unreachable"})
			}
			return true
		})
	}
	if len(items) > 0 {
		d.emit(TasksEnded{Deployment: dep.ID, Items: items})
	}
	return len(items) > 0
}

// endRollback ends a rollback and lists who is not back.
func (d *decision) endRollback(dep *Deployment) {
	var list []string
	back := 0
	for i := range dep.Waves {
		n := dep.waves[i].tasks
		back += n[TaskReverted]
		for _, st := range []TaskStatus{TaskBroken, TaskLost, TaskLeft} {
			for _, h := range dep.Waves[i].Hosts {
				if task := dep.Tasks[h]; n[st] > 0 && task != nil && task.Status == st {
					list = append(list, fmt.Sprintf("%s %s", d.s.hostName(h), st))
				}
			}
		}
	}
	end := DeploymentEnded{Deployment: dep.ID, Status: DeploymentStatusRolledBack, Cause: dep.Cause}
	switch {
	case dep.Inverse:
		end.Status = DeploymentStatusSucceeded
	case back == 0 && len(list) > 0:
		end.Status = DeploymentStatusStopped
	}
	if len(list) > 0 {
		end.Cause += "; not back: " + strings.Join(list[:min(len(list), 20)], ", ")
	}
	d.emit(end)
}
