package deploy

import (
	"cmp"
	"slices"
)

// Pack is one object of the history's store, which holds deployments that were moved
// there, or what the state knew of older packs.
type Pack struct {
	Object Digest `json:"object"` // of its bytes
	Bytes  int64  `json:"bytes"`
	Items  int    `json:"items"`
	// From and To are the lowest and the highest id of what it holds, by the order of
	// text. Of ids that carry their time few packs have what is asked for in between.
	From string `json:"from"`
	To   string `json:"to"`
}

const (
	// outlineBytes bounds the outlines of ended deployments, of all groups together; from
	// level 4 on. outlineWeight is about what one takes.
	outlineBytes  = 16 << 20
	outlineWeight = 3 << 10
	// outlinesOfGroup newest deployments of a group that have ended stay: as many as its
	// history has lines.
	outlinesOfGroup = sealMemory
	// outlinesEvery so many deployments the oldest outlines are dropped: what lines of
	// histories name is looked up once for all of them.
	outlinesEvery = 256
	// packsKept is how many packs the state knows at most; of more, the older half is
	// itself moved.
	packsKept = 1024
)

// historyMoved drops the tasks and records of deployments that a pack holds, which was
// read back from the store. Those that changed meanwhile, or are not whole, stay.
func (s *State) historyMoved(e HistoryMoved) error {
	if e.Pack.Object == "" || e.Pack.From > e.Pack.To {
		return refuse(Invalid, "a pack has a digest, and ids from the lowest to the highest")
	}
	if slices.ContainsFunc(s.Packs, func(p Pack) bool { return p.Object == e.Pack.Object }) {
		return refuse(Conflict, "pack %s is known", e.Pack.Object.Short())
	}
	n := 0
	for _, id := range e.Deployments {
		d := s.Deployments[id]
		if d == nil || !s.Movable(d) || id < e.Pack.From || id > e.Pack.To {
			continue
		}
		d = s.rewrite(d)
		d.Pack = e.Pack.Object
		s.outline(d)
		n++
	}
	if n == 0 {
		return refuse(Conflict, "nothing of pack %s is to be moved", e.Pack.Object.Short())
	}
	s.Packs = append(s.Packs, e.Pack)
	return nil
}

// Movable reports whether the deployment is whole, and nothing of it changes any more
// that people are shown: it has ended, and a younger one of its group has too.
func (s *State) Movable(d *Deployment) bool {
	if s.Rules < 4 || d.Pruned || !s.Settled(d) {
		return false
	}
	g := s.group(d)
	return g == nil || g.Last != d.ID && g.newestEnded() != d
}

// Movables returns the deployments that can be moved, those that ended first first.
func (s *State) Movables(yield func(*Deployment) bool) {
	for _, d := range s.whole.list {
		if s.Movable(d) && !yield(d) {
			return
		}
	}
}

// historyFolded forgets the oldest packs, which another object names now, together with
// the object that was so before.
func (s *State) historyFolded(e HistoryFolded) error {
	if e.Packs <= 0 || e.Packs > len(s.Packs) || s.Packs[0].Object != e.First || e.Older.Object == "" {
		return refuse(Conflict, "the packs are others than those that were folded")
	}
	s.Packs, s.OlderPacks = slices.Clone(s.Packs[e.Packs:]), e.Older.Object
	return nil
}

// Foldable returns how many of the oldest packs are to be folded, 0 for none yet.
func (s *State) Foldable() int {
	if len(s.Packs) < packsKept {
		return 0
	}
	return packsKept / 2
}

// dropOutlines drops the oldest outlines that are too many. What a way back needs stays:
// what a line of a history names, of the group and of each of its targets, and the newest
// of a group. It is called when deployment number seq has ended.
func (s *State) dropOutlines(seq uint64) {
	most := outlineBytes / outlineWeight
	if s.Rules < 4 || seq%outlinesEvery != 0 || len(s.outlines) <= most {
		return
	}
	needed := map[string]map[string]bool{}
	tooMany := len(s.outlines) - most
	for _, d := range slices.Clone(s.outlines) {
		if tooMany == 0 {
			return
		}
		key := GroupKey(d.App, d.Group)
		if g := s.group(d); g != nil && needed[key] == nil {
			needed[key] = g.needed()
		}
		if !needed[key][d.ID] {
			s.drop(d)
			tooMany--
		}
	}
}

// needed names the deployments that the group's rollbacks may ask for.
func (g *Group) needed() map[string]bool {
	out := map[string]bool{g.Last: true}
	for _, seal := range g.History {
		out[seal.Deployment] = true
	}
	for _, t := range g.list {
		out[t.Deployment] = true
		for _, seal := range t.Seals {
			out[seal.Deployment] = true
		}
	}
	effective, kept := false, 0
	for _, d := range slices.Backward(g.all) {
		if !d.Status.Terminal() {
			continue
		}
		if kept++; kept <= outlinesOfGroup || !effective && d.effective() {
			out[d.ID] = true
		}
		effective = effective || d.effective()
	}
	return out
}

// drop forgets an outline.
func (s *State) drop(d *Deployment) {
	delete(s.Deployments, d.ID)
	if at, found := slices.BinarySearchFunc(s.outlines, d, byEnd); found {
		s.outlines = slices.Delete(s.outlines, at, at+1)
	}
	if g := s.group(d); g != nil {
		if at, found := slices.BinarySearchFunc(g.all, d, bySeq); found {
			g.all = slices.Delete(g.all, at, at+1)
		}
	}
	s.Dropped++
}

func bySeq(a, b *Deployment) int { return cmp.Compare(a.Seq, b.Seq) }

// PackIndex is what the state knows of the history's store.
type PackIndex struct {
	Packs []Pack // oldest first
	Older Digest // object that names those before them
}

// PackIndex returns it; nobody may change it.
func (s *State) PackIndex() PackIndex { return PackIndex{s.Packs, s.OlderPacks} }
