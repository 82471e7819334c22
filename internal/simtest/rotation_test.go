package simtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// status returns what the leader says of the cluster.
func (c *Cluster) status() (s *controlv1.ClusterStatusResponse, err error) {
	err = c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
		s, err = api.ClusterStatus(ctx, &controlv1.ClusterStatusRequest{})
		return err
	})
	return s, err
}

// until waits until the cluster's status is as it should be.
func (c *Cluster) until(what string, ok func(*controlv1.ClusterStatusResponse) bool) {
	c.t.Helper()
	var last *controlv1.ClusterStatusResponse
	var err error
	for range 240 {
		if last, err = c.status(); err == nil && ok(last) {
			return
		}
		time.Sleep(time.Second)
	}
	c.t.Fatalf("not %s: %v, %v", what, last, err)
}

func (c *Cluster) rotate() (id string) {
	c.t.Helper()
	if err := c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
		out, err := api.RotateCA(ctx, &controlv1.RotateCARequest{})
		id = out.GetId()
		return err
	}); err != nil {
		c.t.Fatalf("rotate: %v", err)
	}
	return id
}

func (c *Cluster) retire(giveUp bool) error {
	return c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
		_, err := api.RetireCA(ctx, &controlv1.RetireCARequest{GiveUp: giveUp})
		return err
	})
}

// asks makes a call with a credential as it lies in a folder, without renewing it.
func (c *Cluster) asks(dir, at string) error {
	cred, err := identity.Load(dir)
	if err != nil {
		return err
	}
	cc, err := rpc.Dial([]string{ip(at) + ":7100"}, cred.Client(), grpc.WithContextDialer(c.net.Dial))
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err = controlv1.NewControlServiceClient(cc).ListHosts(ctx, &controlv1.ListHostsRequest{})
	return err
}

// TestTheCAIsReplaced: under three coordinators and their agents, with a host that
// is off meanwhile and knows the old CA alone, with a token of before, and with a
// credential that somebody keeps back. Then everything is started anew, from disk.
func TestTheCAIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := grown(t, 24*time.Hour, 3)
		if err := c.connected(3); err != nil {
			t.Fatal(err)
		}
		kept := filepath.Join(c.dir, "kept")
		if err := os.CopyFS(kept, os.DirFS(c.operator)); err != nil {
			t.Fatal(err)
		}
		before := c.Token(&controlv1.CreateTokenRequest{Uses: 2})
		c.StopAgent("web-3")

		next := c.rotate()
		c.until("issued by the new CA", func(s *controlv1.ClusterStatusResponse) bool {
			return s.Ca == next && s.NextCa == next && len(s.CaBehind) == 0
		})
		if err := c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
			_, err := api.RotateCA(ctx, &controlv1.RotateCARequest{})
			if rpc.Kind(err) != rpc.KindConflict {
				return fmt.Errorf("a second rotation meanwhile: %w", err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := c.asks(kept, "c1"); err != nil {
			t.Errorf("a credential of the old CA, while that is trusted: %v", err)
		}
		if err := c.StartAgent("web-3", ""); err != nil {
			t.Fatal(err)
		}
		if err := c.StartAgent("web-4", before); err != nil {
			t.Fatal(err)
		}
		if err := c.connected(4); err != nil {
			t.Fatalf("with one that was off, and one with a token of before: %v", err)
		}
		c.until("renewed by all", func(s *controlv1.ClusterStatusResponse) bool { return len(s.CaBehind) == 0 })

		if err := c.retire(false); err != nil {
			t.Fatal(err)
		}
		c.until("without the old CA", func(s *controlv1.ClusterStatusResponse) bool {
			return s.NextCa == "" &&
				s.Ca == next
		})
		if err := c.connected(4); err != nil {
			t.Fatalf("after the old CA was retired: %v", err)
		}
		if err := c.asks(kept, "c1"); err == nil {
			t.Error("a credential of the retired CA is let in")
		}
		if err := c.StartAgent("web-5", before); err == nil {
			t.Error("a token of the retired CA enrols a host")
		}
		if err := c.StartAgent("web-5", c.Token(&controlv1.CreateTokenRequest{})); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"c1", "c2", "c3"} {
			c.StopCoordinator(name)
		}
		for i := range 5 {
			c.StopAgent(fmt.Sprintf("web-%d", i+1))
		}
		c.StartCoordinator("c1", "c2", "c3")
		for i := range 5 {
			if err := c.StartAgent(fmt.Sprintf("web-%d", i+1), ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.connected(5); err != nil {
			t.Fatalf("started anew: %v", err)
		}
	})
}

