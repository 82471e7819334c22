package deploy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// Explicit-state model checking of the real State, Decide, Apply and Assign.
// This file holds the coordinator: states are cloned, stepped, made canonical
// and numbered, and a step from a state is taken once and remembered. The
// models beside it add agents, and say what may happen next.

// epoch is FSM time in every canonical state: what happened, happened just now.
// Time passes in a step only, and each step says what is due in it, so that
// anything may be due in any order.
const epoch = deploy.Time(1000 * time.Hour)

// epochWall is the wall clock then; a model without gates leaves it at 0.
const epochWall int64 = 1_000_000

// longAgo is before anything that a timeout could wait for.
const longAgo = deploy.Time(1)

// core numbers the canonical states of a coordinator.
type core struct {
	hosts  int
	ids    map[string]uint32
	states []*deploy.State
	rows   [][]uint32 // of each state, of each host: its target and tasks, numbered
	rowIDs map[string]uint32
	memo   map[move]uint32
	err    error         // the first broken invariant
	more   func() string // what a model adds to the state that is being numbered
	// checkEach checks after every fact, that equal encodings are equal states, and that
	// a new leader decides the same.
	checkEach bool
}

// move is one step of the coordinator. Which fields are used depends on kind.
type move struct {
	from         uint32
	kind         kind
	at, down     uint8 // hosts, from 1
	level, fresh uint8
	see          view
	saw          report
	order        [4]uint8
}

// kind says what a move is.
type kind byte

const (
	bySwap kind = iota
	byReport
	byRequest
	byDecision
	byHand
)

func newCore(hosts int) *core {
	return &core{hosts: hosts, ids: map[string]uint32{}, rowIDs: map[string]uint32{}, memo: map[move]uint32{}}
}

func hostID(i int) string { return [...]string{"h1", "h2", "h3", "h4"}[i] }

// take makes a step from a state, once, and returns the number of the next one.
func (c *core) take(m move, do func(*deploy.State) error) uint32 {
	if to, seen := c.memo[m]; seen {
		return to
	}
	s := clone(c.states[m.from])
	if err := do(s); err != nil && c.err == nil {
		c.err = err
	}
	to := c.intern(s)
	c.memo[m] = to
	return to
}

// facts applies facts one by one, each witnessed.
func (c *core) facts(s *deploy.State, at deploy.Time, events ...deploy.Event) error {
	var broken error
	s.Violated = func(err error) { broken = err }
	defer func() { s.Violated = nil }()
	for _, e := range events {
		witness := deploy.Witness(s, e)
		s.ApplyEntry(s.Index+1, deploy.Entry{At: at, Events: []deploy.Event{e}})
		if witness != nil {
			if err := witness(); err != nil {
				return fmt.Errorf("%s: %w", deploy.Describe(e), err)
			}
		}
		if broken != nil {
			return fmt.Errorf("%s: %w", deploy.Describe(e), broken)
		}
		if !c.checkEach {
			continue
		}
		if err := deploy.Check(s); err != nil {
			return fmt.Errorf("after %s: %w", deploy.Describe(e), err)
		}
	}
	return nil
}

// intern makes the state canonical and returns its number.
func (c *core) intern(s *deploy.State) uint32 {
	settle(s)
	text, rows := c.encode(s)
	if id, seen := c.ids[text]; seen {
		if c.checkEach {
			c.same(c.states[id], s)
		}
		return id
	}
	if err := deploy.Check(s); err != nil && c.err == nil {
		c.err = err
	}
	id := uint32(len(c.states))
	c.ids[text] = id
	c.states, c.rows = append(c.states, s), append(c.rows, rows)
	if c.checkEach {
		if err := reload(clone(s)); err != nil && c.err == nil {
			c.err = err // a new leader decides otherwise
		}
	}
	return id
}

// same proves that the encoding left nothing out.
func (c *core) same(a, b *deploy.State) {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) != string(y) && c.err == nil {
		at := 0
		for at < min(len(x), len(y)) && x[at] == y[at] {
			at++
		}
		at = max(0, at-100)
		c.err = fmt.Errorf("two states have one encoding, and differ here:\n%.200s\n%.200s", x[at:], y[at:])
	}
}

// swap exchanges hosts: the new i-th host is what the order[i]-th was. The order
// of hosts in waves stays, so that it is as if the others had come first.
func (c *core) swap(from uint32, order [4]uint8) uint32 {
	return c.take(move{from: from, kind: bySwap, order: order}, func(s *deploy.State) error {
		old := clone(s)
		for i := range c.hosts {
			id, was := hostID(i), hostID(int(order[i]))
			h := old.Hosts[was]
			h.ID, h.Name = id, id
			for _, t := range h.Targets {
				t.Host = id
			}
			s.Hosts[id] = h
			for key, d := range s.Deployments {
				if t := old.Deployments[key].Tasks[was]; t != nil {
					d.Tasks[id] = t
				}
			}
		}
		s.Rebuild()
		return nil
	})
}

