package deploy

import (
	"fmt"
	"slices"
	"time"
)

// grantBatch bounds the permits of one fact, so that an entry stays small.
const grantBatch = 500

// Decide holds all policy: given the committed state, the leader's view of the
// fleet and FSM time, it returns the facts that follow, in order. It changes
// nothing. The caller proposes them as one entry and asks again until Decide
// returns none; then it waits for a change or for NextWake.
func Decide(s *State, f Fleet, now Time) []Event {
	d := &decision{s: s, now: now, down: map[string]bool{}, hosts: map[string]bool{}}
	for _, h := range f.Down {
		d.down[h] = true
	}
	d.membership(f)
	d.unreachable(f)
	for _, dep := range s.open {
		d.deployment(dep)
	}
	return d.out
}

// decision collects the facts of one call of Decide.
type decision struct {
	s     *State
	now   Time
	down  map[string]bool
	hosts map[string]bool // granted in this call, for the host mutex
	out   []Event
}

func (d *decision) emit(e Event) { d.out = append(d.out, e) }

// membership turns selector answers into joins and leaves, one fact a group.
func (d *decision) membership(f Fleet) {
	joins, leaves := map[string][]string{}, map[string][]string{}
	for _, m := range f.Joins {
		if h := d.s.Hosts[m.Host]; h != nil && h.Targets[m.App] == nil {
			joins[GroupKey(m.App, m.Group)] = append(joins[GroupKey(m.App, m.Group)], m.Host)
		}
	}
	for _, m := range f.Leaves {
		if t := d.s.Target(m.Host, m.App); t != nil && t.Group == m.Group && t.Permit == PermitNone {
			leaves[GroupKey(m.App, m.Group)] = append(leaves[GroupKey(m.App, m.Group)], m.Host)
		}
	}
	for key, hosts := range sorted(leaves) {
		if g := d.s.Groups[key]; g != nil {
			d.emit(TargetsLeft{App: g.App, Group: g.Name, Hosts: hosts, Cause: "labels no longer match"})
		}
	}
	for key, hosts := range sorted(joins) {
		if g := d.s.Groups[key]; g != nil {
			d.emit(TargetsJoined{App: g.App, Group: g.Name, Hosts: hosts})
		}
	}
}

func (d *decision) unreachable(f Fleet) {
	var items []HostDown
	for _, id := range f.Down {
		if h := d.s.Hosts[id]; h != nil && !h.Unreachable {
			items = append(items, HostDown{Host: id, Counter: h.Counter})
		}
	}
	if len(items) > 0 {
		d.emit(HostsUnreachable{Items: items})
	}
}

func (d *decision) deployment(dep *Deployment) {
	ended := d.endTasks(dep)
	switch dep.Status {
	case DeploymentStatusPending:
		d.emit(DeploymentStarted{Deployment: dep.ID})
	case DeploymentStatusRunning:
		if !ended {
			d.run(dep)
		}
	case DeploymentStatusStopping:
		if !ended && dep.held() == 0 {
			d.emit(DeploymentEnded{Deployment: dep.ID, Status: DeploymentStatusStopped, Cause: dep.Cause})
		}
	case DeploymentStatusRollingBack:
		if !ended {
			d.rollback(dep)
		}
	case DeploymentStatusPaused, DeploymentStatusSucceeded, DeploymentStatusRolledBack,
		DeploymentStatusStopped, DeploymentStatusCancelled:
	}
}

// held is the number of permits that the deployment holds.
func (dep *Deployment) held() int {
	n := 0
	for i := range dep.waves {
		n += dep.permits(i)
	}
	return n
}

// run moves a running deployment on: failures first, then waves in order. It
// follows its own facts through the waves, so that one entry seals a wave,
// opens the next and grants its first permits.
func (d *decision) run(dep *Deployment) {
	if d.failures(dep) {
		return
	}
	status := make([]WaveStatus, len(dep.Waves))
	for i := range dep.Waves {
		status[i] = dep.Waves[i].Status
	}
	led := d.ledger(dep)
	for i := range dep.Waves {
		if status[i] == WaveStatusPending {
			if !entered(dep, status, i) {
				break
			}
			status[i] = d.enter(dep, i)
		}
		if status[i] == WaveStatusDeploying {
			d.grants(dep, i, led)
			status[i] = d.complete(dep, i)
		}
		if status[i] == WaveStatusBaking {
			status[i] = d.seal(dep, i)
		}
	}
	d.finish(dep, status)
}

