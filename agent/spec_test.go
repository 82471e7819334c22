package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// bad pushes a revision whose appspec has those hooks, and no script.
func (w *world) bad(name, hooks string) *agentv1.Revision {
	w.Helper()
	dir := w.TempDir()
	must(w.T, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte("version: 0.0\nos: linux\nhooks:\n"+hooks), 0o644))
	must(w.T, os.WriteFile(filepath.Join(dir, "name"), []byte(name), 0o644))
	return w.pushDir(dir, name)
}

// What no host could carry out is refused when it is staged, ahead of a permit
// and under one: the application is not stopped, and the reason is this one,
// not that of an older failure.
func TestBadAppspecIsRefusedAtStaging(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.done(w.push("v1", whole()))
	failing := whole()
	failing["ValidateService"] = "exit 7\n"
	w.result(w.grant(w.push("v2", failing)), agentv1.Result_RESULT_FAILED)
	said := w.out()
	for hooks, want := range map[string]string{
		"  ApplicationStart:\n    - location: gone.sh\n":  "script does not exist at the expected location",
		"  ApplicatiionStart:\n    - location: gone.sh\n": "unknown lifecycle events ApplicatiionStart (did you mean ApplicationStart?)",
	} {
		rev := w.bad(hooks, hooks)
		w.prefetch(rev, "k"+hooks)
		w.report("staging ahead fails", func(r *agentv1.Report) bool {
			return r.StageFailed == rev.Digest && strings.Contains(r.Failure.GetMessage(), want)
		})
		r := w.result(w.grant(rev), agentv1.Result_RESULT_FAILED)
		if !strings.Contains(r.Failure.Message, want) || r.Health != agentv1.Health_HEALTH_HEALTHY {
			t.Errorf("under a permit: %v", r)
		}
	}
	if got := w.out(); got != said {
		t.Errorf("hooks ran:\n%s", strings.TrimPrefix(got, said))
	}
}

// A hook that removes its own revision has not succeeded, and the host goes
// back.
func TestHookRemovesItsRevision(t *testing.T) {
	w := newWorld(t)
	w.start()
	v1 := w.push("v1", whole())
	w.done(v1)
	cleaner := whole()
	cleaner["AfterInstall"] = "rm -rf \"$PWD\"\n"
	r := w.result(w.grant(w.push("v2", cleaner)), agentv1.Result_RESULT_FAILED)
	if r.Failure.Event != "ApplicationStart" || r.Failure.Code != 1 || r.Running != v1.Digest || w.installed() != "v1" {
		t.Errorf("%v", r)
	}
}
