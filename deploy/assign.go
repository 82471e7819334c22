package deploy

import (
	"fmt"
	"slices"
)

// Assignment is what one host should do for one application. It is derived
// from the state on any replica, so a failover loses nothing; an agent acts on
// it only when Gen is above its highest acknowledged generation.
type Assignment struct {
	App        string
	Group      string
	Deployment string // that the generation belongs to
	Gen        uint64
	Permit     Permit // PermitNone: acknowledge as idle, do not act
	Goal       Digest
	GoalName   string
	Rollback   bool // the goal is a way back: hooks see DEPLOY_ACTION=rollback
	Stage      Digest
	StageName  string
	StageKey   string   // changes when failed staging is to be tried anew
	Bandwidth  int64    // bytes a second while staging ahead; 0 is no limit
	Tastes     Tastes   // what is run of the staged revision; without a deployment: nothing
	Keep       []Digest // revisions that retention must not remove
	Artifacts  string   // URL of the application's store
	Gates      []Gate
	Traffic    *Traffic // pools rendered for the host; nil: none
	StopFail   bool     // a failing ApplicationStop of the old revision fails the task
	Out        bool     // of every pool, until told otherwise
	OutKey     uint64   // says which word of that this is; 0: none was ever given
	Repair     bool     // do nothing where the installed files are what the last hook left
	TaskLimit  int64    // nanoseconds a task may take
}

// Assign returns the assignments of a host, by application.
func Assign(s *State, host string) []Assignment {
	h := s.Hosts[host]
	if h == nil {
		return nil
	}
	var out []Assignment
	for app, t := range sorted(h.Targets) {
		if g := s.Groups[GroupKey(app, t.Group)]; g != nil {
			out = append(out, s.assign(g, t))
		}
	}
	return out
}

func (s *State) assign(g *Group, t *Target) Assignment {
	a := Assignment{
		App: t.App, Group: t.Group, Gen: t.Gen, Artifacts: g.Artifacts,
		Keep: s.keep(t), TaskLimit: int64(g.Config.Timeouts.Task), Traffic: s.TrafficOf(t),
		Out: t.host.drained(), OutKey: t.OutKey,
	}
	config, gates := &g.Config, allGates(&g.Config)
	staging := false
	for _, d := range g.open {
		task := d.Tasks[t.Host]
		if task == nil || task.gone() {
			continue
		}
		if t.Running == d.Revision || t.Open && t.Deployment == d.ID || len(g.open) == 1 {
			config, gates = &d.Config, d.Waves[task.Wave].Gates
		}
		if !staging {
			s.stage(&a, d, t, task)
			staging = a.Stage != "" && (!t.HasStaged(a.Stage) || a.Tastes.Deployment != "")
		}
	}
	if kind, goal := g.catchUp(t); kind != CatchUpNone && !staging && !t.HasStaged(goal) {
		a.Stage, a.StageName = goal, s.RevisionName(t.App, goal)
		a.StageKey = g.stageKey(t, kind, goal)
	}
	a.Gates, a.StopFail = probes(config.GatesOf(gates)), config.StopFailure == "fail"
	if !t.Open {
		return a
	}
	a.Deployment, a.Permit, a.Goal = t.Deployment, t.Permit, t.Desired
	a.GoalName = s.RevisionName(t.App, t.Desired)
	if a.Deployment == "" { // hooks and logs need a name
		a.Deployment = fmt.Sprintf("%s-%d", t.CatchUp, t.Gen)
	}
	if d := s.Deployments[t.Deployment]; d != nil {
		task := d.Tasks[t.Host]
		a.Rollback = d.Status == DeploymentStatusRollingBack || task != nil &&
			(task.Status == TaskReverting || task.Phase == 1)
		a.TaskLimit = int64(d.Config.Timeouts.Task)
		a.Repair = d.Repair && !a.Rollback
	}
	return a
}

// probes are the gates that agents answer.
func probes(gates []Gate) []Gate {
	return slices.DeleteFunc(gates, func(g Gate) bool { return g.Kind() != GateProbe })
}

