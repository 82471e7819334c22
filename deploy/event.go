package deploy

// Event is a fact: something that happened or was decided. The set is sealed;
// every event has an arm in State.Apply and a message in proto/state/v1.
type Event interface{ event() }

// Request identifies a mutating request of a person or a program. Apply answers
// a repeated id with the first answer, and refuses the id with other content.
type Request struct {
	ID     string `json:"id,omitempty"`
	Actor  string `json:"actor,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// GroupDefined creates a deployment group or replaces its definition.
type GroupDefined struct {
	Request   Request
	App       string
	Group     string
	Selector  string
	Artifacts string // URL of the application's store
	Config    Config
	Source    string // the deploy.yaml it came from, for `apps show`
}

// HostEnrolled records a host's identity and labels; a repeated one updates them.
type HostEnrolled struct {
	Host    string
	Name    string
	Zone    string
	Region  string
	Labels  map[string]string
	Version string // of its agent
}

// HostLeft ends a host: forgotten by an operator, or gone gracefully.
type HostLeft struct {
	Request Request
	Host    string
	Cause   string
	Force   bool // also when the host is reachable (graceful leave)
}

// TargetsJoined makes hosts targets of a group.
type TargetsJoined struct {
	App, Group string
	Hosts      []string
}

// TargetsLeft ends membership; a target with a permit stays.
type TargetsLeft struct {
	App, Group string
	Hosts      []string
	Cause      string
}

// RevisionRegistered pins a revision's digest.
type RevisionRegistered struct {
	Request Request
	App     string
	Name    string // git SHA or tag
	Digest  Digest
	Size    int64
	Files   int64
	Message string // e.g. the commit's subject
}

// DeploymentCreated freezes a deployment: config, waves and their hosts.
type DeploymentCreated struct {
	Request    Request
	ID         string
	App, Group string
	Revision   Digest
	RevName    string
	Config     Config
	Waves      []Wave
	Seed       uint64
	Redeploy   bool
	Force      bool // deploy a revision that is marked bad
	Inverse    bool // a rollback as a deployment of its own
	Bad        Digest
}

// Verb is what a person asks of a running deployment.
type Verb string

// Verbs.
const (
	VerbPause         Verb = "pause"
	VerbResume        Verb = "resume"
	VerbRetry         Verb = "retry"
	VerbPromote       Verb = "promote"
	VerbAbortLeave    Verb = "abort-leave"
	VerbAbortRollback Verb = "abort-rollback"
)

// RequestMade records a person's request on a deployment.
type RequestMade struct {
	Request    Request
	Deployment string
	Verb       Verb
}

// DeploymentStarted makes a pending deployment live.
type DeploymentStarted struct{ Deployment string }

// WaveStarted opens a wave for permits. Budget is its failure budget in tasks.
type WaveStarted struct {
	Deployment string
	Wave       int
	Budget     int
}

// Floor is the committed floor of one domain: a zone, or the group ("").
type Floor struct {
	Zone string
	Min  int
}

// Grant gives one target its next generation. Kind is decided by the permit
// rule; a re-target of a target that holds a permit keeps its kind.
type Grant struct {
	Host string
	Gen  uint64
	Kind Permit
	Goal Digest
}

// PermitsGranted spends capacity. Limits and floors are written in the fact;
// Apply tests the permit rule item by item, each after the ones before it.
type PermitsGranted struct {
	Deployment string
	Wave       int
	Concurrent int
	MaxZones   int
	Floors     []Floor
	Items      []Grant
}

// RevertGoal is where one target of a revert set goes; the empty goal means
// that it has no last good revision and is left as it is.
type RevertGoal struct {
	Host string
	Goal Digest
}

// RollbackStarted commits a revert set. Items that hold a permit now are
// re-targeted under it, the others wait for one.
type RollbackStarted struct {
	Deployment string
	Cause      string
	Bad        bool // mark the revision bad for the group
	Items      []RevertGoal
}

// TaskEnd ends one task without a result of its generation.
type TaskEnd struct {
	Host    string
	Status  TaskStatus // settled, stage-failed, lost, reverted, left, cancelled
	Gen     uint64     // lost: the generation that got no result
	Counter uint64     // no later report may have come
	Cause   string
}

// TasksEnded ends tasks of one deployment.
type TasksEnded struct {
	Deployment string
	Items      []TaskEnd
}

// HostDown names a host that is unreachable, unless a report came after Counter.
type HostDown struct {
	Host    string
	Counter uint64
}

// HostsUnreachable commits what gossip and streams agree on.
type HostsUnreachable struct{ Items []HostDown }

// GateJudged is a verdict with its evidence, on which the next decision rests.
type GateJudged struct {
	Deployment string
	Wave       int
	Gate       string
	Pass       bool
	Evidence   string
}

// BakeStarted starts the clock of a wave's bake.
type BakeStarted struct {
	Deployment string
	Wave       int
	Until      Time
}

// WaveSealed records that a wave passed deploy, bake and gates.
type WaveSealed struct {
	Deployment string
	Wave       int
}

// WaveSkipped ends a wave that has nothing to do.
type WaveSkipped struct {
	Deployment string
	Wave       int
	Cause      string
}

// DeploymentPaused halts a deployment until a person decides.
type DeploymentPaused struct {
	Deployment string
	Cause      string
}

// DeploymentEnded ends a deployment.
type DeploymentEnded struct {
	Deployment string
	Status     DeploymentStatus
	Cause      string
}

// Report is the whole state of one target as its agent knows it.
type Report struct {
	Host        string
	App         string
	Counter     uint64
	Gen         uint64 // highest acknowledged
	Result      Result
	Running     Digest
	Health      Health
	Evidence    string // of the health
	Staged      []Digest
	StageFailed Digest
	Failure     *Failure // of the result or of staging
}

// Failure says why a task failed, in the words that a person needs.
type Failure struct {
	Event    string `json:"event,omitempty"`  // lifecycle event
	Script   string `json:"script,omitempty"` // hook path
	Code     int    `json:"code,omitempty"`   // diagnostic code
	Exit     string `json:"exit,omitempty"`   // exit status or signal
	Message  string `json:"message,omitempty"`
	Tail     string `json:"tail,omitempty"` // last output, at most 2,048 bytes
	Duration int64  `json:"duration_ms,omitempty"`
}

// TargetsReported carries reports into the log.
type TargetsReported struct{ Items []Report }

func (GroupDefined) event()       {}
func (HostEnrolled) event()       {}
func (HostLeft) event()           {}
func (TargetsJoined) event()      {}
func (TargetsLeft) event()        {}
func (RevisionRegistered) event() {}
func (DeploymentCreated) event()  {}
func (RequestMade) event()        {}
func (DeploymentStarted) event()  {}
func (WaveStarted) event()        {}
func (PermitsGranted) event()     {}
func (RollbackStarted) event()    {}
func (TasksEnded) event()         {}
func (HostsUnreachable) event()   {}
func (GateJudged) event()         {}
func (BakeStarted) event()        {}
func (WaveSealed) event()         {}
func (WaveSkipped) event()        {}
func (DeploymentPaused) event()   {}
func (DeploymentEnded) event()    {}
func (TargetsReported) event()    {}
