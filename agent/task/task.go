package task

import (
	"fmt"
	"slices"
)

// Next returns the step that a target with these records has to do now. It is
// total: records that make no sense answer KindWait, and Replay says why.
func Next(records []Record) Step {
	s, err := Replay(records)
	if err != nil {
		return Step{Kind: KindWait}
	}
	return s.Next
}

// State is what the records of a target come to.
type State struct {
	// Base is the last closed state; its Generation is the highest
	// acknowledged one, of an open generation too.
	Base Base
	// Assignment is the current one; its Generation is 0 before the first.
	Assignment Assignment
	// Open says that the current generation is acknowledged and not closed.
	Open bool
	// Installed is the revision that the target is switched to.
	Installed string
	// Disturbed says that the application may not be serving by our doing.
	Disturbed bool
	// Reverting says that a failure is being undone.
	Reverting bool
	// Failure is the first failed step of the current generation, or nil, and
	// Detail what was said about it.
	Failure *Step
	Detail  string
	// Warnings are the details of lenient steps that failed.
	Warnings []string
	// StageFailed says that the goal could not be staged.
	StageFailed bool
	// Next is the step to do.
	Next Step
}

// Replay reduces the records to a state.
func Replay(records []Record) (State, error) {
	m := machine{}
	for i, r := range records {
		if err := m.apply(r); err != nil {
			return State{}, fmt.Errorf("replay record %d of a target: %w", i, err)
		}
	}
	return m.state(), nil
}

type machine struct {
	base       Base
	assignment Assignment
	world      World
	program    []Step
	begun      *Step
	pending    *Assignment // came while a step was begun
	accepted   bool
	closed     bool
	number     int
	tries      int // of the way back
	stages     int
	failure    *Step
	detail     string
	warnings   []string
}

func (m *machine) apply(r Record) error {
	switch {
	case r.Base != nil:
		*m = machine{base: *r.Base, closed: true, world: World{Base: r.Base.Running, Installed: r.Base.Running}}
		if r.Base.World != nil {
			m.world = *r.Base.World
		}
		return nil
	case r.Assigned != nil:
		m.assigned(*r.Assigned)
		return nil
	case r.Begin != nil:
		m.begin(*r.Begin)
		return nil
	case r.End != nil:
		return m.end(*r.End)
	case r.Retried != nil:
		m.retried(*r.Retried)
		return nil
	}
	return fmt.Errorf("the record is empty")
}

// assigned takes a higher generation and ignores any other: this is the
// fence. One that arrives while a step runs counts from the step's end: a hook
// cannot be un-begun.
func (m *machine) assigned(a Assignment) {
	highest := max(m.assignment.Generation, m.base.Generation)
	if m.pending != nil {
		highest = max(highest, m.pending.Generation)
	}
	if a.Generation <= highest {
		return
	}
	m.pending = &a
	if m.begun == nil {
		m.adopt(a)
	}
}

func (m *machine) adopt(a Assignment) {
	// What was not accepted had no permit to hand on.
	fresh := m.closed || m.assignment.Generation == 0 || m.assignment.Permit == PermitNone
	if !m.accepted && !m.closed && !m.world.Disturbed() {
		fresh = true
	}
	m.assignment, m.pending = a, nil
	m.accepted, m.closed, m.number, m.tries, m.stages = false, false, 0, 0, 0
	m.failure, m.detail, m.warnings = nil, "", nil
	m.program = forward(a, m.world, fresh)
}

// retried plans the way back of a broken target anew. The permit was handed
// back with the report, so a newer assignment inherits none.
func (m *machine) retried(r Retry) {
	if !m.closed || m.base.Result != ResultBroken || m.base.Assigned == nil {
		return
	}
	a := *m.base.Assigned
	a.Permit = PermitNone
	m.assignment, m.accepted, m.closed = a, true, false
	m.number, m.tries, m.stages = r.Number, 1, 0
	m.failure, m.detail, m.warnings = nil, "", nil
	m.program = revert(a, m.world, 2) // it may run by halves: stop it first
	if a.Revert {
		m.program = again(a, m.world)
	}
}

func (m *machine) next() Step {
	if m.begun != nil {
		s := *m.begun
		s.Resume = true
		return s
	}
	if m.closed || len(m.program) == 0 {
		return Step{Kind: KindWait}
	}
	s := m.program[0]
	s.Number = m.number + 1
	return s
}

