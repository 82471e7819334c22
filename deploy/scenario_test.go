package deploy_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/groundswell/groundswell/deploy/sim"
)

// TestScenario runs every file of testdata: commands in, the whole trace out.
// `go test ./deploy -run Scenario -rewrite` rewrites them; the diff is the review.
func TestScenario(t *testing.T) {
	for _, f := range scenarios(t) {
		t.Run(filepath.Base(f), func(t *testing.T) { scenario(t, f, sim.NewSession(1)) })
	}
}

func scenarios(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenario files: %v", err)
	}
	return files
}

// scenario runs one file in a session. A key without a value is true.
func scenario(t *testing.T, file string, s *sim.Session) {
	datadriven.RunTest(t, file, func(_ *testing.T, d *datadriven.TestData) string {
		args := sim.Args{}
		for _, a := range d.CmdArgs {
			args[a.Key] = strings.Join(a.Vals, ",")
			if len(a.Vals) == 0 {
				args[a.Key] = "true"
			}
		}
		if d.Input != "" {
			args["waves"] = d.Input
		}
		return s.Do(d.Cmd, args)
	})
}
