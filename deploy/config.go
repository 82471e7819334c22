package deploy

import (
	"fmt"
	"strings"
	"time"
)

// Million is the denominator of a share: shares are integers in parts per million.
const Million = 1_000_000

// Share is a part of a whole: a count, or parts per million of a base.
type Share struct {
	Count    int   `json:"count,omitempty"`
	PPM      int64 `json:"ppm,omitempty"`
	Relative bool  `json:"relative,omitempty"` // PPM is used, not Count
}

// Percent returns the share of p percent.
func Percent(p int) Share { return Share{PPM: int64(p) * Million / 100, Relative: true} }

// Count returns the share of exactly n.
func Count(n int) Share { return Share{Count: n} }

// Up returns the share of n, rounded up.
func (s Share) Up(n int) int {
	if !s.Relative {
		return s.Count
	}
	return int((s.PPM*int64(n) + Million - 1) / Million)
}

// Down returns the share of n, rounded down.
func (s Share) Down(n int) int {
	if !s.Relative {
		return s.Count
	}
	return int(s.PPM * int64(n) / Million)
}

func (s Share) String() string {
	if !s.Relative {
		return fmt.Sprint(s.Count)
	}
	if s.PPM%(Million/100) == 0 {
		return fmt.Sprintf("%d%%", s.PPM/(Million/100))
	}
	text := fmt.Sprintf("%d.%04d", s.PPM/(Million/100), s.PPM%(Million/100))
	return strings.TrimRight(text, "0") + "%"
}

// Config is the policy of a deployment. It is frozen in the deployment.
type Config struct {
	Name               string         `json:"name"`
	Capacity           Capacity       `json:"capacity"`
	Stage              Stage          `json:"stage,omitzero"`
	Waves              []WaveSpec     `json:"waves"`
	Gates              []Gate         `json:"gates,omitempty"`
	Metrics            []Metric       `json:"metrics,omitempty"`
	PreGates           []string       `json:"pre_gates,omitempty"`       // before the first wave is entered
	OnInconclusive     string         `json:"on_inconclusive,omitempty"` // hold | pass | fail
	OnFailure          FailureAction  `json:"on_failure"`
	Decision           Decision       `json:"decision,omitzero"`
	FailureBudgetTotal *Share         `json:"failure_budget_total,omitempty"`
	Rollback           RollbackPolicy `json:"rollback"`
	InFlight           InFlight       `json:"in_flight,omitzero"`
	Timeouts           Timeouts       `json:"timeouts"`
	WatchAfter         time.Duration  `json:"watch_after,omitempty"`
	// continue | fail: when ApplicationStop of the old revision fails
	StopFailure string `json:"stop_failure,omitempty"`
}

// Capacity says how much of a group may be out of service.
type Capacity struct {
	MinHealthy        Share  `json:"min_healthy"`                    // the floor, rounded up
	MinHealthyPerZone *Share `json:"min_healthy_per_zone,omitempty"` // a second floor in each zone
	SmallFleet        string `json:"small_fleet,omitempty"`          // relax | reject
	MaxConcurrent     Share  `json:"max_concurrent"`                 // permits outstanding, rounded down, at least 1
	MaxZones          int    `json:"max_zones,omitempty"`            // zones with outstanding permits; 0 is no limit
	SharedHost        bool   `json:"shared_host,omitempty"`          // perHost: shared
	// QuorumGroup keeps hosts that hold the same data from being down together.
	QuorumGroup *QuorumGroup `json:"quorum_group,omitempty"`
}

// QuorumGroup is a floor in each set of hosts that have one value of a label, such as the
// replicas of a shard. A host without the label is in none.
type QuorumGroup struct {
	Label   string `json:"label"`
	MaxDown int    `json:"max_down"` // of the hosts of a value that have ever been healthy
}

