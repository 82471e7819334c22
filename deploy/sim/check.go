package sim

import (
	"fmt"

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
