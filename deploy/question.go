package deploy

import "time"

// Question is one gate that the leader must ask now, with everything that the
// question needs, so that whoever asks keeps no pointer into the state.
type Question struct {
	Deployment string
	Attempt    int // of the deployment; goes back in the GateObserved
	Wave       int
	Gate       Gate
	Metric     Metric // of a comparison
	App, Group string
	WaveName   string
	Revision   string   // the name of what is deployed
	Base       string   // the name of what was there before; "" for nothing
	Key        string   // of the Observation: zone, or host id; "" for wider scopes
	Host       string   // name, where Key is a host
	Zone       string   // where Key is a zone or a host
	Candidates []string // names of the hosts in the scope that run the revision
	Baseline   []string // names of the hosts of the group that serve another one
	Since      int64    // Unix milliseconds: evidence from before is void
	Interval   time.Duration
}
