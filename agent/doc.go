// Package agent runs deployments on one host: it composes the journal, the
// releases, the hooks and the store, and speaks with one coordinator.
//
// # How it works
//
// Every application of the host is a target with a goroutine of its own, which
// asks the journal for the next step (package task decides it), begins it,
// does it and ends it. What a coordinator sends only changes the target's
// newest assignment; what a target says is only its state as the journal has
// it. So neither side ever waits for the other, messages may be lost, repeated
// or late, and without any coordinator the host finishes, or takes back, what
// it was permitted to do.
//
//	session --Assignment--> target --Begin/End--> journal
//	   ^                      |  \--> releases, hooks, probes, store
//	   '-- outbox <--changed--'
//
// # What outlives the agent
//
// Applications and hooks: both run under supervisors outside the agent's
// process group and cgroup. An agent that is told to stop leaves a running
// hook alone, and the next agent on the same folder adopts it.
//
// # Folders
//
// Everything lies below Options.Root: identity (0700), state (journal and one
// file a target, 0700), cache, releases, hooks (one folder a run, with its
// log) and probes. One agent at a time may use it.
package agent
