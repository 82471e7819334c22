package deploy

// touched are what the entry that is applied may have changed for those who
// watch one host or one deployment; derived. Each is named once.
type touched struct{ hosts, deployments []string }

// touch notes that what the host should do may be another from this entry on.
func (s *State) touch(h *Host) {
	if h.assignedAt != s.Index {
		h.assignedAt = s.Index
		s.touched.hosts = append(s.touched.hosts, h.ID)
	}
}

// TouchedHosts names the hosts for which Assign may answer something else since
// the last entry. It is good until the next one.
func (s *State) TouchedHosts() []string { return s.touched.hosts }

// TouchedDeployments names the deployments that the last entry wrote a record of.
// It is good until the next one.
func (s *State) TouchedDeployments() []string { return s.touched.deployments }

// untouched begins an entry.
func (s *State) untouched() {
	s.touched.hosts, s.touched.deployments = s.touched.hosts[:0], s.touched.deployments[:0]
}

// movesKept is how many moves are remembered, at least: who looks less often than
// that looks at everything.
const movesKept = 1 << 15

// moves say which hosts and groups changed in what selectors, and who turns their
// answers into facts, look at; derived.
type moves struct {
	since uint64 // everything after this entry is in all
	all   []move
}

type move struct {
	index       uint64
	host, group string
}

// moved notes a change of a host, or of a group by its key.
func (s *State) moved(host, group string) {
	s.MembershipIndex = s.Index
	if len(s.moves.all) >= 2*movesKept {
		s.moves.since = s.moves.all[movesKept-1].index
		s.moves.all = s.moves.all[:copy(s.moves.all, s.moves.all[movesKept:])]
	}
	s.moves.all = append(s.moves.all, move{s.Index, host, group})
}

// MovedSince names the hosts that came, went, changed what they say of themselves or
// in which groups they are, and the groups, by key, whose selector came, went or
// changed, after the entry with this index; in order, some more than once. It
// answers false if that is not known any more, and everything may have changed.
func (s *State) MovedSince(index uint64) (hosts, groups []string, known bool) {
	if index < s.moves.since || index > s.Index {
		return nil, nil, false
	}
	at := len(s.moves.all)
	for at > 0 && s.moves.all[at-1].index > index {
		at--
	}
	for _, m := range s.moves.all[at:] {
		if m.host != "" {
			hosts = append(hosts, m.host)
		} else {
			groups = append(groups, m.group)
		}
	}
	return hosts, groups, true
}
