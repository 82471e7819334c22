package deploy

import "slices"

// Target is one application on one host.
type Target struct {
	Host          string   `json:"host"`
	App           string   `json:"app"`
	Group         string   `json:"group"`
	Zone          string   `json:"zone"`
	Desired       Digest   `json:"desired,omitempty"`
	Gen           uint64   `json:"gen"`
	Open          bool     `json:"open,omitempty"` // Gen has no result yet
	Permit        Permit   `json:"permit,omitempty"`
	Deployment    string   `json:"deployment,omitempty"` // that granted Gen
	GrantedAt     Time     `json:"granted_at,omitempty"`
	Health        Health   `json:"health,omitempty"`
	Evidence      string   `json:"evidence,omitempty"`
	EverHealthy   bool     `json:"ever_healthy,omitempty"`
	Running       Digest   `json:"running,omitempty"`
	Counter       uint64   `json:"counter"`
	Away          bool     `json:"away,omitempty"` // its host is unreachable
	Staged        []Digest `json:"staged,omitempty"`
	StageFailed   Digest   `json:"stage_failed,omitempty"`
	StageFailedAt Time     `json:"stage_failed_at,omitempty"`
	StageReason   *Failure `json:"stage_reason,omitempty"`
	Edits         *Edits   `json:"edits,omitempty"`
	Seals         []Seal   `json:"seals,omitempty"`       // what passed on it, oldest first, at most sealMemory
	Done          Digest   `json:"done,omitempty"`        // what this log granted it last and saw done
	Out           Out      `json:"out,omitempty"`         // of its pools, by a drain
	OutKey        uint64   `json:"out_key,omitempty"`     // index of the entry that asked for it last
	Quarantined   bool     `json:"quarantined,omitempty"` // see keptOut
	CatchUp       CatchUp  `json:"catch_up,omitempty"`    // what the open generation is for, if for no task
	Tries         int      `json:"tries,omitempty"`       // catch-ups that failed in a row
	Joined        uint64   `json:"joined,omitempty"`      // index of the entry by which it joined its group
	StageTries    int      `json:"stage_tries,omitempty"` // stagings that failed and are to be tried again
	RetryAt       Time     `json:"retry_at,omitempty"`    // no catch-up before
	Drift         string   `json:"drift,omitempty"`       // why it is not brought to what its wave runs
	// the drift is meant: a person left the target out, or as it is
	Declared bool `json:"declared,omitempty"`
	// the stopped deployment that left it on its revision; a rollback takes it along
	LeftBy string `json:"left_by,omitempty"`

	host  *Host  // derived
	group *Group // derived; nil when the target belongs to no defined group
	// of its wave in the group's layout, from 1; 0 is none, see wave; derived
	place  int
	behind bool     // it may need a catch-up, and is one of group.behind; derived
	added  *counted // what the target adds to counters now; derived
}

// wave is the position of the target's wave in the layout of its group.
func (t *Target) wave() (position int, placed bool) { return t.place - 1, t.place > 0 }

// Serving reports whether the target counts as serving capacity.
func (t *Target) Serving() bool {
	return t.Health == HealthHealthy && t.Permit == PermitNone && !t.Open && !t.Quarantined && t.Out == OutNone
}

// silence says why the target of a task that is over does not serve; "" for one
// that does, and for one that is not over.
func (t *Target) silence(task *Task) string {
	switch {
	case t.Serving():
		return ""
	case task.Status.Failure():
		return task.Status.String()
	case task.Status != TaskSettled || t.Open || t.Permit != PermitNone: // work of another deployment
		return ""
	case t.Away:
		return "unreachable"
	case t.Health != HealthHealthy:
		return t.Health.String()
	}
	return "" // people keep it out
}

// canAct reports whether work can be given to the target now.
func (t *Target) canAct() bool { return !t.Away && !t.Quarantined }

// proved reports whether the target serves the revision by a grant of this log
// that was seen done. What an agent says by itself is no proof: a liar would
// pass for a canary.
func (t *Target) proved(d Digest) bool { return t.Running == d && t.Done == d && t.Serving() }

