package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEditedFilesAreToldAndRepaired: a file that somebody edits on a host is
// seen by the fleet, and deploying what runs repairs that host and no other.
func TestEditedFilesAreToldAndRepaired(t *testing.T) {
	long(t)
	w := start(t, 1, 3)
	w.app(oneBoxFirst)
	dir := filepath.Join(w.dir, "bundles", "v1")
	w.write(filepath.Join(dir, "revision"), "v1\n")
	w.write(filepath.Join(dir, "www", "app.conf"), "debug = no\n")
	w.write(filepath.Join(dir, "count.sh"), "#!/bin/sh\necho started >>\"$WWW_STATE/starts\"\n")
	w.write(filepath.Join(dir, "appspec.yml"), `version: 0.0
os: linux
files:
  - source: www
    destination: /srv/hello
hooks:
  ApplicationStart:
    - location: count.sh
      timeout: 10
`)
	w.must("revisions", "push", dir, "--app", "hello", "--rev", "v1")
	w.must("deploy", "--app", "hello", "--rev", "v1")

	h := w.fleet.Hosts[1]
	conf := filepath.Join(h.Dir, "fs", "srv", "hello", "app.conf")
	w.write(conf, "debug = yes\n")
	w.until(40*time.Second, "the edit is told", func() bool {
		out, _ := w.dctl("hosts", "show", h.Name)
		return strings.Contains(out, "hello: 1 installed file is not what the last deployment left: "+conf)
	})
	if out := w.must("status"); !strings.Contains(out, "on 1 host:") || !strings.Contains(out, "--rev @current") {
		t.Errorf("the overview says nothing:\n%s", out)
	}
	if out := w.must("apps", "show", "hello"); !strings.Contains(out, h.Name) || !strings.Contains(out, conf) {
		t.Errorf("apps show says nothing:\n%s", out)
	}

	out := w.must("deploy", "--app", "hello", "--rev", "@current", "--dry-run")
	if !strings.Contains(out, "does nothing") {
		t.Errorf("the plan does not say what a repair is:\n%s", out)
	}
	w.must("deploy", "--app", "hello", "--rev", "@current", "--reason", "somebody debugged")
	if b, err := os.ReadFile(conf); err != nil || string(b) != "debug = no\n" {
		t.Errorf("not repaired: %q, %v", b, err)
	}
	for _, x := range w.fleet.Hosts {
		b, err := os.ReadFile(filepath.Join(x.Dir, "app", "starts"))
		want := 1
		if x == h {
			want = 2
		}
		if got := strings.Count(string(b), "started"); err != nil || got != want {
			t.Errorf("%s was started %d times, want %d: %v", x.Name, got, want, err)
		}
	}
	w.until(20*time.Second, "nothing is edited any more", func() bool {
		out, _ := w.dctl("hosts", "show", h.Name)
		return !strings.Contains(out, "last deployment left")
	})
}
