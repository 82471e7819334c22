package simtest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// other names a coordinator that runs beside this one.
func (c *Cluster) other(name string) string {
	for _, n := range []string{"c1", "c2", "c3"} {
		if n != name {
			return n
		}
	}
	return ""
}

// write commits something, asked at one coordinator.
func (c *Cluster) write(at string) error {
	return c.at([]string{at}, func(ctx context.Context, api controlv1.ControlServiceClient) error {
		_, err := api.CreateToken(ctx, &controlv1.CreateTokenRequest{})
		return err
	})
}

// TestStoppingLeaderHandsOver: a leader that is stopped is followed at once.
// An election would begin after pace, when its silence is noticed.
func TestStoppingLeaderHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := grown(t, 24*time.Hour, 1)
		for round := range 3 {
			leader := ""
			if err := c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
				s, err := api.ClusterStatus(ctx, &controlv1.ClusterStatusRequest{})
				leader = s.GetLeader()
				return err
			}); err != nil {
				t.Fatal(err)
			}
			stopped := make(chan struct{})
			begin := time.Now()
			go func() {
				c.StopCoordinator(leader)
				close(stopped)
			}()
			at := c.other(leader)
			for c.write(at) != nil && time.Since(begin) < time.Minute {
				time.Sleep(50 * time.Millisecond)
			}
			if took := time.Since(begin); took >= time.Second {
				t.Errorf("round %d: %s was followed after %s, an election would begin after %s", round, leader,
					took, pace)
			}
			<-stopped
			c.StartCoordinator(leader)
		}
	})
}

// TestLongDeadIsRemoved: of four voters one is dead for too long; the others
// go on without it, with a quorum of two of three. A second one is not removed:
// three would not stay.
func TestLongDeadIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(t, 0)
		c.DeadAfter = time.Hour
		c.Bootstrap("c1")
		for _, name := range []string{"c2", "c3", "c4"} {
			c.Join(name, "c1")
		}
		names := func() (voters []string, missing []string) {
			if err := c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
				s, err := api.ClusterStatus(ctx, &controlv1.ClusterStatusRequest{})
				for _, m := range s.GetCoordinators() {
					voters = append(voters, m.Name)
				}
				missing = s.GetMissing()
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return voters, missing
		}
		c.StopCoordinator("c4")
		time.Sleep(55 * time.Minute)
		if all, missing := names(); len(all) != 4 || len(missing) != 1 {
			t.Errorf("after 55 minutes there are %v, missing %v", all, missing)
		}
		time.Sleep(10 * time.Minute)
		if all, missing := names(); len(all) != 3 || len(missing) != 0 {
			t.Errorf("after 65 minutes there are %v, missing %v", all, missing)
		}
		c.StopCoordinator("c3")
		time.Sleep(70 * time.Minute)
		if all, missing := names(); len(all) != 3 || len(missing) != 1 {
			t.Errorf("with two of three there are %v, missing %v", all, missing)
		}
	})
}
