package agent_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/agent"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// What a host does not let be deployed is refused before any of it is on the disk,
// whoever asks; what it does is not hindered.
func TestApplicationsOfAHost(t *testing.T) {
	for _, only := range [][]string{{"ww", "www2", "WWW", "api"}, {"api", "www"}} {
		w := newWorld(t)
		w.o.Applications = only
		w.start()
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte("version: 0.0\nos: linux\n"), 0o644))
		rev := w.pushDir(dir, "v1")
		if slices.Contains(only, "www") {
			w.done(rev)
			continue
		}
		r := w.result(w.grant(rev), agentv1.Result_RESULT_FAILED)
		if !strings.Contains(r.Failure.Message, "application www may not be deployed on this host") {
			t.Errorf("%v", r.Failure)
		}
		staged, err := filepath.Glob(filepath.Join(w.o.Root, "releases", "www", "*"))
		if err != nil || slices.ContainsFunc(staged, func(p string) bool {
			_, err := os.Stat(filepath.Join(p, "appspec.yml"))
			return err == nil
		}) {
			t.Errorf("on the disk: %v, %v", staged, err)
		}
	}
}

// From elsewhere than a host allows nothing is fetched, whatever a coordinator signs.
func TestStoresOfAHost(t *testing.T) {
	for _, c := range []struct {
		places []string
		may    bool
	}{{[]string{"https://s3.example/releases", "file:///srv/none"}, false}, {[]string{"file:///"}, true}} {
		w := newWorld(t)
		for _, p := range c.places {
			var place agent.Place
			must(t, place.Set(p))
			w.o.Stores = append(w.o.Stores, place)
		}
		w.o.Bandwidth = 10 << 20
		w.start()
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte("version: 0.0\nos: linux\n"), 0o644))
		rev := w.pushDir(dir, "v1")
		if c.may {
			w.done(rev)
			continue
		}
		r := w.result(w.grant(rev), agentv1.Result_RESULT_FAILED)
		if !strings.Contains(r.Failure.Message, "nothing is fetched from file:") {
			t.Errorf("%v", r.Failure)
		}
	}
}
