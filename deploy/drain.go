package deploy

import "fmt"

// Drain is a person's wish that a host gets no traffic: for a new kernel, a new disk, a
// look at it. What runs there goes on. It is never changed, but replaced.
type Drain struct {
	Actor  string `json:"actor"`
	Reason string `json:"reason,omitempty"`
	Since  int64  `json:"since"` // wall
	// Granted: every floor allowed it. From then on the host does not count as serving,
	// gets no new work, and its agent takes it out of every pool.
	Granted bool `json:"granted,omitempty"`
}

// Out says how far a target is out of its pools by a drain of its host.
type Out int

// A target that is on its way out or back does not serve. One on its way back may get
// work: it may be what it needs to come back.
const (
	OutNone Out = iota
	OutMoving
	OutDone
)

// HostDrainSet is the wish that a host gets no traffic, or its end.
type HostDrainSet struct {
	Request Request
	Host    string
	Undo    bool
}

// HostDrained grants such a wish: every floor allows it now.
type HostDrained struct{ Host string }

// drained reports whether the host is to be out of its pools.
func (h *Host) drained() bool { return h.Drain != nil && h.Drain.Granted }

// Drained reports whether a person drained the host, and every floor allowed it.
func (s *State) Drained(host string) bool {
	h := s.Hosts[host]
	return h != nil && h.drained()
}

// isolated reports whether the host is no evidence, no capacity and gets no new work.
func (h *Host) isolated() bool { return h.Quarantine != "" || h.drained() }

// keptOut says why the target is no evidence, no capacity and gets no new work; "" if it
// is, has and gets.
func (t *Target) keptOut() string {
	switch h := t.host; {
	case h.Quarantine != "":
		return h.Quarantine
	case h.drained():
		return "drained " + joinText(h.Drain.Actor, h.Drain.Reason)
	}
	return ""
}

func (s *State) hostDrainSet(e HostDrainSet) error {
	h := s.Hosts[e.Host]
	switch {
	case s.Rules < 4:
		return refuse(Conflict, "not every coordinator knows how to drain a host; upgrade them all")
	case h == nil:
		return refuse(NotFound, "no host %s", e.Host)
	case e.Undo && h.Drain == nil:
		return refuse(Conflict, "host %s is not drained", h.Name)
	case !e.Undo && h.Drain != nil:
		return refuse(Conflict, "host %s is drained already %s", h.Name, joinText(h.Drain.Actor, h.Drain.Reason))
	case e.Undo:
		granted := h.drained()
		h.Drain = nil
		if granted {
			s.moveOut(h)
			s.isolate(h)
		}
		s.noteHost(h, "undrained by "+e.Request.Actor)
	default:
		h.Drain = &Drain{Actor: e.Request.Actor, Reason: e.Request.Reason, Since: s.Wall}
	}
	s.sortDraining(h)
	return nil
}

func (s *State) hostDrained(e HostDrained) error {
	h := s.Hosts[e.Host]
	if h == nil || h.Drain == nil || h.Drain.Granted {
		return refuse(Conflict, "host %s waits for no drain", e.Host)
	}
	if hold := s.DrainHold(h); hold != "" {
		return refuse(Conflict, "host %s cannot be drained now: %s", h.Name, hold)
	}
	granted := *h.Drain
	granted.Granted = true
	h.Drain = &granted
	s.sortDraining(h)
	s.moveOut(h)
	s.isolate(h)
	s.noteHost(h, "drained "+joinText(granted.Actor, granted.Reason))
	return nil
}

// moveOut has the targets of a host on their way out or back, until each agent answers
// to this very entry: what it said before may still be under way.
func (s *State) moveOut(h *Host) {
	for _, t := range sorted(h.Targets) {
		s.update(t, func() { t.Out, t.OutKey = OutMoving, s.Index })
	}
}

// DrainHold says what a drain of the host waits for; "" for nothing. Afterwards every
// floor is kept by others, also where the host does not serve just now: it may be well
// again in a moment. One that is at work for an application finishes first.
func (s *State) DrainHold(h *Host) string { return s.drainHold(h, floors) }

func (s *State) drainHold(h *Host, floors func(*Group) []Floor) string {
	for app, t := range sorted(h.Targets) {
		switch {
		case t.Permit != PermitNone || t.Open:
			return fmt.Sprintf("%s is at work there", app)
		case t.group == nil || t.Quarantined || !t.EverHealthy:
			continue // it counts for nothing
		}
		for _, f := range floors(t.group) {
			if f.Zone != "" && f.Zone != t.Zone {
				continue
			}
			if u := t.group.usage(f.Zone); u.serving-count(t.Serving()) < f.Min {
				where := t.group.Key()
				if f.Zone != "" {
					where += " in zone " + f.Zone
				}
				return fmt.Sprintf("%d hosts serve %s, the floor is %d", u.serving, where, f.Min)
			}
		}
		if err := s.ledger(t.group, nil).quorum(t); err != nil {
			return t.group.Key() + ": " + err.Error()
		}
	}
	return ""
}

// sortDraining keeps the hosts whose drain waits for its grant.
func (s *State) sortDraining(h *Host) {
	if h.Drain != nil && !h.Drain.Granted {
		s.draining[h.ID] = struct{}{}
	} else {
		delete(s.draining, h.ID)
	}
}

// drains grants the first drain that every floor allows: the next is asked for when that
// is committed.
func (d *decision) drains() {
	known := map[*Group][]Floor{}
	of := func(g *Group) []Floor {
		if known[g] == nil {
			known[g] = floors(g)
		}
		return known[g]
	}
	for id := range sorted(d.s.draining) {
		if d.s.drainHold(d.s.Hosts[id], of) == "" {
			d.emit(HostDrained{Host: id})
			return
		}
	}
}
