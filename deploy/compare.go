package deploy

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// The tests of a CompareGate.
const (
	TestSPRT        = "sprt"        // errors: see CompareErrors
	TestMannWhitney = "mannwhitney" // latency: see CompareLatency
)

// The errors that comparisons make at most, however often and for however long they are
// asked, on evidence whose parts do not depend on each other.
const (
	// CompareAlpha is the part of deployments of which any comparison fails although the
	// new revision is no worse. The comparisons of a deployment share it equally
	// (Bonferroni), for nobody knows how they depend on each other.
	CompareAlpha = 0.01
	CompareBeta  = 0.05  // of one comparison: passes although it is worse by the effect that the gate names
	ErrorFloor   = 0.001 // a share of errors that nobody is asked to tell from none
)

// DefaultEffect is the ratio that a comparison looks for when its gate names
// none, in parts per million: 2x for errors, 1.2x for latency.
func DefaultEffect(test string) int64 {
	if test == TestMannWhitney {
		return 1_200_000
	}
	return 2_000_000
}

// Comparison is the answer of a sequential test to all evidence so far.
type Comparison struct {
	Verdict   Verdict
	Final     bool   // the test has decided; a pass can still turn into a fail
	Value     string // both sides, for people
	Threshold string // where the test decides
	Detail    string // the statistic
	Samples   int    // of the new revision: requests, or values
}

// Counts are what one side served in one bucket of time.
type Counts struct{ Requests, Errors int64 }

// CompareErrors compares the share of errors of the new revision, bucket by
// bucket, with that of hosts on the old one in the same bucket. It takes the
// whole evidence since the start and gives the same answer whoever asks.
//
// Of is how many comparisons the deployment makes, 1 at least: each has its part of
// CompareAlpha, which is called alpha here.
//
// It fails by a sequential probability ratio test on the errors alone: of two
// sides with equal shares an error is the candidate's with probability
// q0 = n1/(n1+n2), and q1 = k·n1/(k·n1+n2) if its share is k times the other.
// Buckets are taken together until both sides have served something, for hosts
// are scraped one after the other.
// Traffic may change from bucket to bucket, and the shares of both together: q0
// and q1 hold in each bucket. The likelihood ratio is a martingale while the
// candidate is no worse, so it ever reaches 1/alpha with probability alpha at most
// (Ville).
//
// It passes when that ratio falls to CompareBeta/2, or when the candidate's
// share is shown to be below k·ErrorFloor by Wald's test, to the same
// CompareBeta/2: so one without any error passes too, with k = 2 after 3,700
// requests. Worse by the effect means k times the larger of the baseline's share
// and ErrorFloor.
//
// After a pass the tests begin anew, the n-th time with alpha/(n(n+1)), which sums up to
// alpha: good hours do not pay for bad minutes.
func CompareErrors(candidate, baseline []Counts, effect int64, of int) Comparison {
	t := errorTest{k: float64(effect) / Million, alpha: alphaOf(of), round: 1}
	out := Comparison{Verdict: VerdictInconclusive}
	var mine, theirs, c, b Counts
	for i := range min(len(candidate), len(baseline)) {
		c, b = c.plus(candidate[i].sane()), b.plus(baseline[i].sane())
		if c.Requests == 0 || b.Requests == 0 {
			continue
		}
		v := t.add(c, b)
		mine, theirs = mine.plus(c), theirs.plus(b)
		c, b = Counts{}, Counts{}
		switch v {
		case VerdictFail:
			out.Verdict = v
		case VerdictPass:
			out.Verdict = v
			t = errorTest{k: t.k, alpha: t.alpha, round: t.round + 1}
		case VerdictInconclusive:
		}
		if out.Verdict == VerdictFail {
			break
		}
	}
	out.Final = out.Verdict != VerdictInconclusive
	out.Samples = int(mine.Requests)
	out.Value = fmt.Sprintf("errors %s, baseline %s", mine, theirs)
	out.Threshold = fmt.Sprintf("effect %sx: log likelihood ratio %s fails, %s passes", number(t.k),
		number(t.failAt()), number(passAt()))
	out.Detail = fmt.Sprintf("log likelihood ratio %s, %s against a share of %s%%", number(t.ratio), number(t.wald),
		number(100*ErrorFloor))
	return out
}

// alphaOf is the part of CompareAlpha that one of so many comparisons has.
func alphaOf(comparisons int) float64 { return CompareAlpha / float64(max(1, comparisons)) }

// errorTest is one round of CompareErrors.
type errorTest struct {
	k, alpha    float64
	round       int
	ratio, wald float64 // log likelihood ratios
}

func (t *errorTest) failAt() float64 { return math.Log(float64(t.round*(t.round+1)) / t.alpha) }

func passAt() float64 { return math.Log(CompareBeta / 2) }

func (t *errorTest) add(c, b Counts) Verdict {
	n1, n2 := float64(c.Requests), float64(b.Requests)
	worse := t.k*n1 + n2
	t.ratio += float64(c.Errors)*math.Log(t.k*(n1+n2)/worse) + float64(b.Errors)*math.Log((n1+n2)/worse)
	p1 := min(t.k*ErrorFloor, 0.5)
	t.wald += float64(c.Errors)*math.Log(p1/ErrorFloor) + float64(c.Requests-c.Errors)*math.Log((1-p1)/(1-ErrorFloor))
	switch {
	case t.ratio >= t.failAt():
		return VerdictFail
	case t.ratio <= passAt() || t.wald <= passAt():
		return VerdictPass
	}
	return VerdictInconclusive
}

