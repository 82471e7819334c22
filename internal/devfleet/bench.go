package devfleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Figures are what Bench measured. Times are seconds from the start of
// `dctl deploy` to its exit, the median of the rounds.
type Figures struct {
	Hosts          int     `json:"hosts"`
	Coordinators   int     `json:"coordinators"`
	Rounds         int     `json:"rounds"`
	AllAtOnce      Spread  `json:"all_at_once_seconds"`
	FiveWaves      Spread  `json:"five_waves_seconds"`
	FsyncP50       float64 `json:"fsync_p50_ms"`
	CoordinatorMB  float64 `json:"coordinator_rss_mb"`
	AgentMB        float64 `json:"agent_rss_mb"`
	AgentMaxMB     float64 `json:"agent_rss_max_mb"`
	BundleKB       int     `json:"bundle_kb"`
	CoordinatorCPU float64 `json:"coordinator_cpu_ms_per_host_and_deployment"`
}

// Spread is a median with its range.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spread(all []float64) Spread {
	s := slices.Sorted(slices.Values(all))
	if len(s) == 0 {
		return Spread{}
	}
	return Spread{Median: s[len(s)/2], Min: s[0], Max: s[len(s)-1]}
}

// Table is the figures for people; its last line sums up.
func (f Figures) Table() string {
	return fmt.Sprintf(`%d agents, %d coordinators, %d KB bundle, one hook, %d rounds
  all at once               %.2f s  (%.2f to %.2f)
  5 waves without bake      %.2f s  (%.2f to %.2f)
  idle agent                %.1f MB RSS, the largest %.1f
  idle coordinator          %.1f MB RSS
  coordinators' CPU         %.2f ms a host and deployment, all together
  fsync p50 of this run     %.2f ms
bench-fleet: %d hosts: all at once %.2f s, 5 waves %.2f s, fsync p50 %.2f ms
`, f.Hosts, f.Coordinators, f.BundleKB, f.Rounds, f.AllAtOnce.Median, f.AllAtOnce.Min, f.AllAtOnce.Max,
		f.FiveWaves.Median, f.FiveWaves.Min, f.FiveWaves.Max, f.AgentMB, f.AgentMaxMB, f.CoordinatorMB,
		f.CoordinatorCPU, f.FsyncP50,
		f.Hosts, f.AllAtOnce.Median, f.FiveWaves.Median, f.FsyncP50)
}

// idleAfter is when a process counts as idle: agents give memory back ten
// seconds after work has ended.
const idleAfter = 15 * time.Second

// bundleKB is the size of a bundle's content, which does not compress.
const bundleKB = 200

// benchApp holds two groups' configs; which one is used is said at deploy time
// by applying the file anew.
const benchApp = `app: bench
artifacts: %s
groups:
  all:
    select: role == "web"
    config:
      capacity: {minHealthy: 0, maxConcurrent: 100%%}
      waves: [%s]
`

const (
	oneWave   = `{name: all, select: remainder}`
	fiveWaves = `{name: w1, select: {percent: 20%}}, {name: w2, select: {percent: 20%}}, {name: w3,
		select: {percent: 20%}}, {name: w4, select: {percent: 20%}}, {name: w5, select: remainder}`
)

// Bench starts a fleet and measures deployments of a small bundle with one
// trivial hook. It stops the fleet.
func Bench(ctx context.Context, o Options, dctl string, rounds int, say func(string, ...any)) (out Figures, err error) {
	fleet, err := Start(ctx, o, say)
	defer func() { err = errors.Join(err, fleet.Stop()) }()
	if err != nil {
		return out, err
	}
	b := &bench{f: fleet, dctl: dctl, say: say}
	out = Figures{
		Hosts: o.Agents, Coordinators: o.Coordinators, Rounds: rounds, BundleKB: bundleKB,
		FsyncP50: fsyncP50(o.Dir),
	}
	if _, err := b.round(ctx, oneWave); err != nil { // the first one fills caches
		return out, err
	}
	cpu := b.f.CPU()
	var all, waves []float64
	for range rounds {
		a, err := b.round(ctx, oneWave)
		if err != nil {
			return out, err
		}
		w, err := b.round(ctx, fiveWaves)
		if err != nil {
			return out, err
		}
		all, waves = append(all, a), append(waves, w)
	}
	out.CoordinatorCPU = (b.f.CPU() - cpu).Seconds() * 1000 / float64(2*rounds*o.Agents)
	out.AllAtOnce, out.FiveWaves = spread(all), spread(waves)
	say("measuring idle memory")
	select {
	case <-time.After(idleAfter):
	case <-ctx.Done():
		return out, ctx.Err()
	}
	coords, agents := fleet.RSS()
	out.CoordinatorMB, _ = megabytes(coords)
	out.AgentMB, out.AgentMaxMB = megabytes(agents)
	return out, nil
}

func megabytes(all []int64) (median, most float64) {
	s := slices.Sorted(slices.Values(all))
	return float64(s[len(s)/2]) / 1e6, float64(s[len(s)-1]) / 1e6
}

type bench struct {
	f    *Fleet
	dctl string
	say  func(string, ...any)
	n    int
}

// round pushes a new revision and returns how long its deployment took.
func (b *bench) round(ctx context.Context, waves string) (float64, error) {
	b.n++
	rev := fmt.Sprintf("v%d", b.n)
	dir := filepath.Join(b.f.o.Dir, "bundles", rev)
	noise := make([]byte, bundleKB<<10)
	_, _ = rand.Read(noise) // crypto/rand never fails
	for name, data := range map[string][]byte{
		"appspec.yml": []byte(
			"version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - location: start.sh\n      timeout: 10\n"),
		"start.sh": []byte("#!/bin/sh\nexit 0\n"), "content": noise,
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			return 0, err
		}
	}
	file := filepath.Join(b.f.o.Dir, "bench.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, benchApp, b.f.Store("bench"), waves), 0o644); err != nil {
		return 0, err
	}
	for _, args := range [][]string{
		{"apps", "apply", "-f", file},
		{"revisions", "push", dir, "--app", "bench", "--rev", rev},
	} {
		if err := b.run(ctx, args...); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	err := b.run(ctx, "deploy", "--app", "bench", "--rev", rev)
	took := time.Since(began).Seconds()
	b.say("%s in %d wave(s): %.2f s", rev, 1+strings.Count(waves, "}, {"), took)
	return took, err
}

func (b *bench) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, b.dctl, args...)
	cmd.Env = append(append(os.Environ(), b.f.Env()...), "DCTL_OUTPUT=plain",
		"DCTL_CONFIG="+filepath.Join(b.f.o.Dir, "contexts.yaml"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := b.f.Run(cmd); err != nil {
		return fmt.Errorf("dctl %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return nil
}

// fsyncP50 is the median time of a 4 KiB write with fsync in the folder, in
// milliseconds.
func fsyncP50(dir string) float64 {
	f, err := os.CreateTemp(dir, "fsync-")
	if err != nil {
		return 0
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var all []float64
	block := make([]byte, 4096)
	for range 200 {
		began := time.Now()
		if _, err := f.Write(block); err != nil || f.Sync() != nil {
			return 0
		}
		all = append(all, float64(time.Since(began).Microseconds())/1000)
	}
	return spread(all).Median
}
