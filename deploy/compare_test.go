package deploy_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/deploy"
)

// drawErrors draws how many of n requests fail, each with probability p.
func drawErrors(r *rand.Rand, n int64, p float64) int64 {
	if p <= 0 {
		return 0
	}
	hits := int64(0)
	for at := int64(0); ; hits++ {
		at += 1 + int64(math.Log(1-r.Float64())/math.Log(1-p))
		if at > n {
			return hits
		}
	}
}

// errorCase is a one-box beside a fleet, in buckets of one second.
type errorCase struct {
	name             string
	mine, theirs     func(second int) (requests int64, share float64)
	seconds          int
	fails, passes    [2]float64 // the least and the most of the runs that may
	medianAt, lastAt int        // most requests of the candidate until a fail
}

func steadily(requests int64, share float64) func(int) (int64, float64) {
	return func(int) (int64, float64) { return requests, share }
}

// compareRuns sums up what simulated runs ended with.
type compareRuns struct {
	fails, passes, runs int
	samples             []int // until a fail
}

func (a *compareRuns) add(c deploy.Comparison) {
	a.runs++
	switch c.Verdict {
	case deploy.VerdictFail:
		a.fails++
		a.samples = append(a.samples, c.Samples)
	case deploy.VerdictPass:
		a.passes++
	case deploy.VerdictInconclusive:
	}
}

// at returns the samples until a fail in that part of the runs, 0 for no fail.
func (a *compareRuns) at(part float64) int {
	slices.Sort(a.samples)
	if len(a.samples) == 0 {
		return 0
	}
	return a.samples[int(part*float64(len(a.samples)-1))]
}

func (a *compareRuns) check(t *testing.T, fails, passes [2]float64, medianAt, lastAt int) {
	t.Helper()
	f, p := float64(a.fails)/float64(a.runs), float64(a.passes)/float64(a.runs)
	if f < fails[0] || f > fails[1] {
		t.Errorf("%.4f of the runs failed, want %v", f, fails)
	}
	if p < passes[0] || p > passes[1] {
		t.Errorf("%.4f of the runs passed, want %v", p, passes)
	}
	if a.at(0.5) > medianAt || a.at(0.99) > lastAt {
		t.Errorf("noticed after %d samples, 99%% after %d; want %d and %d", a.at(0.5), a.at(0.99), medianAt, lastAt)
	}
}

func (a *compareRuns) row(name string) string {
	n := float64(a.runs)
	return fmt.Sprintf("%-44s %7.2f%% %7.2f%% %7.2f%% %8d %8d", name, 100*float64(a.fails)/n, 100*float64(a.passes)/n,
		100*float64(a.runs-a.fails-a.passes)/n, a.at(0.5), a.at(0.99))
}

const compareHead = "%-44s %8s %8s %8s %8s %8s\n"

