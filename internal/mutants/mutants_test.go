package mutants

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// mutant is one change of a file and the test that must fail with it.
type mutant struct {
	name     string
	file     string // below the module
	old, now string
	pkg, run string
}

const (
	permits   = "^TestModelPermits$"
	staggered = "^TestModelStaggered$"
	simulated = "^TestSimulation$"
	requests  = "^TestModelRequests$"
	deep      = " MODEL=1"     // the whole model
	pairs     = " MODEL=pairs" // of requests
	// Those of whole clusters take a minute each: `make soak` asks for them by this name.
	underFaults = "under faults: "
	faults      = "^TestClientsUnderFaults$ FAULTS="
)

// table lists the mutants. A snippet occurs exactly once in its file.
var table = []mutant{
	{"floor not tested at the grant", "deploy/capacity.go", "s-1 < f.Min", "s < 0", "./deploy", permits},
	{"floor off by one", "deploy/capacity.go", "s-1 < f.Min", "s < f.Min", "./deploy", permits},
	{
		"unconditional permit for who does not serve", "deploy/capacity.go", "return PermitConditional, nil",
		"return map[bool]Permit{false: PermitConditional, true: " +
			"PermitNormal}[t.EverHealthy], nil", "./deploy", permits + deep,
	},
	{
		"conditional check left out by the agent", "deploy/model_permits_test.go",
		"a[accepted] == byte(deploy.PermitConditional) && " +
			"a[serves] == 1", "false && a[serves] == 1", "./deploy", permits + deep,
	},
	{
		"agent acts on any generation", "deploy/model_permits_test.go", "return gen > a[acked]",
		"return gen != a[acked]",
		"./deploy", permits,
	},
	{
		"more permits than " +
			"maxConcurrent", "deploy/capacity.go", "p >= x.concurrent {", "p > x.concurrent {", "./deploy",
		simulated,
	},
	{"zones not limited", "deploy/capacity.go", "if n >= x.maxZones {", "if n > x.maxZones {", "./deploy", simulated},
	{
		"host mutex left out", "deploy/capacity.go",
		"other.Permit != PermitNone && (x.exclusive", "false && (x.exclusive",
		"./deploy", "^TestOneAppWantsTheHostAlone$",
	},
	{
		"open generations count as serving", "deploy/target.go", "t.Permit == PermitNone && !t.Open && !t.Quarantined",
		"t.Permit == PermitNone && !t.Quarantined", "./deploy", "^TestAnOpenGenerationDoesNotServe$",
	},
	{
		"a wave left to a newer deployment stays its when that goes back", "deploy/apply_tasks.go",
		"s.giveBack(d, func(int) bool { return true })", "", "./deploy", "^TestScenario$/^left_to_a_newer.txt$",
	},
	{
		"two deployments in one wave after a retry", "deploy/deployment.go",
		"if o := dep.newerIn(g, wave); o != nil {", "if o := dep.newerIn(g, wave); false {", "./deploy",
		"^TestScenario$/^left_to_a_newer.txt$",
	},
	{
		"a drain below the floor", "deploy/drain.go", "u.serving-count(t.Serving()) < f.Min", "u.serving < f.Min", "./deploy",
		"^TestScenario$/^drain.txt$",
	},
	{
		"a host counts before it is back in its pools", "deploy/target.go", "!t.Quarantined && t.Out == OutNone", "!t.Quarantined",
		"./deploy", "^TestAnOldAnswerEndsNoDrain$",
	},
	{
		"an answer to an older word ends a drain", "deploy/apply_reports.go", "t.OutKey == r.OutKey && t.OutKey > 0",
		"t.OutKey > 0", "./deploy", "^TestAnOldAnswerEndsNoDrain$",
	},
	{
		"who only waits for a drain leaves its pools", "deploy/drain.go", "return h != nil && h.drained()",
		"return h != nil && h.Drain != nil", "./coordinator/traffic", "^TestADrainedHostNeedsNoPermit$",
	},
	{
		"a deployment puts a drained host back", "agent/traffic.go", "if !out && t.staysOut() {", "if false {",
		"./agent", "^TestADrainedHostStaysOut$",
	},
	{
		"every comparison has the whole error to itself", "deploy/compare.go", "CompareAlpha / float64(max(1, comparisons))",
		"CompareAlpha + 0*float64(comparisons)", "./deploy", "^TestFalseAlarmsOfAWholeDeployment$",
	},
	{
		"a shard loses two hosts at a time", "deploy/capacity.go", "if s-count(t.Serving() || t.aside()) < least {", "if s < least {", "./deploy",
		"^TestScenario$/^quorum_group.txt$",
	},
	{
		"permits of one fact are not counted to a shard", "deploy/capacity.go", "			l.disabled[key]++", "			_ = key",
		"./deploy", "^TestScenario$/^quorum_group.txt$",
	},
	{
		"a permit without a taste", "deploy/assign.go", "t.HasStaged(task.goal(d)) && !d.untasted(task)",
		"t.HasStaged(task.goal(d))", "./deploy", "^TestScenario$/^taste.txt$",
	},
	{
		"an old failure of staging counts for a new deployment", "deploy/apply_reports.go",
		"r.StageKey != \"\" && !s.asksToStage(t, r.StageKey)", "r.StageKey == \"-\"", "./deploy",
		"^TestScenario$/^taste.txt$",
	},
	{
		"what a taste starts goes on", "hooks/watch.go", "			if s.order.KillRest {\n				return s.clear",
		"			if false {\n				return s.clear", "./agent", "^TestARevisionIsTastedBeforeItsPermit$",
	},
	{
		"a permit waits for a taste", "agent/stage.go", "a.Permit != agentv1.Permit_PERMIT_UNSPECIFIED && a.Generation > generation",
		"false && a.Generation > generation", "./agent", "^TestATasteGivesWay$",
	},
	{
		"who is on its way back is taken back again", "deploy/deployment.go",
		"t.Open && t.Permit != PermitNone && t.Desired == goal { // it is on its way there", "false {", "./deploy",
		"^TestWhoIsOnItsWayBackIsNotTakenBackAgain$",
	},
	{
		"an end is silent about who went down later", "deploy/target.go",
		"	case t.Health != HealthHealthy:\n		return " +
			"t.Health.String()\n	}\n	return \"\"", "	}\n	return \"\"", "./deploy",
		"^TestAnEndNamesWhoWentDownLater$",
	},
	{
		"the old CA gives no word for the new one", "internal/identity/authorities.go",
		"for _, by := range " +
			"a.cas[1:] {", "for _, by := range a.cas[:0] {", "./internal/simtest", "^TestTheCAIsReplaced$",
	},
	{
		"a new CA issues though a coordinator lacks its key", "coordinator/rotation.go", "if len(waits) == 0 {",
		"if len(waits) < 9 {", "./internal/simtest", "^TestACAIsGivenUp$",
	},
	{
		"a leader that has just started " +
			"blames hosts", "coordinator/fleet/view.go", "case heard && seen:", "case (heard || true) && seen:",
		"./coordinator/fleet", "^TestANewLeaderBlamesNobody$",
	},
	{
		"a revision that ran nowhere is called bad", "deploy/decide_rollback.go", "return dep.Granted && !o.Inverse &&",
		"return !o.Inverse &&", "./deploy", "^TestScenario$/^stage_failed_everywhere.txt$",
	},
	{
		"a wave is given back to a deployment that goes back itself", "deploy/deployment.go",
		"w.LeftTo == d.ID && taken(i) && o.forward() {", "w.LeftTo == d.ID && taken(i) {", "./deploy",
		"^TestScenario$/^left_to_a_newer_all_back.txt$",
	},
	{
		"a retired CA's connection goes on through a follower", "internal/rpc/server.go",
		"if err := s.trusts(direct); err != nil {",
		"if err := s.trusts(direct); err != nil && false {", "./coordinator",
		"^TestAThiefOfTheCA$",
	},
	{
		"what nobody gave is renewed across CAs", "coordinator/rotation.go", "	if owns {", "	if owns || true {",
		"./coordinator", "^TestAThiefOfTheCA$",
	},
	{
		"a backup brings a retired CA back", "coordinator/epoch.go", "same = same && identity.Only(caPEM, id) != nil",
		"same = same && id != \"\"", "./coordinator", "^TestAThiefOfTheCA$",
	},
	{
		"raft hears who was removed", "coordinator/raftlayer.go", "if revoked != \"\" {", "if revoked == \"-\" {",
		"./coordinator", "^TestARemovedCoordinatorIsNotHeard$",
	},
	{
		"a host that was away too long looks for no token", "agent/enrol.go",
		"case a.strange <- struct{}{}:", "case make(chan struct{}, 1) <- struct{}{}:", "./internal/simtest", "^TestAwayForAWholeReplacement$",
	},
	{
		"a renewal that waits for a session hears of no stranger", "agent/enrol.go",
		"		case <-a.strange:\n			if err", "		case <-make(chan struct{}):\n			if err",
		"./agent", "^TestEstrangedWhileARenewalWaits$",
	},
	{
		"a machine that AWS vouches for enrols again by another key", "coordinator/state/origins.go",
		"	case joined && (was != e.Subject || !bytes.Equal(is.Key, e.Key)):", "	case joined && was != e.Subject:",
		"./coordinator/state", "^TestAMachineEnrolsOnce$",
	},
	{
		"the certificate in a document is believed", "coordinator/ec2/ec2.go",
		"	p.Certificates = nil\n", "", "./coordinator/ec2", "^TestWhoseDocument$",
	},
	{
		"a document is good for ever", "coordinator/ec2/ec2.go", "	case age > v.o.Within:", "	case false:",
		"./coordinator/ec2", "^TestWhoseDocument$",
	},
	{
		"who was revoked keeps his join tokens", "coordinator/people.go",
		"			facts = append(facts, state.TokenRevoked{Request: e.Request, ID: id})\n", "			_ = id\n",
		"./coordinator", "^TestTokensEndWithTheirMaker$",
	},
	{
		"an application is stopped under traffic that was let in again", "agent/task/program.go",
		"	if b.a.Traffic && w.Drained != b.a.pools() {\n		b.hookOf(w.Installed", "	if false {\n		b.hookOf(w.Installed",
		"./agent/task", "^TestNothingIsStoppedUnderTraffic$",
	},
	{
		"what a pool said before it was asked first is forgotten", "deploy/traffic.go",
		"			old.Allowed = false\n", "			old.Allowed, old.Found = false, e.Found\n", "./deploy", "^TestOutages$",
	},
	{
		"a host takes another one out of its pool", "coordinator/traffic/service.go",
		"		case !is.known:\n", "		case false:\n",
		"./coordinator/traffic", "^TestWhoMayMoveWhom$",
	},
	{
		"a host leaves its pool without a permit", "coordinator/traffic/service.go",
		"case !r.Allow && (!t.Open || t.Permit == deploy.PermitNone) && !st.Drained(host):", "case false:",
		"./coordinator/traffic", "^TestWhoMayMoveWhom$",
	},
	{
		"a host that its pool does not take is left in it", "coordinator/traffic/service.go",
		"	return errors.Join(err, m.set(ctx, deploy.TrafficBlocked, nil), m.b.Close(ctx, m.at))", "	return err",
		"./coordinator/traffic", "^TestMoves$",
	},
	{
		"a refused presence stream is waited on", "coordinator/peers.go",
		"		case err := <-ended:\n			ended <- err\n			return err\n",
		"", "./coordinator", "^TestARefusedPresenceIsHeard$",
	},
	{
		"N counts who is alive", "deploy/progress.go",
		"c.zone, c.registered, c.serving = t.Zone, t.EverHealthy, t.Serving()",
		"c.zone, c.registered, c.serving = t.Zone, t.Health == HealthHealthy, t.Serving()", "./deploy", permits,
	},
	{
		"LOST leaves health as it was", "deploy/apply_tasks.go",
		"t.Permit, t.Health = PermitNone, HealthUnknown // never healthy, and Gen " +
			"stays open", "t.Permit, t.Open = PermitNone, false", "./deploy", permits,
	},
	{
		"report of a lower generation applied", "deploy/apply_reports.go",
		"if r.Gen < t.Gen {\n\t\treturn nil\n\t}", "",
		"./deploy", permits,
	},
	{
		"counter not fenced", "deploy/apply_reports.go", "if t != nil && r.Counter <= t.Counter {\n\t\treturn\n\t}", "",
		"./deploy", permits,
	},
	{
		"health alone closes a generation", "deploy/apply_reports.go", "if t.Open && r.Result != ResultNone {",
		"if t.Open && (r.Result != ResultNone || r.Health == HealthHealthy) {", "./deploy", permits,
	},
	{
		"grant of any generation", "deploy/apply_tasks.go", "task.Wave != e.Wave || item.Gen != t.Gen+1 ||",
		"task.Wave != e.Wave ||", "./deploy", "^TestAGrantFitsTheStateItMeets$",
	},
	{
		"grants not tested again", "deploy/apply_tasks.go", "err != nil || kind != item.Kind {",
		"kind != item.Kind && err == nil {", "./deploy", "^TestAGrantFitsTheStateItMeets$",
	},
	{
		"R2: overtaking", "deploy/deployment.go", "case wave < len(o.Waves) && !o.Waves[wave].Status.Passed():",
		"case false:", "./deploy", staggered,
	},
	{
		"R3: on behind one that halts", "deploy/deployment.go",
		"case o.Status != DeploymentStatusRunning || o.ScopeRevert != nil:", "case false:", "./deploy", staggered,
	},
	{
		"R6: no cascade", "deploy/decide_rollback.go",
		"if o.Seq > dep.Seq && o.contains(bad) {", "if false {", "./deploy",
		"^TestARollbackRevokesWhatContainsIt$",
	},
	{
		"bake deadline lost on failover", "deploy/wave.go",
		"`json:\"bake_until,omitempty\"`", "`json:\"-\"`", "./deploy",
		"^TestAFailoverForgetsNothing$",
	},
	{
		"failure count lost on failover", "deploy/deployment.go", "`json:\"failures\"`", "`json:\"-\"`", "./deploy",
		"^TestAFailoverForgetsNothing$",
	},
	{
		"nobody is asked for approval", "deploy/gate.go", "return dep.goesPast(gate) || dep.approvals", "return true || " +
			"dep.approvals", "./deploy", "^TestScenario$/^approvals.txt$",
	},
	{
		"an emergency goes past a failed gate", "deploy/apply_requests.go", "\tif d.GateFail != \"\" {\n\t\treturn refuse",
		"\tif d.GateFail != \"\" && d.Emergency == \"\" {\n\t\treturn refuse", "./deploy",
		"^TestScenario$/^emergency.txt$",
	},
	{
		"an emergency needs no reason", "deploy/emergency.go", "case req.Reason == \"\":", "case false:", "./deploy",
		"^TestScenario$/^emergency.txt$",
	},
	{
		"everybody's grants go past a freeze", "deploy/emergency.go", "if d.Emergency != \"\" {\n\t\treturn nil",
		"if true {\n\t\treturn nil", "./deploy", simulated,
	},
	{
		"a repetition is another record", "coordinator/state/audit.go", "again := e.Asked != nil && s.repeats(e)",
		"again := false", "./coordinator/state", "^TestRequestsAreRecorded$",
	},
	{
		"the outcome is no part of the chain", "coordinator/audit/record.go", "r.Request, r.Outcome,\n", "r.Request,\n",
		"./coordinator/audit", "^TestEveryFieldIsInTheChain$",
	},
	{
		"what no file has is forgotten", "coordinator/audit/log.go", "first.Seq <= l.Exported && ", "", "./coordinator/audit",
		"^TestWhatIsKept$",
	},
	{
		"freeze does not hold grants", "deploy/apply_tasks.go", "frozen && task.Status != TaskReverting {",
		"frozen && task.Status == TaskGranted {", "./deploy", "^TestAFreezeHoldsGrantsButNoWayBack$",
	},
	{
		"a freeze ends by a clock", "deploy/freeze.go", "(f.Group == \"\" || f.Group == g.Name) {",
		"(f.Group == \"\" || f.Group == g.Name) && !f.over(s.Now) {", "./deploy", "^TestAFreezeEndsByAFact$",
	},
	{
		"nobody wakes for a freeze's end", "deploy/wake.go", "\t\tw.at(f.Until)\n", "\t\t_ = f\n", "./deploy",
		"^TestAFreezeEndsByAFact$",
	},
	{
		"a freeze's end ends all", "deploy/freeze.go", "return f.over(s.Now) })", "return f.Until > 0 })", "./deploy",
		"^TestAFreezeEndsByAFact$",
	},
	{
		"freeze holds the way back", "deploy/apply_tasks.go", "frozen && task.Status != TaskReverting {", "frozen {",
		"./deploy", "^TestAFreezeHoldsGrantsButNoWayBack$",
	},
	{
		"bad revision admitted", "deploy/apply_deployment.go", "by != \"\" && !e.Force && !e.Inverse {",
		"false && by != \"\" && where != \"\" {", "./deploy", "^TestARollbackRevokesWhatContainsIt$",
	},
	{
		"sealed without coverage", "deploy/decide_waves.go", "case !p.covered():", "case false:", "./deploy",
		"^TestNothingIsDueTwice$",
	},
	{
		"sealed early", "deploy/apply_waves.go", "early || d.failing(w) ||",
		"early && s == nil || d.failing(w) ||", "./deploy", "^TestAFailoverForgetsNothing$",
	},
	{
		"requester approves", "deploy/apply_requests.go", "if e.Request.person() == cmp.Or(d.Person, d.Actor) {",
		"if d == nil {", "./deploy", "^TestFourEyes$",
	},
	{
		"one person approves twice", "deploy/apply_requests.go",
		"a.Gate == g.Name && cmp.Or(a.Person, a.Actor) == " +
			"e.Request.person()", "a.Gate == \"\"", "./deploy", "^TestFourEyes$",
	},
	{
		"retry beside an older deployment", "deploy/apply_requests.go",
		"w.Status == WaveStatusReverted && len(s.orderHolds(d, s.group(d), " +
			"i)) > 0:", "false:", "./deploy", "^TestScenario$/^retry_behind_a_pause.txt$",
	},
	{
		"a failed wave that waits is skipped", "deploy/deployment.go",
		"p.evidence == 0 && p.failures+d.Waves[i].Extra <= " +
			"d.Waves[i].Budget", "p.evidence == 0", "./deploy", "^TestAFailureBeforeAWaveIsNotSkipped$",
	},
	// What issue 8 found, put back; the number is the fault's.
	{
		"1: what was gone back to by name is no line of history", "deploy/apply_deployment.go",
		"\tif d.Undoes == \"\" {\n\t\tg.seal(Seal{Deployment: d.ID, Revision: d.Revision, At: " +
			"s.Now})\n\t}", "", "./deploy", "^TestScenario$/^rollback_to.txt$",
	},
	{
		"1: what was taken back is taken back again", "deploy/apply_deployment.go",
		"undone = o.Revision == d.Leaves", "undone = false", "./deploy", "^TestScenario$/^rollback_twice.txt$",
	},
	{
		"1: a named rollback leaves what came since to the next one", "deploy/apply_deployment.go",
		"\t\tcase passed:\n\t\t\tundone = true\n", "", "./deploy", "^TestScenario$/^rollback_twice.txt$",
	},
	{
		"2: hosts without seals have no way back", "deploy/history.go",
		"return g.newest(g.history(wave), ok)\n\t}\n\td := look(ok)",
		"return g.newest(seals{wave: fmt.Sprint(wave)}, ok)\n\t}\n\td := " +
			"look(ok)", "./deploy", "^TestScenario$/^turnover.txt$",
	},
	{
		"2: a newcomer on its way has no wave", "deploy/decide_rollback.go",
		"if task := dep.Tasks[item.Host]; task != nil " +
			"{\n\t\t\tw", "if task := dep.Tasks[item.Host]; dep != nil " +
			"{\n\t\t\tw", "./deploy", "^TestScenario$/^newcomer_in_a_scope.txt$",
	},
	{
		"2: newcomers are in no revert set", "deploy/decide_rollback.go",
		"if !dep.adopts(g, t) || " +
			"!t.movesTo(dep.Revision)",
		"if dep != nil || !t.movesTo(dep.Revision)", "./deploy", "^TestScenario$/^newcomer_in_a_scope.txt$",
	},
	{
		"2: a wave that was skipped needs none that was sealed", "deploy/apply_deployment.go",
		"case g != nil && !d.Inverse && " +
			"!d.sealedAny():", "case false && !d.sealedAny():", "./deploy", "^TestScenario$/^nobody_left.txt$",
	},
	{
		"3: a way back shares its waves", "deploy/group.go", "if len(g.open) > 0 && g.open[0].Inverse {", "if false {",
		"./deploy", "^TestScenario$/^other_waves_during_a_rollback.txt$",
	},
	{
		"3: a way back is a layout", "deploy/apply_deployment.go", "s.admitDeployment(g, d, g.Layout)",
		"s.admitDeployment(g, d, newLayout(d.Config.Waves, d.Waves, " +
			"s.Index))", "./deploy", "^TestScenario$/^rollback_to.txt$",
	},
	{
		"4: only what succeeded is undone", "deploy/history.go", "return d.Status.Terminal() && !d.Inverse",
		"return d.Status == DeploymentStatusSucceeded && " +
			"!d.Inverse", "./deploy", "^TestScenario$/^rollback_of_a_mixed_fleet.txt$",
	},
	{
		"4: what is undone is the choice of who asks", "deploy/apply_deployment.go",
		"if u != (Undo{Deployment: e.Undoes, Revision: e.Revision, Bad: " +
			"e.Bad}) {", "if u.Deployment == \"\" {", "./deploy", "^TestARollbackIsTheChoiceOfTheCore$",
	},
	{
		"4: a redeployment that is aborted marks a good revision bad", "deploy/decide_rollback.go",
		"return dep.Granted && !o.Inverse && !g.sealedBefore(o.Revision, o.ID)", "return !o.Inverse", "./deploy",
		"^TestScenario$/^abort_of_a_redeployment.txt$",
	},
	{
		"4: a rollback of what passed before marks it bad", "deploy/history.go",
		"if !g.sealedBefore(newest.Revision, " +
			"newest.ID) {", "if newest != nil {", "./deploy", "^TestHistoryAgreesWithAReplay$",
	},
	{
		"4: a requested rollback is told as a " +
			"failure", "deploy/decide_rollback.go", "if dep.Asked != \"\" {\n\t\tcause",
		"if false {\n\t\tcause", "./deploy", "^TestScenario$/^abort_rollback.txt$",
	},
	{
		"5: joiners are no evidence", "deploy/apply_catchup.go",
		"if !placed || d.Inverse || d.Revision != t.Running ||",
		"if d.ID != \"\" || d.Inverse || d.Revision != t.Running ||", "./deploy", "^TestScenario$/^sick_joiners.txt$",
	},
	{
		"5: a host that dies in a bake is waited for", "deploy/decide.go",
		"\tif dep.Waves[i].Status.active() " +
			"{\n\t\tp.vanished", "\tif false {\n\t\tp.vanished", "./deploy", "^TestScenario$/^dead_host_in_bake.txt$",
	},
	{
		"5: a bake with a gap in its evidence is sealed", "deploy/decide_waves.go",
		"e.passed && e.uncovered(d.now, w) == 0 && e.samples >= " +
			"w.Samples", "e.passed && e.samples >= w.Samples", "./deploy", "^TestScenario$/^gap_in_evidence.txt$",
	},
	{
		"6: gates are mute while paused", "deploy/decide.go", "case d.verdicts(dep):", "case false:", "./deploy",
		"^TestScenario$/^gates_while_paused.txt$",
	},
	{
		"6: permits before gates are asked again", "deploy/apply_requests.go",
		"if s.unanswered(d) == \"\" " +
			"{\n\t\td.AskAgain = 0", "if d != nil {\n\t\td.AskAgain = 0", "./deploy",
		"^TestScenario$/^gates_while_paused.txt$",
	},
	{
		"6: a retry keeps the old evidence", "deploy/wave.go",
		"w.Watch, w.EvidenceFrom, w.EvidenceSince = nil, " +
			"s.Wall, s.Now", "", "./deploy", "^TestScenario$/^retry_new_evidence.txt$",
	},
	{
		"6: a retry keeps the old promotion", "deploy/apply_requests.go",
		"d.Promoted = slices.DeleteFunc(d.Promoted, func(p string) bool { return strings.HasPrefix(p, " +
			"w.Name+\"/\") })", "_ = strings.HasPrefix", "./deploy", "^TestScenario$/^retry_new_promotion.txt$",
	},
	{
		"6: an inconclusive gate cannot be promoted", "deploy/gate.go",
		"if gate := d.Config.gate(name); gate != nil && gate.Observed() " +
			"{\n\t\t\t\tout", "if gate := d.Config.gate(name); gate != nil && false " +
			"{\n\t\t\t\tout", "./deploy", "^TestScenario$/^promote_a_gate.txt$",
	},
	{
		"6: answers about what was before count", "deploy/apply_gates.go",
		" || !w.Status.waits() && item.From < w.EvidenceFrom", "", "./deploy", requests + pairs,
	},
	{
		"7: a pause counts against " +
			"timeouts.deployment", "deploy/apply_requests.go", "d.LimitFrom = d.LimitFrom.Add(gap)",
		"", "./deploy", "^TestScenario$/^timeout_paused.txt$",
	},
	{
		"7: a retry has no limit of " +
			"its own", "deploy/apply_requests.go", "s.goOn(d)\n\td.LimitFrom = s.Now", "s.goOn(d)",
		"./deploy", "^TestScenario$/^retry_new_limit.txt$",
	},
	{
		"7: the time to approve stands still", "deploy/decide.go", "case d.asked(dep) || d.overdue(dep):",
		"case d.asked(dep):", "./deploy", "^TestScenario$/^approval_late.txt$",
	},
	{
		"7: a late yes is accepted", "deploy/apply_requests.go", "err == nil && d.overdueFor(g, s.Now)",
		"err == nil && d == nil", "./deploy", "^TestALateYesIsRefused$",
	},
	{
		"7: a pause before the start stops a clock for ever", "deploy/apply_requests.go", "d.Held = true\n",
		"d.Held = true\n\t\ts.stopBakes(d)\n", "./deploy", "^TestScenario$/^pause_before_start.txt$",
	},
	{
		"8: an emptied wave takes nobody in", "deploy/decide_waves.go",
		"return TargetMoved{App: g.App, Group: g.Name, Host: h, From: j, To: " +
			"i}, true", "return TargetMoved{}, false", "./deploy", "^TestScenario$/^canary_lost.txt$",
	},
	{
		"8: an emptied wave is passed", "deploy/decide_waves.go", "case dep.leftOutByName(i):\n", "default:\n",
		"./deploy",
		"^TestScenario$/^canary_lost.txt$",
	},
	{
		"8: a plan chooses hosts that cannot act", "deploy/plan.go",
		"return h.Unreachable || h.isolated() || " +
			"skipped[h.ID]", "return skipped == nil", "./deploy", "^TestScenario$/^one_box_left_out.txt$",
	},
	{
		"8: who was left out is not named", "deploy/decide.go", "if task.Status == TaskSkipped {\n\t\t\t\tout",
		"if task == nil {\n\t\t\t\tout", "./deploy", "^TestScenario$/^catch_up.txt$",
	},
	{
		"8: who can act again is not taken in", "deploy/decide_waves.go", "if len(again) > 0 {", "if len(again) > 99 {",
		"./deploy", "^TestScenario$/^canary_lost.txt$",
	},
	{
		"9: rolled back while one came back with it", "deploy/decide_rollback.go",
		"if items := d.stragglers(dep); len(items) > 0 {",
		"if items := d.stragglers(dep); len(items) > 99 {", "./deploy", "^TestScenario$/^reverts.txt$",
	},
	{
		"9: who missed a zone's way back keeps the revision", "deploy/target.go",
		"case task.awayInRevert() && d.Status != " +
			"DeploymentStatusRollingBack:", "case false:", "./deploy", "^TestScenario$/^away_in_zone_rollback.txt$",
	},
	{
		"9: who was left out on purpose is " +
			"taken back", "deploy/decide_rollback.go", "dep.overtaken(g, t) ||\n\t\t\t\tt.Declared {",
		"dep.overtaken(g, t) {", "./deploy", "^TestScenario$/^left_out_on_purpose.txt$",
	},
	{
		"9: who was skipped stays behind", "deploy/target.go",
		"case task.Status == TaskSkipped && " +
			"d.Waves[task.Wave].Status.active():", "case task.Status == TaskSkipped:", "./deploy",
		"^TestScenario$/^late_in_flight.txt$",
	},
	{
		"9: a false alarm about another's host", "deploy/deployment.go", "if len(g.open) == 1 && g.open[0] == dep {",
		"if len(g.open) == 1 {", "./deploy", "^TestAnEndedDeploymentIsOvertaken$",
	},
	{
		"10: a selector takes effect in flight", "deploy/apply_fleet.go",
		"case len(g.open) == 0 || g.Selector == \"\":",
		"case true:", "./deploy", "^TestASelectorWaits$",
	},
	{
		"10: a selector that waits is forgotten", "deploy/apply_deployment.go",
		"if g.NextSelector != \"\" && len(g.open) == 0 {", "if false {", "./deploy", "^TestASelectorWaits$",
	},
	{
		"11: bad in one group, welcome in " +
			"another", "deploy/apply_deployment.go", "by != \"\" && !e.Force && !e.Inverse {",
		"by != \"\" && where == e.Group && !e.Force && !e.Inverse {", "./deploy", "^TestABadRevisionIsBadInEveryGroup$",
	},
	{
		"13: a joiner's failed staging is forgotten under a freeze", "deploy/decide_catchup.go",
		"if t.StageFailed == goal {", "if t.StageFailed == goal && !frozen {", "./deploy",
		"^TestScenario$/^joiner_cannot_stage.txt$",
	},
	{
		"14: two reports in one entry raise an alarm", "deploy/apply_reports.go",
		"\t\tif err := check(); err != nil {\n\t\t\ts.Violated(err)\n\t\t}\n",
		"\t\tdefer func() {\n\t\t\tif err := check(); err != nil " +
			"{\n\t\t\t\ts.Violated(err)\n\t\t\t}\n\t\t}()\n", "./deploy", "^TestOneEntryHoldsTwoReportsOfAHost$",
	},
	{
		"16: a liar passes for a canary", "deploy/target.go", "return t.Running == d && t.Done == d && t.Serving()",
		"return t.Running == d && t.Serving()", "./deploy", "^TestScenario$/^catch_up.txt$",
	},
	{
		"21: one host is every application's canary", "deploy/arrange.go",
		"cmp.Compare(a.hash, b.hash), ", "", "./deploy", "^TestCanariesOfApplicationsDiffer$",
	},
	{
		"a newcomer is not told that nobody is left", "deploy/apply_fleet.go", "if g.givenIn(w) != given { // nobody",
		"if g.givenIn(w) != given && false { // nobody", "./deploy", "^TestNewcomersAreToldWhenNobodyIsLeft$",
	},
	{
		"who joins again gets a key that it tried", "deploy/apply_fleet.go", "Joined: s.Index,", "",
		"./deploy", "^TestWhoJoinsAgainIsAskedAnew$",
	},
	{
		"a host takes a neighbour's name", "deploy/apply_fleet.go",
		"case old.Unreachable && h == nil && (", "case old.Unreachable && (", "./deploy", "^TestNobodyTakesANameThatIsHeld$",
	},
	{
		"a ghost stays", "deploy/decide_fleet.go", "if other := d.s.successor(h); other != nil {",
		"if other := d.s.successor(h); other != nil && false {", "./deploy", "^TestNamesakes$",
	},
	{
		"the older of two is called the successor", "deploy/host.go", "id > h.ID && !other.Unreachable",
		"id != h.ID && !other.Unreachable", "./deploy", "^TestNamesakes$",
	},
	{
		"a report's numbers have no bound", "deploy/apply_reports.go",
		"if r.Gen > mostCounted || r.Counter > mostCounted {",
		"if r.Gen > mostCounted && r.Counter > mostCounted {", "./deploy", "^TestAReportsNumbersAreBounded$",
	},
	{
		"22: who does not serve at the end is not named", "deploy/decide.go",
		"} else if why := t.silence(task); why != \"\" {",
		"} else if why := t.silence(task); why == \"-\" {", "./deploy", "^TestScenario$/^failed_and_down.txt$",
	},
	{
		"22: who is not back is not named", "deploy/decide_rollback.go", "Cause: cause + notBack(list)}",
		"Cause: cause + notBack(nil)}", "./deploy", "^TestScenario$/^reverts.txt$",
	},
	{
		"18: time is not committed while a deadline runs", "coordinator/scheduler/scheduler.go",
		"if len(events) == 0 && old " +
			">= tick {", "if len(events) == 0 && old < 0 {", "./coordinator/scheduler", "^TestAFailoverCostsASecond$",
	},
	{
		"18: time is committed too seldom", "deploy/wake.go", "dueWithin    = time.Second",
		"dueWithin    = 30 * time.Second", "./coordinator/scheduler", "^TestAFailoverCostsASecond$",
	},
	{
		"history: a suspect is gone back to", "deploy/history.go", "if d == \"\" || g.Grades[d] != GradeSuspect &&",
		"if d == \"\" || g.Grades[d] != \"\" &&", "./deploy", "^TestHistoryAgreesWithAReplay$",
	},
	{
		"history: what is bad is gone back to", "deploy/history.go", "&& g.Bad[s.Revision] == \"\" && (ok", "&& (ok",
		"./deploy", "^TestHistoryAgreesWithAReplay$",
	},
	{
		"history: another wave's line counts", "deploy/history.go", "(of.own || s.Wave == \"\" || s.Wave == of.wave)",
		"(of.own || s.Wave != \"-\")", "./deploy", "^TestHistoryAgreesWithAReplay$",
	},
	{
		"history: the answer for a wave is remembered too long", "deploy/history.go",
		"func (g *Group) forgetGood() { g.good " +
			"= nil }", "func (g *Group) forgetGood() {}", "./deploy", "^TestHistoryAgreesWithAReplay$",
	},
	{
		"counters: who is quarantined gives " +
			"evidence", "deploy/progress.go", "c.seen, c.vanished = !t.Quarantined, t.Away",
		"c.seen, c.vanished = true, t.Away", "./deploy", "^TestCountersAgreeWithASlowCount$",
	},
	{
		"counters: changed beside the counters", "deploy/apply_reports.go", "\ts.remove(t)\n\tfailed := t.StageFailed",
		"\tfailed := t.StageFailed", "./deploy", "^TestCountersAgreeWithASlowCount$",
	},
	{
		"a host is what it says", "coordinator/sessions/describe.go", "	is, approved := s.o.Attributes(host)\n",
		"	_, approved := s.o.Attributes(host)\n	is := &says\n", "./coordinator/sessions", "^TestAHostIsWhatIsWrittenDown$",
	},
	{
		"a token's labels are added to the " +
			"host's own", "coordinator/state/identities.go", "			out.Labels = b.Labels\n",
		"			for k, v := range b.Labels {\n				out.Labels[k] = " +
			"v\n			}\n", "./coordinator/state", "^TestWhatAHostIs$",
	},
	{
		"an older word writes what was before", "deploy/apply_fleet.go", "h != nil && e.Approved < h.Approved",
		"false", "./deploy", "^TestAnOlderWordChangesNothing$",
	},
	{
		"two processes speak for a host", "coordinator/instances.go", "	if !lives {\n",
		"	if true || !lives {\n",
		"./coordinator", "^TestACopiedDisk$",
	},
	{
		"only this replica is asked who lives", "coordinator/instances.go", "			} else if other.ID != \"\" {",
		"			} else if other.ID == \"x\" {", "./coordinator", "^TestACopiedDisk$",
	},
	{
		"a copy makes itself identities without end", "coordinator/state/instances.go",
		"became == \"\" || c.Owner(\"agent/\"+became, key)", "became == \"\" || true",
		"./coordinator", "^TestACopiedDisk$",
	},
	{
		"an instance is said before it is on disk", "agent/instance.go",
		"	if err := i.save(next); err != nil {\n		return \"\", nil, err\n	}",
		"", "./agent", "^TestInstancesAreRemembered$",
	},
	{
		"the former identity goes before the new one is in place", "agent/split.go",
		"	if _, err := identity.Load(made); err != nil {",
		"	_ = os.RemoveAll(o.path(\"identity\"))\n	if _, err := identity.Load(made); err != nil {",
		"./agent", "^TestAdoptSplitAnywhere$",
	},
	{
		"a key of the ring is used before all have it", "coordinator/ringkeys.go", "if err != nil || len(waits) > 0 {",
		"if err != nil || false && len(waits) > 0 {", "./internal/simtest", "^TestTheRingsKeyIsReplaced$",
	},
	{
		"a host that was revoked keeps the ring's key", "coordinator/state/identities.go",
		"		c.RingKeyDue = true\n", "", "./internal/simtest", "^TestTheRingsKeyIsReplaced$",
	},
	{
		"a replica that is cut off answers", "coordinator/cutoff.go", "since := c.lostSince.Load(); since != nil",
		"since := c.lostSince.Load(); since != nil && false", "./internal/simtest", "^TestACutOffReplica$",
	},
	{
		"a replica that lags behind is not lost", "coordinator/cutoff.go", "silent = max(silent, now.Sub(c.since))",
		"silent = max(silent, 0)", "./coordinator", "^TestWhenAReplicaIsLost$",
	},
	{
		"one wrong clock refuses all requests", "deploy/once.go",
		"floor := min(s.RequestFloor, s.clock-requestSlack.Milliseconds())", "floor := s.RequestFloor",
		"./deploy", "^TestRequestsAreBoundedByNumber$",
	},
	{
		"processes of an agent without end", "coordinator/sessions/service.go", "!s.limits.processes.Allow(host, 1)", "false",
		"./coordinator/sessions", "^TestNewProcessesWithoutEnd$",
	},
	{
		"a process works before others were asked about", "coordinator/instances.go", "was.Instance == who.ID && cleared:",
		"was.Instance == who.ID && (cleared || true):", "./coordinator", "^TestWhoCutsTheQuestionShort$",
	},
	{
		"a lost answer after a snapshot", "coordinator/consensus/disk.go", "len(list) == 0 || list[0].Index != index",
		"true", "./coordinator/consensus", "^TestTheAnswerAfterASnapshotIsLost$",
	},
	{
		"a coordinator that welcomes is not called", "agent/ring.go", "	if len(living) == 0 || missed {",
		"	if len(living) == 0 && (missed || true) {", "./agent", "^TestACoordinatorThatWelcomesIsCalled$",
	},
	{
		"one dead coordinator delays the next", "agent/round.go", "		return &r.after\n	}\n",
		"	}\n	return &r.after\n", "./agent", "^TestRoundsOfCoordinators$",
	},
	{
		"a write that hangs is not noticed", "coordinator/consensus/watchdog.go", "if oldest >= lateLooks {", "if false {",
		"./coordinator/consensus", "^TestAWriteThatHangs$",
	},
	{
		"who waits for the disk is in contact", "coordinator/consensus/node.go", "!since.IsZero() && since.Before(at)",
		"false", "./coordinator/consensus", "^TestAWriteThatHangs$",
	},
	{
		"a stop waits for a vote without room", "coordinator/consensus/node.go",
		"if err := n.shutdown(); err != nil {", "n.keeping.Wait()\n\tif err := n.shutdown(); err != nil {",
		"./coordinator/consensus", "^TestAStopWhileAVoteWaits$",
	},
	{
		"a changed entry is served", "coordinator/consensus/sums.go",
		"!bytes.Equal(l.Extensions[n:], sumOf(l, l.Extensions[:n]))", "false", "./coordinator",
		"^TestADamagedCoordinatorOfThree$",
	},
	{
		"a forwarded call waits for a stopped leader", "coordinator/peers.go", "p.node.Under(ctx, name)",
		"context.WithCancel(ctx)", "./coordinator", "^TestACallThroughAFollowerOfAFrozenLeader$",
	},
	{
		"who does not answer keeps the stream", "coordinator/sessions/instance.go",
		"case <-ctx.Done():\n\t\ts.stop()", "case <-ctx.Done():", "./coordinator/sessions",
		"^TestWhoIsDoubtedHasToAnswer$",
	},
	{
		"nobody compares states", "coordinator/state/windows.go", "if n > voters/2 {", "if n > voters {",
		"./coordinator", "^TestAReplicaThatDiffers$",
	},
	{
		"an outvoted replica starts again", "coordinator/compare.go", "if errors.Is(err, fs.ErrNotExist) {",
		"if err == nil || errors.Is(err, fs.ErrNotExist) {", "./coordinator", "^TestAReplicaThatDiffers$",
	},
	{
		"windows do not see hosts", "coordinator/state/windows.go", "for _, id := range hostsOf(e, s) {",
		"for _, id := range hostsOf(e, s)[:0] {", "./coordinator/state", "^TestAChangedHostShows$",
	},
	{
		"an image shares what is changed in place", "deploy/history.go", "slices.DeleteFunc(slices.Clone(seals), gone)",
		"slices.DeleteFunc(seals, gone)", "./deploy", "^TestAnImageStays$",
	},
	{
		"what has ended is changed in place", "deploy/whole.go", "	d = s.rewrite(d)\n", "", "./deploy",
		"^TestEndedDeploymentsAreBoundedByBytes$",
	},
	{
		"what was deleted is sent to followers", "coordinator/consensus/disk.go", "	d.newest.forget()\n", "",
		"./coordinator/consensus", "^TestEntriesOfLate$",
	},
	{
		"the rest of an old snapshot is damage", "coordinator/consensus/snapshots.go", "len(newer) < snapshots",
		"len(newer) >= 0",
		"./coordinator/consensus", "^TestASnapshotThatWasBeingRemoved$",
	},
	{
		"a snapshot that lacks a file is removed", "coordinator/consensus/snapshots.go", "len(newer) < snapshots",
		"len(newer) < 0", "./coordinator/consensus", "^TestASnapshotThatWasBeingRemoved$",
	},
	{
		"a way back is pruned", "deploy/revision.go", "need(\"it is in the history of group \"+g.Name, seal.Revision)",
		"_ = seal", "./deploy", "^TestWhatIsNeededStays$",
	},
	{
		"what is needed is pruned", "deploy/revision.go", "needed[d] == \"\" {", "needed[d] != \"-\" {",
		"./deploy", "^TestScenario$/^prune.txt$",
	},
	{
		"what has ended is encoded again", "coordinator/state/snapshot.go", "slices.Equal(old.of, f.of)",
		"false", "./coordinator/state", "^TestWhatHasEndedIsEncodedOnce$",
	},
	{
		"what was kept is not what has ended", "coordinator/state/snapshot.go", "slices.Equal(old.of, f.of)",
		"old.text != nil", "./coordinator/state", "^TestWhatHasEndedIsEncodedOnce$",
	},
	{
		"a snapshot that was cut off is whole", "coordinator/state/snapshot.go", "parts[n].Parts != n",
		"parts[n].Parts < 0", "./coordinator/state", "^TestBadSnapshotChangesNothing$",
	},
	{
		"two that lived side by side are one", "deploy/host.go", "apart >= -ghostWithin && apart", "apart",
		"./deploy", "^TestNamesakes$",
	},
	{
		underFaults + "an answer before the log has it", "coordinator/log.go",
		"out, err := l.node.Propose(ctx, data)\n\tif err != nil {\n\t\treturn state.Applied{}, err",
		"out, err := l.node.Propose(ctx, data)\n\tif err != nil {\n\t\treturn state.Applied{" +
			"Refusals: make([]error, len(e.Events)+len(e.Cluster))}, nil", "./internal/e2e", faults + "away",
	},
	{
		underFaults + "a request is done again", "deploy/once.go", "s.Requests[req.ID]; seen {",
		"s.Requests[req.ID]; seen && a.Content != sum {", "./internal/e2e", faults + "kill",
	},
	{
		underFaults + "a read does not wait for its index", "internal/rpc/server.go",
		"if index == 0 || s.o.Applied == nil {", "if index >= 0 || s.o.Applied == nil {", "./internal/e2e", faults + "one",
	},
	{
		underFaults + "a replica is never cut off", "coordinator/cutoff.go", "case lost >= k.after && !was:",
		"case lost >= k.after && !was && c.o.Log == nil:", "./internal/e2e", faults + "away",
	},
	{
		underFaults + "the next leader's clock is ahead", "coordinator/log.go", "= base, time.Now(), true",
		"= base.Add(time.Minute), time.Now(), true", "./internal/e2e", faults + "stopped",
	},
}

