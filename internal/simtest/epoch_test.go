package simtest

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundswell/groundswell/coordinator"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// said collects what is logged.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.buf.String(), text)
}

// TestThePastCommandsNobody: one of three coordinators is recovered alone; then
// the two that were given up come back, a majority of what was. A host that has
// seen the new epoch does not follow them, not even while nobody else is there.
func TestThePastCommandsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(t, 0)
		log := &said{}
		c.Log = slog.New(slog.NewTextHandler(log, nil))
		c.Bootstrap("c1")
		c.Join("c2", "c1")
		c.Join("c3", "c1")
		if err := c.StartAgent("web-1", c.Token(&controlv1.CreateTokenRequest{})); err != nil {
			t.Fatal(err)
		}
		if err := c.connected(1); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"c1", "c2", "c3"} {
			c.StopCoordinator(name)
		}
		if _, err := coordinator.Recover(filepath.Join(c.dir, "c1"), "c1", "two zones burnt down", 0); err != nil {
			t.Fatal(err)
		}
		c.StartCoordinator("c1")
		if err := c.connected(1); err != nil {
			t.Fatalf("after the recovery: %v", err)
		}
		if err := c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
			_, err := api.ActivateEpoch(ctx, &controlv1.ActivateEpochRequest{Epoch: 2})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		c.StartCoordinator("c2", "c3")
		c.StopCoordinator("c1")
		for range 30 {
			time.Sleep(10 * time.Second)
			if err := c.at([]string{"c2", "c3"}, func(ctx context.Context, api controlv1.ControlServiceClient) error {
				hosts, err := api.ListHosts(ctx, &controlv1.ListHostsRequest{})
				for _, h := range hosts.GetHosts() {
					if h.Coordinator != "" {
						t.Fatalf("web-1 has a session with %s, of the past", h.Coordinator)
					}
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		if !log.has("it belongs to the past") {
			t.Error("web-1 never tried them: the test proves nothing")
		}
		c.StopCoordinator("c2")
		c.StopCoordinator("c3")
		c.StartCoordinator("c1")
		if err := c.connected(1); err != nil {
			t.Fatalf("once c1 is back: %v", err)
		}
	})
}
