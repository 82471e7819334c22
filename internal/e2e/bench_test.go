package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBenchMeasuresAndLeavesNobodyStuck runs `dctl bench` whole, small: every step, two
// applications, and a leader that is killed.
func TestBenchMeasuresAndLeavesNobodyStuck(t *testing.T) {
	long(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "dctl"), "bench", "--hosts", "120", "--hosts-each", "60",
		"--deployments", "4", "--waves", "3", "--joins", "--kill-leader", "1", "--reconnect", "--idle", "0s",
		"-o", "json", "--dir", filepath.Join(t.TempDir(), "bench"))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("dctl bench: %v\n%s%s", err, out, said.String())
	}
	var f map[string]any
	if err := json.Unmarshal(out, &f); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range map[string]any{
		"hosts": 120.0, "coordinators": 3.0, "deployments": 5.0, "waves": 3.0, "failed": 0.0, "stuck": 0.0,
		"idle_cpu_percent": nil,
	} {
		if got, told := f[name]; !told || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{
		"wall_seconds", "coordinator_cpu_seconds", "session_bytes", "events_per_second", "deployments_per_hour",
		"wave_gap_seconds", "dispatch_seconds", "reconnect_seconds", "failover_seconds", "joins_per_second",
	} {
		if f[name] == nil {
			t.Errorf("%s was not measured: %s", name, out)
		}
	}
	gaps, _ := f["wave_gap_seconds"].(map[string]any)
	if gaps["n"] != 8.0 { // four deployments, three waves
		t.Errorf("gaps: %v", gaps)
	}
}
