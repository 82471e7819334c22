package deploy

// Record is one line of a deployment's history, the stream that watch resumes
// by Index. Several records of one entry share an index and appear together.
type Record struct {
	Index   uint64   `json:"index"`
	At      Time     `json:"at"`
	Wall    int64    `json:"wall"`
	Subject string   `json:"subject"` // deployment | wave | task | gate | request | host
	Wave    int      `json:"wave"`    // -1 when it concerns no wave
	Host    string   `json:"host,omitempty"`
	To      string   `json:"to"`
	Text    string   `json:"text,omitempty"`
	Failure *Failure `json:"failure,omitempty"`
}

// recordsKept is how long a history may grow before the coming and going of
// hosts, the only part without a bound, is left out.
const recordsKept = 100_000

// record appends a line to a deployment's history.
func (s *State) record(d *Deployment, r Record) {
	if r.Subject == "host" && len(d.Records) >= recordsKept {
		return
	}
	r.Index, r.At, r.Wall = s.Index, s.Now, s.Wall
	if n := len(d.Records); n == 0 || d.Records[n-1].Index != s.Index {
		s.touched.deployments = append(s.touched.deployments, d.ID)
	}
	d.Records = append(d.Records, r)
}

// LastIndex returns the index of the deployment's newest record.
func (d *Deployment) LastIndex() uint64 {
	if n := len(d.Records); n > 0 {
		return d.Records[n-1].Index
	}
	return 0
}
