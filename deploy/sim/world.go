// Package sim is a virtual world for package deploy: hosts with scripted
// latency, failure and death, and coordinators that lose their leader, all in
// virtual time and from one seed.
package sim

import (
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

	looks    int // of checkTouched
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
	s := deploy.NewState()
	s.Rules += int(seed % deploy.RulesKnown) // seeds go by every level of rules
	return &World{
		State: s, hosts: map[string]*host{}, faults: f,
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
	tasted   string
	// the key under which staging failed
	failedKey string
	failed    deploy.Digest
	out       deploy.Out
	outKey    uint64
	failure   *deploy.Failure
	working   uint64        // generation in work, 0 none
	goal      deploy.Digest // of the generation in work
	byHand    bool          // somebody changed what it runs
	told      uint64        // State.AssignedAt when it was last told what to do
	up        bool          // in sight
	plan      map[deploy.Digest]string
}

// AddHost enrols a host that matches every group.
func (w *World) AddHost(id, zone string, labels map[string]string) {
	w.hosts[id] = &host{id: id, zone: zone, up: true, plan: map[deploy.Digest]string{}}
	w.order = append(w.order, id)
	w.Propose(deploy.HostEnrolled{Host: id, Name: id, Zone: zone, Labels: labels})
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
		next, _, ok := deploy.NextWake(w.State, w.Now)
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
