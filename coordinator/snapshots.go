package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// snapshotBound is how long a coordinator may take for a snapshot that was asked
// for: some 100 MB on a slow disk. For snapshotTries, 50 ms apart, it may refuse:
// raft takes none while a change of members has reached the log and not the state.
const (
	snapshotBound = time.Minute
	snapshotTries = 60
)

// Snapshot writes a snapshot here. Raft writes one at a time; who asks while
// nothing is new gets the newest.
func (s *peerService) Snapshot(ctx context.Context, _ *peerv1.SnapshotRequest) (*peerv1.SnapshotResponse, error) {
	return s.c.snapshot(ctx)
}

func (c *Coordinator) snapshot(ctx context.Context) (*peerv1.SnapshotResponse, error) {
	err := c.node.Snapshot()
	for n := 1; errors.Is(err, consensus.ErrMembersChange) && n < snapshotTries && ctx.Err() == nil; n++ {
		backoff.Pause(ctx, 50*time.Millisecond)
		err = c.node.Snapshot()
	}
	if err != nil {
		return nil, err
	}
	index, size, err := c.node.Newest()
	return &peerv1.SnapshotResponse{Index: index, Bytes: size}, err
}

// Snapshot has every coordinator write one, at once. Who cannot, or does not
// answer, is named with the reason.
func (s *membersService) Snapshot(
	ctx context.Context, _ *controlv1.SnapshotRequest,
) (*controlv1.SnapshotResponse, error) {
	if err := s.c.node.Barrier(ctx); err != nil { // what is committed is in the state, members too
		return nil, err
	}
	members := s.c.peers.members()
	said := make(chan *controlv1.SnapshotResponse_Coordinator, len(members))
	for _, m := range members {
		go func() { said <- s.c.snapshotAt(ctx, m) }()
	}
	out := &controlv1.SnapshotResponse{}
	byName := map[string]*controlv1.SnapshotResponse_Coordinator{}
	for range members {
		m := <-said
		byName[m.Name] = m
	}
	for _, m := range members {
		out.Coordinators = append(out.Coordinators, byName[m.Name])
	}
	return out, nil
}

func (c *Coordinator) snapshotAt(ctx context.Context, m state.Coordinator) *controlv1.SnapshotResponse_Coordinator {
	ctx, cancel := context.WithTimeout(ctx, snapshotBound)
	defer cancel()
	ask := func() (*peerv1.SnapshotResponse, error) {
		if m.Name == c.o.Name {
			return c.snapshot(ctx)
		}
		cc, err := c.peers.dial(m.API)
		if err != nil {
			return nil, err
		}
		return peerv1.NewPeerServiceClient(cc).Snapshot(ctx, &peerv1.SnapshotRequest{})
	}
	got, err := ask()
	if err != nil {
		return &controlv1.SnapshotResponse_Coordinator{Name: m.Name, Error: rpc.Text(err)}
	}
	return &controlv1.SnapshotResponse_Coordinator{Name: m.Name, Index: got.Index, Bytes: got.Bytes}
}
