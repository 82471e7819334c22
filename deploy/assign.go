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
	Keep       []Digest // revisions that retention must not remove
	Artifacts  string   // URL of the application's store
	Gates      []Gate
	StopFail   bool  // a failing ApplicationStop of the old revision fails the task
	TaskLimit  int64 // nanoseconds a task may take
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
		Keep: s.keep(t), TaskLimit: int64(g.Config.Timeouts.Task),
	}
	config, gates := &g.Config, allGates(&g.Config)
	if d := s.Newest(t.App, t.Group); d != nil {
		if task := d.Tasks[t.Host]; task != nil {
			config, gates = &d.Config, d.Waves[task.Wave].Gates
			s.stage(&a, d, t, task)
		}
	}
	a.Gates, a.StopFail = config.GatesOf(gates), config.StopFailure == "fail"
	if !t.Open {
		return a
	}
	a.Deployment, a.Permit, a.Goal = t.Deployment, t.Permit, t.Desired
	a.GoalName = s.RevisionName(t.App, t.Desired)
	if d := s.Deployments[t.Deployment]; d != nil {
		a.Rollback = d.Status == DeploymentStatusRollingBack
		a.TaskLimit = int64(d.Config.Timeouts.Task)
	}
	return a
}

// stage says what the target should fetch before it gets a permit.
func (s *State) stage(a *Assignment, d *Deployment, t *Target, task *Task) {
	switch task.Status {
	case TaskWaiting:
		a.Stage = d.Revision
	case TaskReverting:
		if t.Permit == PermitNone {
			a.Stage = task.Goal
		}
	case TaskGranted, TaskSettled, TaskFailed, TaskBroken, TaskStageFailed, TaskLost, TaskGone,
		TaskSkipped, TaskCancelled, TaskReverted, TaskLeft:
	}
	if a.Stage != "" {
		a.StageName = s.RevisionName(t.App, a.Stage)
		a.StageKey = fmt.Sprintf("%s.%d", d.ID, d.Attempt)
	}
}

// keep lists the last good revision and its predecessor.
func (s *State) keep(t *Target) []Digest {
	var out []Digest
	g := s.Groups[GroupKey(t.App, t.Group)]
	for _, seal := range slices.Backward(t.Seals) {
		if g.Bad[seal.Revision] == "" && !slices.Contains(out, seal.Revision) {
			out = append(out, seal.Revision)
		}
		if len(out) == 2 {
			break
		}
	}
	return out
}

func allGates(c *Config) []string {
	var out []string
	for _, g := range c.Gates {
		out = append(out, g.Name)
	}
	return out
}
