package task

import (
	"fmt"
	"strings"
)

// Kind is what the executor has to do. The numbers are durable.
type Kind uint8

// The kinds of steps.
const (
	// KindWait: nothing to do until a new assignment.
	KindWait Kind = iota
	// KindStage fetches, verifies and unpacks Revision. The application is
	// untouched. Idempotent.
	KindStage
	// KindAccept acknowledges the generation durably. Idempotent.
	KindAccept
	// KindCheckIdle answers OK only if the application is surely not serving.
	KindCheckIdle
	// KindHook runs Revision's scripts of Event; a revision without scripts,
	// or whose folder is gone, answers Skipped.
	KindHook
	// KindInstall copies Revision's files and switches to it. Idempotent.
	KindInstall
	// KindProbe asks whether the application is healthy.
	KindProbe
	// KindUndo puts back exactly what the last install replaced, switch
	// included; where nothing ran before it unlinks. Idempotent.
	KindUndo
	// KindSettle gives up the means of undoing: the goal is now the base.
	KindSettle
	// KindReport closes the generation with Result; Revision is what runs.
	KindReport
	// KindVerify answers OK if the target needs no repair: then nothing more is
	// done. Idempotent.
	KindVerify
)

var kindNames = [...]string{
	"wait", "stage", "accept", "check-idle", "hook", "install", "probe", "undo", "settle",
	"report", "verify",
}

// String is the kind in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Step is one thing to do, journalled before it is begun.
type Step struct {
	Kind       Kind
	Generation uint64
	// Number counts the steps of a generation from 1: with the generation it
	// names the step for ever.
	Number int
	// Event is the lifecycle event of a hook or of the agent's own work.
	Event string
	// Revision is what the step is about; for a hook, whose scripts run.
	Revision string
	// From and To are what the target moves between, for the hooks.
	From, To string
	// Rollback marks the steps of a way back: hooks see DEPLOY_ACTION=rollback.
	Rollback bool
	// Lenient steps may fail: the task goes on with a warning.
	Lenient bool
	// Result is set for KindReport.
	Result Result
	// Resume says that the step was begun before: redo it, or adopt its hook.
	Resume bool
}

// ID names the step as a plain file name, unique on the target; it is the run
// id of a hook. A step begun again after a crash has the same ID.
func (s Step) ID() string {
	parts := []string{fmt.Sprintf("g%d", s.Generation), fmt.Sprintf("%d", s.Number), s.Kind.String()}
	if s.Event != "" {
		parts = append(parts, s.Event)
	}
	return strings.Join(parts, "-")
}

// Outcome is how a step ended. The numbers are durable.
type Outcome uint8

// The outcomes.
const (
	OutcomeNone Outcome = iota
	OutcomeOK
	// OutcomeSkipped counts as OK: there was nothing to do.
	OutcomeSkipped
	OutcomeFailed
	// OutcomeInterrupted is a hook whose result a crash lost. It counts as
	// failed: idempotent scripts were run again by the executor already.
	OutcomeInterrupted
	// OutcomeUnknown answers KindCheckIdle: it cannot be told.
	OutcomeUnknown
)

// String is the outcome in lower case.
func (o Outcome) String() string {
	switch o {
	case OutcomeNone:
		return "none"
	case OutcomeOK:
		return "ok"
	case OutcomeSkipped:
		return "skipped"
	case OutcomeFailed:
		return "failed"
	case OutcomeInterrupted:
		return "interrupted"
	case OutcomeUnknown:
		return "unknown"
	}
	return "invalid"
}

// OK reports whether the task goes on as planned.
func (o Outcome) OK() bool { return o == OutcomeOK || o == OutcomeSkipped }