// begin takes the step as the current one. It is the one that was asked for,
// except in a journal that another version of these rules has written: then
// the journal is right about what was done, and the program goes on behind it.
func (m *machine) begin(s Step) {
	s.Resume = false
	if m.begun == nil {
		m.number = s.Number
	} else if s != *m.begun {
		m.program = m.program[1:] // the former one never ended
	}
	same := func(p Step) bool { return p.Kind == s.Kind && p.Event == s.Event && p.Revision == s.Revision }
	if i := slices.IndexFunc(m.program, same); i >= 0 {
		m.program = m.program[i:]
	} else {
		m.program = append([]Step{s}, m.program...)
	}
	m.begun = &s
	m.world.begun(s)
}

func (m *machine) end(e End) error {
	if m.begun == nil {
		return fmt.Errorf("a step ended as %s that was not begun", e.Outcome)
	}
	s := *m.begun
	m.begun = nil
	if e.Outcome.OK() {
		m.succeeded(s)
	} else {
		m.failed(s, e)
	}
	if m.pending != nil {
		m.adopt(*m.pending)
	}
	return nil
}

func (m *machine) succeeded(s Step) {
	m.world.ended(s)
	if s.Kind == KindHook && s.Event == eventBlock {
		m.world.Drained = m.assignment.pools()
	}
	m.program = m.program[1:]
	switch s.Kind {
	case KindAccept:
		m.accepted = true
		m.base.Generation, m.base.Result = s.Generation, ResultNone
	case KindReport:
		m.closed = true
		m.base = Base{Running: s.Revision, Generation: s.Generation, Result: s.Result}
		if w := m.world; w.Disturbed() {
			m.base.World = &w
		}
		if a := m.assignment; s.Result == ResultBroken {
			m.base.Assigned = &a
		}
	case KindVerify:
		m.program = closing(m.assignment, ResultDone, m.world.Installed)
	case KindWait, KindStage, KindCheckIdle, KindHook, KindInstall, KindProbe, KindUndo, KindSettle:
	}
}

func (m *machine) failed(s Step, e End) {
	if s.Lenient {
		m.warnings = append(m.warnings, fmt.Sprintf("%s of %s %s: %s", s.Event, s.Revision, e.Outcome, e.Detail))
		m.program = m.program[1:]
		return
	}
	switch s.Kind {
	case KindAccept, KindSettle, KindReport:
		return // the same step again: they are the agent's own and must succeed
	case KindCheckIdle:
		m.program = closing(m.assignment, ResultRefused, m.world.Installed)
		return
	case KindStage:
		m.stageFailed(s, e)
		return
	case KindVerify: // it does need repair
		m.program = m.program[1:]
		return
	case KindWait, KindHook, KindInstall, KindProbe, KindUndo:
	}
	if m.failure == nil {
		m.failure, m.detail = &s, e.Detail
	}
	m.program = m.afterFailure()
}

// stageFailed tries again, then closes the generation: nothing was touched,
// unless the generation came in the middle of another, which is undone.
func (m *machine) stageFailed(s Step, e End) {
	if m.stages++; m.stages < maxTries && len(m.assignment.Events) == 0 {
		return // a local bundle is as bad the second time
	}
	m.failure, m.detail = &s, e.Detail
	accept := Step{Kind: KindAccept, Generation: s.Generation}
	switch {
	case m.assignment.Permit == PermitNone:
		m.program = append([]Step{accept}, closing(m.assignment, ResultIdle, m.world.Installed)...)
	case m.world.Disturbed():
		m.tries = 1
		m.program = append([]Step{accept}, revert(m.assignment, m.world, 1)...)
	default:
		m.program = append([]Step{accept}, closing(m.assignment, ResultFailed, m.world.Installed)...)
	}
}

// afterFailure is the program after a step that had to succeed.
func (m *machine) afterFailure() []Step {
	a, w := m.assignment, m.world
	switch {
	case a.OnFailure == OnFailureLeave:
		b := builder{a: a}
		if w.Undoable && w.Installed == w.Base { // the install itself failed
			b.add(Step{Kind: KindUndo, Revision: w.Base})
		}
		b.add(Step{Kind: KindSettle, Revision: w.Installed})
		return b.report(ResultFailed, w.Installed)
	case m.tries >= maxTries:
		return closing(a, ResultBroken, w.Installed)
	case a.Revert:
		if m.tries++; m.tries >= maxTries {
			return closing(a, ResultBroken, w.Installed)
		}
		return again(a, w)
	}
	m.tries++
	return revert(a, w, m.tries)
}

func (m *machine) state() State {
	return State{
		Base: m.base, Assignment: m.assignment, Open: m.accepted && !m.closed,
		Installed: m.world.Installed,
		Disturbed: m.world.Disturbed(),
		Reverting: m.tries > 0 && !m.closed,
		Failure:   m.failure, Detail: m.detail, Warnings: m.warnings,
		StageFailed: m.failure != nil && m.failure.Kind == KindStage,
		Next:        m.next(),
	}
}
