package agent_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// One script may be the hook that validates and the probe that is asked while a
// wave bakes: it finds the same in its environment.
func TestAProbeFindsWhatAHookFinds(t *testing.T) {
	w := newWorld(t)
	t.Chdir(w.dir)
	w.o.InstallRoot = "fs" // as people type it
	w.start()
	v1 := w.push("v1", hookScripts{"ValidateService": `set -u
echo "$GROUNDSWELL_HOST $GROUNDSWELL_ZONE $GROUNDSWELL_REVISION $GROUNDSWELL_RELEASE" \
	"$GROUNDSWELL_INSTALL_ROOT $(cat "$GROUNDSWELL_INSTALL_ROOT/srv/www/revision")" >>"$OUT"
`})
	command := func(a *agentv1.Assignment) {
		a.Probes = []*agentv1.Probe{{
			Name: "ready", Command: []string{"ValidateService.sh"}, IntervalNs: int64(time.Hour), TimeoutNs: int64(20 * time.Second),
		}}
	}
	w.done(v1, command)
	lines := strings.Split(strings.TrimSpace(w.out()), "\n")
	if len(lines) < 2 || len(slices.Compact(slices.Clone(lines))) != 1 || !strings.HasSuffix(lines[0], "/fs v1") ||
		len(strings.Fields(lines[0])) != 6 {
		t.Errorf("a hook, then probes: %q", lines)
	}
}
