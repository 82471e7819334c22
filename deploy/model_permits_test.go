package deploy_test

import (
	"bytes"
	"cmp"
	"fmt"
	"runtime/debug"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// The permit rule: real coordinators, tiny agents. Nothing may lower what really
// serves below the floor but what dies by itself: not reports that are lost,
// late or repeated, not stale assignments, false suspicion, crashes and reboots
// in every phase, a new leader, requests in flight, nor facts that meet another
// state than they were decided in.

// agent is all that matters of one host and of what is in flight to and from it.
type agent [25]byte

// Fields of an agent.
const (
	acked    = iota // highest acknowledged generation
	outcome         // of it
	accepted        // the kind of permit that it has not begun to use
	goal            // of it
	working         // it disrupts its application
	running
	serves
	crashed  // 1: the host is down; 2: its application fell ill by itself
	fresh    // 1: the coordinators know the older report, 2: the newer one
	newer    // report: generation, result, running, health, whether sent
	older    = newer + 5
	stale    = older + 5 // assignment: generation, permit, goal
	agentEnd = stale + 3
)

// report is what an agent said: generation, result, running, health, sent.
type report [5]byte

var revisions = []deploy.Digest{"", "v1", "v2", "v3"}

func revision(d deploy.Digest) byte {
	for i, r := range revisions {
		if r == d {
			return byte(i)
		}
	}
	return 0
}

func (a *agent) report(at int) (r report) { copy(r[:], a[at:at+5]); return r }

// says is the report that the agent would send now.
func (a *agent) says() report {
	health := deploy.HealthUnhealthy
	if a[serves] == 1 {
		health = deploy.HealthHealthy
	}
	return report{a[acked], a[outcome], a[running], byte(health), 1}
}

// fence is the agent's: it acts on nothing but a higher generation.
func (a *agent) fence(gen byte) bool { return gen > a[acked] }

// accept is what an agent does with an assignment.
func (a agent) accept(order [3]byte) (agent, bool) {
	gen, permit := order[0], order[1]
	switch {
	case !a.fence(gen) || a[crashed] == 1:
		return a, false
	case permit != byte(deploy.PermitNone):
		a[acked], a[outcome], a[accepted], a[goal] = gen, byte(deploy.ResultNone), permit, order[2]
	case a[working] == 0 && a[accepted] == 0:
		a[acked], a[outcome] = gen, byte(deploy.ResultIdle)
	default:
		return a, false
	}
	return a, true
}

// begin is the moment of disruption, at which a conditional permit is checked.
func (a agent) begin() agent {
	if a[accepted] == byte(deploy.PermitConditional) && a[serves] == 1 && a[working] == 0 {
		a[accepted], a[outcome] = 0, byte(deploy.ResultRefused)
		return a
	}
	a[accepted], a[working], a[serves] = 0, 1, 0
	return a
}

// world is one state of the permit model.
type world struct {
	core     uint32
	crashes  byte // that may still come
	requests byte // of people that may still come
	hosts    [4]agent
}

// permits is one configuration of the permit model.
type permits struct {
	*core
	floor, gens       int
	crashes, requests byte
	// terse leaves out what changes nothing while the fence of counters holds,
	// which the models without it show: reports that are known or superseded.
	terse bool
	// calm leaves out false suspicion of hosts that have got all their generations
	// and are through: it could only keep permits of others back.
	calm   bool
	base   byte // generation of every host at first
	verbs  []deploy.RequestMade
	orders [][][3]byte // of each state of the coordinator: what it assigns
	perms  [][4]uint8
}

func newPermits(hosts, floor, gens, crashes, requests int) *permits {
	p := &permits{
		core: newCore(hosts), floor: floor, gens: gens, crashes: byte(crashes), requests: byte(requests), base: 1,
		verbs: []deploy.RequestMade{
			{Deployment: "d2", Verb: deploy.VerbAbortRollback},
			{Deployment: "d2", Verb: deploy.VerbRollback, Zone: "z"},
			{Deployment: "d2", Verb: deploy.VerbRetry},
		},
	}
	p.perms = orders(hosts)
	return p
}

// orders lists the permutations of the hosts.
func orders(n int) (out [][4]uint8) {
	var walk func(at int, o [4]uint8)
	walk = func(at int, o [4]uint8) {
		if at == n {
			out = append(out, o)
			return
		}
		for i := at; i < n; i++ {
			o[at], o[i] = o[i], o[at]
			walk(at+1, o)
			o[at], o[i] = o[i], o[at]
		}
	}
	walk(0, [4]uint8{0, 1, 2, 3})
	return out
}

// start is a fleet that serves v1, and a deployment of v2 that may take it all.
func (p *permits) start(t *testing.T) world {
	t.Helper()
	ids := []string{}
	for i := range p.core.hosts {
		ids = append(ids, hostID(i))
	}
	f := newFleet(t, "all-at-once", ids...)
	config := f.Groups["www/prod"].Config
	config.Capacity.MinHealthy = deploy.Count(p.floor)
	config.Timeouts.ForgetAfter = 0 // departures are no part of this model
	f.must(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: config})
	d := f.create("d1", "v1", ids...)
	for _, id := range ids {
		f.settle(d, id)
	}
	f.finish(d)
	for _, id := range ids {
		f.report(deploy.Report{
			Host: id, Gen: 1, Result: deploy.ResultDone, Running: "v1", Health: deploy.HealthHealthy,
			Staged: revisions[1:3],
		})
	}
	f.must(deploy.DeploymentCreated{
		ID: "d2", App: "www", Group: "prod", Revision: "v2", RevName: "v2", Config: config,
		Waves: []deploy.Wave{{Name: "all", Hosts: ids, Share: deploy.Percent(100)}},
	})
	f.must(deploy.DeploymentStarted{Deployment: "d2"})
	f.must(deploy.WaveStarted{Deployment: "d2", Budget: p.core.hosts})
	delete(f.Deployments, "d1")
	f.Rebuild()
	w := world{core: p.intern(clone(f.State)), crashes: p.crashes, requests: p.requests}
	for i := range p.core.hosts {
		w.hosts[i][acked], w.hosts[i][outcome] = 1, byte(deploy.ResultDone)
		w.hosts[i][running], w.hosts[i][serves], w.hosts[i][fresh] = 1, 1, 2
		says := w.hosts[i].says()
		copy(w.hosts[i][newer:], says[:])
	}
	return w
}

