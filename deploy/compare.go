package deploy

// The tests of a CompareGate.
const (
	TestSPRT        = "sprt"        // errors: see CompareErrors
	TestMannWhitney = "mannwhitney" // latency: see CompareLatency
)

// DefaultEffect is the ratio that a comparison looks for when its gate names
// none, in parts per million: 2x for errors, 1.2x for latency.
func DefaultEffect(test string) int64 {
	if test == TestMannWhitney {
		return 1_200_000
	}
	return 2_000_000
}
