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
	Waves              []WaveSpec     `json:"waves"`
	Gates              []Gate         `json:"gates,omitempty"`
	OnFailure          FailureAction  `json:"on_failure"`
	FailureBudgetTotal *Share         `json:"failure_budget_total,omitempty"`
	Rollback           RollbackPolicy `json:"rollback"`
	Timeouts           Timeouts       `json:"timeouts"`
	StopFailure        string         `json:"stop_failure,omitempty"` // continue | fail: when ApplicationStop of the old revision fails
}

// Capacity says how much of a group may be out of service.
type Capacity struct {
	MinHealthy        Share  `json:"min_healthy"`                    // the floor, rounded up
	MinHealthyPerZone *Share `json:"min_healthy_per_zone,omitempty"` // a second floor in each zone
	SmallFleet        string `json:"small_fleet,omitempty"`          // relax | reject
	MaxConcurrent     Share  `json:"max_concurrent"`                 // permits outstanding, rounded down, at least 1
	MaxZones          int    `json:"max_zones,omitempty"`            // zones with outstanding permits; 0 is no limit
	SharedHost        bool   `json:"shared_host,omitempty"`          // perHost: shared
}

// WaveSpec is a wave as written; Layout turns it into waves with hosts.
type WaveSpec struct {
	Name          string        `json:"name"`
	Kind          string        `json:"kind"` // count | percent | remainder
	Size          Share         `json:"size"`
	ForEachZone   bool          `json:"for_each_zone,omitempty"`
	Parallel      []int         `json:"parallel,omitempty"`
	Zone          string        `json:"zone,omitempty"`    // a zone's name, or "lightest"
	Prefer        string        `json:"prefer,omitempty"`  // key=value of a host label
	Balance       bool          `json:"balance,omitempty"` // spread over zones
	OneBox        bool          `json:"one_box,omitempty"`
	FailureBudget Share         `json:"failure_budget"`
	BakeMin       time.Duration `json:"bake_min,omitempty"`
	Gates         []string      `json:"gates,omitempty"`
}

// Gate is a question asked of a host. In this version every gate is a probe
// that the agent runs during validation and while the wave bakes.
type Gate struct {
	Name  string `json:"name"`
	Probe Probe  `json:"probe"`
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

// FailureAction says what follows a failure over budget or a failed gate.
type FailureAction struct {
	Wave string `json:"wave"` // rollback | pause
	Gate string `json:"gate"` // rollback | pause
}

// The failure actions of this version: all back, or halt and wait for a person.
const (
	ActionRollback = "rollback"
	ActionPause    = "pause"
)

// RollbackPolicy bounds a rollback.
type RollbackPolicy struct {
	MaxConcurrent Share `json:"max_concurrent"`
	MaxZones      int   `json:"max_zones,omitempty"` // 0 is all
}

// Timeouts bound the parts of a task, in FSM time.
type Timeouts struct {
	Stage     time.Duration `json:"stage"`
	Task      time.Duration `json:"task"`
	LostAfter time.Duration `json:"lost_after"`
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

// Builtin returns the built-in config of that name. The floors of the first
// three are CodeDeploy's documented ones, without its last-host exception.
func Builtin(name string) (Config, bool) {
	c := Config{
		Name:     name,
		Capacity: Capacity{SmallFleet: "relax", MaxConcurrent: Percent(100)},
		Waves:    []WaveSpec{{Name: "all", Kind: "remainder"}},
		OnFailure: FailureAction{
			Wave: ActionRollback, Gate: ActionRollback,
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
		c.Waves = []WaveSpec{
			{Name: "one-box", Kind: "count", Size: Count(1), Zone: "lightest", BakeMin: 10 * time.Minute},
			{Name: "canary", Kind: "percent", Size: Percent(5), Balance: true, BakeMin: 10 * time.Minute},
			{Name: "zones", Kind: "remainder", ForEachZone: true, OneBox: true, FailureBudget: Percent(2), BakeMin: 10 * time.Minute},
		}
		if name == "staged" {
			c.OnFailure = FailureAction{Wave: ActionPause, Gate: ActionRollback}
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
	return Timeouts{Stage: 15 * time.Minute, Task: 30 * time.Minute, LostAfter: 5 * time.Minute}
}
