package deploy_test

import (
	"testing"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/sim"
)

// transition is one arrow of the state machines, and the row that it is.
type transition struct{ kind, from, to, row string }

// TestTransitions runs every scenario and compares the transitions that occur
// with the tables: one that none shows, and one that no table knows, fail.
func TestTransitions(t *testing.T) {
	seen := map[[3]string]string{}
	for _, f := range scenarios(t) {
		s := sim.NewSession(1)
		before := map[[2]string]string{}
		s.World.Each = func() {
			statuses(s.World.State, func(kind, what, now string) {
				key := [2]string{kind, what}
				if was := before[key]; was != now {
					before[key] = now
					if arrow := [3]string{kind, was, now}; seen[arrow] == "" {
						seen[arrow] = f
					}
				}
			})
		}
		scenario(t, f, s)
	}
	for _, x := range transitions {
		arrow := [3]string{x.kind, x.from, x.to}
		if seen[arrow] == "" {
			t.Errorf("no scenario shows %s %s → %s (%s)", x.kind, x.from, x.to, x.row)
		}
		delete(seen, arrow)
	}
	for arrow, f := range seen {
		t.Errorf("%s shows %s %q → %s, which is in no table", f, arrow[0], arrow[1], arrow[2])
	}
}

// statuses calls f with the status of every deployment, wave and task.
func statuses(s *deploy.State, f func(kind, what, now string)) {
	for id, d := range s.Deployments {
		f("deployment", id, d.Status.String())
		for i := range d.Waves {
			f("wave", id+"/"+d.Waves[i].Name, d.Waves[i].Status.String())
		}
		for host, task := range d.Tasks {
			f("task", id+"/"+host, task.Status.String())
		}
	}
}