// TestErrorRatesOfCompareErrors: false rollbacks at most CompareAlpha, false
// passes at most CompareBeta, and bad ones are caught in time.
func TestErrorRatesOfCompareErrors(t *testing.T) {
	const runs = 1000
	any, none := [2]float64{0, 1}, [2]float64{0, deploy.CompareAlpha}
	wave := func(requests int64, share float64) func(int) (int64, float64) {
		return func(s int) (int64, float64) { return requests * int64(1+s%7) / 4, share * float64(1+s/100) }
	}
	scraped := func(first, last int, share float64) func(int) (int64, float64) { // hosts first to last, each every 15 s
		return func(s int) (int64, float64) {
			if s%15 < first || s%15 > last {
				return 0, share
			}
			return 300, share
		}
	}
	var table strings.Builder
	fmt.Fprintf(&table, compareHead, "errors: 20 req/s beside 220 req/s", "fail", "pass", "neither", "median", "99%")
	for _, c := range []errorCase{
		{"none at all", steadily(20, 0), steadily(220, 0), 600, [2]float64{0, 0}, [2]float64{1, 1}, 0, 0},
		{"equal, 0.1%", steadily(20, 0.001), steadily(220, 0.001), 600, none, [2]float64{0.5, 1}, 12_000, 12_000},
		{"equal, 1%", steadily(20, 0.01), steadily(220, 0.01), 600, none, [2]float64{0.9, 1}, 12_000, 12_000},
		{"equal, 20%", steadily(20, 0.2), steadily(220, 0.2), 100, none, [2]float64{0.9, 1}, 12_000, 12_000},
		{
			"equal, both rise, traffic swings", wave(20, 0.01), wave(220, 0.01), 600, none,
			[2]float64{0.9, 1},
			12_000,
			12_000,
		},
		{
			"better: 0.5% beside 1%", steadily(20, 0.005), steadily(220, 0.01), 600,
			[2]float64{0, 0.005},
			[2]float64{0.95, 1},
			12_000, 12_000,
		},
		{
			"wave larger than the baseline, equal, 1%", steadily(220, 0.01), steadily(20, 0.01), 300, none, any, 66_000,
			66_000,
		},
		{
			"worse by the effect: 2% beside 1%", steadily(20, 0.02), steadily(220, 0.01), 600,
			[2]float64{0.9, 1},
			[2]float64{0, deploy.CompareBeta},
			3000, 12_000,
		},
		{
			"worse by the effect: 0.2% beside 0.1%", steadily(20, 0.002), steadily(220, 0.001), 600,
			[2]float64{0.3, 1},
			[2]float64{0, deploy.CompareBeta},
			12_000, 12_000,
		},
		{
			"5% beside 1%", steadily(20, 0.05), steadily(220, 0.01), 600,
			[2]float64{0.99, 1},
			[2]float64{0, 0.01},
			300, 1000,
		},
		{
			"1% beside none", steadily(20, 0.01), steadily(220, 0), 600,
			[2]float64{0.95, 1},
			[2]float64{0, deploy.CompareBeta},
			1200, 3000,
		},
		{"50% beside none", steadily(20, 0.5), steadily(220, 0), 30, [2]float64{1, 1}, none, 40, 60},
		{"50% beside 1%", steadily(20, 0.5), steadily(220, 0.01), 30, [2]float64{1, 1}, none, 40, 60},
		{"all beside none, 1 req/s beside 11", steadily(1, 0.999), steadily(11, 0), 60, [2]float64{1, 1}, none, 12, 14},
		{
			"scraped every 15 s, equal, 1%", scraped(0, 0, 0.01), scraped(1, 11, 0.01), 600, none,
			[2]float64{0.9, 1},
			12_000, 12_000,
		},
		{
			"scraped every 15 s, 50% beside 1%", scraped(0, 0, 0.5), scraped(1, 11, 0.01), 60,
			[2]float64{1, 1},
			none,
			600, 600,
		},
		{"bad after 5 good minutes: 50% beside 1%", func(s int) (int64, float64) {
			if s < 300 {
				return 20, 0.01
			}
			return 20, 0.5
		}, steadily(220, 0.01), 360, [2]float64{1, 1}, none, 6060, 6100},
	} {
		r := rand.New(rand.NewPCG(1, 2))
		var a compareRuns
		for range runs {
			mine, theirs := make([]deploy.Counts, c.seconds), make([]deploy.Counts, c.seconds)
			for s := range c.seconds {
				n, p := c.mine(s)
				mine[s] = deploy.Counts{Requests: n, Errors: drawErrors(r, n, p)}
				n, p = c.theirs(s)
				theirs[s] = deploy.Counts{Requests: n, Errors: drawErrors(r, n, p)}
			}
			a.add(deploy.CompareErrors(mine, theirs, 2_000_000, 1))
		}
		fmt.Fprintln(&table, a.row(c.name))
		t.Run(c.name, func(t *testing.T) { a.check(t, c.fails, c.passes, c.medianAt, c.lastAt) })
	}
	t.Logf("%d runs each; requests of the candidate until a fail\n%s", runs, &table)
}

// TestErrorRatesOfCompareLatency: as above; one host beside eleven, one value a
// host every 5 seconds, spread by a third.
func TestErrorRatesOfCompareLatency(t *testing.T) {
	const runs, scrapes = 500, 240
	var table strings.Builder
	fmt.Fprintf(&table, compareHead, "latency: 1 host beside 11, effect 1.2x", "fail", "pass", "neither",
		"median", "99%")
	for _, c := range []struct {
		name             string
		ratio            float64
		fails, passes    [2]float64
		medianAt, lastAt int
	}{
		{"half as slow", 0.5, [2]float64{0, 0}, [2]float64{1, 1}, 0, 0},
		{"equal", 1, [2]float64{0, 0.001}, [2]float64{0.99, 1}, 240, 240},
		{
			"slower by exactly the effect", 1.2,
			[2]float64{0, deploy.CompareAlpha},
			[2]float64{0, deploy.CompareBeta},
			240, 240,
		},
		{"1.5x", 1.5, [2]float64{0.98, 1}, [2]float64{0, 0.001}, 60, 200},
		{"2x", 2, [2]float64{1, 1}, [2]float64{0, 0}, 25, 40},
		{"5x", 5, [2]float64{1, 1}, [2]float64{0, 0}, 20, 20},
	} {
		r := rand.New(rand.NewPCG(3, 4))
		draw := func(at int64, ratio float64) deploy.Sample {
			return deploy.Sample{At: at, Value: 0.1 * ratio * math.Exp(0.33*r.NormFloat64())}
		}
		var a compareRuns
		for range runs {
			var mine, theirs []deploy.Sample
			for s := range int64(scrapes) {
				mine = append(mine, draw(5000*s, c.ratio))
				for range 11 {
					theirs = append(theirs, draw(5000*s, 1))
				}
			}
			a.add(deploy.CompareLatency(mine, theirs, 1_200_000, 1))
		}
		fmt.Fprintln(&table, a.row(c.name))
		t.Run(c.name, func(t *testing.T) { a.check(t, c.fails, c.passes, c.medianAt, c.lastAt) })
	}
	t.Logf("%d runs each of %d values; values of the candidate until a fail\n%s", runs, scrapes, &table)
}

