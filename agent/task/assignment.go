package task

import (
	"errors"
	"fmt"
)

// Permit is the committed right to take the application out of service. The
// numbers are durable.
type Permit uint8

// The permits.
const (
	PermitNone Permit = iota
	PermitNormal
	// PermitConditional is void if the application is serving.
	PermitConditional
)

// String is the permit in lower case.
func (p Permit) String() string {
	switch p {
	case PermitNone:
		return "none"
	case PermitNormal:
		return "normal"
	case PermitConditional:
		return "conditional"
	}
	return "unknown"
}

// OnFailure says what a failed step does to the target.
type OnFailure uint8

// The two ways to fail. A coordinator asks for OnFailureRevert; leaving the
// host as it is, as CodeDeploy does, is for local deployments.
const (
	OnFailureRevert OnFailure = iota
	OnFailureLeave
)

// Assignment is the desired state of a target under one generation.
type Assignment struct {
	Generation uint64
	Permit     Permit
	App        string
	Deployment string
	// Goal is the revision that should run; empty is none.
	Goal string
	// Traffic says that the deployment has traffic control, and Pools whose: another
	// word is other pools.
	Traffic bool
	Pools   string `json:",omitempty"`
	// StopFails makes a failure of the running revision's stop scripts a
	// failure of the task; by default the task goes on with a warning.
	StopFails bool
	OnFailure OnFailure
	// Revert marks a goal that is itself the way back: a failure does not
	// switch forward again, it is tried again and ends as broken.
	Revert bool
	// Verify asks to leave the target alone if it runs the goal, is healthy and
	// its files are what the last hook left.
	Verify bool `json:",omitempty"`
	// SkipProbe is for targets without a probe.
	SkipProbe bool
	// Events is the order of a local deployment, checked by its maker; names
	// that are no lifecycle event are the appspec's own. Nil is the order of
	// a deployment by a coordinator.
	Events []string `json:",omitempty"`
}

// Validate answers why an assignment cannot be acted on.
func (a Assignment) Validate() error {
	switch {
	case a.Generation == 0:
		return errors.New("check assignment: generation 0 is reserved for a target that was never assigned")
	case a.App == "":
		return errors.New("check assignment: no application is named")
	case a.Permit > PermitConditional:
		return fmt.Errorf("check assignment: permit %d is unknown", a.Permit)
	}
	return nil
}

// Result closes a generation. The numbers are durable.
type Result uint8

// The results of a target's report.
const (
	ResultNone Result = iota
	// ResultDone: the goal runs and was validated.
	ResultDone
	// ResultFailed: a step failed and the former revision runs again (or
	// nothing, or the goal, when there was nothing to revert to or the
	// assignment said to leave it).
	ResultFailed
	// ResultBroken: the way back failed too; the target is out of service.
	ResultBroken
	// ResultRefused: the application serves, a normal permit is needed.
	ResultRefused
	// ResultIdle: the generation came without a permit; nothing was done.
	ResultIdle
)

// String is the result in lower case.
func (r Result) String() string {
	switch r {
	case ResultNone:
		return "none"
	case ResultDone:
		return "done"
	case ResultFailed:
		return "failed"
	case ResultBroken:
		return "broken"
	case ResultRefused:
		return "refused"
	case ResultIdle:
		return "idle"
	}
	return "unknown"
}

// pools is a word for the pools, never empty.
func (a Assignment) pools() string { return "pools " + a.Pools }
