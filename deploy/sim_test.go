package deploy_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/sim"
)

// seeds returns how many seeds to run and the first one: SEEDS and SEED.
func seeds(t *testing.T, n int) (first, last uint64) {
	t.Helper()
	if v := os.Getenv("SEED"); v != "" {
		s, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("SEED=%s: %v", v, err)
		}
		return s, s
	}
	if v := os.Getenv("SEEDS"); v != "" {
		m, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("SEEDS=%s: %v", v, err)
		}
		n = m
	}
	return 1, uint64(n)
}

// TestSimulation runs random fleets, configs and faults and checks every
// invariant after every entry. A failing seed prints its repro.
func TestSimulation(t *testing.T) {
	first, last := seeds(t, 400)
	if first == last {
		traceHook = func(at deploy.Time, line string) { t.Logf("%s %s", time.Duration(at).Round(time.Millisecond), line) }
	}
	var total tally
	for seed := first; seed <= last; seed++ {
		r := run(seed)
		total.add(r)
		if r.err != nil {
			t.Errorf("seed %d: %v\n  repro: SEED=%d go test ./deploy -run TestSimulation", seed, r.err, seed)
			if last-first > 20 && t.Failed() {
				break
			}
		}
	}
	t.Logf("%d seeds, %.0f simulated hours, %d facts, %d succeeded, %d rolled back, %d halted, %d stopped",
		last-first+1, total.hours, total.events, total.ends[deploy.DeploymentStatusSucceeded],
		total.ends[deploy.DeploymentStatusRolledBack], total.ends[deploy.DeploymentStatusPaused], total.ends[deploy.DeploymentStatusStopped])
	if first != last {
		for _, s := range []deploy.DeploymentStatus{deploy.DeploymentStatusSucceeded, deploy.DeploymentStatusRolledBack, deploy.DeploymentStatusPaused} {
			if total.ends[s] == 0 {
				t.Errorf("no seed ended %s: the simulation is vacuous", s)
			}
		}
	}
}

type tally struct {
	hours  float64
	events int
	ends   map[deploy.DeploymentStatus]int
	err    error
}

func (a *tally) add(b tally) {
	if a.ends == nil {
		a.ends = map[deploy.DeploymentStatus]int{}
	}
	a.hours += b.hours
	a.events += b.events
	for s, n := range b.ends {
		a.ends[s] += n
	}
}

func pick[T any](r *rand.Rand, items ...T) T { return items[r.IntN(len(items))] }

// traceHook prints every fact of a seed when set.
var traceHook func(deploy.Time, string)

// run simulates several deployments on one random fleet.
func run(seed uint64) tally {
	r := rand.New(rand.NewPCG(seed, 7))
	p := func(max float64) float64 {
		if r.IntN(2) == 0 {
			return 0
		}
		return r.Float64() * max
	}
	f := sim.Faults{
		Fail: p(0.1), Break: p(0.3), Hang: p(0.05), Crash: p(0.1), Lose: p(0.3), Repeat: p(0.3),
		Sick: p(0.05), Away: p(0.1), Stage: p(0.05), Leader: p(0.1),
	}
	w := sim.New(seed, sim.Faults{})
	w.Deep, w.Trace = true, traceHook
	n := pick(r, 1, 2, 3, 5, 12, 40)
	zones := 1 + r.IntN(4)
	for i := range n {
		w.AddHost(fmt.Sprintf("h%d", i+1), fmt.Sprintf("z%d", i%zones), nil)
	}
	c := randomConfig(r)
	w.Define("www", "prod", c)
	out := tally{ends: map[deploy.DeploymentStatus]int{}}
	if err := w.Deploy("www", "prod", "d0", "v0"); err != nil {
		return out // a config that cannot be kept on this fleet is refused
	}
	out.err = settle(w)
	w.SetFaults(f)
	for i := 1; i <= 4 && out.err == nil; i++ {
		id := fmt.Sprintf("d%d", i)
		if err := w.Deploy("www", "prod", id, fmt.Sprintf("v%d", r.IntN(6))); err != nil {
			continue
		}
		if r.IntN(4) == 0 {
			out.err = w.Run(time.Duration(r.IntN(600))*time.Second, nil)
			_ = w.Act(id, pick(r, deploy.VerbPause, deploy.VerbAbortLeave, deploy.VerbAbortRollback, deploy.VerbRetry, deploy.VerbPromote))
			_ = w.Act(id, pick(r, deploy.VerbResume, deploy.VerbRetry, deploy.VerbPromote))
		}
		if out.err == nil {
			out.err = settle(w)
		}
		out.ends[w.State.Deployments[id].Status]++
		if d := w.State.Newest("www", "prod"); d != nil {
			_ = w.Act(d.ID, deploy.VerbAbortRollback)
			w.SetFaults(sim.Faults{})
			out.err = settle(w)
			w.SetFaults(f)
		}
	}
	out.hours, out.events = time.Duration(w.Now).Hours(), w.Events
	if out.err == nil {
		out.err = reload(w.State)
	}
	return out
}

