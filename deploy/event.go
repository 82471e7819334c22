package deploy

import (
	"cmp"
	"time"
)

// Event is a fact: something that happened or was decided. The set is sealed;
// every event has an arm in State.Apply and a message in proto/state/v1.
type Event interface{ event() }

// Request identifies a mutating request of a person or a program. Apply answers
// a repeated id with the first answer, and refuses the id with other content.
type Request struct {
	ID     string `json:"id,omitempty"`
	Actor  string `json:"actor,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Person is who the actor counts as where two people are asked for; empty is
	// the actor itself.
	Person string `json:"person,omitempty"`
}

// person is who made the request, for four eyes.
func (r Request) person() string { return cmp.Or(r.Person, r.Actor) }

// RulesRaised changes what facts mean from here on: every voter has announced
// that it knows the level, which is the next one.
type RulesRaised struct{ Level int }

// GroupDefined creates a deployment group or replaces its definition.
type GroupDefined struct {
	Request   Request
	App       string
	Group     string
	Selector  string
	Artifacts string // URL of the application's store
	Config    Config
	Traffic   *Traffic
	Source    string // the deploy.yaml it came from, for `apps show`
}

// HostEnrolled records what a host is; a repeated one updates that, but one that
// was written in ignorance of what a person approved since changes nothing.
type HostEnrolled struct {
	Host     string
	Name     string
	Zone     string
	Region   string
	Labels   map[string]string
	Version  string      // of its agent
	Says     *Attributes // what it says of itself where that is something else
	Approved uint64      // how often a person has set what it is
}

// HostLeft ends a host: forgotten by an operator, or gone gracefully.
type HostLeft struct {
	Request Request
	Host    string
	Cause   string
	Force   bool // also when the host is reachable (graceful leave)
}

// GroupDeleted ends a group of which no deployment is open. Its targets leave it,
// their applications are not touched.
type GroupDeleted struct {
	Request    Request
	App, Group string
}

// TargetsJoined makes hosts targets of a group. Waves holds the wave of the
// group's layout that each host belongs to; it is empty while there is no layout.
type TargetsJoined struct {
	App, Group string
	Hosts      []string
	Waves      []int
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
	// Ancestry names the newest ancestors of a git revision, children first; it
	// may be cut off.
	Ancestry []string
	Unsafe   bool // an automatic rollback from this revision is not safe
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
	Repair     bool // of Redeploy: hosts whose installed files are as they should be do nothing
	Force      bool // deploy a revision that is marked bad
	Inverse    bool // a rollback as a deployment of its own
	// of an inverse one: the deployment that it takes back, the choice of Undoable; "" brings all to Revision
	Undoes  string
	Bad     Digest   // of an inverse one: what is marked bad by it
	Layout  uint64   // version of the group's layout that the waves follow; 0 makes a new one
	Fixes   []Digest // revisions that this one repairs: their rollback does not revoke it
	Without []Digest // revisions that this one is known not to contain
	Preempt bool     // take over every older deployment, once approved
	Skip    []Skip
	// Emergency is that no window, freeze or approval holds it, for the request's reason.
	Emergency bool
}

// Skip leaves a host out of a deployment from the start.
type Skip struct {
	Host   string
	Cause  string
	Intend bool // it is meant to stay as it is; else it is caught up after its wave is sealed
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
	VerbApprove       Verb = "approve"
	VerbReject        Verb = "reject"
	VerbSkipZone      Verb = "skip-zone"
	VerbSkipHosts     Verb = "skip-hosts"
	VerbTakeOver      Verb = "take-over"
	VerbRollback      Verb = "rollback" // of one zone or wave
	VerbFixes         Verb = "fixes"
	VerbEmergency     Verb = "emergency" // go on past windows, freezes and approvals
)

// RequestMade records a person's request on a deployment.
type RequestMade struct {
	Request    Request
	Deployment string
	Verb       Verb
	Gate       string   // approve, reject, promote: which gate or hold; "" is every one that waits
	Zone       string   // skip-zone, rollback
	Wave       string   // rollback, promote
	Hosts      []string // skip-hosts: ids
	Groups     []string // approve: the groups of the actor
	Fixes      Digest   // fixes: the revision that is repaired
	By         string   // take-over: the newer deployment; "" is the next one
}

// RevisionsPruned forgets revisions of an application that nothing needs any more; from
// level 3 on. Those that something needs stay.
type RevisionsPruned struct {
	Request Request
	App     string
	Digests []Digest
}

// HistoryMoved says that the history's store has a pack with these deployments, which
// was read back; from level 4 on.
type HistoryMoved struct {
	Pack        Pack
	Deployments []string
}

// HistoryFolded says that the history's store has an object with the oldest packs, so
// many, of which the first is First, and with what named those before them.
type HistoryFolded struct {
	First Digest
	Packs int
	Older Pack
}

// FreezeSet holds every grant in its scope, rollbacks apart, until it is lifted
// or its time is over.
type FreezeSet struct {
	Request    Request
	App, Group string        // "" is every one
	For        time.Duration // of FSM time, at most FreezeMax; 0 until it is lifted
	Own        bool          // it replaces no freeze of another actor
}

// FreezeLifted ends the freeze of exactly that scope.
type FreezeLifted struct {
	Request    Request
	App, Group string
	Own        bool // not that of another actor
}

// FreezesEnded ends every freeze whose time is over.
type FreezesEnded struct{}

// HoldsChanged says why a wave is not entered, or that nothing holds it now.
type HoldsChanged struct {
	Deployment string
	Wave       int
	Holds      []Hold
}

// Hold is one reason that keeps a wave or a grant back.
type Hold struct {
	Kind string `json:"kind"` // window | approval | gate | freeze | floor | order | hosts | decision | stage
	Name string `json:"name,omitempty"`
	Text string `json:"text"`
}

// TargetMoved gives an emptied wave a target of a later one.
type TargetMoved struct {
	App, Group string
	Host       string
	From, To   int
}

// TakenOver lets the deployment stop, because a newer one takes its place.
type TakenOver struct {
	Deployment string
	By         string
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
// Apply tests the permit rule item by item, each after the ones before it. A
// fact with an CatchUp is of no deployment: it brings single targets of App and
// Group to what their wave runs.
type PermitsGranted struct {
	Deployment string
	Wave       int
	App, Group string
	CatchUp    CatchUp
	RetryAfter time.Duration // a catch-up that fails is tried again after this, doubled each time
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
// re-targeted under it, the others wait for one. With scope all the deployment
// rolls back and ends; with another the named waves are reverted for those
// targets, and then the deployment pauses, or rolls back as Then says.
type RollbackStarted struct {
	Deployment string
	Cause      string
	Bad        bool   // mark the revision bad for the group
	Scope      string // host | zone | wave | all; "" is all
	Then       string // pause | rollback-all
	Waves      []int
	Until      Time // the decision that follows must be taken by then; 0 waits for ever
	RevokedBy  string
	Past       []Digest // suspect revisions that the ways back lead past: nothing in scope comes to them by itself
	Items      []RevertGoal
}

// RevertExtended adds targets to the open revert set of a deployment that rolls
// back: they joined, or came back, with what is being taken back.
type RevertExtended struct {
	Deployment string
	Items      []RevertGoal
}

// WaveReverted ends the reverting of a wave.
type WaveReverted struct {
	Deployment string
	Wave       int
}

// TaskEnd ends one task without a result of its generation.
type TaskEnd struct {
	Host    string
	Status  TaskStatus // settled, stage-failed, lost, reverted, left, cancelled
	Gen     uint64     // lost: the generation that got no result
	Counter uint64     // no later report may have come
	Cause   string
}

// TasksEnded ends tasks of one deployment, or catchingUp of one group.
type TasksEnded struct {
	Deployment string // "" for catchingUp
	App, Group string // of catchingUp
	Items      []TaskEnd
}

// HostDown names a host that is unreachable, unless a report came after Counter.
type HostDown struct {
	Host    string
	Counter uint64
}

// HostsUnreachable commits what gossip and streams agree on.
type HostsUnreachable struct{ Items []HostDown }

// Verdict is the answer of a gate, and the verdict that follows from its answers.
type Verdict string

// Verdicts. No answer and no data are inconclusive, never a pass.
const (
	VerdictPass         Verdict = "pass"
	VerdictFail         Verdict = "fail"
	VerdictInconclusive Verdict = "inconclusive"
)

// Observation is one answer of a gate with its evidence.
type Observation struct {
	Key       string  `json:"key,omitempty"` // zone or host id that was asked about; "" for wider scopes
	From      int64   `json:"from"`          // Unix milliseconds: the range that the answer speaks of
	To        int64   `json:"to"`
	Question  string  `json:"question"`            // the query as it was asked, the URL, the window
	Value     string  `json:"value,omitempty"`     // as text
	Threshold string  `json:"threshold,omitempty"` // as text
	Samples   int     `json:"samples,omitempty"`
	Answer    Verdict `json:"answer"`
	Final     bool    `json:"final,omitempty"` // a sequential test that has decided
	Few       bool    `json:"few,omitempty"`   // inconclusive for want of samples alone: whoever should answer did
	Detail    string  `json:"detail,omitempty"`
}

// GateObserved records what a gate answered. Attempt is the deployment's when
// the question was asked: answers from before a retry are void.
type GateObserved struct {
	Deployment string
	Wave       int
	Gate       string
	Attempt    int
	Items      []Observation
}

// GateJudged is a verdict with its evidence, on which the next decision rests.
type GateJudged struct {
	Deployment string
	Wave       int
	Gate       string
	Key        string // zone or host of the scope
	Verdict    Verdict
	Evidence   string
}

// HostsQuarantined takes hosts that flap, or that a person cordoned, out of
// evidence and serving capacity; nobody drains them without a permit.
type HostsQuarantined struct {
	Request Request
	Hosts   []string
	Cause   string
}

// HostsReleased ends a quarantine.
type HostsReleased struct {
	Request Request
	Hosts   []string
	Cause   string
}

// RevisionProven says that watchAfter has gone by without suspicion: the
// revision is a way back that can be trusted.
type RevisionProven struct{ Deployment string }

// StagingRetried lets targets stage once more what they could not.
type StagingRetried struct {
	App, Group string
	Hosts      []string
}

// TasksReopened lets targets take part again that were left out because they
// could not act, while their wave has nobody else.
type TasksReopened struct {
	Deployment string
	Hosts      []string
}

// GatesAnswered says that every gate has answered since a person let the
// deployment go on: grants may follow.
type GatesAnswered struct{ Deployment string }

// RevisionSuspected says that a revision fails after its deployment succeeded.
// It changes nothing but the history.
type RevisionSuspected struct {
	Deployment string
	Text       string
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

// DeploymentPaused halts a deployment until a person decides, or until the time
// that its config gives the decision.
type DeploymentPaused struct {
	Deployment string
	Cause      string
	Until      Time // 0 waits for ever
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
	StageKey    string   // under which staging failed; without a failure, under which warmup and taste passed last
	Failure     *Failure // of the result or of staging
	Edits       *Edits
	Out         Out    // of its pools, by a drain
	OutKey      uint64 // of the assignment that Out is an answer to
}

// Edits are installed files of a target that are not what the last hook of the
// last deployment left; nil is none that is known of.
type Edits struct {
	Files int      `json:"files"`
	Paths []string `json:"paths,omitempty"` // the first few
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

func (RulesRaised) event()        {}
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
func (TrafficSet) event()         {}
func (GroupDeleted) event()       {}
func (FreezeSet) event()          {}
func (FreezeLifted) event()       {}
func (FreezesEnded) event()       {}
func (HoldsChanged) event()       {}
func (TargetMoved) event()        {}
func (TakenOver) event()          {}
func (RevertExtended) event()     {}
func (WaveReverted) event()       {}
func (GateObserved) event()       {}
func (HostsQuarantined) event()   {}
func (HostsReleased) event()      {}
func (HostDrainSet) event()       {}
func (HostDrained) event()        {}
func (RevisionProven) event()     {}
func (StagingRetried) event()     {}
func (TasksReopened) event()      {}
func (GatesAnswered) event()      {}
func (RevisionSuspected) event()  {}
func (RevisionsPruned) event()    {}
func (HistoryMoved) event()       {}
func (HistoryFolded) event()      {}
