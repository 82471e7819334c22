package hooks_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/hooks"
)

// TestRestLeavesNoSupervisor: what Prepare has begun to start is ended too.
func TestRestLeavesNoSupervisor(t *testing.T) {
	dir := t.TempDir()
	r, err := hooks.NewRunner(hooks.Options{Dir: dir, Cgroup: "off"})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		r.Prepare()
		r.Rest()
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	alive := func(path string) bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), dir)
	}
	for _, p := range procs {
		for end := time.Now().Add(20 * time.Second); alive(p); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the supervisor %s is left", p)
			}
		}
	}
}
