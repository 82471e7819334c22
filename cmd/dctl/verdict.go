package main

import (
	"strings"

	"github.com/groundswell/groundswell/cmd/dctl/watch"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// verdict is the exit code of a deployment's state. Going back is the purpose
// of an inverse deployment; of any other it is a failure, however clean. Hosts
// that serve neither what was deployed nor what was there before are no success.
func verdict(d *controlv1.Deployment) int {
	switch {
	case d.Inverse && d.Terminal && d.Broken > 0:
		return exitBroken
	case d.Status == "succeeded" && d.Broken > 0:
		return exitHalted
	case d.Status == "succeeded":
		return exitDone
	case d.Status == "rolled_back" && d.Broken > 0:
		return exitBroken
	case d.Status == "rolled_back" && d.Inverse:
		return exitDone
	case d.Status == "rolled_back":
		return exitRolledBack
	case d.Terminal && (d.Status == "superseded" || strings.HasPrefix(d.Cause, "rejected ")):
		return exitRefused
	case watch.Over(d):
		return exitHalted
	case len(d.WaitsFor) > 0:
		return exitApproval
	}
	return exitDone // still under way
}

// result is the outcome in one word, for programs.
func result(d *controlv1.Deployment) string {
	if d.Status == "paused" && d.Decision {
		return "waits_for_decision"
	}
	if len(d.WaitsFor) > 0 && !d.Terminal {
		return "waits_for_approval"
	}
	return d.Status
}
