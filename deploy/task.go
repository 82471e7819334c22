package deploy

// Task is the work of one target in one wave of one deployment.
type Task struct {
	Wave    int        `json:"wave"`
	Status  TaskStatus `json:"status"`
	Gen     uint64     `json:"gen,omitempty"`
	Goal    Digest     `json:"goal,omitempty"`    // of a revert
	Counted bool       `json:"counted,omitempty"` // against the budgets
	Left    bool       `json:"left,omitempty"`    // the target departed after the task had failed
	Reverts int        `json:"reverts,omitempty"` // how often it was put into a revert set since the last retry
	Refused int        `json:"refused,omitempty"` // permits handed back since the last retry
	Phase   int        `json:"phase,omitempty"`   // of a rehearsal: 0 new, 1 old, 2 new again
	Named   bool       `json:"named,omitempty"`   // a person named it to be left out
	Intend  bool       `json:"intend,omitempty"`  // skipped on purpose: not caught up
	Tasted  bool       `json:"tasted,omitempty"`  // warmup and taste have passed on its target
	Since   Time       `json:"since"`
	Wall    int64      `json:"wall"`
	Cause   string     `json:"cause,omitempty"`
	Failure *Failure   `json:"failure,omitempty"`
}

// gone reports whether the task has no target any more. A host of that name
// that joins again is a new target, without a task.
func (t *Task) gone() bool { return t.Status == TaskGone || t.Left }

// awayInRevert reports whether the target could not be reached when it should
// have gone back.
func (t *Task) awayInRevert() bool { return t.Status == TaskLost && t.Goal != "" }

// goal is what the task moves its target to now.
func (task *Task) goal(dep *Deployment) Digest {
	if task.Status == TaskReverting || task.Phase == 1 {
		return task.Goal
	}
	return dep.Revision
}

// mustMove reports whether the target must move to be on its goal again.
func (task *Task) mustMove(t *Target, goal Digest, dep *Deployment) bool {
	switch task.Status {
	case TaskGranted:
		return true
	case TaskSettled, TaskBroken, TaskLost:
		return t.Running != goal || !t.Serving()
	case TaskFailed:
		return goal != "" && (t.Running != goal || !t.Serving())
	case TaskWaiting, TaskCancelled, TaskStageFailed, TaskSkipped:
		// Granted before a retry, or on the revision by another way.
		was := task.Gen > 0 || t.Running == dep.Revision || dep.Inverse && t.Running != ""
		return was && (t.Running != goal || !t.Serving())
	case TaskGone, TaskReverting, TaskReverted, TaskLeft:
	}
	return false
}

// keepFailure keeps why a task is being reverted, and forgets what a retry may cure.
func keepFailure(task *Task) *Failure {
	if task.Status == TaskReverting {
		return task.Failure
	}
	return nil
}
