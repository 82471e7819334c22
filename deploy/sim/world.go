// Package sim is a virtual world for package deploy: hosts with scripted
// latency, failure and death, and coordinators that lose their leader, all in
// virtual time and from one seed.
package sim

import (
	"cmp"
	"container/heap"
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
	working  uint64 // generation in work, 0 none
	up       bool   // in sight
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
	h.up = up
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
	for _, e := range events {
		if !w.Deep {
			break
		}
		if err := deploy.CheckEvent(w.State, e); err != nil {
			w.fail(err)
		}
	}
	errs := w.State.ApplyEntry(w.index, deploy.Entry{At: w.Now, Events: events})
	w.Entries++
	for i, e := range events {
		w.Events++
		if w.Trace != nil {
			line := deploy.Describe(e)
			if errs[i] != nil {
				line += "  ✘ " + errs[i].Error()
			}
			w.Trace(w.Now, line)
		}
		w.deliver(e)
	}
	if w.Deep {
		if err := errors.Join(deploy.Check(w.State), w.checkTouched()); err != nil {
			w.fail(err)
		}
	}
	return errs
}

// checkTouched proves the contract of State.Touched: while it stays, so do the
// host's assignments.
func (w *World) checkTouched() error {
	if w.assigned == nil {
		w.assigned = map[string]assigned{}
	}
	for _, id := range w.order {
		now := assigned{w.State.Touched(id), fmt.Sprint(deploy.Assign(w.State, id))}
		if old, ok := w.assigned[id]; ok && old.at == now.at && old.what != now.what {
			return fmt.Errorf("assignments of %s changed from %s to %s and it was not touched", id, old.what, now.what)
		}
		w.assigned[id] = now
	}
	return nil
}

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
			w.blind = w.Now.Add(time.Minute) // a new leader has seen no stream go
		}
		fleet := deploy.Fleet{Joins: w.joins()}
		if w.Now >= w.blind {
			fleet.Down = w.away
		}
		events := deploy.Decide(w.State, fleet, w.Now)
		if len(events) == 0 {
			return
		}
		w.Propose(events...)
		if w.err != nil {
			return
		}
	}
	w.fail(fmt.Errorf("decide never comes to rest"))
}

// joins says which hosts no group has as a target yet.
func (w *World) joins() []deploy.Membership {
	if len(w.order) == w.joined() {
		return nil
	}
	var out []deploy.Membership
	for _, g := range w.groups {
		for _, id := range w.order {
			if w.State.Target(id, g.App) == nil {
				out = append(out, deploy.Membership{App: g.App, Group: g.Group, Host: id})
			}
		}
	}
	return out
}

func (w *World) joined() int {
	n := 0
	for _, g := range w.groups {
		if grp := w.State.Groups[deploy.GroupKey(g.App, g.Group)]; grp != nil {
			n = len(grp.Members)
		}
	}
	if len(w.groups) == 0 {
		return len(w.order)
	}
	return n
}

// Define makes a group that every host belongs to.
func (w *World) Define(app, group string, c deploy.Config) {
	w.groups = append(w.groups, deploy.Membership{App: app, Group: group})
	w.Propose(deploy.GroupDefined{App: app, Group: group, Selector: "true", Config: c})
	w.decide()
}

// Deploy registers the revision if needed and creates a deployment of it.
func (w *World) Deploy(app, group, id, rev string) error {
	d := deploy.Digest(rev)
	if w.State.Revisions[app][d] == nil {
		w.Propose(deploy.RevisionRegistered{App: app, Name: rev, Digest: d})
	}
	g := w.State.Groups[deploy.GroupKey(app, group)]
	if g == nil {
		return fmt.Errorf("no group %s", group)
	}
	plan, err := deploy.Plan(w.State, deploy.PlanInput{App: app, Group: group, Revision: d, Config: g.Config})
	if err != nil {
		return err
	}
	return w.Propose(deploy.DeploymentCreated{
		Request: deploy.Request{ID: "create-" + id, Actor: "sim"}, ID: id, App: app, Group: group,
		Revision: d, RevName: rev, Config: g.Config, Waves: plan.Waves,
	})[0]
}

// Act makes a request on a deployment.
func (w *World) Act(id string, verb deploy.Verb) error {
	w.seq++
	return w.Propose(deploy.RequestMade{
		Request: deploy.Request{ID: fmt.Sprint("act-", w.seq), Actor: "sim"}, Deployment: id, Verb: verb,
	})[0]
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
		next, ok := deploy.NextWake(w.State, w.Now)
		if w.blind > w.Now && (!ok || w.blind < next) {
			next, ok = w.blind, true
		}
		if len(w.queue) > 0 && (!ok || w.queue[0].at <= next) {
			next, ok = w.queue[0].at, true
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
