package agent

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/gossip"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// A coordinator that the ring does not know is called once it has welcomed the
// host, though another one seems to live: that one may have died a moment ago, and
// then nobody else calls.
func TestACoordinatorThatWelcomesIsCalled(t *testing.T) {
	key := make([]byte, gossip.KeySize)
	open := func(name string) *gossip.Ring {
		ring, err := gossip.Open(gossip.Options{
			Self: gossip.Member{ID: name, Role: "coordinator", Agent: name + ":7101"}, Bind: "127.0.0.1:0", Keys: key,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ring.Leave() })
		return ring
	}
	gone, back := open("c2"), open("c1")
	o := Options{
		GossipBind: "127.0.0.1:0", Coordinators: []string{"c1:7101", "c2:7101"}, Root: t.TempDir(),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	r, err := openRing(o, membership{Host: "h1", Seeds: []string{gone.Addr()}}, key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	living := func(address string) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.Contains(r.living(), address)
	}
	await := func(address string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !living(address); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the ring does not know %s", address)
			}
		}
	}
	await("c2:7101")
	r.told(&agentv1.Members{Agents: []string{"c1:7101", "c2:7101"}, Seeds: []string{back.Addr()}})
	r.welcomed("c1")
	await("c1:7101")
}

// An agent that is told to stop does not wait for seeds that do not answer.
func TestDeadSeedsHoldNothingUp(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	called, given := make(chan struct{}), make(chan struct{})
	go func() {
		conn, err := silent.Accept()
		if err != nil {
			return
		}
		close(called)
		_, _ = io.Copy(io.Discard, conn) // until the caller gives up
		close(given)
	}()
	r, err := openRing(Options{
		GossipBind: "127.0.0.1:0", Root: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	}, membership{Host: "h1"}, make([]byte, gossip.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.run(ctx) }()
	r.told(&agentv1.Members{Agents: []string{"c1:7101"}, Seeds: []string{silent.Addr().String()}})
	r.welcomed("c1")
	<-called
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-given:
		t.Error("the ring waited for a seed that does not answer")
	}
}
