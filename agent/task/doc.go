// Package task decides what a target's next step is, given the journal's
// records. It is pure: no clock, no I/O, no goroutine, and the same records
// give the same step for ever, which is what lets an agent be killed at any
// moment and go on.
//
// # How it works
//
// The journal of a target is a list of [Record]: a [Base] (what runs), an
// [Assignment], then Begin and End of each step. [Next] replays the list into
// a small state: the world (what of the target has been disturbed), and the
// program (the steps still to do). A new assignment or a failed step replaces
// the program by one computed from the world; everything else takes the first
// step off it. The programs are in program.go, one function each, and read as
// the order of lifecycle events.
//
// # Traffic events
//
// As in CodeDeploy, the six traffic events are part of a deployment only if it
// has traffic control (Assignment.Traffic). Nothing is stopped, replaced or undone
// then unless BlockTraffic has ended well and AllowTraffic was not begun since.
//
// # After a crash
//
// A Begin without an End is asked for again with Resume set. The executor
// redoes what is idempotent (stage, install, undo, probe) and adopts a hook
// by the step's ID; a hook whose result is lost ends as Interrupted, which
// counts as failed.
package task