// TestFalseAlarmsOfAWholeDeployment: of 1,000 deployments with 20 comparisons each, of
// revisions that are equal, at most CompareAlpha is failed by any of them; a bad one is
// noticed nearly as early as by one comparison alone.
func TestFalseAlarmsOfAWholeDeployment(t *testing.T) {
	const runs, gates, seconds = 1000, 20, 120
	r := rand.New(rand.NewPCG(5, 6))
	draw := func(n int64, p float64) []deploy.Counts {
		out := make([]deploy.Counts, seconds)
		for s := range out {
			out[s] = deploy.Counts{Requests: n, Errors: drawErrors(r, n, p)}
		}
		return out
	}
	alarms, alone := 0, 0
	for range runs {
		shared, each := false, false
		for range gates {
			mine, theirs := draw(20, 0.05), draw(220, 0.05)
			shared = shared || deploy.CompareErrors(mine, theirs, 2_000_000, gates).Verdict == deploy.VerdictFail
			each = each || deploy.CompareErrors(mine, theirs, 2_000_000, 1).Verdict == deploy.VerdictFail
		}
		if shared {
			alarms++
		}
		if each {
			alone++
		}
	}
	t.Logf("%d of %d deployments with %d equal gates failed; %d if each gate had the whole error to itself",
		alarms, runs, gates, alone)
	if float64(alarms) > deploy.CompareAlpha*runs {
		t.Errorf("%d false alarms in %d deployments", alarms, runs)
	}
	if alone <= alarms {
		t.Errorf("nothing was shown: %d false alarms without a share", alone)
	}
	var one, many compareRuns
	for range runs {
		mine, theirs := draw(20, 0.1), draw(220, 0.01)
		one.add(deploy.CompareErrors(mine, theirs, 2_000_000, 1))
		many.add(deploy.CompareErrors(mine, theirs, 2_000_000, gates))
	}
	t.Logf("10%% beside 1%% is noticed after %d requests by one comparison, %d by one of %d", one.at(0.5), many.at(0.5),
		gates)
	if many.fails < runs || many.at(0.5) > 2*one.at(0.5) {
		t.Errorf("one of %d notices %d of %d after %d requests; alone after %d", gates, many.fails, runs, many.at(0.5),
			one.at(0.5))
	}
}

// TestComparisonsOfADeployment: what shares the error of a deployment is every answer
// that could fail it.
func TestComparisonsOfADeployment(t *testing.T) {
	compare := &deploy.CompareGate{Metric: "errors", Test: deploy.TestSPRT}
	c, _ := deploy.Builtin("all-at-once")
	c.Metrics = []deploy.Metric{{Name: "errors", Total: "t", Bad: "b"}}
	c.Gates = []deploy.Gate{
		{Name: "wave", Compare: compare},
		{Name: "zone", Scope: deploy.ScopeZone, Compare: compare},
		{Name: "host", Scope: deploy.ScopeHost, Compare: compare},
		{Name: "query", Query: &deploy.QueryGate{Query: "q"}},
	}
	c.Waves = []deploy.WaveSpec{
		{Name: "first", Kind: "count", Size: deploy.Count(1), Gates: []string{"wave", "query"}},
		{Name: "rest", Kind: "remainder", Gates: []string{"wave", "zone", "host"}},
	}
	s := deploy.NewState()
	apply := func(events ...deploy.Event) {
		t.Helper()
		for i, err := range s.ApplyEntry(s.Index+1, deploy.Entry{At: s.Now + 1, Events: events}) {
			if err != nil {
				t.Fatalf("%s: %v", deploy.Describe(events[i]), err)
			}
		}
	}
	apply(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c})
	hosts := []string{"h1", "h2", "h3", "h4", "h5", "h6"}
	for i, h := range hosts {
		apply(deploy.HostEnrolled{Host: h, Name: h, Zone: string(rune('a' + i%3))})
	}
	apply(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: hosts},
		deploy.RevisionRegistered{App: "www", Name: "v1", Digest: "v1"},
		deploy.DeploymentCreated{
			ID: "d1", App: "www", Group: "prod", Revision: "v1", Config: c,
			Waves: []deploy.Wave{
				{Name: "first", Hosts: hosts[:1], Gates: c.Waves[0].Gates},
				{Name: "rest", Spec: 1, Hosts: hosts[1:], Gates: c.Waves[1].Gates},
			},
		})
	// One of the first wave; one, one a zone and one a host of the rest.
	if got := s.Deployments["d1"].Comparisons(s.Groups["www/prod"]); got != 1+1+3+5 {
		t.Errorf("%d comparisons", got)
	}
}

