// Package sim is a virtual world for package deploy: hosts with scripted
// latency, failure and death, and coordinators that lose their leader, all in
// virtual time and from one seed.
package sim

import (
	"cmp"
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// World is one cluster and its hosts. It is not safe for concurrent use.
type World struct {
	State *deploy.State
	Now   deploy.Time
	Trace func(at deploy.Time, line string) // called for every fact; nil is silent
	// Record is called with every entry before it is applied; nil is not.
	Record func(index uint64, e deploy.Entry)
	// Deep checks every invariant after every entry, at a cost linear in the fleet.
	Deep bool

	Events  int // facts applied
	Entries int
	Grants  int

	hosts  map[string]*host
	order  []string
	queue  queue
	seq    int
	rng    *rand.Rand
	faults Faults
	groups []deploy.Membership
	index  uint64
	away   []string // names whom the leader sees as down
	blind  deploy.Time
	err    error
	Quiet  func(deploy.Event) bool // facts that are not traced
	Each   func()                  // called after every entry
	// Gate answers a gate that the coordinators ask; nil passes every one.
	Gate func(deploy.Question) deploy.Observation

	check    checker
	outcomes Outcomes
	Checked  map[string]int // invariants of the history that were evaluated

	turn     int
	assigned map[string]assigned
}

// Faults are probabilities of the fleet's misbehaviour, each per opportunity.
type Faults struct {
	Fail   float64 // a task fails and goes back
	Break  float64 // going back fails too
	Hang   float64 // no result ever comes for this generation
	Crash  float64 // the agent dies in a task and comes back
	Lose   float64 // a report is lost and sent again later
	Repeat float64 // a report arrives twice, the second one late
	Sick   float64 // the application turns unhealthy some time after it settled
	Away   float64 // the host drops out of sight for a while
	Stage  float64 // staging fails
	Leader float64 // the leader changes before a decision
}

// New returns a world without hosts.
func New(seed uint64, f Faults) *World {
	return &World{
		State: deploy.NewState(), hosts: map[string]*host{}, faults: f,
		rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)),
	}
}

// host is the agent's side of the contract, as short as it can be.
type host struct {
	id       string
	zone     string
	acked    uint64
	result   deploy.Result
	counter  uint64
	running  deploy.Digest
	serves   bool
	staged   []deploy.Digest
	stageKey string
	failed   deploy.Digest
	failure  *deploy.Failure
	working  uint64        // generation in work, 0 none
	goal     deploy.Digest // of the generation in work
	byHand   bool          // somebody changed what it runs
	told     uint64        // State.AssignedAt when it was last told what to do
	up       bool          // in sight
	plan     map[deploy.Digest]string
}

type timed struct {
	at  deploy.Time
	seq int
	run func()
}

type queue []timed

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].at, q[j].at), cmp.Compare(q[i].seq, q[j].seq)) < 0
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(timed)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

func (w *World) after(d time.Duration, run func()) {
	w.seq++
	heap.Push(&w.queue, timed{at: w.Now.Add(d), seq: w.seq, run: run})
}

func (w *World) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

func (w *World) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

// AddHost enrols a host that matches every group.
func (w *World) AddHost(id, zone string, labels map[string]string) {
	w.hosts[id] = &host{id: id, zone: zone, up: true, plan: map[deploy.Digest]string{}}
	w.order = append(w.order, id)
	w.Propose(deploy.HostEnrolled{Host: id, Name: id, Zone: zone, Labels: labels})
}

// Script makes a host treat a revision in a certain way: fail, break, hang,
// stage-fail, crash, or sick:DURATION.
func (w *World) Script(id string, rev deploy.Digest, how string) error {
	h := w.hosts[id]
	if h == nil {
		return fmt.Errorf("no host %s", id)
	}
	h.plan[rev] = how
	return nil
}

// Sight puts a host in or out of sight of gossip and streams.
func (w *World) Sight(id string, up bool) {
	h := w.hosts[id]
	if h == nil || h.up == up {
		return
	}
	h.up, h.told = up, 0
	if up {
		w.away = slices.DeleteFunc(w.away, func(a string) bool { return a == id })
		w.send(h)
	} else {
		w.away = append(w.away, id)
	}
}