func (c Counts) plus(d Counts) Counts {
	return Counts{Requests: c.Requests + d.Requests, Errors: c.Errors + d.Errors}
}

// sane bounds what a counter that is not one could say.
func (c Counts) sane() Counts {
	c.Requests = max(c.Requests, 0)
	c.Errors = min(max(c.Errors, 0), c.Requests)
	return c
}

func (c Counts) String() string {
	if c.Requests == 0 {
		return "0/0"
	}
	return fmt.Sprintf("%d/%d (%s%%)", c.Errors, c.Requests, number(100*float64(c.Errors)/float64(c.Requests)))
}

// Sample is one value of a host, at a moment in Unix milliseconds.
type Sample struct {
	At    int64
	Value float64
}

// FirstLook is how many values of each side CompareLatency needs.
const FirstLook = 20

// CompareLatency compares values of the new revision with values of hosts on
// the old one times the effect, by one-sided Mann-Whitney tests. It takes the
// whole evidence since the start, in any order, and gives the same answer
// whoever asks.
//
// It looks when the candidate has FirstLook values, and whenever it has a
// quarter more: looks depend on the evidence, not on when somebody asks. The
// n-th look may spend its part of CompareAlpha (see CompareErrors), by n(n+1), on a fail and CompareBeta/(n(n+1))
// on a pass, which sum up to the whole. It fails when values are larger than
// effect times the baseline's, passes when they are smaller, and inside of that
// it waits for more.
//
// Values of one host depend on each other, and hosts differ: the effect is the
// room for that. Values that are no number are left out.
func CompareLatency(candidate, baseline []Sample, effect int64, of int) Comparison {
	c, b := inOrder(candidate), inOrder(baseline)
	k := float64(effect) / Million
	out := Comparison{Verdict: VerdictInconclusive}
	z, theirs, next := 0.0, 0, FirstLook
	for look := 1; next <= len(c); look++ {
		for theirs < len(b) && b[theirs].At <= c[next-1].At {
			theirs++
		}
		if theirs >= FirstLook {
			z = mannWhitney(c[:next], b[:theirs], k)
			spend := 1 / float64(look*(look+1))
			switch {
			case tail(z) <= alphaOf(of)*spend:
				out.Verdict = VerdictFail
				c, b = c[:next], b[:theirs] // what decided it
			case tail(-z) <= CompareBeta*spend:
				out.Verdict = VerdictPass
			}
		}
		next += next / 4
	}
	out.Final = out.Verdict != VerdictInconclusive
	out.Samples = len(c)
	out.Value = fmt.Sprintf("median %s, baseline %s", median(c), median(b))
	out.Threshold = fmt.Sprintf("effect %sx", number(k))
	out.Detail = fmt.Sprintf("z %s, %d values against %d", number(z), len(c), len(b))
	return out
}

// inOrder returns the numbers among the samples in the order of time.
func inOrder(in []Sample) []Sample {
	out := slices.DeleteFunc(slices.Clone(in),
		func(s Sample) bool { return math.IsNaN(s.Value) || math.IsInf(s.Value, 0) })
	slices.SortStableFunc(out, func(a, b Sample) int { return int(max(-1, min(1, a.At-b.At))) })
	return out
}

// tail is the probability that a normal variable is at least z.
func tail(z float64) float64 { return math.Erfc(z/math.Sqrt2) / 2 }

// mannWhitney returns how far the ranks of x lie above those of k·y, in standard
// deviations, corrected for ties and continuity.
func mannWhitney(x, y []Sample, k float64) float64 {
	type ranked struct {
		value float64
		mine  bool
	}
	all := make([]ranked, 0, len(x)+len(y))
	for _, s := range x {
		all = append(all, ranked{s.Value, true})
	}
	for _, s := range y {
		all = append(all, ranked{k * s.Value, false})
	}
	slices.SortFunc(all, func(a, b ranked) int {
		switch {
		case a.value < b.value:
			return -1
		case a.value > b.value:
			return 1
		}
		return 0
	})
	ranks, ties := 0.0, 0.0
	for i := 0; i < len(all); {
		j, mine := i, 0
		for ; j < len(all) && all[j].value == all[i].value; j++ {
			if all[j].mine {
				mine++
			}
		}
		same := float64(j - i)
		ranks += float64(mine) * float64(i+j+1) / 2
		ties += same*same*same - same
		i = j
	}
	n1, n2 := float64(len(x)), float64(len(y))
	n := n1 + n2
	over := ranks - n1*(n1+1)/2 - n1*n2/2
	deviation := math.Sqrt(n1 * n2 / 12 * (n + 1 - ties/(n*(n-1))))
	if deviation == 0 {
		return 0 // all values are the same
	}
	return (over - math.Copysign(min(0.5, math.Abs(over)), over)) / deviation
}

func median(s []Sample) string {
	if len(s) == 0 {
		return "none"
	}
	values := make([]float64, 0, len(s))
	for _, one := range s {
		values = append(values, one.Value)
	}
	slices.Sort(values)
	return number(values[len(values)/2])
}

// number writes a number with four digits at most.
func number(f float64) string { return strconv.FormatFloat(f, 'g', 4, 64) }
