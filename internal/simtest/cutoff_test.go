package simtest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// TestACutOffReplica: whom the leader does not reach serves no host and answers no
// question, and does again when it is reached; without a majority everybody stands
// still, and hosts keep the sessions that they have.
func TestACutOffReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := grown(t, 24*time.Hour, 6)
		if err := c.connected(6); err != nil {
			t.Fatal(err)
		}
		at := func() (n map[string]int) {
			t.Helper()
			hosts, err := c.Hosts()
			for range 60 { // the lead may change hands
				if err == nil {
					break
				}
				time.Sleep(time.Second)
				hosts, err = c.Hosts()
			}
			if err != nil {
				t.Fatal(err)
			}
			n = map[string]int{}
			for _, h := range hosts {
				n[h.Coordinator]++
			}
			return n
		}
		reads := func(name string) error {
			return c.at([]string{name}, func(ctx context.Context, api controlv1.ControlServiceClient) error {
				_, err := api.ListApps(ctx, &controlv1.ListAppsRequest{})
				return err
			})
		}
		victim := "c2"
		if at()["c3"] > at()["c2"] {
			victim = "c3"
		}
		if at()[victim] == 0 {
			t.Fatal("no follower has a host")
		}
		c.net.sever(ip(victim)+":7102", true)
		moved := false
		for range 90 {
			if moved = at()[victim] == 0; moved {
				break
			}
			time.Sleep(time.Second)
		}
		if !moved {
			t.Errorf("%s is cut off and keeps its hosts: %v", victim, at())
		}
		if err := c.connected(6); err != nil {
			t.Error(err)
		}
		if err := reads(victim); status.Code(err) != codes.Unavailable {
			t.Errorf("%s answers: %v", victim, err)
		}
		again := func(name string) {
			t.Helper()
			var err error
			for range 90 {
				if err = reads(name); err == nil {
					return
				}
				time.Sleep(time.Second)
			}
			t.Errorf("%s is reached again: %v", name, err)
		}
		c.net.sever(ip(victim)+":7102", false)
		again(victim)
		before := at()
		c.StopCoordinator("c2")
		c.StopCoordinator("c3")
		time.Sleep(2 * time.Minute)
		if err := reads("c1"); status.Code(err) != codes.Unavailable {
			t.Errorf("one of three answers: %v", err)
		}
		c.StartCoordinator("c2", "c3")
		if err := c.connected(6); err != nil {
			t.Errorf("%v; before it was %v", err, before)
		}
		again("c1")
	})
}