// Stage says when bundles are fetched and what must be fetched before the first
// host is disrupted. The zero value prefetches everywhere and waits for nobody.
type Stage struct {
	Prefetch  string `json:"prefetch,omitempty"`  // none | wave | fleet
	Bandwidth int64  `json:"bandwidth,omitempty"` // bytes a second and host; 0 is no limit
	Barrier   string `json:"barrier,omitempty"`   // none | wave | deployment
	Quorum    Share  `json:"quorum,omitzero"`     // of planned tasks, rounded up
	// Warmup and Taste run on each host once it has the revision, in this order, beside
	// what serves there; a host gets no permit forward before both have ended well.
	Warmup *StageScript `json:"warmup,omitempty"`
	Taste  *StageScript `json:"taste,omitempty"`
}

// tastes reports whether a host runs anything before its permit.
func (s *Stage) tastes() bool { return s.Warmup != nil || s.Taste != nil }

// StageScript is a script of the revision. What it starts is gone when it has ended.
type StageScript struct {
	Script  string        `json:"script"` // below the revision's root
	Timeout time.Duration `json:"timeout,omitempty"`
	RunAs   string        `json:"run_as,omitempty"` // a user; "" is the agent's own
}

// StageScriptTimeout is that of a script that does not say.
const StageScriptTimeout = 2 * time.Minute

// WaveSpec is a wave as written; Arrange turns it into waves with hosts.
type WaveSpec struct {
	Name          string   `json:"name"`
	Kind          string   `json:"kind"` // count | percent | remainder
	Size          Share    `json:"size"`
	ForEachZone   bool     `json:"for_each_zone,omitempty"`
	Parallel      []int    `json:"parallel,omitempty"`
	Zone          string   `json:"zone,omitempty"`    // a zone's name, or "lightest"
	Prefer        string   `json:"prefer,omitempty"`  // key=value of a host label
	Balance       bool     `json:"balance,omitempty"` // spread over zones
	OneBox        bool     `json:"one_box,omitempty"`
	Rehearse      bool     `json:"rehearse,omitempty"` // its first hosts go old, new, old, new
	FailureBudget Share    `json:"failure_budget"`
	PreGates      []string `json:"pre_gates,omitempty"`
	Gates         []string `json:"gates,omitempty"`
	BakeSpec
}

// BakeSpec says how long a wave is watched before it is sealed.
type BakeSpec struct {
	BakeMin time.Duration `json:"bake_min,omitempty"`
	BakeMax time.Duration `json:"bake_max,omitempty"` // 0: twice the minimum and an hour
	Samples int           `json:"samples,omitempty"`  // requests that gates must have seen
	Early   bool          `json:"early,omitempty"`    // sealed at the minimum once every sequential gate passed
}

// Max is the longest that the bake may stay undecided.
func (b BakeSpec) Max() time.Duration {
	if b.BakeMax > 0 {
		return b.BakeMax
	}
	return 2*b.BakeMin + time.Hour
}

// Gate is a question with the answer pass, fail or inconclusive. Exactly one of
// Probe, Query, Compare, Webhook, Window and Approval is set.
type Gate struct {
	Name       string        `json:"name"`
	Scope      string        `json:"scope,omitempty"` // host | zone | wave | deployment; "" is wave
	Probe      Probe         `json:"probe,omitzero"`  // asked by the agent, on its own host
	Query      *QueryGate    `json:"query,omitempty"`
	Compare    *CompareGate  `json:"compare,omitempty"`
	Webhook    string        `json:"webhook,omitempty"` // URL that answers the question
	Window     string        `json:"window,omitempty"`  // e.g. "Mon-Thu 09:00-16:00 Europe/Rome"
	Approval   *ApprovalGate `json:"approval,omitempty"`
	MinSamples int           `json:"min_samples,omitempty"` // fewer are inconclusive
	FailLimit  int           `json:"fail_limit,omitempty"`  // failing answers in a row that make a verdict; 0 is 1
	Interval   time.Duration `json:"interval,omitempty"`    // between two questions
}

// Gate scopes.
const (
	ScopeHost       = "host"
	ScopeZone       = "zone"
	ScopeWave       = "wave"
	ScopeDeployment = "deployment"
	ScopeAll        = "all"  // of an action
	ScopeGate       = "gate" // of an action: the scope of the gate that failed
)

