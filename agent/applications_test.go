package agent_test

import (
	"os"
	"os/user"
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

// What admins let scripts run as is held at every permit, also of a revision that is on the
// disk already; who names no user runs as the agent.
func TestUsersOfAnApplication(t *testing.T) {
	w := newWorld(t)
	w.start()
	me, err := user.Current()
	must(t, err)
	push := func(name, script string) *agentv1.Revision {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte("version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n"+
			"    - {location: hook.sh"+script+"}\n"), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "hook.sh"), []byte("#!/bin/sh\n# "+name+"\n"), 0o755))
		return w.pushDir(dir, name)
	}
	may := func(users ...string) func(*agentv1.Assignment) {
		return func(a *agentv1.Assignment) { a.RunAs = users }
	}
	plain, named, sudo := push("v1", ""), push("v2", ", runas: "+me.Username), push("v3", ", sudo: true")
	w.done(plain)
	w.done(named, may("other", me.Username))
	w.done(plain, may(me.Username))
	for rev, users := range map[*agentv1.Revision][]string{
		plain: {"other"}, named: {me.Username + "2", me.Username[:1], "other"}, sudo: {"other"},
	} {
		r := w.result(w.grant(rev, may(users...)), agentv1.Result_RESULT_FAILED)
		if !strings.Contains(r.Failure.Message, "may run scripts as") || r.Running == rev.Digest && rev != plain {
			t.Errorf("%s as one of %v: %v", rev.Name, users, r)
		}
	}
}
