package simtest

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// disk copies all that an agent has on disk.
func (c *Cluster) disk(from, to string) {
	c.t.Helper()
	for _, part := range []string{"agents", "fs"} {
		old, new := filepath.Join(c.dir, part, from), filepath.Join(c.dir, part, to)
		if _, err := os.Stat(old); err != nil {
			continue
		}
		if err := os.RemoveAll(new); err != nil {
			c.t.Fatal(err)
		}
		if err := os.CopyFS(new, os.DirFS(old)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestACopiedMachine: of two machines with one disk neither gets a session, for as
// long as nobody splits them; then the copy becomes a host of its own, and stays
// one. A machine that is set back to an older disk comes back, later.
func TestACopiedMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := grown(t, 24*time.Hour, 1)
		if err := c.connected(1); err != nil {
			t.Fatal(err)
		}
		hosts, err := c.Hosts()
		if err != nil {
			t.Fatal(err)
		}
		id := hosts["web-1"].Id
		c.disk("web-1", "web-2") // while it runs, as an image of a machine is made
		if err := c.StartAgent("web-2", ""); err != nil {
			t.Fatal(err)
		}
		cloned := func() bool {
			hosts, err := c.Hosts()
			return err == nil && len(hosts) == 1 && strings.Contains(hosts["web-1"].Quarantine, "hosts split web-1")
		}
		for range 60 {
			if cloned() {
				break
			}
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Minute)
		if hosts, err = c.Hosts(); err != nil || !cloned() || hosts["web-1"].Coordinator != "" {
			t.Fatalf("two machines with one disk are %v, %v", hosts, err)
		}
		if err := c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
			first := regexp.MustCompile(`from (\S+) and`).FindStringSubmatch(hosts["web-1"].Quarantine)[1]
			_, err := api.SplitHost(ctx, &controlv1.SplitHostRequest{Host: "web-1", Keep: first})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		both := func() {
			t.Helper()
			if err := c.connected(2); err != nil {
				t.Fatal(err)
			}
			hosts, err := c.Hosts()
			if err != nil || hosts["web-1"].GetId() != id || hosts["web-2"].GetId() == id ||
				hosts["web-2"].GetLabels()["role"] != "web" || hosts["web-1"].Quarantine != "" {
				t.Fatalf("after the split: %v, %v", hosts, err)
			}
		}
		both()
		c.disk("web-1", "old")
		for range 3 { // restarted, they stay who they are; seldom enough not to be called flapping
			time.Sleep(15 * time.Minute)
			for _, name := range []string{"web-1", "web-2"} {
				c.StopAgent(name)
				if err := c.StartAgent(name, ""); err != nil {
					t.Fatal(err)
				}
			}
			both()
		}
		time.Sleep(15 * time.Minute)
		c.StopAgent("web-1")
		c.disk("old", "web-1")
		begin := time.Now()
		if err := c.StartAgent("web-1", ""); err != nil {
			t.Fatal(err)
		}
		both()
		if time.Since(begin) < 20*time.Second {
			t.Error("it was let in before another machine had time to come back")
		}
	})
}