// TestACAIsGivenUp: a coordinator is off, so the new CA waits to issue; it names
// whom for, goes on when that one is back, or can be given up. Whoever joins
// meanwhile, and whoever leads next, goes on where it was.
func TestACAIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := grown(t, 24*time.Hour, 1)
		s, err := c.status()
		if err != nil {
			t.Fatal(err)
		}
		first := s.Ca
		c.StopCoordinator("c3")
		next := c.rotate()
		c.until("waiting for c3", func(s *controlv1.ClusterStatusResponse) bool {
			return s.Ca == first && s.NextCa == next && len(s.CaBehind) == 1 && s.CaBehind[0] == "c3"
		})
		if err := c.retire(false); rpc.Kind(err) != rpc.KindConflict {
			t.Fatalf("retire what does not issue, without saying so: %v", err)
		}
		if err := c.retire(true); err != nil {
			t.Fatalf("give the new CA up: %v", err)
		}
		c.until("as before", func(s *controlv1.ClusterStatusResponse) bool { return s.NextCa == "" && s.Ca == first })
		if err := c.retire(false); rpc.Kind(errors.Unwrap(err)) != rpc.KindConflict &&
			rpc.Kind(err) != rpc.KindConflict {
			t.Errorf("there is nothing to retire: %v", err)
		}

		next = c.rotate()
		c.until("waiting for c3", func(s *controlv1.ClusterStatusResponse) bool { return len(s.CaBehind) == 1 })
		leader := ""
		c.until("led", func(s *controlv1.ClusterStatusResponse) bool { leader = s.Leader; return leader != "" })
		c.StartCoordinator("c3")
		c.until("issued by the new CA", func(s *controlv1.ClusterStatusResponse) bool {
			return s.Ca == next && len(s.CaBehind) == 0
		})
		c.StopCoordinator(leader)
		c.StartCoordinator(leader)
		c.Join("c4", "c1")
		c.until("with a fourth coordinator", func(s *controlv1.ClusterStatusResponse) bool {
			return len(s.Coordinators) == 4 && len(s.CaBehind) == 0
		})
		if err := c.retire(false); err != nil {
			t.Fatal(err)
		}
		c.until("without the old CA", func(s *controlv1.ClusterStatusResponse) bool {
			return s.NextCa == "" &&
				s.Ca == next
		})
		if err := c.connected(1); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAwayForAWholeReplacement: a host that was off from before the new CA until
// after the old one was retired comes back as itself by a token that names it.
func TestAwayForAWholeReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := grown(t, 24*time.Hour, 2)
		if err := c.connected(2); err != nil {
			t.Fatal(err)
		}
		before, err := c.Hosts()
		if err != nil {
			t.Fatal(err)
		}
		c.StopAgent("web-2")
		next := c.rotate()
		c.until("issued by the new CA", func(s *controlv1.ClusterStatusResponse) bool {
			return s.Ca == next && len(s.CaBehind) == 0 && s.CaAway == 1
		})
		if err := c.retire(false); err != nil {
			t.Fatal(err)
		}
		c.until("without the old CA", func(s *controlv1.ClusterStatusResponse) bool { return s.NextCa == "" })
		id := before["web-2"].Id
		if err := c.StartAgent("web-2", c.Token(&controlv1.CreateTokenRequest{Host: "web-2"})); err != nil {
			t.Fatal(err)
		}
		if err := c.connected(2); err != nil {
			t.Fatal(err)
		}
		if after, err := c.Hosts(); err != nil || after["web-2"].GetId() != id {
			t.Errorf("it is %v, not %s: %v", after["web-2"], id, err)
		}
	})
}