// assigned returns what every host is told in a state of the coordinator.
func (p *permits) assigned(id uint32) [][3]byte {
	for int(id) >= len(p.orders) {
		s := p.states[len(p.orders)]
		out := make([][3]byte, p.core.hosts)
		for i := range out {
			a := deploy.Assign(s, hostID(i))[0]
			out[i] = [3]byte{byte(a.Gen), byte(a.Permit), revision(a.Goal)}
		}
		p.orders = append(p.orders, out)
	}
	return p.orders[id]
}

// to completes a step of the coordinators: what a host was told before is stale
// now and may still come.
func (p *permits) to(w world, core uint32) world {
	if core == w.core {
		return w
	}
	was, is := p.assigned(w.core), p.assigned(core)
	for i := range p.core.hosts {
		if was[i] != is[i] {
			copy(w.hosts[i][stale:], was[i][:])
		}
	}
	w.core = core
	return w
}

// canonical sorts the hosts, which are all alike.
func (p *permits) canonical(w world) world {
	is := p.assigned(w.core)
	for i := range p.core.hosts {
		a := &w.hosts[i]
		if !a.fence(a[stale]) || bytes.Equal(a[stale:agentEnd], is[i][:]) {
			clear(a[stale:agentEnd]) // nobody would act on it
		}
		if p.terse && a[fresh] > 0 {
			clear(a[older : older+5])
			if a[fresh] == 2 {
				clear(a[newer : newer+5])
			}
			a[fresh] = 0
		}
	}
	o := [4]uint8{0, 1, 2, 3}
	for i := 1; i < p.core.hosts; i++ {
		for j := i; j > 0 && p.less(&w, o[j], o[j-1]); j-- {
			o[j], o[j-1] = o[j-1], o[j]
		}
	}
	return p.reorder(w, o)
}

