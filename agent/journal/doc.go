// Package journal keeps the durable record of what an agent was told, has
// begun and has ended, so that a crash at any moment leaves no doubt about
// what to redo, undo or report. DESIGN.md beside this file holds the argument.
//
// One journal serves all targets of a host. A call that changes something
// returns when the change is on disk. Methods may be called concurrently; the
// steps of one target must come one after the other.
package journal