// aside reports whether the target serves and is kept out of every count: its host is
// quarantined, or not back in its pools. A conditional permit would be refused by it.
func (t *Target) aside() bool {
	return (t.Quarantined || t.Out != OutNone) && t.Health == HealthHealthy && t.Permit == PermitNone && !t.Open
}

// HasStaged reports whether the target holds a verified copy of the revision.
func (t *Target) HasStaged(d Digest) bool { return d != "" && slices.Contains(t.Staged, d) }

// movesTo reports whether the target runs the revision, or is on its way to it.
func (t *Target) movesTo(d Digest) bool {
	return t.Running == d || t.Open && t.Permit != PermitNone && t.Desired == d
}

// undrift forgets why the target is left alone, unless a person meant it.
func (t *Target) undrift() {
	if !t.Declared {
		t.Drift = ""
	}
}

// stageAgain lets a bundle that could not be staged be tried once more.
func (t *Target) stageAgain() {
	if t.StageFailed != "" {
		t.StageTries++
	}
	t.StageFailed, t.StageReason = "", nil
}

// Target returns the target, or nil.
func (s *State) Target(host, app string) *Target {
	if h := s.Hosts[host]; h != nil {
		return h.Targets[app]
	}
	return nil
}

// openOn returns the deployments of the target's group that have not ended.
func (s *State) openOn(t *Target) []*Deployment {
	if t.group == nil {
		return nil
	}
	return t.group.open
}

// exclusive reports whether the work that a target holds a permit for wants the
// host for itself.
func (s *State) exclusive(t *Target) bool {
	if d := s.Deployments[t.Deployment]; d != nil {
		return !d.Config.Capacity.SharedHost
	}
	return t.group == nil || !t.group.Config.Capacity.SharedHost
}

// mayBeBehind is a cheap upper bound of catchUp: false for every target that a
// deployment is about to change, has just changed, or that waits for a person.
// What it rests on changes between remove and add alone.
func (t *Target) mayBeBehind(g *Group) bool {
	w, placed := t.wave()
	if !placed || t.Open || t.Permit != PermitNone || t.Away || t.Quarantined || t.Drift != "" {
		return false
	}
	born := t.Running != "" || t.EverHealthy
	active, fresh, planned := false, Digest(""), false
	for _, d := range g.open {
		if w < len(d.Waves) && d.Waves[w].Status.active() {
			active, fresh = true, d.Revision
		}
		task := d.Tasks[t.Host]
		if task == nil || task.gone() {
			continue
		}
		switch {
		case task.Status == TaskWaiting && d.Waves[task.Wave].Status.waits():
			planned = true
		case !task.Status.Terminal(), task.Status == TaskSettled && t.Running == d.Revision:
			return false
		case task.awayInRevert() && d.Status != DeploymentStatusRollingBack:
			// it missed the way back and takes it now, whatever the deployment waits for
		case task.Status.Failure() && task.Status != TaskLost, task.Intend:
			return false
		case task.Status == TaskSkipped && d.Waves[task.Wave].Status.active():
			return false // caught up with after the seal
		case d.Status != DeploymentStatusRunning:
			return false
		}
	}
	good := g.goodIn(w)
	if !born {
		return good != "" || active
	}
	if planned && !active && g.Bad[t.Running] == "" {
		return false // a deployment comes to it; nobody pulls it back first, unless what it runs is bad
	}
	return good != "" && t.Running != good || active && t.Running != fresh
}

// goesBack reports whether a catch-up of the target is a way back, which no
// freeze holds: it runs what was taken back while it was away, or what is bad.
func (t *Target) goesBack(g *Group) bool {
	return g.Bad[t.Running] != "" || slices.ContainsFunc(g.open, func(d *Deployment) bool {
		task := d.Tasks[t.Host]
		return task != nil && task.awayInRevert() && t.Running != task.Goal
	})
}

// catchUp says what a target needs outside of every deployment, and toward what.
func (g *Group) catchUp(t *Target) (CatchUp, Digest) {
	goal := g.want(t)
	switch {
	case goal == "" || goal == t.Running || !t.mayBeBehind(g):
		return CatchUpNone, ""
	case t.Running == "" && !t.EverHealthy:
		return CatchUpBirth, goal
	}
	return CatchUpLate, goal
}