// entered reports whether every wave of the batches before wave i has passed.
func entered(dep *Deployment, status []WaveStatus, i int) bool {
	for j := range i {
		if dep.Waves[j].Batch < dep.Waves[i].Batch && !status[j].Passed() {
			return false
		}
	}
	return true
}

func (d *decision) enter(dep *Deployment, i int) WaveStatus {
	p := dep.waves[i]
	if p.open() == 0 && p.tasks[TaskSettled] == 0 {
		d.emit(WaveSkipped{Deployment: dep.ID, Wave: i, Cause: "no target left"})
		return WaveStatusSkipped
	}
	d.emit(WaveStarted{Deployment: dep.ID, Wave: i, Budget: dep.Waves[i].Share.Down(p.total())})
	return WaveStatusDeploying
}

// complete ends the deploying of a wave whose tasks have all ended.
func (d *decision) complete(dep *Deployment, i int) WaveStatus {
	p, w := dep.waves[i], &dep.Waves[i]
	if p.open() > 0 || len(d.settled(dep, i)) > 0 {
		return WaveStatusDeploying
	}
	if p.tasks[TaskSettled] > 0 {
		d.emit(BakeStarted{Deployment: dep.ID, Wave: i, Until: d.now.Add(w.BakeMin)})
		return WaveStatusBaking
	}
	if p.tasks[TaskGone]+p.tasks[TaskSkipped] == p.total() {
		d.emit(WaveSkipped{Deployment: dep.ID, Wave: i, Cause: "no target left"})
		return WaveStatusSkipped
	}
	d.act(dep, dep.Config.OnFailure.Wave.Do, fmt.Sprintf("wave %s: no host took the revision%s", w.Name, d.because(dep, i)))
	return WaveStatusDeploying
}

// seal ends a bake that is long enough and has evidence from 95 % of the
// settled hosts; a host that says nothing is never taken for a good one.
func (d *decision) seal(dep *Deployment, i int) WaveStatus {
	p, w := dep.waves[i], &dep.Waves[i]
	if p.tasks[TaskSettled] == 0 { // every host that could tell has departed
		d.emit(WaveSkipped{Deployment: dep.ID, Wave: i, Cause: "no target left"})
		return WaveStatusSkipped
	}
	until := d.now.Add(w.BakeMin) // of a bake that this decision starts
	if w.Status == WaveStatusBaking {
		until = w.BakeUntil
	}
	if d.now < until || !p.covered() {
		return WaveStatusBaking
	}
	d.emit(WaveSealed{Deployment: dep.ID, Wave: i})
	return WaveStatusSealed
}

// finish ends a deployment whose waves have all passed.
func (d *decision) finish(dep *Deployment, status []WaveStatus) {
	sealed := 0
	for _, st := range status {
		if !st.Passed() {
			return
		}
		if st == WaveStatusSealed {
			sealed++
		}
	}
	end := DeploymentEnded{Deployment: dep.ID, Status: DeploymentStatusSucceeded}
	if sealed == 0 {
		end.Status, end.Cause = DeploymentStatusStopped, "no target left"
	}
	d.emit(end)
}

// failures acts on failed gates and exceeded budgets.
func (d *decision) failures(dep *Deployment) bool {
	if dep.GateFail != "" {
		d.act(dep, dep.Config.OnFailure.Gate.Do, "gate "+dep.GateFail+" failed")
		return true
	}
	for i := range dep.Waves {
		p, w := dep.waves[i], &dep.Waves[i]
		if p.sicks > 0 {
			d.sick(dep, i)
			return true
		}
		if (w.Status == WaveStatusDeploying || w.Status == WaveStatusBaking) && p.failures > w.Budget {
			d.act(dep, dep.Config.OnFailure.Wave.Do,
				fmt.Sprintf("wave %s: %d failed, its budget is %d%s", w.Name, p.failures, w.Budget, d.because(dep, i)))
			return true
		}
	}
	if total := dep.Config.FailureBudgetTotal; total != nil && dep.Failures > total.Down(len(dep.Tasks)) {
		d.act(dep, dep.Config.OnFailure.Wave.Do,
			fmt.Sprintf("%d hosts failed, the budget of the deployment is %d", dep.Failures, total.Down(len(dep.Tasks))))
		return true
	}
	return false
}

