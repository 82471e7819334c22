package deploy

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
	Targets     map[string]*Target `json:"targets,omitempty"`    // by application

	assignedAt uint64 // index of the last entry that may have changed its assignments; derived
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