// clone copies what facts may change; derived indexes are made anew.
func clone(s *deploy.State) *deploy.State {
	out := *s
	out.Hosts, out.Groups, out.Deployments = map[string]*deploy.Host{}, map[string]*deploy.Group{}, map[string]*deploy.Deployment{}
	out.Requests, out.RequestLog = map[string]*deploy.Answer{}, nil
	out.Freezes = slices.Clone(s.Freezes)
	for id, h := range s.Hosts {
		x := *h
		x.Targets = map[string]*deploy.Target{}
		for app, t := range h.Targets {
			y := *t
			y.Seals = slices.Clone(t.Seals)
			x.Targets[app] = &y
		}
		out.Hosts[id] = &x
	}
	for key, g := range s.Groups {
		x := *g
		x.Members, x.Bad = copied(g.Members), copied(g.Bad)
		x.History, x.Grades = slices.Clone(g.History), copied(g.Grades)
		x.Layout.Waves = slices.Clone(g.Layout.Waves)
		for i := range x.Layout.Waves {
			w := &x.Layout.Waves[i]
			w.Hosts = slices.Clone(w.Hosts)
		}
		out.Groups[key] = &x
	}
	for id, d := range s.Deployments {
		x := *d
		x.Waves, x.Tasks, x.Records = slices.Clone(d.Waves), map[string]*deploy.Task{}, nil
		for i := range x.Waves {
			w := &x.Waves[i]
			w.Hosts, w.Holds = slices.Clone(w.Hosts), slices.Clone(w.Holds)
			w.Watch = copied(w.Watch)
			for key, watched := range w.Watch {
				y := *watched
				w.Watch[key] = &y
			}
		}
		for h, t := range d.Tasks {
			y := *t
			x.Tasks[h] = &y
		}
		x.Fixes, x.Promoted, x.Approvals = slices.Clip(d.Fixes), slices.Clip(d.Promoted), slices.Clip(d.Approvals)
		out.Deployments[id] = &x
	}
	out.Rebuild()
	return &out
}

