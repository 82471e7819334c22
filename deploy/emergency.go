package deploy

// An emergency goes past what says when people deploy: windows, freezes and approvals. It
// goes past nothing that says how: floors, permits, order, bakes and gates hold it as any
// deployment, and a gate that failed is not promoted.

// emergencyRules is the level of the rules from which on there are emergencies.
const emergencyRules = 4

// urgent says why a request makes no emergency, nil if it does.
func (s *State) urgent(req Request) error {
	switch {
	case s.Rules < emergencyRules:
		return refuse(Conflict, "the rules of the log are not at level %d yet: a coordinator of an older build votes; "+
			"upgrade it first", emergencyRules)
	case req.Reason == "":
		return refuse(Invalid, "an emergency needs a reason (-m), which everybody is shown")
	}
	return nil
}

// emergency makes a deployment in flight one. A second request changes nothing: who was
// first stays named.
func (s *State) emergency(d *Deployment, req Request, no func(string) error) error {
	if !d.forward() {
		return no("nothing of it goes forward, and nothing holds a way back")
	}
	if err := s.urgent(req); err != nil {
		return err
	}
	if d.Emergency == "" {
		d.Emergency = joinText(req.Actor, req.Reason)
	}
	return nil
}

// goesPast reports whether a gate before a wave does not hold the deployment because it
// is an emergency.
func (d *Deployment) goesPast(gate *Gate) bool {
	return d.Emergency != "" && (gate.Kind() == GateWindow || gate.Kind() == GateApproval)
}

// frozen returns the freeze that holds what a deployment would grant forward, or nil.
func (s *State) frozen(g *Group, d *Deployment) *Freeze {
	if d.Emergency != "" {
		return nil
	}
	return s.Frozen(g)
}