// transitions are the arrows of the three state machines; from "" is creation.
var transitions = []transition{
	{"task", "", "skipped", "left out at creation"},
	{"task", "", "reverting", "was being born on the revision when its wave went back"},
	{"task", "", "settled", "joined with the revision that its wave is being given"},
	{"task", "", "waiting", "planned"},
	{"task", "broken", "reverting", "any, also terminal: in a revert set"},
	{"task", "broken", "waiting", "retry"},
	{"task", "cancelled", "reverting", "any, also terminal: in a revert set"},
	{"task", "failed", "reverting", "any, also terminal: in a revert set"},
	{"task", "failed", "skipped", "skip-zone"},
	{"task", "failed", "waiting", "retry"},
	{"task", "granted", "broken", "going back fails"},
	{"task", "granted", "failed", "the host went back by itself"},
	{"task", "granted", "gone", "any non-terminal: host departs"},
	{"task", "granted", "lost", "unreachable, or no result in timeouts.task"},
	{"task", "granted", "reverting", "new generation for the target"},
	{"task", "granted", "settled", "admitted and healthy"},
	{"task", "granted", "waiting", "conditional permit refused; the next step of a rehearsal"},
	{"task", "lost", "reverting", "any, also terminal: in a revert set"},
	{"task", "lost", "waiting", "retry"},
	{"task", "reverted", "gone", "host departs"},
	{"task", "reverted", "skipped", "skip-zone"},
	{"task", "reverted", "waiting", "retry"},
	{"task", "reverting", "broken", "going back fails"},
	{"task", "reverting", "gone", "any non-terminal: host departs"},
	{"task", "reverting", "left", "taken over while it waits for its way back"},
	{"task", "reverting", "lost", "unreachable, or no result in timeouts.task"},
	{"task", "reverting", "reverted", "on its last good revision"},
	{"task", "settled", "gone", "host departs, for its wave"},
	{"task", "settled", "left", "no last good revision: left as it is"},
	{"task", "settled", "reverting", "any, also terminal: in a revert set"},
	{"task", "skipped", "reverting", "any, also terminal: in a revert set"},
	{"task", "stage-failed", "reverting", "any, also terminal: in a revert set"},
	{"task", "stage-failed", "waiting", "retry"},
	{"task", "waiting", "cancelled", "abort, supersede"},
	{"task", "waiting", "gone", "any non-terminal: host departs"},
	{"task", "lost", "settled", "comes back on the revision"},
	{"task", "settled", "lost", "unreachable for lostAfter after it took the revision"},
	{"task", "skipped", "settled", "late"},
	{"task", "skipped", "waiting", "can act again, in a wave that has nobody else"},
	{"wave", "baking", "held", "nobody in it can act"},
	{"wave", "deploying", "held", "nobody in it can act"},
	{"task", "waiting", "granted", "permit committed"},
	{"task", "waiting", "reverting", "in a revert set: runs the revision by another way"},
	{"task", "waiting", "settled", "runs the revision already"},
	{"task", "waiting", "skipped", "operator skip, quarantine, skip-zone"},
	{"task", "waiting", "stage-failed", "staging fails"},
	{"wave", "", "pending", "created"},
	{"wave", "baking", "deploying", "all evidence hosts departed: takes a target of a later wave; retry"},
	{"wave", "baking", "pending", "retry: an earlier wave comes first again"},
	{"wave", "baking", "reverting", "gate fails, budget exceeded"},
	{"wave", "baking", "sealed", "long enough, covered, no gate failing; early; onInconclusive pass"},
	{"wave", "baking", "skipped", "all evidence hosts departed"},
	{"wave", "deploying", "baking", "all tasks terminal, within budget"},
	{"wave", "deploying", "pending", "retry: an earlier wave comes first again"},
	{"wave", "deploying", "reverting", "gate fails, budget exceeded, quorum missed"},
	{"wave", "deploying", "skipped", "all targets departed"},
	{"wave", "held", "deploying", "all hold reasons gone"},
	{"wave", "held", "reverting", "in a revert set: a host runs the revision by another way"},
	{"wave", "held", "skipped", "all targets departed"},
	{"wave", "pending", "deploying", "predecessors sealed"},
	{"wave", "pending", "held", "window, approval, freeze, order, nobody reachable"},
	{"wave", "pending", "reverting", "an inverse deployment reverts"},
	{"wave", "pending", "skipped", "empty"},
	{"wave", "reverted", "deploying", "retry, skip-zone"},
	{"wave", "reverted", "pending", "an older deployment reverts here; retry behind an earlier wave"},
	{"wave", "reverted", "reverting", "another scope fails, rollback of all"},
	{"wave", "reverting", "reverted", "every target of the set is back, broken, gone, lost or left"},
	{"wave", "sealed", "reverting", "scoped gate fails while the deployment is not terminal"},
	{"wave", "skipped", "pending", "the newer deployment that it was left to goes back"},
	{"deployment", "", "pending", "created"},
	{"deployment", "", "rolling_back", "terminal: rollback is a new inverse deployment"},
	{"deployment", "paused", "rolling_back", "abort --rollback; a decision that nobody took in time"},
	{"deployment", "paused", "running", "resume, retry, skip-zone"},
	{"deployment", "paused", "stopping", "abort --leave, take-over"},
	{"deployment", "pending", "cancelled", "abort, reject"},
	{"deployment", "pending", "running", "fewer live than inFlight.max, first wave free"},
	{"deployment", "pending", "superseded", "newer deployment with queue=latest, take-over"},
	{"deployment", "rolling_back", "rolled_back", "all reachable targets off the bad revision"},
	{"deployment", "rolling_back", "stopped", "nothing to go back to"},
	{"deployment", "rolling_back", "stopping", "taken over with --preempt"},
	{"deployment", "rolling_back", "succeeded", "an inverse deployment is back"},
	{"deployment", "running", "paused", "pause, scoped failure, timeouts.deployment"},
	{"deployment", "running", "rolling_back", "abort --rollback, failure of scope all, revoked"},
	{"deployment", "running", "stopped", "all waves skipped"},
	{"deployment", "running", "stopping", "abort --leave, reject, approval timeout, take-over"},
	{"deployment", "running", "succeeded", "all waves sealed or skipped"},
	{"deployment", "stopping", "rolling_back", "stopping accepts abort --rollback"},
	{"deployment", "stopping", "stopped", "granted tasks have finished"},
	{"deployment", "stopping", "taken_over", "granted tasks have finished, a newer one took over"},
}
