package deploy_test

import (
	"slices"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// stepping is one step of the model while it is taken: facts are applied one by
// one, each witnessed and written down.
type stepping struct {
	*requests
	*beside
	s    *deploy.State
	at   deploy.Time
	done int // facts that were accepted
	err  error
}

// apply applies facts, and lets hosts that are new members say what they run.
func (x *stepping) apply(events ...deploy.Event) {
	for _, e := range events {
		if x.err != nil {
			return
		}
		x.one(e)
	}
}

func (x *stepping) one(e deploy.Event) {
	s := x.s
	s.Violated = func(err error) { x.err = err }
	defer func() { s.Violated = nil }()
	witness := deploy.Witness(s, e)
	if left, ok := e.(deploy.TargetsLeft); ok {
		for _, host := range left.Hosts {
			x.ran[hostAt(host)] = s.Target(host, "www").Running
		}
	}
	wall := epochWall + 1 + x.at.Sub(epoch).Milliseconds()
	if s.ApplyEntry(s.Index+1, deploy.Entry{At: x.at, Wall: wall, Events: []deploy.Event{e}})[0] != nil {
		return
	}
	x.done++
	if witness != nil && x.err == nil {
		x.err = witness()
	}
	if x.checkEach && x.err == nil {
		x.err = deploy.Check(s)
	}
	x.said.Fact(s, e)
	joined, _ := e.(deploy.TargetsJoined)
	for _, host := range joined.Hosts {
		x.report(host, func(r *deploy.Report) {
			if r.Running = x.ran[hostAt(host)]; r.Running != "" {
				r.Result, r.Gen, r.Health = deploy.ResultDone, 9, deploy.HealthHealthy
			}
		})
		x.ran[hostAt(host)] = ""
	}
}

func hostAt(id string) int { return int(id[1] - '1') }

// report lets a host say how it is; change is what differs from having done what
// it was told.
func (x *stepping) report(host string, change func(*deploy.Report)) {
	t := x.s.Target(host, "www")
	if t == nil {
		return
	}
	e := agrees(x.s, host, t.Counter+1)
	if change != nil {
		change(&e.Items[0])
	}
	x.apply(e)
}

// pass lets every gate that is asked now answer that all is well.
func (x *stepping) pass() {
	due, _ := deploy.Questions(x.s, x.at)
	for _, q := range due {
		x.answer(q, deploy.VerdictPass)
	}
}

func (x *stepping) answer(q deploy.Question, v deploy.Verdict) {
	now := epochWall + 1 + x.at.Sub(epoch).Milliseconds()
	x.apply(deploy.GateObserved{
		Deployment: q.Deployment, Wave: q.Wave, Gate: q.Gate.Name, Attempt: q.Attempt,
		Items: []deploy.Observation{{Key: q.Key, From: now, To: now, Answer: v, Samples: 50}},
	})
}

// deployment is the fact of a new deployment, planned as people do.
func (x *stepping) deployment(id, rev string) deploy.Event {
	c := x.s.Groups["www/prod"].Config
	p, err := deploy.Plan(x.s, deploy.PlanInput{App: "www", Group: "prod", Revision: deploy.Digest(rev), Config: c})
	if err != nil {
		return deploy.DeploymentCreated{} // refused
	}
	return deploy.DeploymentCreated{
		ID: id, App: "www", Group: "prod", Revision: deploy.Digest(rev), RevName: rev, Config: c,
		Waves: p.Waves, Layout: p.Layout,
	}
}

// inverse is the fact of a rollback: of what Undoable chooses, or to a revision.
func (x *stepping) inverse(id, to string) deploy.Event {
	g := x.s.Groups["www/prod"]
	e := deploy.DeploymentCreated{
		ID: id, App: "www", Group: "prod", Revision: deploy.Digest(to), RevName: to, Config: g.Config, Inverse: true,
	}
	if to == "" {
		u, err := x.s.Undoable(g)
		if err != nil {
			return deploy.DeploymentCreated{} // refused
		}
		e.Undoes, e.Bad, e.Revision, e.RevName = u.Deployment, u.Bad, u.Revision, string(u.Revision)
	}
	return e
}

// choices counts the choices of a state, so that each step of it has a number.
type choices struct {
	r    *requests
	from requested
	emit func(string, requested)
	n    int
}

// step takes one step; a request is one that its configuration makes once.
func (c *choices) step(what string, request int, do func(*stepping)) bool {
	c.n++
	m := move{from: c.from.id, kind: byRequest, order: [4]uint8{uint8(c.n), uint8(c.n >> 8)}, at: uint8(request + 1)}
	r := c.r
	to, seen := r.memo[m]
	if !seen {
		was := r.beside[c.from.id]
		b := &beside{said: was.said.Clone(), ran: was.ran}
		x := &stepping{requests: r, beside: b, s: clone(r.states[c.from.id]), at: epoch.Add(time.Second)}
		do(x)
		if x.err != nil && r.err == nil {
			r.err = x.err
		}
		if request >= 0 && x.done > 0 {
			r.took[r.allowed[request]] = true
		}
		settle(x.s)
		r.forget(x.s)
		r.current = b
		to = r.number(x.s)
		r.memo[m] = to
	}
	next := requested{to, c.from.made}
	if request >= 0 {
		next.made |= 1 << request
	}
	if next != c.from {
		c.emit(what, next)
	}
	return to != c.from.id
}

// next takes every step of a state: what happens by itself, what answers
// somebody gives who is waited for, and what requests may still be made.
func (r *requests) next(from requested, emit func(string, requested)) error {
	s := r.states[from.id]
	c := &choices{r: r, from: from, emit: emit}
	moved := r.byItself(c, s)
	if !moved && r.err == nil {
		r.err = r.quiet(s)
	}
	r.answers(c, s)
	for i, what := range r.allowed {
		if from.made&(1<<i) == 0 && !slices.Contains(r.allowed[:i], what) {
			c.n = 100 * (1 + slices.Index(befalls, what))
			r.request(c, s, i, what)
		}
	}
	return r.err
}

// byItself: the leader decides, hosts do what they were told, and when neither
// has anything left, time passes. It reports whether anything changes.
func (r *requests) byItself(c *choices, s *deploy.State) bool {
	moved := c.step("decide", -1, func(x *stepping) {
		x.pass()
		x.apply(deploy.Decide(x.s, r.membership(x.s), x.at)...)
	})
	working := false
	for i := range r.hosts {
		t := s.Target(hostID(i), "www")
		if t != nil && t.Permit != deploy.PermitNone && !t.Away {
			working = true
			c.step(t.Host+" is done", -1, func(x *stepping) { x.report(t.Host, nil) })
		} else {
			c.n++
		}
	}
	if moved || working {
		return true
	}
	return c.step("time passes", -1, func(x *stepping) {
		x.at = epoch.Add(modelWait)
		x.pass()
		x.apply(deploy.Decide(x.s, r.membership(x.s), x.at)...)
	})
}

// membership is what the group's selector says: every host, or none; and who is
// out of sight.
func (r *requests) membership(s *deploy.State) deploy.Fleet {
	var f deploy.Fleet
	all := s.Groups["www/prod"].Selector == "true"
	for i := range r.hosts {
		id := hostID(i)
		h := s.Hosts[id]
		if h == nil {
			continue
		}
		if h.Unreachable {
			f.Down = append(f.Down, id)
		}
		m := deploy.Membership{Host: id, App: "www", Group: "prod"}
		switch member := s.Target(id, "www") != nil; {
		case all && !member:
			f.Joins = append(f.Joins, m)
		case !all && member:
			f.Leaves = append(f.Leaves, m)
		}
	}
	return f
}

// answers are given to whoever waits for a person: they end a freeze, a pause, a
// decision, a cordon, an illness and a selector that selects nobody.
func (r *requests) answers(c *choices, s *deploy.State) {
	c.n = 20
	if len(s.Freezes) > 0 {
		c.step("unfreeze", -1, func(x *stepping) { x.apply(deploy.FreezeLifted{}) })
	}
	for k, d := range s.Open() {
		c.n = 30 + 4*k
		switch {
		case d.Status == deploy.DeploymentStatusPaused && d.ScopeRevert == nil && d.Decision:
			c.step(d.ID+" abort-rollback (answer)", -1, func(x *stepping) { x.ask(d.ID, deploy.VerbAbortRollback) })
		case d.Held || d.Status == deploy.DeploymentStatusPaused && !d.Decision:
			c.step(d.ID+" resume (answer)", -1, func(x *stepping) { x.ask(d.ID, deploy.VerbResume) })
			reverted := func(w deploy.Wave) bool { return w.Status == deploy.WaveStatusReverted }
			if d.Status == deploy.DeploymentStatusPaused && slices.ContainsFunc(d.Waves, reverted) {
				c.step(d.ID+" abort-rollback (answer)", -1, func(x *stepping) { x.ask(d.ID, deploy.VerbAbortRollback) })
			}
		}
	}
	for i := range r.hosts {
		c.n = 50 + 6*i
		id := hostID(i)
		if h := s.Hosts[id]; h != nil && h.Unreachable {
			r.returns(c, s, id)
			continue
		}
		if h := s.Hosts[id]; h != nil && h.Quarantine != "" {
			c.step(id+" is released", -1, func(x *stepping) { x.apply(deploy.HostsReleased{Hosts: []string{id}}) })
		}
		if t := s.Target(id, "www"); t != nil && t.Permit == deploy.PermitNone && t.Health == deploy.HealthUnhealthy {
			c.n = 53 + 6*i
			c.step(id+" is well again", -1, func(x *stepping) {
				x.report(id, func(p *deploy.Report) { p.Health = deploy.HealthHealthy })
			})
		}
	}
	c.n = 90
	if g := s.Groups["www/prod"]; g.Selector == "false" || g.NextSelector == "false" {
		c.step("selector is corrected", -1, func(x *stepping) { x.selector("true") })
	}
}

// returns lets a host be seen again: it did what it was told meanwhile, or could
// not and is as it was.
func (r *requests) returns(c *choices, s *deploy.State, id string) {
	t := s.Target(id, "www")
	if t == nil { // no member
		c.step(id+" is back", -1, func(x *stepping) {
			x.apply(deploy.TargetsReported{Items: []deploy.Report{{Host: id, Counter: 1}}})
		})
		return
	}
	for _, result := range []deploy.Result{deploy.ResultDone, deploy.ResultFailed} {
		if result == deploy.ResultFailed && !t.Open {
			return
		}
		c.step(id+" is back: "+result.String(), -1, func(x *stepping) {
			x.report(id, func(p *deploy.Report) {
				p.Health = deploy.HealthHealthy
				switch {
				case !t.Open:
				case result == deploy.ResultDone:
					p.Result, p.Running = result, t.Desired
				default:
					p.Result, p.Running = result, t.Running
				}
			})
		})
	}
}

func (x *stepping) ask(id string, v deploy.Verb) {
	x.apply(deploy.RequestMade{Request: deploy.Request{Actor: "ann"}, Deployment: id, Verb: v})
}

func (x *stepping) selector(to string) {
	x.apply(deploy.GroupDefined{App: "www", Group: "prod", Selector: to, Config: x.s.Groups["www/prod"].Config})
}

// request makes the i-th request of the configuration.
func (r *requests) request(c *choices, s *deploy.State, i int, what string) {
	switch what {
	case "deploy":
		c.step("deploy v3", i, func(x *stepping) { x.apply(x.deployment("d3", "v3")) })
	case "rollback":
		c.step("rollback", i, func(x *stepping) { x.apply(x.inverse("i1", "")) })
	case "rollback to":
		c.step("rollback --to v1", i, func(x *stepping) { x.apply(x.inverse("i2", "v1")) })
	case "abort-leave", "abort-rollback", "pause", "resume", "retry", "promote":
		for _, d := range s.Open() {
			c.step(d.ID+" "+what, i, func(x *stepping) { x.ask(d.ID, deploy.Verb(what)) })
		}
	case "rollback of a wave", "skip-hosts", "skip-zone", "take-over":
		r.narrow(c, s, i, what)
	case "freeze":
		c.step("freeze", i, func(x *stepping) { x.apply(deploy.FreezeSet{Request: deploy.Request{Actor: "ann"}}) })
	case "birth":
		id := hostID(r.members)
		c.step(id+" is born", i, func(x *stepping) { x.apply(deploy.HostEnrolled{Host: id, Name: id, Zone: "z"}) })
	case "selector":
		c.step("the selector selects nobody", i, func(x *stepping) { x.selector("false") })
	case "gate fails", "late answer":
		r.gate(c, s, i, what)
	default:
		r.befall(c, s, i, what)
	}
}

// narrow makes a request about a part of a deployment, or beside another one.
func (r *requests) narrow(c *choices, s *deploy.State, i int, what string) {
	for _, d := range s.Open() {
		e := deploy.RequestMade{Request: deploy.Request{Actor: "ann"}, Deployment: d.ID, Verb: deploy.Verb(what)}
		switch what {
		case "skip-zone":
			e.Zone = "z"
		case "skip-hosts":
			e.Hosts = d.Waves[len(d.Waves)-1].Hosts
		}
		if what != "rollback of a wave" {
			c.step(d.ID+" "+what, i, func(x *stepping) { x.apply(e) })
			continue
		}
		for j := range d.Waves {
			e.Verb, e.Wave = deploy.VerbRollback, d.Waves[j].Name
			c.step(d.ID+" rollback of wave "+e.Wave, i, func(x *stepping) { x.apply(e) })
		}
	}
}

// gate lets a gate that is asked fail, or one answer fail about what was before.
func (r *requests) gate(c *choices, s *deploy.State, i int, what string) {
	at := epoch.Add(modelPart)
	due, _ := deploy.Questions(s, at)
	for _, q := range due {
		c.step(what+": "+q.Deployment+" "+q.WaveName, i, func(x *stepping) {
			x.at = at
			if what == "gate fails" {
				x.answer(q, deploy.VerdictFail)
				return
			}
			x.apply(deploy.GateObserved{
				Deployment: q.Deployment, Wave: q.Wave, Gate: q.Gate.Name, Attempt: q.Attempt,
				Items: []deploy.Observation{{
					Key: q.Key, From: 1, To: epochWall + at.Sub(epoch).Milliseconds(), Answer: deploy.VerdictFail, Samples: 50,
				}},
			})
		})
	}
}

// befall is what happens to one host: the first of each wave, or who was born.
func (r *requests) befall(c *choices, s *deploy.State, i int, what string) {
	var hosts []string
	for _, w := range s.Groups["www/prod"].Layout.Waves {
		if len(w.Hosts) > 0 {
			hosts = append(hosts, w.Hosts[0])
		}
	}
	if born := hostID(r.members); s.Target(born, "www") != nil && !slices.Contains(hosts, born) {
		hosts = append(hosts, born)
	}
	for _, id := range hosts {
		t := s.Target(id, "www")
		switch {
		case t == nil:
			c.n++
		case what == "departure":
			c.step(id+" departs", i, func(x *stepping) {
				x.apply(deploy.HostLeft{
					Host: id, Force: true,
					Cause: "left",
				})
			})
		case what == "away" && !t.Away:
			c.step(id+" is out of sight", i, func(x *stepping) {
				x.apply(deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: id, Counter: s.Hosts[id].Counter}}})
			})
		case what == "cordon":
			c.step(id+" is cordoned", i, func(x *stepping) {
				x.apply(deploy.HostsQuarantined{Request: deploy.Request{Actor: "ann"}, Hosts: []string{id}})
			})
		case what == "falls ill" && !t.Away && t.Permit == deploy.PermitNone && t.Health == deploy.HealthHealthy:
			c.step(id+" falls ill", i, func(x *stepping) {
				x.report(id, func(p *deploy.Report) { p.Health = deploy.HealthUnhealthy })
			})
		case what == "host fails" && !t.Away && t.Permit != deploy.PermitNone:
			c.step(id+" fails", i, func(x *stepping) {
				x.report(id, func(p *deploy.Report) {
					p.Result, p.Running, p.Health = deploy.ResultFailed, t.Running,
						t.Health
				})
			})
		default:
			c.n++
		}
	}
}
