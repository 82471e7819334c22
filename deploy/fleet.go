package deploy

// Fleet is what the leader sees and the log does not hold: hints from gossip
// and streams, and the answers of selectors. It names exceptions only, so that
// a decision costs what changed.
type Fleet struct {
	Down   []string     // hosts that are gossip-dead and have no stream anywhere
	Joins  []Membership // hosts that a selector matches and that are no targets of the group
	Leaves []Membership // targets whose host no longer matches
}

// Membership is one host and one group.
type Membership struct {
	App, Group, Host string
}