// Propose applies facts of one entry and delivers what follows from them.
func (w *World) Propose(events ...deploy.Event) []error {
	w.index++
	if w.Deep && w.State.Violated == nil {
		w.State.Violated = w.fail
	}
	var witness func() error
	if w.Deep && len(events) == 1 {
		witness = deploy.Witness(w.State, events[0])
	}
	entry := deploy.Entry{Rules: w.State.Rules, At: w.Now, Wall: time.Duration(w.Now).Milliseconds(), Events: events}
	if w.Record != nil {
		w.Record(w.index, entry)
	}
	errs := w.State.ApplyEntry(w.index, entry)
	if witness != nil {
		if err := witness(); err != nil {
			w.fail(err)
		}
	}
	w.Entries++
	for i, e := range events {
		w.Events++
		if w.Deep && errs[i] == nil {
			w.outcomes.Fact(w.State, e)
			if joined, ok := e.(deploy.TargetsJoined); ok {
				w.check.joined(joined)
			}
		}
		if w.Trace != nil && (w.Quiet == nil || !w.Quiet(e)) {
			line := w.about(e) + deploy.Describe(e)
			if errs[i] != nil {
				line += "  ✘ " + errs[i].Error()
			}
			w.Trace(w.Now, line)
		}
		w.deliver(e)
	}
	if w.Each != nil {
		w.Each()
	}
	if w.Deep {
		if err := errors.Join(deploy.Check(w.State), w.checkTouched(), w.check.after(w),
			w.checkOutcomes(events)); err != nil {
			w.fail(err)
		}
	}
	return errs
}