func (p *permits) less(w *world, i, j uint8) bool {
	rows := p.rows[w.core]
	if rows[i] != rows[j] {
		return rows[i] < rows[j]
	}
	return bytes.Compare(w.hosts[i][:], w.hosts[j][:]) < 0
}

func (p *permits) reorder(w world, o [4]uint8) world {
	if o == ([4]uint8{0, 1, 2, 3}) {
		return w
	}
	out := w
	for i := range p.core.hosts {
		out.hosts[i] = w.hosts[o[i]]
	}
	out.core = p.swap(w.core, o)
	return out
}

// choosable reports whether the order of hosts may matter to a decision about
// this one: it could be granted a permit.
func (p *permits) choosable(id uint32, i int) bool {
	s := p.states[id]
	t := s.Hosts[hostID(i)].Targets["www"]
	task := s.Deployments["d2"].Tasks[hostID(i)]
	return t.Permit == deploy.PermitNone && task.Status != deploy.TaskSettled && task.Status != deploy.TaskReverted
}

// spent reports whether nobody can be disrupted any more within the model's
// generations: what follows cannot lower what serves.
func (p *permits) spent(w world) bool {
	for i := range p.core.hosts {
		if !p.through(w, i) {
			return false
		}
	}
	return true
}

// through is spent for one host.
func (p *permits) through(w world, i int) bool {
	a, o := &w.hosts[i], p.assigned(w.core)[i]
	may := a.fence(o[0]) && o[1] != 0 || a.fence(a[stale]) && a[stale+1] != 0
	return int(o[0]) == int(p.base)+p.gens && a[accepted] == 0 && !may
}

// next lists the steps from a state.
func (p *permits) next(w world, emit func(string, world)) error {
	if p.spent(w) {
		return p.err
	}
	go1 := func(what string, i int, to world) { emit(what+" "+hostID(i), p.canonical(to)) }
	for i := range p.core.hosts {
		p.host(w, i, func(what string, to world) { go1(what, i, to) })
	}
	if w.requests > 0 {
		for v := range p.verbs {
			to := p.to(w, p.request(w.core, v))
			to.requests--
			if to.core != w.core && p.within(to.core) {
				emit("request "+string(p.verbs[v].Verb), p.canonical(to))
			}
		}
	}
	for n, o := range p.perms {
		if n > 0 && !p.grants(w.core) {
			break // the order of hosts matters to grants alone
		}
		if p.useful(w, o) {
			p.decisions(p.reorder(w, o), func(what string, to world) { emit(what, p.canonical(to)) })
		}
	}
	return p.err
}

// grants reports whether a leader would grant a permit now.
func (p *permits) grants(from uint32) bool {
	to := p.take(move{from: from, kind: byDecision}, p.step(0, sight, func(*deploy.State) error { return nil }))
	for i, o := range p.assigned(to) {
		if o[0] != p.assigned(from)[i][0] {
			return true
		}
	}
	return false
}

// useful reports whether the decision may differ when hosts come in that order:
// hosts that nobody chooses among stay, and equal ones keep their order.
func (p *permits) useful(w world, o [4]uint8) bool {
	var at [4]uint8
	for i := range p.core.hosts {
		at[o[i]] = uint8(i)
		if o[i] != uint8(i) && !p.choosable(w.core, i) {
			return false
		}
	}
	for i := 1; i < p.core.hosts; i++ {
		same := p.rows[w.core][i] == p.rows[w.core][i-1] && w.hosts[i] == w.hosts[i-1]
		if same && at[i] < at[i-1] {
			return false
		}
	}
	return true
}

