package deploy

import (
	"slices"
	"time"
)

// Wave is an ordered part of a group, frozen in a deployment.
type Wave struct {
	Name     string   `json:"name"`
	Zone     string   `json:"zone,omitempty"`
	Spec     int      `json:"spec,omitempty"` // position of the spec that made it
	Batch    int      `json:"batch"`          // waves of one batch run together, after the batch before
	Hosts    []string `json:"hosts"`
	OneBox   bool     `json:"one_box,omitempty"`
	Share    Share    `json:"share"` // failure budget as written
	Rehearse bool     `json:"rehearse,omitempty"`
	PreGates []string `json:"pre_gates,omitempty"`
	Gates    []string `json:"gates,omitempty"`
	BakeSpec
	Status        WaveStatus `json:"status"`
	Budget        int        `json:"budget"` // failure budget in tasks, fixed at the start
	StartedAt     Time       `json:"started_at,omitempty"`
	EvidenceSince Time       `json:"evidence_since,omitempty"` // the same moment in FSM time
	// Unix milliseconds: no verdict looks at what was before
	EvidenceFrom int64  `json:"evidence_from,omitempty"`
	Planned      int    `json:"planned,omitempty"` // tasks when it was entered, without who joined since
	BakeUntil    Time   `json:"bake_until,omitempty"`
	EndedAt      Time   `json:"ended_at,omitempty"`
	HeldAt       Time   `json:"held_at,omitempty"` // since when it could be entered but for its holds
	Holds        []Hold `json:"holds,omitempty"`   // why it is not entered
	// the newer deployment that has sealed it, for which it is skipped
	LeftTo    string        `json:"left_to,omitempty"`
	Released  bool          `json:"released,omitempty"`   // its first permit was granted: the barrier is passed
	Extra     int           `json:"extra,omitempty"`      // births in it that failed
	BakeSince Time          `json:"bake_since,omitempty"` // start of the clock, moved on by pauses
	Rehearsed time.Duration `json:"rehearsed,omitempty"`  // how long a rollback of one host took
	// Watch holds the answers of its gates, by watchKey.
	Watch map[string]*Watched `json:"watch,omitempty"`
}

// active reports whether the wave is being given the revision.
func (w WaveStatus) active() bool { return w == WaveStatusDeploying || w == WaveStatusBaking }

// judged reports whether gates speak about the wave.
func (w WaveStatus) judged() bool { return w.active() || w == WaveStatusSealed }

// waits reports whether the wave has not been entered.
func (w WaveStatus) waits() bool { return w == WaveStatusPending || w == WaveStatusHeld }

// oneBoxPassed reports whether the first host of the wave is settled and the
// gates that ask hosts have passed there.
func (dep *Deployment) oneBoxPassed(i int) bool {
	p, w := dep.waves[i], &dep.Waves[i]
	if p.tasks[TaskSettled] == 0 || p.settledUp == 0 {
		return false
	}
	for _, name := range w.Gates {
		gate := dep.Config.gate(name)
		if gate == nil || !gate.Observed() || gate.scope() != ScopeHost || dep.promoted(w.Name, name) {
			continue
		}
		passed := false
		for _, x := range sorted(w.Watch) {
			passed = passed || x.Gate == name && x.Last.Answer == VerdictPass
		}
		if !passed {
			return false
		}
	}
	return true
}

// failing reports whether a gate of the wave has a failed verdict that counts.
func (d *Deployment) failing(w *Wave) bool {
	for _, x := range sorted(w.Watch) {
		gate := d.Config.gate(x.Gate)
		if gate != nil && slices.Contains(w.Gates, x.Gate) && x.failing(gate) &&
			d.actionFor(gate, w).Do != ActionContinue {
			return true
		}
	}
	return false
}

// preGates names the gates that must be passed before wave i is entered.
func (dep *Deployment) preGates(i int) []string {
	if i > 0 {
		return dep.Waves[i].PreGates
	}
	return append(slices.Clone(dep.Config.PreGates), dep.Waves[i].PreGates...)
}

// evidenceAnew voids what gates have seen of the wave: verdicts rest on what
// comes from here on.
func (s *State) evidenceAnew(w *Wave) {
	w.Watch, w.EvidenceFrom, w.EvidenceSince = nil, s.Wall, s.Now
}
