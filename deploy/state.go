package deploy

import (
	"cmp"
	"maps"
	"slices"
)

// State is everything the coordinators agree on. It changes only by Apply, on
// one goroutine; readers hold a lock that excludes Apply and keep no pointer.
// The zero value is not usable: call NewState, or Rebuild after decoding one.
type State struct {
	Rules int    `json:"rules"` // what facts mean: see RulesKnown
	Index uint64 `json:"index"` // of the last applied entry
	Now   Time   `json:"now"`   // FSM time of the last applied entry
	Wall  int64  `json:"wall"`  // Unix milliseconds, for people only
	Seq   uint64 `json:"seq"`   // deployments created so far
	// index of the last change of hosts, labels, groups or membership
	MembershipIndex uint64           `json:"membership_index"`
	Hosts           map[string]*Host `json:"hosts"`
	// host name -> id of the newest host of that name
	Names       map[string]string               `json:"names"`
	Groups      map[string]*Group               `json:"groups"`    // by GroupKey
	Revisions   map[string]map[Digest]*Revision `json:"revisions"` // by application
	Deployments map[string]*Deployment          `json:"deployments"`
	Requests    map[string]*Answer              `json:"requests"`
	RequestLog  []string                        `json:"request_log"` // ids, oldest first
	Freezes     []Freeze                        `json:"freezes,omitempty"`
	Outages     []Outage                        `json:"outages,omitempty"` // of hosts in pools, by our doing
	// RequestFloor is the wall time of the newest request whose id is forgotten.
	RequestFloor int64 `json:"request_floor,omitempty"`
	// Packs are the objects of the history's store, oldest first; OlderPacks is the one
	// that names those before them, "" for none.
	Packs      []Pack `json:"packs,omitempty"`
	OlderPacks Digest `json:"older_packs,omitempty"`
	// Dropped counts the ended deployments of which the state knows nothing any more.
	Dropped uint64 `json:"dropped,omitempty"`

	// Amend is asked first what a fact means, at every level; a level that no
	// build has yet is tried with it in tests, production leaves it nil. It is no
	// part of the state.
	Amend func(*State, Event) (handled bool, err error) `json:"-"`

	// Violated is called with every invariant that an entry breaks, while it is
	// applied; nil tests none. It is no part of the state.
	Violated func(error) `json:"-"`

	open      []*Deployment // not terminal, by Seq; derived
	answers   []*Answer     // of RequestLog; derived
	groups    []*Group      // by application and name; derived
	whole     wholes
	outlines  []*Deployment // ended and not whole, by their end; derived
	touched   touched
	moves     moves
	flapping  map[string]struct{} // see sortFlapping; derived
	draining  map[string]struct{} // see sortDraining; derived
	clock     int64               // wall time of the entry that is applied, by the clock of who led
	namesakes map[string]int      // hosts by name; derived
}

// Answer is what a request id was answered with.
type Answer struct {
	At      Time   `json:"at"`
	Content uint64 `json:"content"` // hash of the request's content
	Refusal string `json:"refusal,omitempty"`
	Kind    string `json:"kind,omitempty"`
	Index   uint64 `json:"index"`
	Wall    int64  `json:"wall,omitempty"` // when it was answered
}

// NewState returns an empty state.
func NewState() *State {
	s := &State{Rules: 1}
	s.Rebuild()
	return s
}

// Rebuild derives the indexes that are not part of the encoded state. Call it
// after decoding a snapshot, before anything else.
func (s *State) Rebuild() {
	if s.Hosts == nil {
		s.Hosts = map[string]*Host{}
	}
	if s.Names == nil {
		s.Names = map[string]string{}
	}
	if s.Groups == nil {
		s.Groups = map[string]*Group{}
	}
	if s.Revisions == nil {
		s.Revisions = map[string]map[Digest]*Revision{}
	}
	if s.Deployments == nil {
		s.Deployments = map[string]*Deployment{}
	}
	if s.Requests == nil {
		s.Requests = map[string]*Answer{}
	}
	s.answers = make([]*Answer, len(s.RequestLog))
	for i, id := range s.RequestLog {
		if s.Requests[id] == nil {
			s.Requests[id] = &Answer{}
		}
		s.answers[i] = s.Requests[id]
	}
	s.namesakes = map[string]int{}
	for _, h := range sorted(s.Hosts) {
		s.namesakes[h.Name]++
	}
	s.open, s.touched, s.moves = nil, touched{}, moves{since: s.Index}
	s.flapping, s.draining = map[string]struct{}{}, map[string]struct{}{}
	for _, id := range slices.Sorted(maps.Keys(s.Hosts)) {
		s.sortFlapping(s.Hosts[id])
		for _, t := range sorted(s.Hosts[id].Targets) {
			t.place = 0
		}
	}
	all := slices.SortedFunc(maps.Values(s.Deployments),
		func(a, b *Deployment) int { return cmp.Compare(a.Seq, b.Seq) })
	s.whole, s.groups, s.outlines = wholes{}, nil, nil
	for _, d := range all {
		d.derive()
		s.whole.add(d)
		if d.Pruned {
			s.addOutline(d)
		}
		if !d.Status.Terminal() {
			s.open = append(s.open, d)
		}
	}
	of := map[string][]*Deployment{}
	for _, d := range all {
		key := GroupKey(d.App, d.Group)
		of[key] = append(of[key], d)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Groups)) {
		g := s.Groups[k]
		s.addGroup(g)
		g.derive(slices.DeleteFunc(of[k], func(d *Deployment) bool { return d.Seq <= g.Since }))
		g.placeAll(func(h string) *Target {
			if t := s.Target(h, g.App); t != nil && t.Group == g.Name {
				return t
			}
			return nil
		})
	}
	for _, id := range slices.Sorted(maps.Keys(s.Hosts)) {
		h := s.Hosts[id]
		for _, app := range slices.Sorted(maps.Keys(h.Targets)) {
			t := h.Targets[app]
			s.attach(h, t)
		}
	}
	for _, g := range s.groups {
		g.findGood()
	}
}

// attach makes the target part of the indexes and counters.
func (s *State) attach(h *Host, t *Target) {
	t.host, t.group, t.added, t.behind = h, s.Groups[GroupKey(t.App, t.Group)], nil, false
	if t.group != nil {
		t.group.targets[t.Host] = t
		at, _ := t.group.find(t.Host)
		t.group.list = slices.Insert(t.group.list, at, t)
	}
	s.add(t)
}

// Open returns the deployments that have not ended, oldest first.
func (s *State) Open() []*Deployment { return s.open }