// TestCompareWithoutEvidence: nothing and nonsense are inconclusive, never a pass.
func TestCompareWithoutEvidence(t *testing.T) {
	many := func(n int, v float64) []deploy.Sample {
		var out []deploy.Sample
		for i := range n {
			out = append(out, deploy.Sample{At: int64(i), Value: v})
		}
		return out
	}
	for name, c := range map[string]deploy.Comparison{
		"no buckets":          deploy.CompareErrors(nil, nil, 2_000_000, 1),
		"no baseline buckets": deploy.CompareErrors([]deploy.Counts{{Requests: 1e6}}, nil, 2_000_000, 1),
		"no requests":         deploy.CompareErrors(make([]deploy.Counts, 9), make([]deploy.Counts, 9), 2_000_000, 1),
		"errors, no baseline": deploy.CompareErrors([]deploy.Counts{{Requests: 100, Errors: 50}}, []deploy.Counts{{}},
			2_000_000, 1),
		"negative counters": deploy.CompareErrors([]deploy.Counts{{Requests: -5, Errors: -9}},
			[]deploy.Counts{{Requests: -1, Errors: 7}}, 2_000_000, 1),
		"no values":          deploy.CompareLatency(nil, nil, 1_200_000, 1),
		"few values":         deploy.CompareLatency(many(19, 9), many(19, 1), 1_200_000, 1),
		"no baseline values": deploy.CompareLatency(many(50, 9), nil, 1_200_000, 1),
		"no numbers":         deploy.CompareLatency(many(50, math.NaN()), many(50, math.Inf(1)), 1_200_000, 1),
		"later baseline":     deploy.CompareLatency(many(25, 9), []deploy.Sample{{At: 1e9, Value: 1}}, 1_200_000, 1),
	} {
		if c.Verdict != deploy.VerdictInconclusive || c.Final {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if c := deploy.CompareLatency(many(50, 3), many(50, 2.5), 1_200_000, 1); c.Verdict != deploy.VerdictInconclusive {
		t.Errorf("ties at exactly the effect: %+v", c)
	}
}

// TestCompareIsAskedAgain: the answer to a longer history agrees with that to
// its beginning: a fail stays, and the order of values does not matter.
func TestCompareIsAskedAgain(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var mine, theirs []deploy.Counts
	var fast, slow []deploy.Sample
	for i := range int64(60) {
		mine = append(mine, deploy.Counts{Requests: 20, Errors: drawErrors(r, 20, 0.5)})
		theirs = append(theirs, deploy.Counts{Requests: 220, Errors: drawErrors(r, 220, 0.01)})
		slow = append(slow, deploy.Sample{At: i, Value: 3 + r.Float64()})
		fast = append(fast, deploy.Sample{At: i, Value: 1 + r.Float64()})
	}
	var first deploy.Comparison
	for n := range mine {
		c := deploy.CompareErrors(mine[:n], theirs[:n], 2_000_000, 1)
		if first.Verdict == deploy.VerdictFail && c != first {
			t.Fatalf("%+v became %+v", first, c)
		}
		first = c
	}
	if !strings.HasPrefix(first.Value, "errors ") || first.Samples > 40 || !first.Final ||
		first.Threshold != "effect 2x: log likelihood ratio 5.298 fails, -3.689 passes" {
		t.Errorf("%+v", first)
	}
	c := deploy.CompareLatency(slow, fast, 1_200_000, 1)
	slices.Reverse(slow)
	slices.Reverse(fast)
	if again := deploy.CompareLatency(slow, fast, 1_200_000, 1); again != c || c.Verdict != deploy.VerdictFail ||
		c.Samples != deploy.FirstLook {
		t.Errorf("%+v, reversed %+v", c, again)
	}
}
