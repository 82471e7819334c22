package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// checker holds what the invariants over a history need to remember.
type checker struct {
	gens map[[2]string]uint64       // generation of each target when last looked at
	ran  map[string]map[string]bool // deployment -> hosts that ran its revision when it was created
}

// joined forgets the generation of hosts that are new targets: they begin with
// what their agents report.
func (c *checker) joined(e deploy.TargetsJoined) {
	for _, h := range e.Hosts {
		delete(c.gens, [2]string{h, e.App})
	}
}

// after tests the invariants that need the truth about the hosts, or the past:
// I5, I6 and I7.
func (c *checker) after(w *World) error {
	if c.gens == nil {
		c.gens, c.ran = map[[2]string]uint64{}, map[string]map[string]bool{}
	}
	for _, d := range w.State.Open() {
		if c.ran[d.ID] == nil {
			c.ran[d.ID] = map[string]bool{}
			for _, id := range w.order {
				h := w.hosts[id]
				c.ran[d.ID][id] = h.running == d.Revision || h.goal == d.Revision
			}
		}
	}
	for i, id := range w.order {
		h := w.State.Hosts[id]
		if h == nil || !w.due(i) {
			continue
		}
		for app, t := range h.Targets {
			key := [2]string{id, app}
			if t.Gen < c.gens[key] {
				return fmt.Errorf("I7: the generation of %s fell from %d to %d", id, c.gens[key], t.Gen)
			}
			c.gens[key] = t.Gen
			if err := c.wave(w, w.hosts[id], t); err != nil {
				return err
			}
		}
	}
	return nil
}

// wave tests I5 and I6: what no wave has sealed runs only where it was granted,
// and the way back is kept on the host.
func (c *checker) wave(w *World, h *host, t *deploy.Target) error {
	g := w.State.Groups[deploy.GroupKey(t.App, t.Group)]
	for _, d := range g.InFlight() {
		task := d.Tasks[t.Host]
		if task == nil || task.Wave >= len(d.Waves) || h.working != 0 || h.running != d.Revision || h.byHand ||
			d.Inverse || c.ran[d.ID][t.Host] {
			continue
		}
		st := d.Waves[task.Wave].Status
		if (st == deploy.WaveStatusPending || st == deploy.WaveStatusHeld) && task.Gen == 0 &&
			task.Status != deploy.TaskGone && !sealedBefore(g, t, d) {
			return fmt.Errorf("I5: %s runs %s, which wave %s of %s has not been given", t.Host, h.running,
				d.Waves[task.Wave].Name, d.ID)
		}
	}
	good := w.State.LastGood(t)
	if good == "" {
		return nil
	}
	for _, a := range deploy.Assign(w.State, t.Host) {
		for _, keep := range a.Keep {
			if keep == good {
				return nil
			}
		}
	}
	return fmt.Errorf("I6: %s does not keep its last good revision %s", t.Host, good)
}

// sealedBefore reports whether the revision had been on the target, its wave or
// the group before this deployment: then nothing in flight brought it.
func sealedBefore(g *deploy.Group, t *deploy.Target, d *deploy.Deployment) bool {
	for _, seals := range [][]deploy.Seal{t.Seals, g.History} {
		for _, s := range seals {
			if s.Revision == d.Revision && s.Deployment != d.ID {
				return true
			}
		}
	}
	return false
}

// checkOutcomes is I11 after every fact that ends something.
func (w *World) checkOutcomes(events []deploy.Event) error {
	ended := slices.ContainsFunc(events, func(e deploy.Event) bool {
		switch e.(type) {
		case deploy.DeploymentEnded, deploy.TargetsJoined, deploy.RequestMade:
			return true
		}
		return false
	})
	if !ended {
		return nil
	}
	for _, g := range w.groups {
		if grp := w.State.Groups[deploy.GroupKey(g.App, g.Group)]; grp != nil {
			w.count("I11")
			if err := w.outcomes.Check(w.State, grp); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *World) count(what string) {
	if w.Checked == nil {
		w.Checked = map[string]int{}
	}
	w.Checked[what]++
}

// checkHolds is I15: when nothing is left to happen, every deployment that has
// not ended says whom or what it waits for.
func (w *World) checkHolds() {
	for _, d := range w.State.Open() {
		w.count("I15")
		if len(deploy.Holds(w.State, d, w.Now)) == 0 {
			w.fail(fmt.Errorf("I15: deployment %s is %s, nothing happens any more, and nothing is named that it "+
				"waits for", d.ID, d.Status))
		}
	}
}

// about names the deployment of a fact that does not, while several are open.
func (w *World) about(e deploy.Event) string {
	open, id := len(w.State.Open()), ""
	switch e := e.(type) {
	case deploy.WaveStarted:
		id = e.Deployment
	case deploy.PermitsGranted:
		id = e.Deployment
	case deploy.RollbackStarted:
		id = e.Deployment
	case deploy.TasksEnded:
		id = e.Deployment
	case deploy.HoldsChanged:
		id = e.Deployment
	case deploy.GateJudged:
		id = e.Deployment
	case deploy.BakeStarted:
		id = e.Deployment
	case deploy.WaveSealed:
		id = e.Deployment
	case deploy.WaveSkipped:
		id = e.Deployment
	case deploy.WaveReverted:
		id = e.Deployment
	case deploy.DeploymentPaused:
		id = e.Deployment
	case deploy.DeploymentEnded:
		id = e.Deployment
		open++
	}
	if id == "" || open < 2 {
		return ""
	}
	return id + ": "
}

// checkTouched proves the contract of State.AssignedAt: while it stays, so do the
// host's assignments.
func (w *World) checkTouched() error {
	if w.assigned == nil {
		w.assigned = map[string]assigned{}
	}
	w.looks++
	for i, id := range w.order {
		if !w.due(i) {
			continue
		}
		now := assigned{w.State.AssignedAt(id), fmt.Sprint(deploy.Assign(w.State, id))}
		if old, ok := w.assigned[id]; ok && old.at == now.at && old.what != now.what {
			return fmt.Errorf("assignments of %s changed from %s to %s and it was not touched", id, old.what, now.what)
		}
		w.assigned[id] = now
	}
	return nil
}

// due says which hosts of a larger fleet are looked at after this entry: a few
// at a time, all of them before long.
func (w *World) due(i int) bool { return len(w.order) <= 8 || (i+w.looks)%8 == 0 }

// assigned is what a host was to do when it was last touched.
type assigned struct {
	at   uint64
	what string
}

func (w *World) fail(err error) {
	if w.err == nil {
		w.err = fmt.Errorf("at %s, entry %d: %w", time.Duration(w.Now), w.index, err)
	}
}

// Err returns the first invariant that was broken.
func (w *World) Err() error { return w.err }
