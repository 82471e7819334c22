package deploy

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// State is everything the coordinators agree on. It changes only by Apply, on
// one goroutine; readers hold a lock that excludes Apply and keep no pointer.
// The zero value is not usable: call NewState, or Rebuild after decoding one.
type State struct {
	Version     int                             `json:"version"`
	Index       uint64                          `json:"index"` // of the last applied entry
	Now         Time                            `json:"now"`   // FSM time of the last applied entry
	Wall        int64                           `json:"wall"`  // Unix milliseconds, for people only
	Seq         uint64                          `json:"seq"`   // deployments created so far
	Shape       uint64                          `json:"shape"` // index of the last change of hosts, labels, groups or membership
	Hosts       map[string]*Host                `json:"hosts"`
	Names       map[string]string               `json:"names"`     // host name -> id of the newest host of that name
	Groups      map[string]*Group               `json:"groups"`    // by GroupKey
	Revisions   map[string]map[Digest]*Revision `json:"revisions"` // by application
	Deployments map[string]*Deployment          `json:"deployments"`
	Requests    map[string]Answer               `json:"requests"`
	RequestLog  []string                        `json:"request_log"` // ids, oldest first
	Freezes     []Freeze                        `json:"freezes,omitempty"`

	// Violated is called with every invariant that an entry breaks, while it is
	// applied; nil tests none. It is no part of the state.
	Violated func(error) `json:"-"`

	open     []*Deployment       // not terminal, by Seq; derived
	flapping map[string]struct{} // hosts that came or went lately, or are quarantined; derived
}

// Freeze holds every grant of a scope but those of rollbacks.
type Freeze struct {
	App    string `json:"app,omitempty"` // "" is every one
	Group  string `json:"group,omitempty"`
	Actor  string `json:"actor,omitempty"`
	Reason string `json:"reason,omitempty"`
	Wall   int64  `json:"wall"`
}

// StateVersion is the version of the snapshot format.
const StateVersion = 1

// Answer is what a request id was answered with.
type Answer struct {
	At      Time   `json:"at"`
	Content uint64 `json:"content"` // hash of the request's content
	Refusal string `json:"refusal,omitempty"`
	Kind    string `json:"kind,omitempty"`
	Index   uint64 `json:"index"`
}

// requestMemory is how long request ids are kept, in FSM time.
const requestMemory = 24 * time.Hour

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

	touched uint64 // index of the last entry that may have changed its assignments; derived
}

// Touched returns the index of the last entry that may have changed what Assign
// answers for the host: while it stays, so does the answer. 0 for no host.
func (s *State) Touched(host string) uint64 {
	if h := s.Hosts[host]; h != nil {
		return h.touched
	}
	return 0
}

// touchAll marks every member of a group as touched.
func (s *State) touchAll(app, group string) {
	if g := s.Groups[GroupKey(app, group)]; g != nil {
		for _, t := range g.list {
			t.host.touched = s.Index
		}
	}
}

// Target is one application on one host.
type Target struct {
	Host        string   `json:"host"`
	App         string   `json:"app"`
	Group       string   `json:"group"`
	Zone        string   `json:"zone"`
	Desired     Digest   `json:"desired,omitempty"`
	Gen         uint64   `json:"gen"`
	Open        bool     `json:"open,omitempty"` // Gen has no result yet
	Permit      Permit   `json:"permit,omitempty"`
	Deployment  string   `json:"deployment,omitempty"` // that granted Gen
	GrantedAt   Time     `json:"granted_at,omitempty"`
	Health      Health   `json:"health,omitempty"`
	Evidence    string   `json:"evidence,omitempty"`
	EverHealthy bool     `json:"ever_healthy,omitempty"`
	Running     Digest   `json:"running,omitempty"`
	Counter     uint64   `json:"counter"`
	Away        bool     `json:"away,omitempty"` // its host is unreachable
	Staged      []Digest `json:"staged,omitempty"`
	StageFailed Digest   `json:"stage_failed,omitempty"`
	StageReason *Failure `json:"stage_reason,omitempty"`
	Seals       []Seal   `json:"seals,omitempty"` // oldest first, at most sealMemory
	Quarantined bool     `json:"quarantined,omitempty"`
	Aside       Aside    `json:"aside,omitempty"`    // what the open generation is for, if for no task
	Tries       int      `json:"tries,omitempty"`    // asides that failed in a row
	RetryAt     Time     `json:"retry_at,omitempty"` // no aside before
	Drift       string   `json:"drift,omitempty"`    // why it is not brought to what its wave runs

	host  *Host    // derived
	group *Group   // derived; nil when the target belongs to no defined group
	added *counted // what the target adds to counters now; derived
}

