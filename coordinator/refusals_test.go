package coordinator

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRefusalsAreToldOnceAMinute: all are counted; who is refused fills no disk.
func TestRefusalsAreToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := newRefusals(slog.New(slog.NewTextHandler(&out, nil)), func(m string) bool { return m == "/Session" })
		for range 1000 {
			r.note("agent/evil", "/Session", "reports")
		}
		r.note("agent/other", "/Session", "reports")
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("%d lines:\n%s", n, out.String())
		}
		time.Sleep(time.Minute)
		r.note("agent/evil", "/Session", "reports")
		if !strings.Contains(out.String(), "times=999") {
			t.Errorf("what was not told is forgotten:\n%s", out.String())
		}
		if c := r.counts(); len(c) != 1 || c[0].n != 1002 {
			t.Errorf("counted %v", c)
		}
		for i := range 3 * mostTold {
			r.note(fmt.Sprint(i), fmt.Sprint("/made up ", i), "calls")
		}
		if len(r.told) > mostTold || len(r.by) > 2 {
			t.Errorf("%d callers, %d methods are remembered", len(r.told), len(r.by))
		}
	})
}
