package simtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundswell/groundswell/internal/gossip"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// keyOf is what a member has on disk of the ring's keys.
func (c *Cluster) keyOf(path ...string) string {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{c.dir}, path...)...))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// TestTheRingsKeyIsReplaced: by request and by a revocation, with a host that is off
// and a coordinator that is; all have the new key and it alone, the ring is whole,
// and who knows the former one is heard by nobody.
func TestTheRingsKeyIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := grown(t, 24*time.Hour, 4)
		if err := c.connected(4); err != nil {
			t.Fatal(err)
		}
		old := c.keyOf("c1", "gossip.key")
		c.StopAgent("web-4")
		c.StopCoordinator("c3")
		if err := c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
			_, err := api.RotateRingKey(ctx, &controlv1.RotateRingKeyRequest{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if got := c.keyOf("c1", "gossip.key"); got[:gossip.KeySize] != old || len(got) != 2*gossip.KeySize {
			t.Error("a key is used that a coordinator lacks")
		}
		c.StartCoordinator("c3")
		whole := func(agents ...string) {
			t.Helper()
			var now string
			same := func() bool {
				now = c.keyOf("c1", "gossip.key")
				all := len(now) == gossip.KeySize && now != old && c.keyOf("c2", "gossip.key") == now &&
					c.keyOf("c3", "gossip.key") == now
				for _, a := range agents {
					all = all && c.keyOf("agents", a, "identity", "gossip.key") == now
				}
				return all
			}
			for range 300 {
				if same() {
					break
				}
				time.Sleep(time.Second)
			}
			if !same() {
				t.Fatalf("not all have the new key and it alone: c1 %d, c2 %d, c3 %d bytes, new %t", len(now),
					len(c.keyOf("c2", "gossip.key")), len(c.keyOf("c3", "gossip.key")), now != old)
			}
			old = now
		}
		stranger := old
		whole("web-1", "web-2", "web-3")
		if err := c.StartAgent("web-4", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := c.connected(4); err != nil { // which takes gossip and a stream
			t.Error(err)
		}
		if got := c.keyOf("agents", "web-4", "identity", "gossip.key"); got != old {
			t.Error("who was off has not got the key with its session")
		}
		spy, err := gossip.Open(gossip.Options{
			Self: gossip.Member{ID: "spy", Role: "agent"}, Bind: "10.0.9.9:0", Keys: []byte(stranger),
			Seeds: []string{ip("c1") + ":7103"}, Network: c.ring,
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(spy.Members()); n != 1 {
			t.Errorf("by the former key %d members are known", n)
		}
		if err := spy.Close(); err != nil {
			t.Error(err)
		}
		// A host is revoked: what it knows of the ring ends by itself.
		if err := c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
			_, err := api.RevokeIdentity(ctx, &controlv1.RevokeIdentityRequest{Role: "agent", Name: "web-4"})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		was := c.keyOf("agents", "web-4", "identity", "gossip.key")
		whole("web-1", "web-2", "web-3")
		if got := c.keyOf("agents", "web-4", "identity", "gossip.key"); got != was {
			t.Error("the host that was revoked was told the new key")
		}
	})
}