// Seal is one entry of a target's history.
type Seal struct {
	Deployment string `json:"deployment"`
	Revision   Digest `json:"revision"`
	At         Time   `json:"at"`
}

// sealMemory bounds a target's history: a last good revision, its predecessor
// and room for revisions that were marked bad later.
const sealMemory = 16

// Serving reports whether the target counts as serving capacity.
func (t *Target) Serving() bool {
	return t.Health == HealthHealthy && t.Permit == PermitNone && !t.Open && !t.Quarantined
}

// HasStaged reports whether the target holds a verified copy of the revision.
func (t *Target) HasStaged(d Digest) bool { return d != "" && slices.Contains(t.Staged, d) }

// Group is a deployment group.
type Group struct {
	App       string            `json:"app"`
	Name      string            `json:"name"`
	Selector  string            `json:"selector"`
	Artifacts string            `json:"artifacts"`
	Config    Config            `json:"config"`
	Source    string            `json:"source,omitempty"`
	DefinedAt int64             `json:"defined_at"` // wall
	Members   map[string]bool   `json:"members,omitempty"`
	Bad       map[Digest]string `json:"bad,omitempty"`  // revision -> deployment that failed
	Last      string            `json:"last,omitempty"` // newest deployment
	Layout    Layout            `json:"layout,omitzero"`
	Succeeded []Seal            `json:"succeeded,omitempty"` // revisions that went through, oldest first

	use    map[string]*usage   // by zone, "" the whole group; derived
	open   []*Deployment       // not terminal, oldest first; derived
	place  map[string]int      // of its hosts: their wave in the layout; derived
	strays map[string]struct{} // hosts that may need an aside; derived
	asides map[string]struct{} // hosts whose open generation is an aside; derived

	targets map[string]*Target // by host; derived
	list    []*Target          // the same by host id, in order; derived
}

// Layout is the order of a group's waves, shared by every deployment in flight.
// The next deployment makes a new one when none is.
type Layout struct {
	Version uint64       `json:"version"` // index of the entry that made it
	Specs   []WaveSpec   `json:"specs,omitempty"`
	Waves   []LayoutWave `json:"waves,omitempty"`
}

// LayoutWave is one wave of a layout with its hosts and what was sealed in it.
type LayoutWave struct {
	Name  string   `json:"name"`
	Zone  string   `json:"zone,omitempty"`
	Batch int      `json:"batch"`
	Spec  int      `json:"spec"` // position of the spec that made it
	Hosts []string `json:"hosts"`
	Seals []Seal   `json:"seals,omitempty"`
}

// Hosts returns the members in order.
func (g *Group) Hosts() []string { return slices.Sorted(maps.Keys(g.Members)) }

// Key returns the group's key in State.Groups.
func (g *Group) Key() string { return GroupKey(g.App, g.Name) }

// GroupKey is the key of a group in State.Groups.
func GroupKey(app, group string) string { return app + "/" + group }

// Revision is one immutable bundle of an application.
type Revision struct {
	App     string   `json:"app"`
	Name    string   `json:"name"`
	Names   []string `json:"names,omitempty"` // all names it was registered under, oldest first
	Digest  Digest   `json:"digest"`
	Size    int64    `json:"size"`
	Files   int64    `json:"files"`
	Message string   `json:"message,omitempty"`
	Actor   string   `json:"actor,omitempty"`
	At      int64    `json:"at"` // wall
	Index   uint64   `json:"index"`
	// Ancestry names the newest ancestors, children first; it may be cut off.
	Ancestry []string `json:"ancestry,omitempty"`
	Unsafe   bool     `json:"unsafe,omitempty"` // never rolled back without a person
}