// stage says what the target should fetch before it gets a permit. A deployment
// that has not started stages nothing.
func (s *State) stage(a *Assignment, d *Deployment, t *Target, task *Task) {
	goal := Digest("")
	switch task.Status {
	case TaskWaiting:
		if d.Status != DeploymentStatusPending && d.prefetches(t, task) {
			goal = task.goal(d)
		}
	case TaskReverting:
		if t.Permit == PermitNone {
			goal = task.Goal
		}
	case TaskGranted, TaskSettled, TaskFailed, TaskBroken, TaskStageFailed, TaskLost, TaskGone,
		TaskSkipped, TaskCancelled, TaskReverted, TaskLeft:
	}
	if goal != "" {
		a.Stage, a.StageName = goal, s.RevisionName(t.App, goal)
		a.StageKey = d.stageKey(t)
		a.Bandwidth, a.Tastes = d.Config.Stage.Bandwidth, Tastes{}
		if d.untasted(task) && d.tastesNow(task) {
			a.Tastes.Deployment = d.ID
			if s := d.Config.Stage.Warmup; s != nil {
				a.Tastes.Warmup = *s
			}
			if s := d.Config.Stage.Taste; s != nil {
				a.Tastes.Taste = *s
			}
		}
	}
}

// Tastes are the scripts that a target runs once it has a revision, before it may be
// granted anything.
type Tastes struct {
	Deployment    string
	Warmup, Taste StageScript // without a Script: none
}

// stageKey tells one try of staging for a catch-up from others. Who left and joined again
// must not take a key for one that it has tried.
func (g *Group) stageKey(t *Target, kind CatchUp, goal Digest) string {
	return fmt.Sprintf("%s.%s.%d.%d.%d", kind, goal.Short(), g.Layout.Version, t.Joined, t.StageTries)
}

// stageKey tells one try of staging for the deployment from others.
func (d *Deployment) stageKey(t *Target) string {
	return fmt.Sprintf("%s.%d.%d.%d", d.ID, d.Attempt, t.Joined, t.StageTries)
}

// tastesNow reports whether it is the turn of a task's target: a canary is first in this
// too, unless everybody is waited for.
func (d *Deployment) tastesNow(task *Task) bool {
	return d.Waves[task.Wave].Status == WaveStatusDeploying || d.Config.Stage.Barrier == "deployment"
}

// untasted reports whether the target of a waiting task has scripts to run first. A way
// back has none, a rehearsal's neither: it must not depend on them.
func (d *Deployment) untasted(task *Task) bool {
	return d.Config.Stage.tastes() && !d.Inverse && !task.Tasted && task.goal(d) == d.Revision
}

// ready reports whether nothing but a permit is missing for the target of a waiting task.
func (d *Deployment) ready(t *Target, task *Task) bool {
	return t.HasStaged(task.goal(d)) && !d.untasted(task)
}

// keep lists what the target is about to run, its last good revision, that one's
// predecessor, and a proven one: the way back that retention must not remove.
func (s *State) keep(t *Target) []Digest {
	var out []Digest
	add := func(d Digest) {
		if d != "" && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	g := s.Groups[GroupKey(t.App, t.Group)]
	for _, d := range g.open {
		if task := d.Tasks[t.Host]; d.Status != DeploymentStatusPending && task != nil && !task.gone() &&
			!task.Status.Terminal() {
			add(task.goal(d))
		}
	}
	good, _ := g.wayBack(t, nil, nil)
	add(good)
	known := len(out)
	for _, seal := range slices.Backward(t.Seals) {
		if g.Bad[seal.Revision] == "" && len(out) <= known {
			add(seal.Revision)
		}
	}
	before, _ := g.wayBack(t, func(seal Seal) bool { return seal.Revision != good }, nil)
	proven, _ := g.wayBack(t, func(seal Seal) bool { return g.Grades[seal.Revision] == GradeProven }, nil)
	add(before)
	add(proven)
	return out
}

func allGates(c *Config) []string {
	var out []string
	for _, g := range c.Gates {
		out = append(out, g.Name)
	}
	return out
}