// because names the first failure of a wave.
func (d *decision) because(dep *Deployment, i int) string {
	for _, h := range dep.Waves[i].Hosts {
		task := dep.Tasks[h]
		if task == nil || !task.Status.Failure() {
			continue
		}
		why := task.Cause
		if task.Failure != nil && task.Failure.Message != "" {
			why = task.Failure.Event + ": " + task.Failure.Message
		}
		return fmt.Sprintf(" (%s: %s)", d.s.hostName(h), why)
	}
	return ""
}

func (s *State) hostName(id string) string {
	if h := s.Hosts[id]; h != nil {
		return h.Name
	}
	return id
}

// sick turns an unhealthy settled host into a failed gate, and acts on it.
func (d *decision) sick(dep *Deployment, i int) {
	gate := "health"
	if names := dep.Waves[i].Gates; len(names) > 0 {
		gate = names[0]
	}
	text := ""
	dep.waves[i].sick.each(func(j int) bool {
		h := dep.Waves[i].Hosts[j]
		if t := d.s.Target(h, dep.App); t != nil {
			text = d.s.hostName(h) + ": " + t.Evidence
		}
		return false
	})
	d.emit(GateJudged{Deployment: dep.ID, Wave: i, Gate: gate, Verdict: VerdictFail, Evidence: text})
	d.act(dep, dep.Config.OnFailure.Gate.Do, fmt.Sprintf("gate %s failed in wave %s (%s)", gate, dep.Waves[i].Name, text))
}

// act commits what the config says follows a failure.
func (d *decision) act(dep *Deployment, action, cause string) {
	if action != ActionRollback {
		d.emit(DeploymentPaused{Deployment: dep.ID, Cause: cause})
		return
	}
	items, anyGood := d.revertSet(dep)
	if !anyGood {
		d.emit(DeploymentPaused{Deployment: dep.ID, Cause: cause + "; no last good revision to go back to"})
		return
	}
	d.emit(RollbackStarted{Deployment: dep.ID, Cause: cause, Bad: true, Items: items})
}

// endTasks ends tasks that nobody will report on: unreachable or silent hosts,
// failed staging, targets that run the revision already.
func (d *decision) endTasks(dep *Deployment) bool {
	var items []TaskEnd
	for i := range dep.Waves {
		items = append(items, d.lost(dep, i)...)
		if dep.Status == DeploymentStatusRunning && dep.Waves[i].Status == WaveStatusDeploying {
			items = append(items, d.unstaged(dep, i)...)
			items = append(items, d.settled(dep, i)...)
		}
	}
	if len(items) == 0 {
		return false
	}
	d.emit(TasksEnded{Deployment: dep.ID, Items: items})
	return true
}

// lost finds granted tasks whose host is away or has been silent for too long.
func (d *decision) lost(dep *Deployment, i int) []TaskEnd {
	var out []TaskEnd
	p, limits := dep.waves[i], dep.Config.Timeouts
	if p.aways == 0 && (p.permits == 0 || d.now < p.oldest.Add(limits.Task)) {
		return nil
	}
	p.granted.each(func(j int) bool {
		h := dep.Waves[i].Hosts[j]
		t := d.s.Target(h, dep.App)
		end := TaskEnd{Host: h, Status: TaskLost, Gen: t.Gen, Counter: t.Counter}
		switch {
		case d.away(h, limits.LostAfter):
			end.Cause = fmt.Sprintf("unreachable for %s", limits.LostAfter)
		case d.now.Sub(t.GrantedAt) >= limits.Task:
			end.Cause = fmt.Sprintf("no result within %s", limits.Task)
		default:
			return true
		}
		out = append(out, end)
		return true
	})
	return out
}