// Deployment is one revision travelling through one group.
type Deployment struct {
	ID        string           `json:"id"`
	Seq       uint64           `json:"seq"`
	App       string           `json:"app"`
	Group     string           `json:"group"`
	Revision  Digest           `json:"revision"`
	RevName   string           `json:"rev_name"`
	From      Digest           `json:"from,omitempty"` // what most targets ran
	FromName  string           `json:"from_name,omitempty"`
	Config    Config           `json:"config"`
	Waves     []Wave           `json:"waves"`
	Tasks     map[string]*Task `json:"tasks"` // by host
	Status    DeploymentStatus `json:"status"`
	Cause     string           `json:"cause,omitempty"`
	Decision  bool             `json:"decision,omitempty"` // paused by a failure, waits for a person
	Abort     bool             `json:"abort,omitempty"`    // a rollback of all was requested
	Revert    bool             `json:"revert,omitempty"`   // the revert set is committed
	Attempt   int              `json:"attempt,omitempty"`  // rises with each retry
	Inverse   bool             `json:"inverse,omitempty"`
	Undo      Digest           `json:"undo,omitempty"` // of an inverse deployment: what it takes back
	Redeploy  bool             `json:"redeploy,omitempty"`
	Seed      uint64           `json:"seed"`
	Actor     string           `json:"actor,omitempty"`
	Person    string           `json:"person,omitempty"` // who the actor counts as, for four eyes
	Reason    string           `json:"reason,omitempty"`
	CreatedAt Time             `json:"created_at"`
	EndedAt   Time             `json:"ended_at,omitempty"`
	Created   int64            `json:"created"` // wall
	Ended     int64            `json:"ended,omitempty"`
	Failures  int              `json:"failures"`            // tasks that count against the total budget
	GateFail  string           `json:"gate_fail,omitempty"` // the gate that failed, until a retry
	Records   []Record         `json:"records,omitempty"`
	Pruned    bool             `json:"pruned,omitempty"` // ended long ago: tasks, hosts and records are dropped
	StartedAt Time             `json:"started_at,omitempty"`
	DecideBy  Time             `json:"decide_by,omitempty"` // the decision's end; 0 waits for ever
	Fixes     []Digest         `json:"fixes,omitempty"`     // revisions whose rollback does not revoke this one
	Without   []Digest         `json:"without,omitempty"`   // revisions that it is known not to contain
	Preempt   bool             `json:"preempt,omitempty"`
	TakenBy   string           `json:"taken_by,omitempty"` // the newer deployment that takes over
	Scoped    *ScopedRevert    `json:"scoped,omitempty"`   // an open revert set that is not of all
	Asked     *ScopedRevert    `json:"asked,omitempty"`    // a scope that a person wants back
	Approvals []Approval       `json:"approvals,omitempty"`
	Promoted  []string         `json:"promoted,omitempty"` // holds that count as passed, see holdKey
	Suspect   string           `json:"suspect,omitempty"`  // what was seen after it succeeded
	Held      bool             `json:"held,omitempty"`     // paused before it started
	PausedAt  Time             `json:"paused_at,omitempty"`

	order map[string]int // host -> position in its wave; derived
	waves []*progress    // derived
}

// ScopedRevert is a revert set narrower than the deployment.
type ScopedRevert struct {
	Scope string `json:"scope"`
	Zone  string `json:"zone,omitempty"`
	Wave  string `json:"wave,omitempty"`
	Cause string `json:"cause"`
	Then  string `json:"then,omitempty"`
	Until Time   `json:"until,omitempty"`
}

// Approval is one person's yes to a gate.
type Approval struct {
	Gate   string `json:"gate"`
	Actor  string `json:"actor"`
	Person string `json:"person,omitempty"` // who the actor counts as
	Reason string `json:"reason,omitempty"`
	Wall   int64  `json:"wall"`
}

// Wave is an ordered part of a group, frozen in a deployment.
type Wave struct {
	Name     string   `json:"name"`
	Zone     string   `json:"zone,omitempty"`
	Spec     int      `json:"spec,omitempty"` // position of the spec that made it
	Batch    int      `json:"batch"`          // waves of one batch run together, after the batch before
	Hosts    []string `json:"hosts"`
	OneBox   bool     `json:"one_box,omitempty"`
	Share    Share    `json:"share"` // failure budget as written
	Rehearse bool     `json:"rehearse,omitempty"`
	PreGates []string `json:"pre_gates,omitempty"`
	Gates    []string `json:"gates,omitempty"`
	BakeSpec
	Status      WaveStatus    `json:"status"`
	Budget      int           `json:"budget"` // failure budget in tasks, fixed at the start
	StartedAt   Time          `json:"started_at,omitempty"`
	StartedWall int64         `json:"started_wall,omitempty"` // Unix milliseconds
	BakeUntil   Time          `json:"bake_until,omitempty"`
	EndedAt     Time          `json:"ended_at,omitempty"`
	HeldAt      Time          `json:"held_at,omitempty"`    // since when it could be entered but for its holds
	Holds       []Hold        `json:"holds,omitempty"`      // why it is not entered
	Released    bool          `json:"released,omitempty"`   // its first permit was granted: the barrier is passed
	Extra       int           `json:"extra,omitempty"`      // births in it that failed
	BakeSince   Time          `json:"bake_since,omitempty"` // start of the clock, moved on by pauses
	Rehearsed   time.Duration `json:"rehearsed,omitempty"`  // how long a rollback of one host took
	// Watch holds the answers of its gates, by watchKey.
	Watch map[string]*Watched `json:"watch,omitempty"`
}