// QueryGate is a Prometheus query whose value has bounds. The query is a
// template over Host, Zone, Wave, App, Group, Revision and Base.
type QueryGate struct {
	Query string `json:"query"`
	Max   string `json:"max,omitempty"` // decimal text: state holds no floating point
	Min   string `json:"min,omitempty"`
	// Window is how far back an answer looks; no verdict before the wave is as old.
	Window time.Duration `json:"window,omitempty"`
	// HostLabel is the label that holds a host's name: every host that the question
	// is about must have a series. "" is instance, for answers that have it.
	HostLabel string `json:"host_label,omitempty"`
	// Presence asks, for an aggregate, which hosts are in it; a template as Query.
	Presence string `json:"presence,omitempty"`
}

// CompareGate compares hosts on the new revision with hosts on the old one.
type CompareGate struct {
	Metric string `json:"metric"`           // names a Metric
	Test   string `json:"test"`             // sprt | mannwhitney
	Effect int64  `json:"effect,omitempty"` // the ratio that must be noticed, in parts per million
}

// Metric names the queries behind a comparison, templates over Hosts (a regular
// expression of host names). Errors need Total and Bad, counters that only
// grow; latency needs Samples, one value a host and scrape.
type Metric struct {
	Name    string `json:"name"`
	Total   string `json:"total,omitempty"`
	Bad     string `json:"bad,omitempty"`
	Samples string `json:"samples,omitempty"`
}

