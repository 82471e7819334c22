package deploy_test

import (
	"path/filepath"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/groundswell/groundswell/deploy/sim"
)

// TestScenario runs every file of testdata: commands in, the whole trace out.
// `go test ./deploy -run Scenario -rewrite` rewrites them; the diff is the review.
func TestScenario(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenario files: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			s := sim.NewSession(1)
			datadriven.RunTest(t, f, func(_ *testing.T, d *datadriven.TestData) string {
				args := sim.Args{}
				for _, a := range d.CmdArgs {
					if len(a.Vals) == 1 {
						args[a.Key] = a.Vals[0]
					}
				}
				if d.Input != "" {
					args["waves"] = d.Input
				}
				return s.Do(d.Cmd, args)
			})
		})
	}
}