// host lists what one host and its network may do.
func (p *permits) host(w world, i int, emit func(string, world)) {
	a := w.hosts[i]
	with := func(what string, a agent) {
		to := w
		to.hosts[i] = a
		emit(what, to)
	}
	if next, ok := a.accept(p.assigned(w.core)[i]); ok {
		with("accept", next)
	}
	if next, ok := a.accept([3]byte(a[stale:agentEnd])); ok {
		with("accept stale", next)
	}
	if a[crashed] == 1 {
		a[crashed] = 0
		with("reboot", a)
		return
	}
	if a[crashed] == 2 && a[working] == 0 {
		well := a
		well[crashed], well[serves] = 0, 1
		with("recover", well)
	}
	if a[accepted] != 0 {
		with("begin", a.begin())
	}
	if a[working] == 1 && a[accepted] == 0 {
		done, failed, broken := a, a, a
		done[working], done[serves], done[running], done[outcome], done[goal] = 0, 1, a[goal], byte(deploy.ResultDone), 0
		failed[working], failed[serves], failed[outcome], failed[goal] = 0, 1, byte(deploy.ResultFailed), 0
		broken[working], broken[outcome], broken[goal] = 0, byte(deploy.ResultBroken), 0
		done[crashed], failed[crashed] = 0, 0
		with("succeed", done)
		with("fail", failed)
		with("break", broken)
	}
	if says := a.says(); says != a.report(newer) && p.news(w, i, says) || a[fresh] == 2 {
		b := a
		copy(b[older:older+5], a[newer:newer+5])
		copy(b[newer:newer+5], says[:])
		b[fresh] = 0
		if a[fresh] == 2 {
			b[fresh] = 1
		}
		with("send", b)
	}
	for level, at := range []int{older, newer} {
		if a[at+4] == 1 {
			to, now := p.deliver(w.core, i, level+1, a[fresh], a.report(at))
			next := p.to(w, to)
			next.hosts[i][fresh] = now
			emit([]string{"late report of", "report of"}[level], next)
		}
	}
	if w.crashes > 0 && a[crashed] == 0 {
		to := w
		to.crashes--
		to.hosts[i][crashed] = 1
		emit("crash", to)
		if a[serves] == 1 && a[working] == 0 {
			to.hosts[i][crashed], to.hosts[i][serves] = 2, 0
			emit("fall ill", to)
		}
	}
}

// news reports whether sending is worth a step: in a terse model what would tell
// the coordinators nothing is not sent.
func (p *permits) news(w world, i int, r report) bool {
	if !p.terse || w.hosts[i][newer+4] == 1 {
		return true
	}
	to, _ := p.deliver(w.core, i, 2, 0, r)
	return to != w.core
}

// hear gives a report to the coordinators. Counters are 1 for the older and 2
// for the newer of the two that are in flight.
func (p *permits) hear(s *deploy.State, i, level int, r report) error {
	return p.facts(s, epoch, deploy.TargetsReported{Items: []deploy.Report{{
		Host: hostID(i), App: "www", Counter: uint64(level), Gen: uint64(r[0]), Result: deploy.Result(r[1]),
		Running: revisions[r[2]], Health: deploy.Health(r[3]), Staged: revisions[1:3],
	}}})
}

// deliver returns the state after a report, and which report is known then.
func (p *permits) deliver(from uint32, i, level int, known byte, r report) (uint32, byte) {
	m := move{from: from, kind: byReport, at: uint8(i + 1), level: uint8(level), fresh: known, saw: r}
	to := p.take(m, func(s *deploy.State) error {
		s.Hosts[hostID(i)].Counter, s.Target(hostID(i), "www").Counter = uint64(known), uint64(known)
		return p.hear(s, i, level, r)
	})
	return to, max(known, byte(level))
}

func (p *permits) request(from uint32, v int) uint32 {
	return p.take(move{from: from, kind: byRequest, level: uint8(v)}, func(s *deploy.State) error {
		return p.facts(s, epoch, p.verbs[v])
	})
}

