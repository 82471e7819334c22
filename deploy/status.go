package deploy

import (
	"fmt"
	"time"
)

// Time is a moment of FSM time in nanoseconds: the sum of what leaders measured
// with monotonic clocks. It is not wall time and is never compared with any.
type Time int64

// Add returns t + d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns the duration t - u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Digest names a bundle by its content, "sha256:" and 64 hex digits. The empty
// digest means nothing is installed.
type Digest string

// Short returns the first 7 hex digits, for people.
func (d Digest) Short() string {
	s := string(d)
	if len(s) > 7 && s[:7] == "sha256:" {
		s = s[7:]
	}
	if len(s) > 7 {
		s = s[:7]
	}
	if s == "" {
		return "nothing"
	}
	return s
}

// Health is what a target's agent last said of the application.
type Health int

// The health of a target. Only HealthHealthy ever counts as serving.
const (
	HealthUnknown   Health = 0
	HealthHealthy   Health = 1
	HealthUnhealthy Health = 2
)

func (h Health) String() string {
	return name(int(h), "unknown", "healthy", "unhealthy")
}

// Permit is the kind of a target's permit.
type Permit int

// A normal permit was paid for with serving capacity; a conditional one allows
// the disruption of an application that does not serve, which the agent must
// verify at that moment.
const (
	PermitNone        Permit = 0
	PermitNormal      Permit = 1
	PermitConditional Permit = 2
)

func (p Permit) String() string { return name(int(p), "none", "normal", "conditional") }

// CatchUp says why a target is changed outside of a deployment's waves.
type CatchUp int

// Asides. A birth brings a new host to what its wave runs, by a conditional
// permit outside the limits of the group; a late task catches up with one that
// was lost, offline, skipped or changed by hand, under the permit rule.
const (
	CatchUpNone  CatchUp = 0
	CatchUpBirth CatchUp = 1
	CatchUpLate  CatchUp = 2
)

func (a CatchUp) String() string { return name(int(a), "none", "birth", "late") }

// Result is what an agent says of its highest acknowledged generation.
type Result int

// Results of a generation. ResultNone leaves it open, all others close it.
const (
	ResultNone    Result = 0
	ResultDone    Result = 1 // the goal runs and serves
	ResultFailed  Result = 2 // a step failed; the previous revision was put back (or nothing runs)
	ResultBroken  Result = 3 // a step failed and so did going back
	ResultRefused Result = 4 // conditional permit, but the application serves
	ResultIdle    Result = 5 // acknowledged without a permit, never acted on
)

func (r Result) String() string {
	return name(int(r), "none", "done", "failed", "broken", "refused", "idle")
}

// TaskStatus is the committed status of a task. What happens between Granted
// and its end (drain, switch, validate) is soft and lives in the agent.
type TaskStatus int

// Task statuses.
const (
	TaskWaiting     TaskStatus = 0 // not staged, or staged and waiting for a permit
	TaskGranted     TaskStatus = 1
	TaskSettled     TaskStatus = 2
	TaskFailed      TaskStatus = 3 // the host went back by itself
	TaskBroken      TaskStatus = 4 // neither the new nor the old revision runs
	TaskStageFailed TaskStatus = 5
	TaskLost        TaskStatus = 6
	TaskGone        TaskStatus = 7 // the target left the group
	TaskSkipped     TaskStatus = 8
	TaskCancelled   TaskStatus = 9
	TaskReverting   TaskStatus = 10 // in a revert set, not yet back
	TaskReverted    TaskStatus = 11
	TaskLeft        TaskStatus = 12 // in a revert set without a last good revision
	taskStatuses               = 13
)

func (t TaskStatus) String() string {
	return name(int(t), "waiting", "granted", "settled", "failed", "broken", "stage-failed",
		"lost", "gone", "skipped", "cancelled", "reverting", "reverted", "left")
}

// Terminal reports whether a task in this status waits for nothing.
func (t TaskStatus) Terminal() bool {
	return t != TaskWaiting && t != TaskGranted && t != TaskReverting
}

// Failure reports whether the status counts against a failure budget.
func (t TaskStatus) Failure() bool {
	return t == TaskFailed || t == TaskBroken || t == TaskStageFailed || t == TaskLost
}

// WaveStatus is the committed status of a wave.
type WaveStatus int

// Wave statuses.
const (
	WaveStatusPending   WaveStatus = 0
	WaveStatusDeploying WaveStatus = 1
	WaveStatusBaking    WaveStatus = 2
	WaveStatusSealed    WaveStatus = 3
	WaveStatusSkipped   WaveStatus = 4
	WaveStatusReverting WaveStatus = 5
	WaveStatusReverted  WaveStatus = 6
	WaveStatusHeld      WaveStatus = 7
)

func (w WaveStatus) String() string {
	return name(int(w), "pending", "deploying", "baking", "sealed", "skipped", "reverting", "reverted", "held")
}

// Passed reports whether the next wave may follow.
func (w WaveStatus) Passed() bool { return w == WaveStatusSealed || w == WaveStatusSkipped }

// DeploymentStatus is the committed status of a deployment.
type DeploymentStatus int

// Deployment statuses.
const (
	DeploymentStatusPending     DeploymentStatus = 0
	DeploymentStatusRunning     DeploymentStatus = 1
	DeploymentStatusPaused      DeploymentStatus = 2
	DeploymentStatusStopping    DeploymentStatus = 3
	DeploymentStatusRollingBack DeploymentStatus = 4
	DeploymentStatusSucceeded   DeploymentStatus = 5
	DeploymentStatusRolledBack  DeploymentStatus = 6
	DeploymentStatusStopped     DeploymentStatus = 7
	DeploymentStatusCancelled   DeploymentStatus = 8
	DeploymentStatusTakenOver   DeploymentStatus = 9
	DeploymentStatusSuperseded  DeploymentStatus = 10
)

func (d DeploymentStatus) String() string {
	return name(int(d), "pending", "running", "paused", "stopping", "rolling_back",
		"succeeded", "rolled_back", "stopped", "cancelled", "taken_over", "superseded")
}

// Terminal reports whether the deployment has ended.
func (d DeploymentStatus) Terminal() bool { return d >= DeploymentStatusSucceeded }

// Live reports whether the deployment is neither pending nor terminal.
func (d DeploymentStatus) Live() bool { return d != DeploymentStatusPending && !d.Terminal() }

func name(i int, names ...string) string {
	if i < 0 || i >= len(names) {
		return fmt.Sprintf("unknown(%d)", i)
	}
	return names[i]
}
