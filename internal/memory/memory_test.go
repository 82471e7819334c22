package memory_test

import (
	"os"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/internal/memory"
)

// file is what of this program's file is mapped in.
func file(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	t.Fatal("no RssFile in the status")
	return ""
}

// A program goes on after its pages were dropped, with fewer of them.
func TestDropProgram(t *testing.T) {
	memory.Limit(40)
	before := file(t)
	memory.DropProgram()
	after := file(t)
	if len(after) > len(before) || len(after) == len(before) && after >= before {
		t.Errorf("%s were mapped, now %s", before, after)
	}
	memory.Relax()
}