// decisions lists what a leader may decide: with every host in sight, as a new
// leader sees them, with one out of sight, or with one for which time is over;
// and between the decision and its facts a report or a request may come.
func (p *permits) decisions(w world, emit func(string, world)) {
	p.decide(w, 0, sight, emit)
	for i := range p.core.hosts {
		h := p.states[w.core].Hosts[hostID(i)]
		t := h.Targets["www"]
		if !h.Unreachable && !(p.calm && p.through(w, i)) {
			p.decide(w, i+1, sight, emit)
		}
		if h.Unreachable && (t.Permit != deploy.PermitNone || !p.ended(w.core, i)) {
			p.decide(w, i+1, gone, emit)
		}
		if t.Permit != deploy.PermitNone {
			p.decide(w, i+1, silent, emit)
		}
	}
}

func (p *permits) ended(id uint32, i int) bool {
	return p.states[id].Deployments["d2"].Tasks[hostID(i)].Status.Terminal()
}

// view is how a leader sees the host that a decision is about.
type view byte

const (
	sight  view = iota // gone since just now; host 0 is none, as a new leader sees it
	gone               // gone for long, and its permit is old
	silent             // in sight, and its permit is old
)

func (v view) String() string { return []string{"suspect", "suspect for long", "no result from"}[v] }

// step is a decision about a host, and what comes before its facts.
func (p *permits) step(down int, see view, between func(*deploy.State) error) func(*deploy.State) error {
	return func(s *deploy.State) error {
		f := deploy.Fleet{}
		if down > 0 && see != silent {
			f.Down = []string{hostID(down - 1)}
		}
		if see != sight {
			h := s.Hosts[hostID(down-1)]
			h.DownSince, h.Targets["www"].GrantedAt = longAgo, longAgo
			s.Rebuild()
		}
		events := deploy.Decide(s, f, epoch)
		if err := between(s); err != nil {
			return err
		}
		return p.facts(s, epoch, events...)
	}
}

func (p *permits) decide(w world, down int, see view, emit func(string, world)) {
	what := "decide"
	if down > 0 {
		what += ", " + see.String() + " " + hostID(down-1)
	}
	m := move{from: w.core, kind: byDecision, down: uint8(down), see: see}
	plain := p.take(m, p.step(down, see, func(*deploy.State) error { return nil }))
	if plain == w.core {
		return // nothing was decided
	}
	if p.within(plain) {
		emit(what, p.to(w, plain))
	}
	for i := range p.core.hosts {
		for level, at := range []int{older, newer} {
			a := &w.hosts[i]
			// known already: nothing changes between
			if down > 0 && i != down-1 || a[at+4] == 0 || int(a[fresh]) >= level+1 {
				continue
			}
			m := m
			m.at, m.level, m.fresh, m.saw = uint8(i+1), uint8(level+1), a[fresh], a.report(at)
			core := p.take(m, p.step(down, see, func(s *deploy.State) error { return p.hear(s, i, level+1, m.saw) }))
			to := p.to(w, core)
			to.hosts[i][fresh] = byte(level + 1)
			if p.within(core) {
				emit(fmt.Sprintf("%s, report of %s before the facts", what, hostID(i)), to)
			}
		}
	}
	if w.requests > 0 {
		m := m
		m.level = 9
		core := p.take(m, p.step(down, see, func(s *deploy.State) error { return p.facts(s, epoch, p.verbs[0]) }))
		to := p.to(w, core)
		to.requests--
		if p.within(core) {
			emit(what+", "+string(p.verbs[0].Verb)+" before the facts", to)
		}
	}
}

// within bounds the model: no host gets more generations.
func (p *permits) within(id uint32) bool {
	for _, o := range p.assigned(id) {
		if int(o[0]) > int(p.base)+p.gens {
			return false
		}
	}
	return true
}

