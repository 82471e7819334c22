package coordinator

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/gossip"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// How the gossip ring's key is replaced while the cluster runs: when a person asks,
// and by itself when a host was revoked or a coordinator removed. The log holds the
// hash of keys and the order of steps; keys go from coordinator to coordinator, and
// to agents in their sessions, over mutual TLS. Nothing of it goes by gossip, so who
// missed a step has a key of the past, and gets the others with its next session.
//
//  1. The leader makes a key, has it on disk, and proposes RingKeyAdded: messages
//     under it are taken. Each coordinator fetches it, has it on disk, announces that,
//     and tells its agents.
//  2. ringKeySpread after all have it the leader proposes RingKeyUsed: it is used.
//  3. After ringKeyOverlap the leader proposes RingKeyRetired: the former one is
//     taken no more.
//
// Crash safety: a key is on disk before anything in the log rests on it; each step
// can be done twice; a key that the log does not know is dropped with the next step.
// Gossip is a hint: a ring that is apart for a moment costs nothing.

// ringKeyOverlap is how long the former key is taken beside the one that is used:
// longer than an agent takes to come back to a session.
const ringKeyOverlap = time.Minute

// ringKeySpread is how long agents have to take a key before it is used, once every
// coordinator has it: they are told at once.
const ringKeySpread = 10 * time.Second

func ringKeyID(key []byte) string {
	h := sha256.Sum256(key)
	return hex.EncodeToString(h[:8])
}

// ringState is what the log says of the ring's keys.
type ringState struct {
	now, next string
	used, due bool
	holds     string // what this coordinator has announced
}

func (c *Coordinator) ringNow() (now ringState) {
	c.store.ViewCluster(func(s *state.Cluster) {
		now = ringState{
			now: s.RingKey, next: s.NextRingKey, used: s.RingKeyUsed, due: s.RingKeyDue,
			holds: s.Coordinators[c.o.Name].Ring,
		}
	})
	return now
}

// arrange puts the keys that are known into the order that the log says, the one
// that is used first. Missing is a key that this coordinator has to fetch.
func (r ringState) arrange(known []byte) (keys []byte, missing string) {
	var of, next [][]byte
	for key := range slices.Chunk(known, gossip.KeySize) {
		switch id := ringKeyID(key); {
		case id == r.next:
			next = append(next, key)
		case r.now == "" || id == r.now:
			of = append(of, key)
		}
	}
	switch {
	case r.next == "" && r.now == "":
		return known, ""
	case r.next != "" && len(next) == 0:
		return known, r.next
	case len(of) == 0 && len(next) == 0:
		return known, r.now
	case r.used:
		return slices.Concat(append(next[:1:1], of...)...), ""
	}
	return slices.Concat(append(of, next...)...), ""
}

// followRingKeys keeps this coordinator's keys as the log has them, until ctx ends.
// Most entries are about something else.
func (c *Coordinator) followRingKeys(ctx context.Context) error {
	var done *ringState
	return c.follow(ctx, "the ring's key is not taken into use yet", func(ctx context.Context) error {
		now := c.ringNow()
		if done != nil && *done == now {
			return nil
		}
		err := c.takeRingKeys(ctx)
		if err == nil {
			done = &now
		}
		return err
	})
}

func (c *Coordinator) takeRingKeys(ctx context.Context) error {
	c.ringChanges <- struct{}{}
	defer func() { <-c.ringChanges }()
	now, have := c.ringNow(), c.keys.ringKeys()
	keys, missing := now.arrange(have)
	if missing != "" {
		more, err := c.fetchRingKeys(ctx, missing)
		if err != nil {
			return err
		}
		keys, _ = now.arrange(slices.Concat(have, more))
	}
	if !bytes.Equal(keys, have) {
		if err := c.setRingKeys(keys); err != nil {
			return err
		}
	}
	if now.holds == now.next {
		return nil
	}
	self := c.self()
	self.Ring = now.next
	ctx, cancel := context.WithTimeout(ctx, readBound)
	defer cancel()
	return c.log.cluster(ctx, self)
}

// fetchRingKeys returns the keys of a coordinator that has the one that is missing.
func (c *Coordinator) fetchRingKeys(ctx context.Context, missing string) ([]byte, error) {
	for _, m := range c.peers.members() {
		if m.Name == c.o.Name {
			continue
		}
		out, err := c.askKeys(ctx, m)
		if err != nil {
			continue
		}
		for key := range slices.Chunk(out.GossipKey, gossip.KeySize) {
			if ringKeyID(key) == missing {
				return key, nil
			}
		}
	}
	return nil, fmt.Errorf("no coordinator that answers has key %s of the ring", missing)
}

