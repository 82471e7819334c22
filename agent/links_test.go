package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// A host keeps links that lead out of a revision, unless it says otherwise.
func TestOutsideLinksOfAHost(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		w := newWorld(t)
		w.o.RefuseOutsideLinks = refuse
		w.start()
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "appspec.yml"),
			[]byte("version: 0.0\nos: linux\nfiles:\n  - {source: d, destination: /srv}\n"), 0o644))
		must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		must(t, os.Symlink("/usr/bin/python3", filepath.Join(dir, "d", "python3")))
		rev := w.pushDir(dir, "venv")
		if refuse {
			r := w.result(w.grant(rev), agentv1.Result_RESULT_FAILED)
			if !strings.Contains(r.Failure.Message,
				`d/python3: symlink to "/usr/bin/python3" is absolute, and this host refuses that`) {
				t.Errorf("%v", r.Failure)
			}
			continue
		}
		w.done(rev)
		if to, err := os.Readlink(filepath.Join(w.o.InstallRoot, "srv", "python3")); to != "/usr/bin/python3" {
			t.Errorf("leads to %q, %v", to, err)
		}
	}
}