// away reports whether the host has been unreachable for that long and the
// leader still sees it so.
func (d *decision) away(host string, lostAfter time.Duration) bool {
	h := d.s.Hosts[host]
	return h != nil && h.Unreachable && d.down[host] && d.now.Sub(h.DownSince) >= lostAfter
}

// unstaged finds waiting tasks that cannot be staged.
func (d *decision) unstaged(dep *Deployment, i int) []TaskEnd {
	var out []TaskEnd
	p, w, limits := dep.waves[i], &dep.Waves[i], dep.Config.Timeouts
	end := func(h, cause string) {
		out = append(out, TaskEnd{Host: h, Status: TaskStageFailed, Counter: d.s.Target(h, dep.App).Counter, Cause: cause})
	}
	p.stuck.each(func(j int) bool {
		h := w.Hosts[j]
		switch {
		case d.s.Target(h, dep.App).StageFailed == dep.Revision:
			end(h, "the bundle could not be staged")
		case d.away(h, limits.LostAfter):
			end(h, fmt.Sprintf("unreachable for %s", limits.LostAfter))
		}
		return true
	})
	if d.now.Sub(w.StartedAt) < limits.Stage {
		return out
	}
	p.waiting.each(func(j int) bool {
		h := w.Hosts[j]
		if d.now.Sub(max(dep.Tasks[h].Since, w.StartedAt)) >= limits.Stage &&
			!slices.ContainsFunc(out, func(e TaskEnd) bool { return e.Host == h }) {
			end(h, fmt.Sprintf("not staged within %s", limits.Stage))
		}
		return true
	})
	return out
}

// settled finds waiting tasks whose target already runs the revision.
func (d *decision) settled(dep *Deployment, i int) []TaskEnd {
	var out []TaskEnd
	dep.waves[i].same.each(func(j int) bool {
		h := dep.Waves[i].Hosts[j]
		out = append(out, TaskEnd{
			Host: h, Status: TaskSettled, Counter: d.s.Target(h, dep.App).Counter, Cause: "runs the revision already",
		})
		return true
	})
	return out
}

// NextWake returns the next FSM time after now at which Decide must be asked
// again although nothing changed, and false if time alone changes nothing. What
// was due by now is no reason: Decide was asked and waits for something else.
func NextWake(s *State, now Time) (Time, bool) {
	w := wake{now: now}
	for _, dep := range s.open {
		limits := dep.Config.Timeouts
		for i := range dep.Waves {
			p, wave := dep.waves[i], &dep.Waves[i]
			if wave.Status == WaveStatusBaking && dep.Status == DeploymentStatusRunning {
				w.at(wave.BakeUntil)
			}
			w.tasks(s, dep, i)
			if wave.Status == WaveStatusDeploying && dep.Status == DeploymentStatusRunning {
				p.waiting.each(func(j int) bool {
					w.at(max(wave.StartedAt, dep.Tasks[wave.Hosts[j]].Since).Add(limits.Stage))
					return true
				})
			}
			w.hosts(s, dep, i)
		}
	}
	return w.time, w.set
}

type wake struct {
	now  Time
	time Time
	set  bool
}

func (w *wake) at(t Time) {
	if t > w.now && (!w.set || t < w.time) {
		w.time, w.set = t, true
	}
}

// tasks adds the moment at which the oldest permit times out. The bound that
// the counters keep is good until it passes, then the permits are looked at.
func (w *wake) tasks(s *State, dep *Deployment, i int) {
	p, limit := dep.waves[i], dep.Config.Timeouts.Task
	if p.permits == 0 {
		return
	}
	if at := p.oldest.Add(limit); at > w.now {
		w.at(at)
		return
	}
	p.granted.each(func(j int) bool {
		w.at(s.Target(dep.Waves[i].Hosts[j], dep.App).GrantedAt.Add(limit))
		return true
	})
}

// hosts adds the moments at which unreachable hosts become lost.
func (w *wake) hosts(s *State, dep *Deployment, i int) {
	dep.waves[i].away.each(func(j int) bool {
		if h := s.Hosts[dep.Waves[i].Hosts[j]]; h != nil && h.Unreachable {
			w.at(h.DownSince.Add(dep.Config.Timeouts.LostAfter))
		}
		return true
	})
}
