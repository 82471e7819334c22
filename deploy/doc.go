// Package deploy decides what a deployment does next, given facts and time.
//
// It is the policy of Groundswell and nothing else: no I/O, no clock, no
// goroutine, no map order. Three functions carry it:
//
//	           facts (Event)
//	control, sessions, gates, Decide
//	               |
//	               v
//	State.Apply  (every replica, deterministic, tolerates stale facts)
//	               |
//	               v
//	Decide(state, fleet, now) []Event     (leader only, all policy)
//	NextWake(state, now)                  (when Decide must be asked again)
//	Assign(state, host)                   (what one host should do, any replica)
//
// Facts are what happened or what was decided; they hold every number a
// decision needs (floors, limits, goals), so Apply never computes policy and
// coordinators of different versions agree. Apply tests each item of a fact
// again, because reports and requests may enter the log between Decide and its
// facts; an item that no longer fits is dropped alone.
//
// # Words
//
// These are the same in proto, Go, CLI and docs:
//
//	application        what is deployed, e.g. www
//	revision           one immutable, content-addressed bundle of an application
//	deployment group   the hosts that run one application in one environment
//	deployment config  the policy of a deployment: capacity, waves, bake, gates, failure rules
//	deployment         one revision travelling through one deployment group
//	wave               an ordered part of a group that gets the revision together
//	host               a machine with an agent
//	target             one application on one host
//	task               the work of one target in one wave of one deployment
//	lifecycle event    a named step on the host (ApplicationStop, Install, ...)
//	hook               a script of the bundle that runs at a lifecycle event
//	gate               a question answered pass, fail or inconclusive
//	bake               the time a wave is watched after its last task
//	permit             the committed right of a target to leave service
//	generation         number of a target's desired state; agents never act on a lower one
//	sealed             passed deploy, bake and gates in a wave
//	last good revision the newest sealed, not-bad revision of a target
//
// # Three rules everything rests on
//
//  1. Level-triggered: the coordinator commits desired state; agents converge
//     and report their whole state. Duplicates, replays and failover are harmless.
//  2. Permit before disruption: an agent takes the application out of service
//     only under a permit that is committed.
//  3. Fence: agents act only on a generation above the highest acknowledged one,
//     and Apply ignores reports of a lower generation or an old counter.
package deploy
