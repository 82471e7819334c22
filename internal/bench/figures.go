package bench

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Figures are what Run measured, with the names of the contract in docs/dctl.md.
// What was not measured is null.
type Figures struct {
	Hosts        int `json:"hosts"`
	Coordinators int `json:"coordinators"`
	Deployments  int `json:"deployments"` // ended
	HostsEach    int `json:"hosts_each"`
	Waves        int `json:"waves"`
	Failed       int `json:"failed"` // did not succeed
	// Stuck counts hosts that at the end have no session, or do not run what was
	// deployed to them last.
	Stuck int `json:"stuck"`

	WallSeconds        *float64 `json:"wall_seconds"` // of the deployments
	CoordinatorCPU     *float64 `json:"coordinator_cpu_seconds"`
	SessionBytes       *int64   `json:"session_bytes"` // resident, above coordinators without hosts
	EventsPerSecond    *float64 `json:"events_per_second"`
	DeploymentsPerHour *float64 `json:"deployments_per_hour"`
	// WaveGap is from the last result of a wave, as its host sent it, to the first
	// task of the next one at a host. Dispatch is from the submit to the first task.
	WaveGap   *Times     `json:"wave_gap_seconds"`
	Dispatch  *Times     `json:"dispatch_seconds"`
	Reconnect *Reconnect `json:"reconnect_seconds"` // after every session was cut at once
	Failover  []float64  `json:"failover_seconds"`  // from the leader's end to the next submit that was accepted

	JoinWall      *float64    `json:"join_wall_seconds"` // until every host has its application
	JoinCPU       *float64    `json:"join_cpu_seconds"`  // of the coordinators
	Joins         []JoinRate  `json:"joins_per_second"`
	ReconnectCPU  *float64    `json:"reconnect_cpu_seconds"`
	SessionsBack  []Reconnect `json:"sessions_back_seconds"` // after each leader's end
	Elections     int         `json:"elections"`             // beyond those of leaders that were killed
	IdleCPU       *float64    `json:"idle_cpu_percent"`      // of a core, all coordinators
	CoordinatorMB []float64   `json:"coordinator_rss_mb"`    // at the end
	DiskMB        []float64   `json:"coordinator_disk_mb"`   // at the end
	// Troubles are why hosts tried again, with how often.
	Troubles map[string]int `json:"troubles,omitempty"`
}

// Times are seconds.
type Times struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Reconnect is when half of the sessions, and all of them, were back.
type Reconnect struct {
	Half float64 `json:"half"`
	All  float64 `json:"all"`
}

// JoinRate is how many hosts joined a second while the fleet grew by the last
// tenth up to a size.
type JoinRate struct {
	At   int     `json:"at"`
	Rate float64 `json:"rate"`
}

func times(all []time.Duration) *Times {
	if len(all) == 0 {
		return nil
	}
	s := slices.Sorted(slices.Values(all))
	at := func(q float64) float64 { return s[min(len(s)-1, int(q*float64(len(s))))].Seconds() }
	return &Times{N: len(s), P50: at(0.5), P99: at(0.99), Max: s[len(s)-1].Seconds()}
}

// Planned reports whether every deployment ended as planned and no host is stuck.
func (f *Figures) Planned() bool { return f.Failed == 0 && f.Stuck == 0 }

// Table is the figures for people; its last line sums up.
func (f *Figures) Table() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-34s "+format+"\n", append([]any{name}, args...)...)
	}
	fmt.Fprintf(&b, "%d hosts, %d coordinators, %d deployments to %d hosts in %d waves\n", f.Hosts, f.Coordinators,
		f.Deployments, f.HostsEach, f.Waves)
	if f.JoinWall != nil {
		line("joined", "%.1f s, %.1f CPU-s of the coordinators", *f.JoinWall, *f.JoinCPU)
	}
	for _, j := range f.Joins {
		line(fmt.Sprintf("joins a second at %d hosts", j.At), "%.0f", j.Rate)
	}
	if f.SessionBytes != nil {
		line("memory a session", "%d bytes", *f.SessionBytes)
	}
	if f.IdleCPU != nil {
		line("idle", "%.1f %% of a core", *f.IdleCPU)
	}
	if f.WallSeconds != nil {
		line("deployments", "%.2f s, %.2f CPU-s of the coordinators, %.0f events a second", *f.WallSeconds,
			*f.CoordinatorCPU, *f.EventsPerSecond)
	}
	if f.DeploymentsPerHour != nil {
		line("deployments an hour", "%.0f", *f.DeploymentsPerHour)
	}
	for i, t := range []*Times{f.Dispatch, f.WaveGap} {
		if t != nil {
			line([]string{"submit to first task", "wave gap"}[i], "p50 %.0f ms, p99 %.0f ms, max %.0f ms of %d",
				1e3*t.P50,
				1e3*t.P99, 1e3*t.Max, t.N)
		}
	}
	if r := f.Reconnect; r != nil {
		line("all sessions cut: back", "half in %.1f s, all in %.1f s, %.1f CPU-s", r.Half, r.All, *f.ReconnectCPU)
	}
	for _, s := range f.Failover {
		line("leader killed: next submit", "%.2f s", s)
	}
	for _, r := range f.SessionsBack {
		line("leader killed: sessions back", "half in %.1f s, all in %.1f s", r.Half, r.All)
	}
	line("elections beside kills", "%d", f.Elections)
	line("coordinators", "%.0f MB resident, %.0f MB on disk", f.CoordinatorMB, f.DiskMB)
	for _, text := range slices.Sorted(maps.Keys(f.Troubles)) {
		line("tried again", "%d times: %s", f.Troubles[text], text)
	}
	fmt.Fprintf(&b, "bench: %d deployments, %d failed; stuck %d of %d\n", f.Deployments, f.Failed, f.Stuck, f.Hosts)
	return b.String()
}
