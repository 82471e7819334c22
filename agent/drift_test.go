package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// newest waits until the newest report is so.
func (w *world) newest(what string, ok func(*agentv1.Report) bool) *agentv1.Report {
	w.Helper()
	var last *agentv1.Report
	w.until("newest report: "+what, func() bool {
		if n := len(w.reports); n > 0 {
			last = w.reports[n-1]
			return ok(last)
		}
		return false
	})
	return last
}

func (w *world) edit(text string) {
	w.Helper()
	must(w.T, os.WriteFile(filepath.Join(w.dir, "fs", "srv", "www", "revision"), []byte(text), 0o644))
}

// TestEditedFilesAreSeenAndRepaired: what a hook left is no edit, what came
// after it is, once, also across a restart; a repair touches nobody else.
func TestEditedFilesAreSeenAndRepaired(t *testing.T) {
	w := newWorld(t)
	w.o.CompareEvery = 20 * time.Millisecond
	stop := w.start()
	b := whole()
	b["AfterInstall"] = say + `echo from-a-hook >"$OUT.conf"` + "\n"
	b["ApplicationStart"] = say + "printf '+hook' >>" + filepath.Join(w.dir, "fs", "srv", "www", "revision") + "\n"
	v1 := w.push("v1", b)
	w.done(v1)
	baseline := filepath.Join(w.o.Root, "releases", "www", "baseline")
	w.eventually("the content of files is known", func() bool {
		text, _ := os.ReadFile(baseline)
		return strings.Contains(string(text), `"Sum"`)
	})
	if r := w.newest("nothing is edited", func(*agentv1.Report) bool { return true }); r.Edits != nil {
		t.Errorf("a hook's own work is an edit: %v", r.Edits)
	}

	w.edit("v1 edited")
	r := w.newest("an edit", func(r *agentv1.Report) bool { return r.Edits != nil })
	if r.Edits.Files != 1 || len(r.Edits.Paths) != 1 || !strings.HasSuffix(r.Edits.Paths[0], "/srv/www/revision") {
		t.Errorf("edits are %v", r.Edits)
	}
	stop()
	w.with(func() { w.reports = nil })
	stop = w.start()
	w.newest("the edit after a restart", func(r *agentv1.Report) bool { return r.Edits.GetFiles() == 1 })

	repair := func(a *agentv1.Assignment) { a.Repair = true }
	before := w.out()
	w.done(v1, repair)
	if got := strings.TrimPrefix(w.out(), before); !strings.Contains(got, "ApplicationStop v1") ||
		w.installed() != "v1+hook" {
		t.Errorf("it was not repaired: %q, hooks ran as\n%s", w.installed(), got)
	}
	w.newest("no edit", func(r *agentv1.Report) bool { return r.Edits == nil })
	before = w.out()
	w.done(v1, repair)
	if got := strings.TrimPrefix(w.out(), before); got != "" {
		t.Errorf("nothing was to be repaired, and hooks ran as\n%s", got)
	}

	// Put back by hand, it is no edit any more.
	w.eventually("the content of files is known", func() bool {
		text, _ := os.ReadFile(baseline)
		return strings.Contains(string(text), `"Sum"`)
	})
	w.edit("v1+HOOK")
	w.newest("an edit of the same size", func(r *agentv1.Report) bool { return r.Edits != nil })
	w.edit("v1+hook")
	w.newest("no edit again", func(r *agentv1.Report) bool { return r.Edits == nil })
	stop()
}

// TestRepairDeploysWhatDiffers: a target that runs another revision, or of whose
// files nobody knows what they should be, is deployed as ever.
func TestRepairDeploysWhatDiffers(t *testing.T) {
	w := newWorld(t)
	w.o.CompareEvery = -1
	w.start()
	repair := func(a *agentv1.Assignment) { a.Repair = true }
	v1, v2 := w.push("v1", whole()), w.push("v2", whole())
	w.done(v1, repair)
	before := w.out()
	w.done(v2, repair)
	if got := strings.TrimPrefix(w.out(), before); !strings.Contains(got, "ApplicationStart v2") {
		t.Errorf("hooks ran as\n%s", got)
	}
	must(t, os.Remove(filepath.Join(w.o.Root, "releases", "www", "baseline")))
	before = w.out()
	w.done(v2, repair)
	if got := strings.TrimPrefix(w.out(), before); !strings.Contains(got, "ApplicationStart v2") {
		t.Errorf("nobody knew what the files should be, and hooks ran as\n%s", got)
	}
}
