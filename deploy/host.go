package deploy

import (
	"fmt"
	"maps"
	"time"
)

// Host is a machine with an agent.
type Host struct {
	ID          string             `json:"id"`
	Name        string             `json:"name"`
	Zone        string             `json:"zone"`
	Region      string             `json:"region,omitempty"`
	Labels      map[string]string  `json:"labels,omitempty"`
	Version     string             `json:"version,omitempty"`
	Counter     uint64             `json:"counter"` // highest of its reports
	Unreachable bool               `json:"unreachable,omitempty"`
	DownSince   Time               `json:"down_since,omitempty"`
	Flaps       []Time             `json:"flaps,omitempty"`      // its last comings and goings, oldest first
	Quarantine  string             `json:"quarantine,omitempty"` // why it is quarantined
	Drain       *Drain             `json:"drain,omitempty"`      // a person wants it out of its pools
	Targets     map[string]*Target `json:"targets,omitempty"`    // by application
	// Says is what its agent says of itself where that is something else than what
	// it is; it waits for a person.
	Says     *Attributes `json:"says,omitempty"`
	Approved uint64      `json:"approved,omitempty"` // how often a person has set its attributes
	Came     Time        `json:"came,omitempty"`     // when it was recorded first; from level 2 on

	assignedAt uint64 // index of the last entry that may have changed its assignments; derived
}

// Attributes are what a host is called, where it stands, and its labels: which
// groups it is in, in which wave, and whose bundles it may read follow from them.
// They are what the cluster has written down, not what the host says just now.
type Attributes struct {
	Name   string            `json:"name"`
	Zone   string            `json:"zone,omitempty"`
	Region string            `json:"region,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Equal reports whether both say the same.
func (a Attributes) Equal(b Attributes) bool { return len(a.Differences(b)) == 0 }

// Differences names what b says otherwise, in words, in order.
func (a Attributes) Differences(b Attributes) (out []string) {
	for _, f := range [][3]string{{"name", a.Name, b.Name}, {"zone", a.Zone, b.Zone}, {"region", a.Region, b.Region}} {
		if f[1] != f[2] {
			out = append(out, fmt.Sprintf("%s %q instead of %q", f[0], f[2], f[1]))
		}
	}
	all := maps.Clone(b.Labels)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, a.Labels)
	for k := range sorted(all) {
		was, is := a.Labels[k], b.Labels[k]
		_, had := a.Labels[k]
		_, has := b.Labels[k]
		switch {
		case had && !has:
			out = append(out, fmt.Sprintf("no label %s=%s", k, was))
		case has && !had:
			out = append(out, fmt.Sprintf("label %s=%s", k, is))
		case was != is:
			out = append(out, fmt.Sprintf("label %s=%s instead of %s", k, is, was))
		}
	}
	return out
}

// Attributes returns what the host is.
func (h *Host) Attributes() Attributes {
	return Attributes{Name: h.Name, Zone: h.Zone, Region: h.Region, Labels: h.Labels}
}

// Said returns what the host said of itself when it was heard last.
func (h *Host) Said() Attributes {
	if h.Says != nil {
		return *h.Says
	}
	return h.Attributes()
}

// Named returns the ids of the hosts that are called so, in order; or the id itself
// if it is one.
func (s *State) Named(name string) (ids []string) {
	switch {
	case s.Hosts[name] != nil:
		return []string{name}
	case s.namesakes[name] == 0:
		return nil
	case s.namesakes[name] == 1 && s.Names[name] != "":
		return []string{s.Names[name]}
	}
	for id, h := range sorted(s.Hosts) {
		if h.Name == name {
			ids = append(ids, id)
		}
	}
	return ids
}

// ghostWithin is how close to each other a machine that was killed stops answering and
// is enrolled again. Two that lived side by side for longer are two.
const ghostWithin = time.Minute

// successor returns the host that is the machine of one that does not answer: called
// the same, enrolled anew about when that one was heard of last; nil for none. Whoever
// has a permit is waited for, and a person's cordon is nobody's to lift. Ids are in
// order of coming.
func (s *State) successor(h *Host) *Host {
	if s.namesakes[h.Name] < 2 || h.Quarantine != "" && h.Quarantine != flapCause {
		return nil
	}
	for _, t := range sorted(h.Targets) {
		if t.Permit != PermitNone {
			return nil
		}
	}
	for _, id := range s.Named(h.Name) {
		other := s.Hosts[id]
		apart := other.Came.Sub(h.DownSince)
		if id > h.ID && !other.Unreachable && apart >= -ghostWithin && apart <= ghostWithin {
			return other
		}
	}
	return nil
}

// AssignedAt returns the index of the last entry that may have changed what Assign
// answers for the host: while it stays, so does the answer. 0 for no host.
func (s *State) AssignedAt(host string) uint64 {
	if h := s.Hosts[host]; h != nil {
		return h.assignedAt
	}
	return 0
}

func (s *State) hostName(id string) string {
	if h := s.Hosts[id]; h != nil {
		return h.Name
	}
	return id
}