func copied[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return nil
	}
	out := make(map[K]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// settle makes a state canonical: no indexes, absolute times, texts for people,
// counters, nor the memory of flapping.
func settle(s *deploy.State) {
	s.Index, s.MembershipIndex, s.Now, s.Wall = 1, 1, epoch, min(s.Wall, epochWall)
	for _, h := range s.Hosts {
		h.Counter, h.Flaps, h.DownSince = 0, nil, just(h.DownSince, h.Unreachable)
		for _, t := range h.Targets {
			t.Counter, t.Evidence, t.RetryAt, t.StageReason, t.StageTries, t.StageFailedAt = 0, "", 0, nil, 0, 0
			t.GrantedAt, t.Joined = just(1, t.Permit != deploy.PermitNone), 0
			timeless(t.Seals)
			if t.Drift != "" {
				t.Drift = "left alone"
			}
		}
	}
	for _, g := range s.Groups {
		timeless(g.History)
	}
	for _, d := range s.Deployments {
		d.Records, d.Cause, d.Reason, d.Attempt = nil, "", "", 0
		d.CreatedAt, d.Created, d.Ended = epoch, 0, 0
		d.StartedAt, d.EndedAt, d.PausedAt = just(d.StartedAt, true), just(d.EndedAt, true), just(d.PausedAt, true)
		d.LimitFrom = just(d.LimitFrom, true)
		d.Asked = strings.Repeat("x", min(len(d.Asked), 1))
		if d.ScopeRevert != nil {
			x := *d.ScopeRevert
			x.Cause = ""
			d.ScopeRevert = &x
		}
		if d.RequestedRevert != nil {
			x := *d.RequestedRevert
			x.Cause = ""
			d.RequestedRevert = &x
		}
		for i := range d.Waves {
			w := &d.Waves[i]
			baking := w.Status == deploy.WaveStatusBaking
			w.StartedAt, w.EndedAt = just(w.StartedAt, true), just(w.EndedAt, true)
			settleWatch(d, w)
			w.EvidenceSince, w.EvidenceFrom = 0, min(w.EvidenceFrom, epochWall)
			w.HeldAt = just(w.HeldAt, true)
			w.BakeSince, w.BakeUntil = just(w.BakeSince, baking), just(w.BakeUntil, baking)
			if baking {
				w.BakeUntil = epoch.Add(w.BakeMin)
			}
		}
		d.AskAgain = just(d.AskAgain, true)
		for _, t := range d.Tasks {
			t.Since, t.Wall, t.Cause, t.Failure = epoch, 0, "", nil
		}
	}
}

// settleWatch keeps of answers what they say, and whether they are from before
// the wave's evidence begins, or from before the gates were to be asked again.
func settleWatch(d *deploy.Deployment, w *deploy.Wave) {
	for _, x := range w.Watch {
		old, stale := x.Last.From < w.EvidenceFrom, x.At < d.AskAgain
		x.Last = deploy.Observation{Key: x.Last.Key, Answer: x.Last.Answer}
		x.At, x.Covered = epoch, 0
		if !old {
			x.Last.From, x.Last.To = epochWall, epochWall
		}
		if stale {
			x.At = longAgo
		}
	}
}

func just(t deploy.Time, keep bool) deploy.Time {
	if t == 0 || !keep {
		return 0
	}
	return epoch
}

func timeless(seals []deploy.Seal) {
	for i := range seals {
		seals[i].At = epoch
	}
}

// encode writes down everything that distinguishes two canonical states of one
// model, and the same for each host alone. same proves that nothing is left out.
func (c *core) encode(s *deploy.State) (string, []uint32) {
	b := make([]byte, 0, 256)
	bit := func(v bool) {
		if v {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	text := func(v string) { b = append(append(b, v...), 0) }
	seals := func(list []deploy.Seal) {
		for _, x := range list {
			text(x.Deployment)
			text(string(x.Revision))
			text(x.Wave)
		}
		b = append(b, 0)
	}
	g := s.Groups["www/prod"]
	ids := make([]string, 0, 4)
	for id := range s.Deployments {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	rows := make([]uint32, c.hosts)
	for i := range c.hosts {
		b = b[:0]
		h := s.Hosts[hostID(i)]
		if h != nil {
			text(h.Quarantine)
			bit(h.Unreachable)
			if t := h.Targets["www"]; t != nil {
				text(string(t.Desired))
				text(string(t.Running))
				text(t.Deployment)
				b = append(b, byte(t.Gen), byte(t.Permit), byte(t.Health), byte(t.CatchUp), byte(t.Tries))
				bit(t.Open)
				bit(t.EverHealthy)
				bit(t.Away)
				bit(t.Drift != "")
				bit(t.Declared)
				text(t.LeftBy)
				text(string(t.Done))
				seals(t.Seals)
			}
		}
		for _, id := range ids {
			b = append(b, '|')
			if x := s.Deployments[id].Tasks[hostID(i)]; x != nil {
				b = append(b, byte(x.Wave), byte(x.Status), byte(x.Gen), byte(x.Refused), byte(x.Reverts),
					byte(x.Phase))
				bit(x.Counted)
				bit(x.Left)
				bit(x.Named)
				bit(x.Intend)
				text(string(x.Goal))
			}
		}
		id, seen := c.rowIDs[string(b)]
		if !seen {
			id = uint32(len(c.rowIDs))
			c.rowIDs[string(b)] = id
		}
		rows[i] = id
	}
	b = b[:0]
	for _, id := range rows {
		b = append(b, byte(id), byte(id>>8), byte(id>>16))
	}
	for _, rev := range []deploy.Digest{"v1", "v2", "v3"} {
		text(g.Bad[rev])
	}
	text(g.Last)
	text(g.Selector)
	text(g.NextSelector)
	b = append(b, byte(len(s.Freezes)), byte(s.Seq))
	for i := range g.Layout.Waves {
		text(strings.Join(g.Layout.Waves[i].Hosts, " "))
	}
	seals(g.History)
	for _, rev := range []deploy.Digest{"v1", "v2", "v3"} {
		text(string(g.Grades[rev]))
	}
	for _, id := range ids {
		d := s.Deployments[id]
		b = append(b, id...)
		b = append(b, byte(d.Status), byte(d.Failures), byte(d.Seq))
		text(d.GateFail)
		text(d.Undoes)
		text(string(d.Leaves))
		text(strings.Join(d.Promoted, " "))
		bit(d.Inverse)
		bit(d.Pruned)
		bit(d.LimitFrom > 0)
		bit(d.EndedAt > 0)
		bit(d.Granted)
		bit(d.Undone)
		bit(d.Asked != "")
		bit(d.AskAgain != 0)
		bit(d.Decision)
		bit(d.RevertSet)
		bit(d.Held)
		bit(d.StartedAt > 0)
		bit(d.PausedAt > 0)
		text(d.TakenBy)
		text(string(d.From))
		for _, f := range d.Fixes {
			text(string(f))
		}
		for _, sc := range []*deploy.Reversion{d.ScopeRevert, d.RequestedRevert} {
			if sc != nil {
				text(sc.Scope + " " + sc.Then + " " + sc.Zone + " " + sc.Wave)
			}
			b = append(b, 0)
		}
		for i := range d.Waves {
			w := &d.Waves[i]
			b = append(b, byte(w.Status), byte(w.Planned), byte(w.Budget), byte(w.Extra), byte(len(w.Holds)))
			bit(w.Released)
			bit(w.EvidenceFrom == epochWall)
			bit(w.StartedAt > 0)
			bit(w.EndedAt > 0)
			bit(w.HeldAt > 0)
			for _, h := range w.Holds {
				text(h.Text)
			}
			text(strings.Join(w.Hosts, " "))
			for _, key := range slices.Sorted(maps.Keys(w.Watch)) {
				x := w.Watch[key]
				text(key)
				text(string(x.Last.Answer) + string(x.Verdict))
				b = append(b, byte(x.Fails))
				bit(x.At == epoch)
				bit(x.Last.From == epochWall)
			}
		}
	}
	if c.more != nil {
		text(c.more())
	}
	return string(b), rows
}

// visit is one state of an exploration and how it was reached.
type visit struct {
	from   int32
	action string
}

// explored is what an exploration found.
type explored[S comparable] struct {
	states []S
	how    []visit
	after  [][]int32 // successors of each, when asked for
	whole  bool      // every reachable state was seen
	err    error
	at     int32 // the state that err is about
}

// explore walks every state that next leads to, breadth first, until limit
// states or the deadline. A check that fails ends it.
func explore[S comparable](start S, limit int, until time.Time, edges bool, next func(S, func(string, S)) error,
	check func(S) error,
) *explored[S] {
	x := &explored[S]{whole: true}
	ids := map[S]int32{}
	add := func(s S, from int32, action string) int32 {
		id, seen := ids[s]
		if !seen {
			id = int32(len(x.states))
			ids[s] = id
			x.states, x.how = append(x.states, s), append(x.how, visit{from, action})
		}
		return id
	}
	add(start, -1, "start")
	for i := int32(0); int(i) < len(x.states); i++ {
		if len(x.states) > limit || i%1024 == 0 && time.Now().After(until) {
			x.whole = false
			return x
		}
		s := x.states[i]
		if x.err = check(s); x.err != nil {
			x.at = i
			return x
		}
		var out []int32
		err := next(s, func(action string, to S) {
			id := add(to, i, action)
			if edges {
				out = append(out, id)
			}
		})
		if err != nil {
			x.err, x.at = err, i
			return x
		}
		if edges {
			x.after = append(x.after, out)
		}
	}
	return x
}

// trace lists the actions that lead to a state.
func (x *explored[S]) trace(to int32, show func(S) string) string {
	var lines []string
	for i := to; i >= 0; i = x.how[i].from {
		lines = append(lines, fmt.Sprintf("  %-28s %s", x.how[i].action, show(x.states[i])))
	}
	slices.Reverse(lines)
	return strings.Join(lines, "\n")
}

// stuck returns a state from which no good one can be reached, or -1.
func (x *explored[S]) stuck(good func(S) bool) int32 {
	before := make([][]int32, len(x.states))
	for i, out := range x.after {
		for _, to := range out {
			before[to] = append(before[to], int32(i))
		}
	}
	can, queue := make([]bool, len(x.states)), []int32{}
	for i := range x.states {
		if good(x.states[i]) {
			can[i], queue = true, append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, b := range before[i] {
			if !can[b] {
				can[b], queue = true, append(queue, b)
			}
		}
	}
	return int32(slices.Index(can, false))
}

// report prints one line about a configuration, and the trace of a violation.
func (x *explored[S]) report(t *testing.T, name string, c *core, began time.Time, show func(S) string) {
	t.Helper()
	how := "exhaustive"
	switch {
	case x.err != nil:
		t.Fatalf("%s: %v\n%s", name, x.err, x.trace(x.at, show))
	case !x.whole:
		how = fmt.Sprintf("bounded at %d", len(x.states))
	}
	t.Logf("%-58s %8d states, %6d of the coordinator: %s (%.1fs)", name, len(x.states), len(c.states), how,
		time.Since(began).Seconds())
}

// large says whether the whole models are to be walked: `make model`.
func large() bool { return os.Getenv("MODEL") != "" }