// settle runs until the deployment in flight has ended or waits for a person;
// everything else is a liveness bug (S5).
func settle(w *sim.World) error {
	done := func() bool {
		d := w.State.Newest("www", "prod")
		return d == nil || d.Status == deploy.DeploymentStatusPaused
	}
	if err := w.Run(30*time.Hour, done); err != nil || done() {
		return err
	}
	d := w.State.Newest("www", "prod")
	holds := deploy.Holds(w.State, d, w.Now)
	if strings.Contains(fmt.Sprint(holds), "the floor is") {
		return nil // a hold that names whom it waits for: hosts that do not serve
	}
	return fmt.Errorf("S5: deployment %s is %s after 30 h; holds %v", d.ID, d.Status, holds)
}

func randomConfig(r *rand.Rand) deploy.Config {
	c, _ := deploy.Builtin(pick(r, deploy.BuiltinNames()...))
	c.Capacity.MinHealthy = deploy.Percent(pick(r, 0, 50, 66, 90, 100))
	c.Capacity.MaxConcurrent = pick(r, deploy.Count(1), deploy.Percent(10), deploy.Percent(50), deploy.Percent(100))
	c.Capacity.MaxZones = r.IntN(3)
	if r.IntN(3) == 0 {
		z := deploy.Percent(pick(r, 33, 50))
		c.Capacity.MinHealthyPerZone = &z
	}
	c.Waves = []deploy.WaveSpec{{Name: "rest", Kind: "remainder", ForEachZone: r.IntN(2) == 0, OneBox: r.IntN(2) == 0, Parallel: pick(r, nil, []int{1, 2})}}
	if r.IntN(2) == 0 {
		c.Waves = append([]deploy.WaveSpec{{Name: "part", Kind: "percent", Size: deploy.Percent(20), Balance: r.IntN(2) == 0}}, c.Waves...)
	}
	if r.IntN(2) == 0 {
		c.Waves = append([]deploy.WaveSpec{{Name: "one-box", Kind: "count", Size: deploy.Count(1), Zone: "lightest"}}, c.Waves...)
	}
	for i := range c.Waves {
		c.Waves[i].BakeMin = time.Duration(r.IntN(4)) * time.Minute
		c.Waves[i].FailureBudget = deploy.Percent(pick(r, 0, 10, 30))
	}
	c.OnFailure = deploy.FailureAction{Wave: deploy.Action{Do: pick(r, "rollback", "pause"), Scope: deploy.ScopeAll}, Gate: deploy.Action{Do: pick(r, "rollback", "pause"), Scope: deploy.ScopeAll}}
	if r.IntN(3) == 0 {
		total := deploy.Percent(20)
		c.FailureBudgetTotal = &total
	}
	return c
}

// reload proves that the encoded state is the whole state: a replica restored
// from a snapshot decides the same.
func reload(s *deploy.State) error {
	a, err := json.Marshal(s)
	if err != nil {
		return err
	}
	var back deploy.State
	if err := json.Unmarshal(a, &back); err != nil {
		return err
	}
	back.Rebuild()
	b, err := json.Marshal(&back)
	if err != nil {
		return err
	}
	if string(a) != string(b) {
		return fmt.Errorf("S9: a restored snapshot differs")
	}
	if err := deploy.Check(&back); err != nil {
		return fmt.Errorf("after restore: %w", err)
	}
	x, y := deploy.Decide(s, deploy.Fleet{}, s.Now), deploy.Decide(&back, deploy.Fleet{}, s.Now)
	if fmt.Sprint(x) != fmt.Sprint(y) {
		return fmt.Errorf("S9: a restored replica decides %v, not %v", y, x)
	}
	return nil
}

// BenchmarkFleet deploys to n hosts in six waves with 1 % failures and reports
// the CPU of Decide and Apply per fact.
func BenchmarkFleet(b *testing.B) {
	for _, n := range []int{300, 3000, 30000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				w := sim.New(1, sim.Faults{})
				for i := range n {
					w.AddHost(fmt.Sprintf("h%05d", i), fmt.Sprintf("z%d", i%3), nil)
				}
				c, _ := deploy.Builtin("hands-off")
				c.Capacity.MaxZones = 0
				c.Waves = nil
				for i, p := range []int{0, 1, 5, 10, 25} {
					c.Waves = append(c.Waves, deploy.WaveSpec{Name: fmt.Sprint("w", i), Kind: "percent", Size: deploy.Percent(p), Balance: true, BakeSpec: deploy.BakeSpec{BakeMin: time.Hour}, FailureBudget: deploy.Percent(5)})
				}
				c.Waves = append(c.Waves, deploy.WaveSpec{Name: "rest", Kind: "remainder", BakeSpec: deploy.BakeSpec{BakeMin: time.Hour}, FailureBudget: deploy.Percent(5)})
				w.Define("www", "prod", c)
				if err := w.Deploy("www", "prod", "d", "v1"); err != nil {
					b.Fatal(err)
				}
				w.SetFaults(sim.Faults{Fail: 0.01})
				if err := settle(w); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(w.Events), "facts")
			}
		})
	}
}