// checkOutcomes is I11 after every fact that ends something.
func (w *World) checkOutcomes(events []deploy.Event) error {
	ended := slices.ContainsFunc(events, func(e deploy.Event) bool {
		switch e.(type) {
		case deploy.DeploymentEnded, deploy.TargetsJoined, deploy.RequestMade:
			return true
		}
		return false
	})
	if !ended {
		return nil
	}
	for _, g := range w.groups {
		if grp := w.State.Groups[deploy.GroupKey(g.App, g.Group)]; grp != nil {
			w.count("I11")
			if err := w.outcomes.Check(w.State, grp); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *World) count(what string) {
	if w.Checked == nil {
		w.Checked = map[string]int{}
	}
	w.Checked[what]++
}

// checkHolds is I15: when nothing is left to happen, every deployment that has
// not ended says whom or what it waits for.
func (w *World) checkHolds() {
	for _, d := range w.State.Open() {
		w.count("I15")
		if len(deploy.Holds(w.State, d, w.Now)) == 0 {
			w.fail(fmt.Errorf("I15: deployment %s is %s, nothing happens any more, and nothing is named that it waits for", d.ID, d.Status))
		}
	}
}

// about names the deployment of a fact that does not, while several are open.
func (w *World) about(e deploy.Event) string {
	open, id := len(w.State.Open()), ""
	switch e := e.(type) {
	case deploy.WaveStarted:
		id = e.Deployment
	case deploy.PermitsGranted:
		id = e.Deployment
	case deploy.RollbackStarted:
		id = e.Deployment
	case deploy.TasksEnded:
		id = e.Deployment
	case deploy.HoldsChanged:
		id = e.Deployment
	case deploy.GateJudged:
		id = e.Deployment
	case deploy.BakeStarted:
		id = e.Deployment
	case deploy.WaveSealed:
		id = e.Deployment
	case deploy.WaveSkipped:
		id = e.Deployment
	case deploy.WaveReverted:
		id = e.Deployment
	case deploy.DeploymentPaused:
		id = e.Deployment
	case deploy.DeploymentEnded:
		id = e.Deployment
		open++
	}
	if id == "" || open < 2 {
		return ""
	}
	return id + ": "
}

// checkTouched proves the contract of State.AssignedAt: while it stays, so do the
// host's assignments.
func (w *World) checkTouched() error {
	if w.assigned == nil {
		w.assigned = map[string]assigned{}
	}
	w.turn++
	for i, id := range w.order {
		if !w.due(i) {
			continue
		}
		now := assigned{w.State.AssignedAt(id), fmt.Sprint(deploy.Assign(w.State, id))}
		if old, ok := w.assigned[id]; ok && old.at == now.at && old.what != now.what {
			return fmt.Errorf("assignments of %s changed from %s to %s and it was not touched", id, old.what, now.what)
		}
		w.assigned[id] = now
	}
	return nil
}

// due says which hosts of a larger fleet are looked at after this entry: a few
// at a time, all of them before long.
func (w *World) due(i int) bool { return len(w.order) <= 8 || (i+w.turn)%8 == 0 }

// assigned is what a host was to do when it was last touched.
type assigned struct {
	at   uint64
	what string
}

func (w *World) fail(err error) {
	if w.err == nil {
		w.err = fmt.Errorf("at %s, entry %d: %w", time.Duration(w.Now), w.index, err)
	}
}

// Err returns the first invariant that was broken.
func (w *World) Err() error { return w.err }

// decide runs the leader until it has nothing to say.
func (w *World) decide() {
	for range 1000 {
		if w.chance(w.faults.Leader) {
			w.NewLeader()
		}
		var fleet deploy.Fleet
		fleet.Joins, fleet.Leaves = w.membership()
		if w.Now >= w.blind {
			fleet.Down = w.away
		}
		events := deploy.Decide(w.State, fleet, w.Now)
		if len(events) == 0 {
			return
		}
		if w.Deep { // one entry a fact: each is checked against the state that it meets
			for _, e := range events {
				w.Propose(e)
			}
		} else {
			w.Propose(events...)
		}
		if w.err != nil {
			return
		}
	}
	w.fail(fmt.Errorf("decide never comes to rest"))
}

// NewLeader changes the leader: for a minute it knows of no host that is down,
// because it has seen no stream go.
func (w *World) NewLeader() { w.blind = w.Now.Add(time.Minute) }

// Reload restarts every coordinator from a snapshot; the agents connect again.
func (w *World) Reload() error {
	text, err := json.Marshal(w.State)
	if err != nil {
		return err
	}
	back := &deploy.State{}
	if err := json.Unmarshal(text, back); err != nil {
		return err
	}
	back.Rebuild()
	w.State, w.assigned = back, nil
	w.NewLeader()
	for _, id := range w.order {
		w.hosts[id].told = 0
		w.assign(id)
	}
	return deploy.Check(back)
}

// Selectors that a group may have: everybody, every second host, nobody.
const (
	SelectAll  = "true"
	SelectHalf = "half"
	SelectNone = "false"
)

// selects reports whether a group's selector, as committed, matches a host.
func selects(selector, host string) bool {
	switch selector {
	case SelectNone:
		return false
	case SelectHalf:
		return (host[len(host)-1]-'0')%2 == 0
	}
	return true
}

// membership says which hosts a group's selector matches that are no targets of
// it yet, and which targets it matches no longer.
func (w *World) membership() (joins, leaves []deploy.Membership) {
	for _, m := range w.groups {
		g := w.State.Groups[deploy.GroupKey(m.App, m.Group)]
		if g == nil || g.Selector == SelectAll && len(g.Members) == len(w.order) {
			continue
		}
		for _, id := range w.order {
			one := deploy.Membership{App: m.App, Group: m.Group, Host: id}
			is, should := w.State.Target(id, m.App) != nil, selects(g.Selector, id)
			if should && !is {
				joins = append(joins, one)
			} else if is && !should {
				leaves = append(leaves, one)
			}
		}
	}
	return joins, leaves
}

// Select changes the group's selector; its config stays.
func (w *World) Select(app, group, selector string) {
	if g := w.State.Groups[deploy.GroupKey(app, group)]; g != nil {
		w.Propose(deploy.GroupDefined{App: app, Group: group, Selector: selector, Config: g.Config})
	}
}

// Define makes a group that every host belongs to.
func (w *World) Define(app, group string, c deploy.Config) {
	if m := (deploy.Membership{App: app, Group: group}); !slices.Contains(w.groups, m) {
		w.groups = append(w.groups, m)
	}
	w.Propose(deploy.GroupDefined{App: app, Group: group, Selector: SelectAll, Config: c})
	w.decide()
}

// Deploy registers the revision if needed and creates a deployment of it, as
// changed by with.
func (w *World) Deploy(app, group, id, rev string, with ...func(*deploy.DeploymentCreated)) error {
	d := deploy.Digest(rev)
	if w.State.Revisions[app][d] == nil {
		w.Propose(deploy.RevisionRegistered{App: app, Name: rev, Digest: d})
	}
	g := w.State.Groups[deploy.GroupKey(app, group)]
	if g == nil {
		return fmt.Errorf("no group %s", group)
	}
	e := deploy.DeploymentCreated{ID: id, App: app, Group: group, Revision: d, RevName: rev, Config: g.Config}
	for _, set := range with {
		set(&e)
	}
	plan, err := deploy.Plan(w.State, deploy.PlanInput{
		App: app, Group: group, Revision: d, Config: e.Config,
		Force: e.Force, Skip: e.Skip,
	})
	if err != nil {
		return err
	}
	e.Request, e.Waves, e.Layout = deploy.Request{ID: "create-" + id, Actor: "sim"}, plan.Waves, plan.Layout
	return w.Propose(e)[0]
}

// Rollback takes the group back by an inverse deployment, as a person asks for
// it: to rev because of a name, or (undo other than "none") from the newest
// deployment, which must have brought the revision undo, to where it leads.
func (w *World) Rollback(app, group, id, rev, undo string) error {
	g := w.State.Groups[deploy.GroupKey(app, group)]
	if g == nil {
		return fmt.Errorf("no group %s", group)
	}
	w.seq++
	e := deploy.DeploymentCreated{
		Request: deploy.Request{ID: fmt.Sprint("rollback-", w.seq), Actor: "sim"}, ID: id, App: app, Group: group,
		Revision: deploy.Digest(rev), RevName: rev, Config: g.Config, Inverse: true,
	}
	if undo == "none" {
		return w.Propose(e)[0]
	}
	u, err := w.State.Undoable(g)
	if err != nil {
		return err
	}
	e.Undoes, e.Bad = u.Deployment, u.Bad
	if was := w.State.Deployments[u.Deployment].Revision; undo != "any" && was != deploy.Digest(undo) {
		return fmt.Errorf("a rollback takes back %s (%s), not %s", was, u.Deployment, undo)
	}
	if rev == "" {
		e.Revision, e.RevName = u.Revision, string(u.Revision)
	}
	return w.Propose(e)[0]
}

// Act makes a request on a deployment.
func (w *World) Act(id string, verb deploy.Verb) error {
	return w.Ask(deploy.RequestMade{Deployment: id, Verb: verb})
}

// Ask makes a request with arguments; its actor is "sim" unless it names one.
func (w *World) Ask(e deploy.RequestMade) error {
	w.seq++
	e.Request.ID, e.Request.Actor = fmt.Sprint("act-", w.seq), cmp.Or(e.Request.Actor, "sim")
	return w.Propose(e)[0]
}

// Leave takes a host away for good: gracefully, its agent says so.
func (w *World) Leave(id string) error {
	if w.hosts[id] == nil {
		return fmt.Errorf("no host %s", id)
	}
	w.hosts[id].up = false
	delete(w.hosts, id)
	w.order = slices.DeleteFunc(w.order, func(x string) bool { return x == id })
	w.away = slices.DeleteFunc(w.away, func(x string) bool { return x == id })
	return w.Propose(deploy.HostLeft{Host: id, Cause: "left", Force: true})[0]
}

// Swap lets a host come back with something else on disk: restored from a backup,
// or deployed to while nobody saw it.
func (w *World) Swap(id string, rev deploy.Digest, away time.Duration) {
	h := w.hosts[id]
	if h == nil || h.working != 0 || !h.up {
		return
	}
	w.Sight(id, false)
	w.after(away, func() {
		if w.hosts[id] == h && h.working == 0 {
			h.running, h.serves, h.byHand, h.staged, h.stageKey = rev, rev != "", true, nil, ""
		}
		w.Sight(id, true)
	})
}

// Change changes what a host runs by hand, behind the coordinators' back.
func (w *World) Change(id string, rev deploy.Digest) error {
	h := w.hosts[id]
	if h == nil || h.working != 0 {
		return fmt.Errorf("host %s cannot be changed now", id)
	}
	h.running, h.serves, h.byHand = rev, rev != "", true
	w.report(h)
	return nil
}

// Install makes a host serve a revision that it has not reported yet.
func (w *World) Install(id string, rev deploy.Digest) error {
	h := w.hosts[id]
	if h == nil || h.working != 0 {
		return fmt.Errorf("host %s cannot be changed now", id)
	}
	h.running, h.serves, h.byHand = rev, true, true
	return nil
}

// Hosts lists the hosts, in the order in which they came.
func (w *World) Hosts() []string { return slices.Clone(w.order) }

// ask answers the gates that are due and returns when the next one is.
func (w *World) ask() (deploy.Time, bool) {
	for range 100 {
		due, wait := deploy.Questions(w.State, w.Now)
		if len(due) == 0 {
			return w.Now.Add(wait), wait > 0
		}
		var facts []deploy.GateObserved
		for _, q := range due {
			o := deploy.Observation{Answer: deploy.VerdictPass, Value: "0", Threshold: "1", Samples: 100}
			if w.Gate != nil {
				o = w.Gate(q)
			}
			o.Key, o.Question, o.From, o.To = q.Key, q.Gate.Name+"?", q.Since, max(time.Duration(w.Now).Milliseconds(), 1)
			w.seq++
			o.To += int64(w.seq) // no two answers speak of the same time
			if n := len(facts); n > 0 && facts[n-1].Deployment == q.Deployment && facts[n-1].Wave == q.Wave &&
				facts[n-1].Gate == q.Gate.Name {
				facts[n-1].Items = append(facts[n-1].Items, o)
				continue
			}
			facts = append(facts, deploy.GateObserved{
				Deployment: q.Deployment, Wave: q.Wave, Gate: q.Gate.Name,
				Attempt: q.Attempt, Items: []deploy.Observation{o},
			})
		}
		for _, f := range facts {
			w.Propose(f)
		}
		w.decide()
		if w.err != nil {
			return 0, false
		}
	}
	w.fail(fmt.Errorf("gates are asked without end"))
	return 0, false
}

// Run advances until limit, or until nothing is left to happen, or until stop
// says so. It returns the first broken invariant.
func (w *World) Run(limit time.Duration, stop func() bool) error {
	end := w.Now.Add(limit)
	for w.err == nil {
		w.decide()
		if stop != nil && stop() {
			return w.err
		}
		asked, asks := w.ask()
		next, ok := deploy.NextWake(w.State, w.Now)
		if asks && (!ok || asked < next) {
			next, ok = asked, true
		}
		if w.blind > w.Now && (!ok || w.blind < next) {
			next, ok = w.blind, true
		}
		if len(w.queue) > 0 && (!ok || w.queue[0].at <= next) {
			next, ok = w.queue[0].at, true
		}
		if !ok {
			w.checkHolds()
		}
		if !ok || next > end {
			w.Now = max(w.Now, end)
			w.decide()
			return w.err
		}
		w.advance(max(next, w.Now))
	}
	return w.err
}

// advance moves time to at and runs what is due. A wake that is due and moves
// nothing pushes time on, so that the world never stands still.
func (w *World) advance(at deploy.Time) {
	if at == w.Now && (len(w.queue) == 0 || w.queue[0].at > at) {
		at = w.Now.Add(time.Second)
	}
	w.Now = at
	for len(w.queue) > 0 && w.queue[0].at <= w.Now && w.err == nil {
		heap.Pop(&w.queue).(timed).run()
	}
}

// Serving counts the hosts whose application serves in truth.
func (w *World) Serving() int {
	n := 0
	for _, id := range w.order {
		if w.hosts[id].serves {
			n++
		}
	}
	return n
}

// Running returns how many hosts run each revision in truth.
func (w *World) Running() map[deploy.Digest]int {
	out := map[deploy.Digest]int{}
	for _, id := range w.order {
		out[w.hosts[id].running]++
	}
	return out
}

// SetFaults changes how the fleet misbehaves from now on.
func (w *World) SetFaults(f Faults) { w.faults = f }