// ApprovalGate waits for people. Who asked for the deployment cannot approve it.
type ApprovalGate struct {
	Group   string        `json:"group,omitempty"` // of the approvers; "" is every operator
	Count   int           `json:"count,omitempty"` // approvals of different people; 0 is 1
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Probe is a health question that an agent answers on its own host.
type Probe struct {
	HTTP        string        `json:"http,omitempty"`
	Expect      int           `json:"expect,omitempty"`
	TCP         string        `json:"tcp,omitempty"`
	Command     []string      `json:"command,omitempty"`
	Consecutive int           `json:"consecutive,omitempty"` // successes in a row to pass
	Failures    int           `json:"failures,omitempty"`    // failures in a row to fail
	Interval    time.Duration `json:"interval,omitempty"`
	Timeout     time.Duration `json:"timeout,omitempty"` // of one attempt
}

// Action is what follows a failure: what, where, and what then.
type Action struct {
	Do    string `json:"do"`              // rollback | pause | continue
	Scope string `json:"scope,omitempty"` // host | zone | wave | all | gate
	Then  string `json:"then,omitempty"`  // pause | rollback-all
}

// FailureAction says what follows which failure.
type FailureAction struct {
	Host Action `json:"host,omitzero"` // one host, within the budget
	Wave Action `json:"wave"`          // a budget exceeded, a quorum missed
	Gate Action `json:"gate"`          // a gate
	Test Action `json:"test,omitzero"` // a webhook, where a pipeline runs its tests
	Bake Action `json:"bake,omitzero"` // a gate without a scope, while the wave bakes
}

// The things an action does, and what may follow.
const (
	ActionRollback = "rollback"
	ActionPause    = "pause"
	ActionContinue = "continue"
	ThenPause      = "pause"
	ThenAll        = "rollback-all"
)

// Decision bounds the wait for a person after a failure.
type Decision struct {
	Timeout time.Duration `json:"timeout,omitempty"` // 0 waits for ever
	Then    string        `json:"then,omitempty"`    // hold | rollback-all
}

// RollbackPolicy bounds a rollback.
type RollbackPolicy struct {
	MaxConcurrent Share `json:"max_concurrent"`
	MaxZones      int   `json:"max_zones,omitempty"`    // 0 is all
	IgnoreFloor   bool  `json:"ignore_floor,omitempty"` // floor: ignore
}

// InFlight says how deployments of one group follow each other.
type InFlight struct {
	Serial bool   `json:"serial,omitempty"` // one at a time; else staggered, one a wave
	Max    int    `json:"max,omitempty"`    // live at a time; 0 is 4
	Queue  string `json:"queue,omitempty"`  // all | latest | reject; "" is latest
}

// Limit is the number of deployments that may be live at a time.
func (f InFlight) Limit() int {
	switch {
	case f.Serial:
		return 1
	case f.Max > 0:
		return f.Max
	}
	return 4
}

// What a new deployment does to older ones that have not started.
const (
	QueueAll    = "all"
	QueueLatest = "latest"
	QueueReject = "reject"
)

// Timeouts bound the parts of a task and of a deployment, in FSM time.
type Timeouts struct {
	Stage       time.Duration `json:"stage"`
	Task        time.Duration `json:"task"`
	LostAfter   time.Duration `json:"lost_after"`
	ForgetAfter time.Duration `json:"forget_after,omitempty"` // 0 is never
	Deployment  time.Duration `json:"deployment,omitempty"`   // 0 is none
}

// GatesOf returns the gates that the wave names, in the order it names them.
func (c *Config) GatesOf(names []string) []Gate {
	var out []Gate
	for _, n := range names {
		for _, g := range c.Gates {
			if g.Name == n {
				out = append(out, g)
			}
		}
	}
	return out
}

// MetricOf returns the metric of that name.
func (c *Config) MetricOf(name string) (Metric, bool) {
	for _, m := range c.Metrics {
		if m.Name == name {
			return m, true
		}
	}
	return Metric{}, false
}

// gate returns the gate of that name, or nil.
func (c *Config) gate(name string) *Gate {
	for i := range c.Gates {
		if c.Gates[i].Name == name {
			return &c.Gates[i]
		}
	}
	return nil
}

// Builtin returns the built-in config of that name. The floors of the first
// three are CodeDeploy's documented ones, without its last-host exception.
func Builtin(name string) (Config, bool) {
	all := Action{Do: ActionRollback, Scope: ScopeAll}
	c := Config{
		Name:     name,
		Capacity: Capacity{SmallFleet: "relax", MaxConcurrent: Percent(100)},
		Waves:    []WaveSpec{{Name: "all", Kind: "remainder"}},
		OnFailure: FailureAction{
			Host: Action{Do: ActionRollback, Scope: ScopeHost}, Wave: all, Gate: all, Test: all,
			Bake: all,
		},
		Rollback:    RollbackPolicy{MaxConcurrent: Percent(33)},
		Timeouts:    DefaultTimeouts(),
		StopFailure: "continue",
	}
	switch name {
	case "one-at-a-time":
		c.Capacity.MaxConcurrent = Count(1)
		c.Capacity.MinHealthy = Percent(99)
	case "half-at-a-time":
		c.Capacity.MinHealthy = Percent(50)
		c.Capacity.MaxConcurrent = Percent(50)
		c.Waves[0].FailureBudget = Percent(50)
	case "all-at-once":
		c.Waves[0].FailureBudget = Percent(100) // succeeds with one settled host
		c.Rollback.MaxConcurrent = Percent(100)
	case "staged", "hands-off":
		c.Capacity.MinHealthy = Percent(66)
		c.Capacity.MaxConcurrent = Percent(10)
		c.Capacity.MaxZones = 1
		bake := BakeSpec{BakeMin: 10 * time.Minute}
		c.Waves = []WaveSpec{
			{Name: "one-box", Kind: "count", Size: Count(1), Zone: "lightest", BakeSpec: bake},
			{Name: "canary", Kind: "percent", Size: Percent(5), Balance: true, BakeSpec: bake},
			{
				Name: "zones", Kind: "remainder", ForEachZone: true, OneBox: true, FailureBudget: Percent(2),
				BakeSpec: bake,
			},
		}
		if name == "staged" {
			c.OnFailure.Wave = Action{Do: ActionRollback, Scope: ScopeZone, Then: ThenPause}
			c.OnFailure.Gate = Action{Do: ActionRollback, Scope: ScopeGate, Then: ThenPause}
			c.OnFailure.Bake = Action{Do: ActionRollback, Scope: ScopeWave, Then: ThenPause}
		}
	default:
		return Config{}, false
	}
	return c, true
}

// BuiltinNames lists the built-in configs.
func BuiltinNames() []string {
	return []string{"one-at-a-time", "half-at-a-time", "all-at-once", "staged", "hands-off"}
}

// DefaultTimeouts returns the timeouts of a config that names none.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		Stage: 15 * time.Minute, Task: 30 * time.Minute, LostAfter: 5 * time.Minute,
		ForgetAfter: 30 * time.Minute,
	}
}
