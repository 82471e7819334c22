package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/devfleet"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// quietFor is how long after a test its fleet is looked at again: QUIET, by
// default long enough for late tasks, which come within a second.
func quietFor(t *testing.T) time.Duration {
	text := os.Getenv("QUIET")
	if text == "" {
		return time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("QUIET=%s: %v", text, err)
	}
	return d
}

// quiet is the end of every test that passed: nobody asked anything of the fleet
// since, so what was asserted must still hold.
func quiet(t *testing.T, f *devfleet.Fleet) {
	t.Helper()
	before, err := look(f)
	if err != nil {
		t.Logf("not looked at again: %v", err) // the test has ended every coordinator
		return
	}
	time.Sleep(quietFor(t))
	after, err := look(f)
	if err != nil {
		t.Error(err)
	} else if !maps.Equal(before, after) {
		t.Errorf("%s later the fleet has changed: from %v to %v", quietFor(t), before, after)
	}
}

// look says what every host runs and how every deployment stands.
func look(f *devfleet.Fleet) (map[string]string, error) {
	out, err := releases(f)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, err := f.Control.ListDeployments(ctx, &controlv1.ListDeploymentsRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask how the deployments stand: %w", err)
	}
	for _, d := range all.Deployments {
		out[d.Id] = d.Revision + " " + d.Status
	}
	return out, nil
}