// Watched is what a gate answered for one scope of a wave so far.
type Watched struct {
	Gate    string        `json:"gate"`
	Last    Observation   `json:"last"`
	At      Time          `json:"at"`
	Fails   int           `json:"fails,omitempty"`   // failing answers in a row
	Covered time.Duration `json:"covered,omitempty"` // of the bake, by answers
	Verdict Verdict       `json:"verdict,omitempty"` // as judged; "" not yet
}

// Task is the work of one target in one wave of one deployment.
type Task struct {
	Wave    int        `json:"wave"`
	Status  TaskStatus `json:"status"`
	Gen     uint64     `json:"gen,omitempty"`
	Goal    Digest     `json:"goal,omitempty"`    // of a revert
	Counted bool       `json:"counted,omitempty"` // against the budgets
	Left    bool       `json:"left,omitempty"`    // the target departed after the task had failed
	Refused int        `json:"refused,omitempty"` // permits handed back since the last retry
	Phase   int        `json:"phase,omitempty"`   // of a rehearsal: 0 new, 1 old, 2 new again
	Intend  bool       `json:"intend,omitempty"`  // skipped on purpose: not caught up
	Since   Time       `json:"since"`
	Wall    int64      `json:"wall"`
	Cause   string     `json:"cause,omitempty"`
	Failure *Failure   `json:"failure,omitempty"`
}

// gone reports whether the task has no target any more. A host of that name
// that joins again is a new target, without a task.
func (t *Task) gone() bool { return t.Status == TaskGone || t.Left }

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

// NewState returns an empty state.
func NewState() *State {
	s := &State{Version: StateVersion}
	s.Rebuild()
	return s
}

// Rebuild derives the indexes that are not part of the encoded state. Call it
// after decoding a snapshot, before anything else.
func (s *State) Rebuild() {
	if s.Hosts == nil {
		s.Hosts = map[string]*Host{}
	}
	if s.Names == nil {
		s.Names = map[string]string{}
	}
	if s.Groups == nil {
		s.Groups = map[string]*Group{}
	}
	if s.Revisions == nil {
		s.Revisions = map[string]map[Digest]*Revision{}
	}
	if s.Deployments == nil {
		s.Deployments = map[string]*Deployment{}
	}
	if s.Requests == nil {
		s.Requests = map[string]Answer{}
	}
	s.open, s.flapping = nil, map[string]struct{}{}
	for _, id := range slices.Sorted(maps.Keys(s.Hosts)) {
		if h := s.Hosts[id]; len(h.Flaps) > 0 || h.Quarantine != "" {
			s.flapping[id] = struct{}{}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.Deployments)) {
		d := s.Deployments[id]
		d.derive()
		if !d.Status.Terminal() {
			s.upgrade(d)
			s.open = append(s.open, d)
		}
	}
	slices.SortFunc(s.open, func(a, b *Deployment) int { return int(a.Seq) - int(b.Seq) })
	for _, k := range slices.Sorted(maps.Keys(s.Groups)) {
		s.Groups[k].derive(s.open)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Hosts)) {
		h := s.Hosts[id]
		for _, app := range slices.Sorted(maps.Keys(h.Targets)) {
			t := h.Targets[app]
			s.attach(h, t)
		}
	}
}

// upgrade fills in what snapshots of the version before do not hold, so that no
// bake is cut short by a new coordinator.
func (s *State) upgrade(d *Deployment) {
	if d.Status == DeploymentStatusPaused && d.PausedAt == 0 {
		d.PausedAt = max(s.Now, 1)
	}
	for i := range d.Waves {
		if w := &d.Waves[i]; w.Status == WaveStatusBaking && w.BakeSince == 0 && w.BakeUntil > 0 {
			w.BakeSince = w.BakeUntil.Add(-w.BakeMin)
		}
	}
}

// attach makes the target part of the indexes and counters.
func (s *State) attach(h *Host, t *Target) {
	t.host, t.group, t.added = h, s.Groups[GroupKey(t.App, t.Group)], nil
	if t.group != nil {
		t.group.targets[t.Host] = t
		at, _ := t.group.find(t.Host)
		t.group.list = slices.Insert(t.group.list, at, t)
	}
	s.add(t)
}

// detach undoes attach; the target has been removed from the counters.
func (g *Group) detach(t *Target) {
	delete(g.Members, t.Host)
	delete(g.targets, t.Host)
	if at, ok := g.find(t.Host); ok {
		g.list = slices.Delete(g.list, at, at+1)
	}
}

