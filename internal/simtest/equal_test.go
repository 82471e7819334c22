package simtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// TestReplicasAreEqual: three coordinators, one of which was restarted and one of
// which came late, have the same state at the same index, byte for byte.
func TestReplicasAreEqual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := grown(t, time.Hour, 4)
		if err := c.connected(4); err != nil {
			t.Fatal(err)
		}
		c.StopCoordinator("c2")
		c.StartCoordinator("c2")
		if err := c.connected(4); err != nil {
			t.Fatal(err)
		}
		compared := 0
		for range 120 { // at one index at once
			states := map[uint64][][]byte{}
			for _, name := range []string{"c1", "c2", "c3"} {
				if index, state, err := c.state(name); err == nil {
					states[index] = append(states[index], state)
				}
			}
			for index, all := range states {
				for _, s := range all[1:] {
					compared++
					if !bytes.Equal(s, all[0]) {
						t.Fatalf("at entry %d:\n%s\n%s", index, all[0], s)
					}
				}
			}
			if compared >= 6 {
				return
			}
			time.Sleep(time.Second)
		}
		t.Errorf("only %d pairs were at one index", compared)
	})
}

// state is what a coordinator has, as of an entry.
func (c *Cluster) state(name string) (index uint64, state []byte, err error) {
	err = c.at([]string{name}, func(ctx context.Context, api controlv1.ControlServiceClient) error {
		in, err := api.Backup(ctx, &controlv1.BackupRequest{})
		if err != nil {
			return err
		}
		for {
			m, err := in.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			state = append(state, m.Data...)
		}
	})
	var header struct{ Index uint64 }
	if err == nil {
		err = json.Unmarshal(bytes.SplitN(state, []byte("\n"), 2)[0], &header)
	}
	return header.Index, state, err
}