// check tests what only the truth about the hosts can tell.
func (p *permits) check(w world) error {
	serving, outside := 0, 0
	s := p.states[w.core]
	for i := range p.core.hosts {
		a := &w.hosts[i]
		switch {
		case a[crashed] != 0:
			outside++
		case a[serves] == 1 && a[working] == 0:
			serving++
		}
		t := s.Target(hostID(i), "www")
		if uint64(a[acked]) > t.Gen {
			return fmt.Errorf("I7: %s acts on generation %d, the highest committed is %d", hostID(i), a[acked], t.Gen)
		}
		task := s.Deployments["d2"].Tasks[hostID(i)]
		if task.Status == deploy.TaskSettled && task.Gen == t.Gen &&
			(uint64(a[acked]) != t.Gen || revisions[a[running]] != "v2") {
			return fmt.Errorf("S14: %s counts as settled and runs %s", hostID(i), revisions[a[running]])
		}
	}
	if serving+outside < p.floor {
		return fmt.Errorf("I1: %d hosts serve, %d died by themselves, the floor is %d", serving, outside, p.floor)
	}
	return nil
}

// show is a state in one line, for traces.
func (p *permits) show(w world) string {
	s := p.states[w.core]
	out := s.Deployments["d2"].Status.String()
	for i := range p.core.hosts {
		a, t := &w.hosts[i], s.Target(hostID(i), "www")
		out += fmt.Sprintf(" | %s gen=%d open=%v %s %s %s; agent %d %s takes=%s works=%d serves=%d crashed=%d",
			s.Deployments["d2"].Tasks[hostID(i)].Status,
			t.Gen, t.Open, t.Permit, t.Health, t.Running, a[acked], deploy.Result(a[outcome]), deploy.Permit(a[accepted]), a[working], a[serves], a[crashed])
	}
	return out
}

// walk explores one configuration.
func (p *permits) walk(t *testing.T, limit int, budget time.Duration) {
	t.Helper()
	began := time.Now()
	name := fmt.Sprintf("permits: %d hosts, floor %d, %d generations, %d crashes, %d requests", p.core.hosts, p.floor,
		p.gens, p.crashes, p.requests)
	x := explore(p.canonical(p.start(t)), limit, began.Add(budget), false, p.next, p.check)
	x.report(t, name, p.core, began, p.show)
}

// TestModelPermits walks the permit rule: small models always, the whole ones
// with MODEL set.
func TestModelPermits(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	small := newPermits(2, 1, 1, 0, 0)
	small.checkEach = !large()
	small.walk(t, 100_000, time.Minute)
	two := newPermits(2, 1, 2, 0, 0)
	two.terse = true
	two.walk(t, 30_000, time.Minute)
	if !large() {
		return
	}
	for _, one := range []struct {
		hosts, floor, gens, crashes, requests int
		terse, calm                           bool
		limit                                 int
	}{
		{hosts: 2, floor: 1, gens: 1, crashes: 2, terse: true},
		{hosts: 2, floor: 1, gens: 2, terse: true},
		{hosts: 2, floor: 1, gens: 1, requests: 1},
		{hosts: 2, floor: 1, gens: 1, crashes: 1, terse: true},
		{hosts: 2, floor: 1, gens: 2, crashes: 1, terse: true, limit: 500_000},
		{hosts: 2, floor: 1, gens: 2, requests: 1, terse: true, calm: true},
		{hosts: 3, floor: 2, gens: 1, terse: true},
		{hosts: 3, floor: 1, gens: 1, terse: true},
		{hosts: 4, floor: 2, gens: 1, terse: true, calm: true},
		{hosts: 3, floor: 2, gens: 2, crashes: 1, requests: 1, terse: true, limit: 300_000},
	} {
		p := newPermits(one.hosts, one.floor, one.gens, one.crashes, one.requests)
		p.terse, p.calm = one.terse, one.calm
		p.walk(t, cmp.Or(one.limit, 3_000_000), 60*time.Second)
	}
}