func (g *Group) find(host string) (int, bool) {
	return slices.BinarySearchFunc(g.list, host, func(t *Target, h string) int { return strings.Compare(t.Host, h) })
}

// derive builds the group's indexes; its targets are counted by State.add.
func (g *Group) derive(open []*Deployment) {
	g.use, g.open, g.place = nil, nil, map[string]int{}
	g.strays, g.asides, g.targets = map[string]struct{}{}, map[string]struct{}{}, map[string]*Target{}
	g.list = nil
	if g.Members == nil { // empty ones are left out of a snapshot
		g.Members = map[string]bool{}
	}
	if g.Bad == nil {
		g.Bad = map[Digest]string{}
	}
	for i := range g.Layout.Waves {
		for _, h := range g.Layout.Waves[i].Hosts {
			g.place[h] = i
		}
	}
	for _, d := range open {
		if d.App == g.App && d.Group == g.Name {
			g.open = append(g.open, d)
		}
	}
}

// Target returns the target, or nil.
func (s *State) Target(host, app string) *Target {
	if h := s.Hosts[host]; h != nil {
		return h.Targets[app]
	}
	return nil
}

// Open returns the deployments that have not ended, oldest first.
func (s *State) Open() []*Deployment { return s.open }

// Newest returns the group's newest deployment that has not ended, or nil.
func (s *State) Newest(app, group string) *Deployment {
	if g := s.Groups[GroupKey(app, group)]; g != nil && len(g.open) > 0 {
		return g.open[len(g.open)-1]
	}
	return nil
}

// target returns the group's target on the host, or nil.
func (g *Group) target(host string) *Target { return g.targets[host] }

// Frozen returns the freeze that holds the group's grants, or nil.
func (s *State) Frozen(g *Group) *Freeze { return s.frozen(g) }

// InFlight returns the group's deployments that have not ended, oldest first.
func (g *Group) InFlight() []*Deployment { return g.open }

// RevisionName returns the newest name of a digest, or its short form.
func (s *State) RevisionName(app string, d Digest) string {
	if r := s.Revisions[app][d]; r != nil {
		return r.Name
	}
	return d.Short()
}

// LastGood returns the target's last good revision: the newest seal whose
// revision is not marked bad, skipping the deployment's own seals. Empty = none.
func (s *State) LastGood(t *Target, deployment string) Digest {
	return t.lastGood(func(seal Seal) bool { return seal.Deployment == deployment })
}

// lastGood is LastGood, skipping the seals that skip names. A target without
// any history goes where its wave was.
func (t *Target) lastGood(skip func(Seal) bool) Digest {
	g := t.group
	if g == nil {
		return ""
	}
	if len(t.Seals) > 0 {
		return newestGood(g, t.Seals, skip)
	}
	if w, ok := g.place[t.Host]; ok {
		return g.lastGoodWave(w, skip)
	}
	return ""
}

// lastGoodWave is the last good revision of a wave: for targets without
// history. It is the newest good seal of the wave under this layout, else the
// newest good revision that went through the group.
func (g *Group) lastGoodWave(w int, skip func(Seal) bool) Digest {
	if w >= 0 && w < len(g.Layout.Waves) {
		if d := newestGood(g, g.Layout.Waves[w].Seals, skip); d != "" {
			return d
		}
	}
	return newestGood(g, g.Succeeded, skip)
}

func newestGood(g *Group, seals []Seal, skip func(Seal) bool) Digest {
	for i := len(seals) - 1; i >= 0; i-- {
		if g.Bad[seals[i].Revision] == "" && (skip == nil || !skip(seals[i])) {
			return seals[i].Revision
		}
	}
	return ""
}

// Sealed returns the revisions that were sealed on the group and are not bad,
// the one sealed last first.
func (s *State) Sealed(g *Group) []Digest {
	last := map[string]Time{}
	for _, t := range g.list {
		for _, seal := range t.Seals {
			if g.Bad[seal.Revision] == "" {
				last[string(seal.Revision)] = max(last[string(seal.Revision)], seal.At)
			}
		}
	}
	var out []Digest
	for d := range sorted(last) {
		out = append(out, Digest(d))
	}
	slices.SortStableFunc(out, func(a, b Digest) int { return cmp.Compare(last[string(b)], last[string(a)]) })
	return out
}

// LastIndex returns the index of the deployment's newest record.
func (d *Deployment) LastIndex() uint64 {
	if n := len(d.Records); n > 0 {
		return d.Records[n-1].Index
	}
	return 0
}