// TestMutants applies every mutant and runs the test that must kill it. Without
// MUTANTS set it only tests that every mutant applies; MUTANTS=text selects.
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	which, on := os.LookupEnv("MUTANTS")
	part, parts := 0, 1
	if text := os.Getenv("PART"); text != "" {
		if n, err := fmt.Sscanf(text, "%d/%d", &part, &parts); n != 2 || err != nil || part < 0 || part >= parts {
			t.Fatalf("PART is %q; write for instance 0/3", text)
		}
	}
	for i, m := range table {
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			path := filepath.Join(root, m.file)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(text, []byte(m.old)); n != 1 {
				t.Fatalf("%s: the snippet occurs %d times, not once: %s", m.file, n, m.old)
			}
			if !on || which != "all" && !strings.Contains(m.name, which) || i%parts != part ||
				which == "all" && strings.HasPrefix(m.name, underFaults) {
				return
			}
			t.Parallel() // half of a mutant's time is linking and waiting
			began := time.Now()
			out := m.test(t, root, path, bytes.Replace(text, []byte(m.old), []byte(m.now), 1))
			t.Logf("killed  %-46s %s %s (%.1fs)", m.name, m.run, out, time.Since(began).Seconds())
		})
	}
}

// told are lines of a test that say what it does, not what it found.
var told = regexp.MustCompile(` states, |\$ |---- |: seed |\.log:| s: dagent `)

// test runs the mutant's test over the changed file and returns the line that
// killed it.
func (m *mutant) test(t *testing.T, root, path string, text []byte) string {
	t.Helper()
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, what := range map[string][]byte{changed: text, overlay: list} {
		if err := os.WriteFile(name, what, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	run, model, _ := strings.Cut(m.run, " ")
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-vet=off", "-ldflags=-s -w", "-timeout=280s",
		"-run="+run, m.pkg)
	// by the environment, for the programs too that an end-to-end test builds
	cmd.Dir, cmd.Env = root, append(os.Environ(), "SEEDS=60", cmp.Or(model, "MODEL="),
		"GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil && bytes.Contains(out, []byte("no tests to run")):
		t.Fatalf("%s: no test %s", m.name, m.run)
	case err == nil:
		t.Fatalf("SURVIVED: %s, by %s", m.name, m.run)
	case !bytes.Contains(out, []byte("--- FAIL")):
		t.Fatalf("%s: no test failed, it was not run: %s", m.name, out)
	}
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, "_test.go:") && !told.MatchString(line) {
			return strings.TrimSpace(line)[:min(len(strings.TrimSpace(line)), 120)]
		}
	}
	return "it panicked"
}
