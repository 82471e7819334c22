package simtest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// grown returns a cluster of three coordinators and so many agents.
func grown(t *testing.T, life time.Duration, agents int) *Cluster {
	t.Helper()
	c := New(t, life)
	if os.Getenv("SIMLOG") != "" {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c.Bootstrap("c1")
	c.Join("c2", "c1")
	c.Join("c3", "c2")
	token := c.Token(&controlv1.CreateTokenRequest{Uses: int32(agents)})
	for i := range agents {
		if err := c.StartAgent(fmt.Sprintf("web-%d", i+1), token); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// connected waits until so many hosts are.
func (c *Cluster) connected(want int) error {
	var hosts map[string]*controlv1.Host
	var err error
	for range 60 {
		n := 0
		if hosts, err = c.Hosts(); err == nil {
			for _, h := range hosts {
				if h.State == "connected" {
					n++
				}
			}
			if n == want && len(hosts) == want {
				return nil
			}
		}
		time.Sleep(time.Second)
	}
	return fmt.Errorf("not %d hosts connected: %v, %v", want, hosts, err)
}

// TestThirtySixLifetimes: certificates of ten minutes, for six hours. Each ten
// minutes a coordinator is restarted, so that every connection is made anew
// with what its two ends have by then.
func TestThirtySixLifetimes(t *testing.T) {
	const lifetimes, life, agents = 36, 10 * time.Minute, 3
	wall := time.Now()
	synctest.Test(t, func(t *testing.T) {
		c := grown(t, life, agents)
		for i := range lifetimes {
			if err := c.connected(agents); err != nil {
				t.Fatalf("after %d lifetimes: %v", i, err)
			}
			if err := c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
				s, err := api.ClusterStatus(ctx, &controlv1.ClusterStatusRequest{})
				for _, m := range s.GetCoordinators() {
					if left := time.Until(time.UnixMilli(m.CertificateEndsMs)); left <= 0 || left > life {
						t.Errorf("after %d lifetimes the certificate of %s lives for %s", i, m.Name, left)
					}
				}
				return err
			}); err != nil {
				t.Fatalf("after %d lifetimes: %v", i, err)
			}
			name := fmt.Sprintf("c%d", i%3+1)
			c.StopCoordinator(name)
			c.StartCoordinator(name)
			for range 4 { // an operator who is there; one who is not loses the credential, as it should be
				time.Sleep(life / 4)
				if _, err := c.Hosts(); err != nil {
					t.Fatalf("after %d lifetimes: %v", i, err)
				}
			}
		}
	})
	t.Logf("%d lifetimes in %s", lifetimes, time.Since(wall).Round(time.Millisecond))
}

// sleep lets time pass for an operator who is there: a credential is renewed in
// passing.
func (c *Cluster) sleep(d time.Duration) {
	c.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(c.life / 5)
		if _, err := c.Hosts(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestUpgradedPastTheirCertificates: coordinators of an older build are switched off
// one after the other, for longer than their certificates live, and come back as a
// newer build. Hosts and the operator renew across that, and one that was off
// throughout comes back as itself.
func TestUpgradedPastTheirCertificates(t *testing.T) {
	const life = 10 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		c := New(t, life)
		c.Rules = 1
		c.Bootstrap("c1")
		c.Join("c2", "c1")
		c.Join("c3", "c2")
		token := c.Token(&controlv1.CreateTokenRequest{Uses: 2})
		for _, name := range []string{"web-1", "web-2"} {
			if err := c.StartAgent(name, token); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.connected(2); err != nil {
			t.Fatal(err)
		}
		before, err := c.Hosts()
		if err != nil {
			t.Fatal(err)
		}
		c.StopAgent("web-2")
		c.Rules = 0
		level := func() (out int32) {
			c.until("led", func(s *controlv1.ClusterStatusResponse) bool {
				out = s.Rules
				return s.Leader != ""
			})
			return out
		}
		for _, name := range []string{"c1", "c2", "c3"} {
			if got := level(); got != 1 {
				t.Errorf("rules of level %d with %s still of the older build", got, name)
			}
			c.StopCoordinator(name)
			c.sleep(2 * life)
			c.StartCoordinator(name)
		}
		c.until("rules of the newer build", func(s *controlv1.ClusterStatusResponse) bool { return s.Rules > 1 })
		c.sleep(2 * life)
		if err := c.StartAgent("web-2", c.Token(&controlv1.CreateTokenRequest{})); err != nil {
			t.Fatal(err)
		}
		if err := c.connected(2); err != nil {
			t.Fatal(err)
		}
		after, err := c.Hosts()
		for name, h := range before {
			if err != nil || after[name].GetId() != h.Id {
				t.Errorf("%s is %v, not %s: %v", name, after[name], h.Id, err)
			}
		}
	})
}

// TestSwitchedOff: a coordinator and two hosts are off for six lifetimes. The
// coordinator makes itself a new certificate. One host has its key and comes
// back with any token, one has lost it and comes back with one that was made
// for it; both are who they were.
func TestSwitchedOff(t *testing.T) {
	const life = 10 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		c := grown(t, life, 2)
		if err := c.connected(2); err != nil {
			t.Fatal(err)
		}
		before, err := c.Hosts()
		if err != nil {
			t.Fatal(err)
		}
		c.StopCoordinator("c3")
		c.StopAgent("web-1")
		c.StopAgent("web-2")
		c.sleep(6 * life)
		c.StartCoordinator("c3")

		if err := c.StartAgent("web-1", ""); err == nil ||
			!strings.Contains(err.Error(), "dctl token create --host web-1") {
			t.Errorf("without a token: %v", err)
		}
		wrong := c.Token(&controlv1.CreateTokenRequest{Role: "coordinator"})
		if err := c.StartAgent("web-1", wrong); err == nil ||
			!strings.Contains(err.Error(), "for the role coordinator, not agent") {
			t.Errorf("with a coordinator's token: %v", err)
		}
		if err := c.StartAgent("web-1", c.Token(&controlv1.CreateTokenRequest{})); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(c.dir, "agents", "web-2")); err != nil {
			t.Fatal(err)
		}
		if err := c.StartAgent("web-2", c.Token(&controlv1.CreateTokenRequest{Host: "web-2"})); err != nil {
			t.Fatal(err)
		}
		if err := c.connected(2); err != nil {
			t.Fatal(err)
		}
		after, err := c.Hosts()
		if err != nil {
			t.Fatal(err)
		}
		for name, h := range before {
			if after[name].GetId() != h.Id {
				t.Errorf("%s was %s and came back as %s", name, h.Id, after[name].GetId())
			}
		}
		err = c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
			_, err := api.CreateToken(ctx, &controlv1.CreateTokenRequest{Host: "web-1"})
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "is connected") {
			t.Errorf("a token for a host that is here: %v", err)
		}
	})
}
