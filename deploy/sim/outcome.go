package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/deploy"
)

// Outcomes is I11 by a model of its own: it writes down every line of a group's
// history as facts make it, replays them from the beginning, and says what each
// wave must run when nothing is in flight.
type Outcomes struct {
	lines []outcome
	bad   map[deploy.Digest]bool
}

type outcome struct {
	deployment string
	wave       string // "" is the whole group
	revision   deploy.Digest
}

// Clone returns a copy that shares nothing.
func (o *Outcomes) Clone() *Outcomes {
	return &Outcomes{lines: slices.Clone(o.lines), bad: maps.Clone(o.bad)}
}

// String lists the lines, oldest first, and what is bad; equal ones are equal.
func (o *Outcomes) String() string { return fmt.Sprint(o.lines, o.bad) }

// Fact takes in one accepted fact, right after it was applied to the state.
func (o *Outcomes) Fact(s *deploy.State, e deploy.Event) {
	if o.bad == nil {
		o.bad = map[deploy.Digest]bool{}
	}
	switch e := e.(type) {
	case deploy.DeploymentCreated:
		if e.Inverse && e.Undoes != "" {
			o.drop(e.Undoes, nil)
			o.leave(s.Deployments[e.ID].Leaves, nil)
		}
		if e.Bad != "" {
			o.bad[e.Bad] = true
		}
	case deploy.WaveSealed:
		d := s.Deployments[e.Deployment]
		o.lines = append(o.lines, outcome{d.ID, d.Waves[e.Wave].Name, d.Revision})
	case deploy.WaveSkipped:
		d := s.Deployments[e.Deployment]
		out := slices.ContainsFunc(d.Waves[e.Wave].Hosts,
			func(h string) bool { return d.Tasks[h].Status == deploy.TaskSkipped })
		if !out {
			o.lines = append(o.lines, outcome{d.ID, d.Waves[e.Wave].Name, d.Revision})
		}
	case deploy.RollbackStarted:
		d := s.Deployments[e.Deployment]
		if e.Bad {
			o.bad[d.Revision] = true
		}
		if e.Scope == "" || e.Scope == deploy.ScopeAll {
			o.drop(d.ID, nil)
			for _, past := range e.Past {
				o.leave(past, nil)
			}
			return
		}
		for _, w := range e.Waves {
			o.drop(d.ID, &d.Waves[w].Name)
			for _, past := range e.Past {
				o.leave(past, &d.Waves[w].Name)
			}
		}
	case deploy.DeploymentEnded:
		o.ended(s.Deployments[e.Deployment])
	}
}

// drop takes a deployment's lines out, of one wave or of all.
func (o *Outcomes) drop(deployment string, wave *string) {
	o.lines = slices.DeleteFunc(o.lines, func(x outcome) bool {
		return x.deployment == deployment && (wave == nil || x.wave == *wave || x.wave == "")
	})
}

// leave takes a revision's lines out, of one wave or of all.
func (o *Outcomes) leave(revision deploy.Digest, wave *string) {
	o.lines = slices.DeleteFunc(o.lines, func(x outcome) bool {
		return x.revision == revision && (wave == nil || x.wave == *wave || x.wave == "")
	})
}

func (o *Outcomes) ended(d *deploy.Deployment) {
	switch {
	case d.Status != deploy.DeploymentStatusSucceeded:
		sealed := slices.ContainsFunc(d.Waves, func(w deploy.Wave) bool { return w.Status == deploy.WaveStatusSealed })
		if !sealed && !d.Inverse { // it passed nowhere
			o.drop(d.ID, nil)
		}
	case !d.Inverse:
		delete(o.bad, d.Revision)
		o.lines = append(o.lines, outcome{d.ID, "", d.Revision})
	case d.Undoes == "":
		o.lines = append(o.lines, outcome{d.ID, "", d.Revision})
	}
}

// wants replays the lines for one wave.
func (o *Outcomes) wants(wave string) deploy.Digest {
	var stack []deploy.Digest
	for _, x := range o.lines {
		if (x.wave == "" || x.wave == wave) && !o.bad[x.revision] {
			stack = append(stack, x.revision)
		}
	}
	if len(stack) == 0 {
		return ""
	}
	return stack[len(stack)-1]
}

// Check compares the state with the model while nothing is in flight.
func (o *Outcomes) Check(s *deploy.State, g *deploy.Group) error {
	if len(g.InFlight()) > 0 {
		return nil
	}
	for i := range g.Layout.Waves {
		w := &g.Layout.Waves[i]
		for _, h := range w.Hosts {
			t := s.Target(h, g.App)
			if t == nil || t.Declared {
				continue
			}
			if got, want := s.Wants(t).Revision, o.wants(w.Name); got != want {
				var all []string
				for _, x := range o.lines {
					all = append(all, fmt.Sprint(x))
				}
				return fmt.Errorf("I11: %s of wave %s should run %q, its history says %q: %s", h, w.Name, got, want,
					strings.Join(all, " "))
			}
			break // targets of a wave differ in nothing that counts here
		}
	}
	return nil
}