// ringKeys are those of the ring, the one that is used first.
func (k *keys) ringKeys() []byte { return *k.ring.Load() }

// setRingKeys has the keys on disk and in use on return, and tells agents.
func (c *Coordinator) setRingKeys(keys []byte) error {
	if err := c.keys.setRingKeys(keys); err != nil {
		return err
	}
	if err := c.ring.SetKeys(keys); err != nil {
		return err
	}
	c.sessions.Tell()
	return nil
}

// setRingKeys has the keys on disk on return. One at a time may call it.
func (k *keys) setRingKeys(keys []byte) error {
	if err := identity.WriteSecret(filepath.Join(k.root, gossipFile), keys); err != nil {
		return err
	}
	k.ring.Store(&keys)
	return nil
}

// moveRingKeys goes through the steps while this coordinator leads.
func (c *Coordinator) moveRingKeys(ctx context.Context) error {
	var step string
	var due <-chan time.Time // of the step
	for {
		changed := c.store.Changed()
		now := c.ringNow()
		next, after, err := c.ringStep(ctx, now)
		if err == nil && next != step {
			if step, due = next, nil; step != "" {
				due = time.After(after)
			}
		}
		select {
		case <-changed:
		case <-due:
			due = nil
			if step == stepUse {
				err = c.log.cluster(ctx, state.RingKeyUsed{ID: now.next})
			} else {
				err = c.log.cluster(ctx, state.RingKeyRetired{ID: now.next})
			}
			step = ""
		case <-ctx.Done():
			return nil
		}
		if err != nil && ctx.Err() == nil && rpc.Kind(err) != rpc.KindConflict { // somebody was quicker
			return fmt.Errorf("replace the ring's key: %w", err)
		}
	}
}

// Steps of a replacement that wait for a time.
const (
	stepUse    = "use"
	stepRetire = "retire"
)

// ringStep is what comes next, and in which time; it brings a key in that is due.
func (c *Coordinator) ringStep(ctx context.Context, now ringState) (step string, after time.Duration, err error) {
	switch {
	case now.due && !now.used: // also while one waits that somebody may have seen
		return "", 0, c.bringRingKey(ctx, state.RingKeyAdded{})
	case now.next == "":
		return "", 0, nil
	case now.used:
		return stepRetire, ringKeyOverlap, nil
	}
	waits, err := c.without(func(m state.Coordinator) bool { return m.Ring == now.next })
	if err != nil || len(waits) > 0 {
		return "", 0, err
	}
	return stepUse, ringKeySpread, nil
}

// bringRingKey makes a key and brings it in. Until the log knows of it nobody looks
// which keys it does not know.
func (c *Coordinator) bringRingKey(ctx context.Context, e state.RingKeyAdded) error {
	c.ringChanges <- struct{}{}
	defer func() { <-c.ringChanges }()
	key := make([]byte, gossip.KeySize)
	_, _ = rand.Read(key) // crypto/rand never fails
	e.ID = ringKeyID(key)
	if err := c.setRingKeys(slices.Concat(c.keys.ringKeys(), key)); err != nil {
		return err
	}
	return c.log.cluster(ctx, e)
}

// RotateRingKey begins the replacement of the ring's key.
func (s *membersService) RotateRingKey(
	ctx context.Context, r *controlv1.RotateRingKeyRequest,
) (*controlv1.RotateRingKeyResponse, error) {
	if now := s.c.ringNow(); now.next != "" && now.used {
		return nil, rpc.Errorf(rpc.KindConflict, "the ring's key is being replaced already; see `dctl cluster status`")
	}
	err := s.c.bringRingKey(ctx, state.RingKeyAdded{Request: s.c.request(ctx, r.Mutation)})
	return &controlv1.RotateRingKeyResponse{Index: s.c.index()}, err
}

// describeRing adds to a status what is under way.
func (c *Coordinator) describeRing(out *controlv1.ClusterStatusResponse) {
	now := c.ringNow()
	out.NextRingKey = now.next
	if now.next != "" && !now.used {
		// a status without names is better than none
		out.WithoutRingKey, _ = c.without(func(m state.Coordinator) bool { return m.Ring == now.next })
	}
}
