package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/coordinator/archive"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/backoff"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Mover moves deployments while its coordinator leads. It has a goroutine of its own,
// and nothing waits for it: a store that is slow or dead leaves deployments in the
// state, which drops the oldest as if there were no store.
//
// Crash safety: a pack is in the store, and was read back, before the fact that lets go
// of what it holds is written. Whoever is killed before that fact leaves an object that
// nobody names; the next leader writes another. A fact of a leader that was deposed
// meanwhile lets go of what is still there, and is refused if nothing is.
type Mover struct {
	View    func(func(*deploy.State))
	Propose func(context.Context, []deploy.Event) ([]error, error)
	Now     func() deploy.Time // of the log, which writes none while nothing happens
	// Whole is a deployment as people are shown it, nil if it is not whole any more.
	Whole   func(id string) *controlv1.GetDeploymentResponse
	Archive *archive.Archive
	// After is how long ago a deployment may have ended before it is moved, with all
	// others that can be; 0 is a day.
	After time.Duration
	// Told is called after each attempt, with nil or why it failed.
	Told func(error)

	// Look is how often it looks whether anything is to be moved; 0 is 5 s.
	Look time.Duration
}

const (
	lookEvery  = 5 * time.Second
	movedAfter = 24 * time.Hour
	packItems  = 256
	packEnough = 64      // so many are moved, however young they are
	packBytes  = 8 << 20 // about; one deployment to thousands of hosts is a pack of its own
	// writeBound is how long a pack may take to be written and read back, tries included.
	writeBound = 30 * time.Second
	longest    = time.Minute // between attempts while the store does not answer
)

// Run moves until ctx ends.
func (m *Mover) Run(ctx context.Context) {
	pause := m.every()
	for ctx.Err() == nil {
		moved, err := m.step(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.Told(err)
			pause = min(2*pause, longest)
		case moved:
			m.Told(nil)
			pause = m.every()
			continue // there may be more
		default:
			pause = m.every()
		}
		backoff.Pause(ctx, pause)
	}
}

func (m *Mover) every() time.Duration {
	return cmp.Or(m.Look, lookEvery)
}

// step writes one pack, or folds the index, if either is due.
func (m *Mover) step(ctx context.Context) (moved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeBound)
	defer cancel()
	if folded, err := m.fold(ctx); folded || err != nil {
		return folded, err
	}
	ids := m.due()
	if len(ids) == 0 {
		return false, nil
	}
	var items []archive.Item
	size := 0
	for _, id := range ids {
		d := m.Whole(id)
		if d == nil {
			continue
		}
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(d)
		if err != nil {
			return false, fmt.Errorf("encode deployment %s: %w", id, err)
		}
		items = append(items, archive.Item{Key: id, Data: data})
		if size += len(data); size > packBytes {
			break
		}
	}
	if len(items) == 0 {
		return false, nil
	}
	o, err := m.Archive.Write(ctx, items)
	if err != nil {
		return false, err
	}
	e := deploy.HistoryMoved{Pack: pack(o)}
	for _, item := range items {
		e.Deployments = append(e.Deployments, item.Key)
	}
	return m.propose(ctx, e)
}

func (m *Mover) propose(ctx context.Context, e deploy.Event) (bool, error) {
	refusals, err := m.Propose(ctx, []deploy.Event{e})
	if err = errors.Join(append(refusals, err)...); err != nil {
		return false, fmt.Errorf("note what the history's store has: %w", err)
	}
	return true, nil
}

func pack(o archive.Object) deploy.Pack {
	return deploy.Pack{Object: deploy.Digest(o.Digest), Bytes: o.Bytes, Items: o.Items, From: o.From, To: o.To}
}

// due lists the deployments of the next pack, those that ended first first: none until
// there are enough, or one has waited long enough.
func (m *Mover) due() (ids []string) {
	after := cmp.Or(m.After, movedAfter)
	now := m.Now()
	m.View(func(s *deploy.State) {
		late := false
		s.Movables(func(d *deploy.Deployment) bool {
			late = late || now.Sub(d.EndedAt) >= after
			ids = append(ids, d.ID)
			return len(ids) < packItems
		})
		if !late && len(ids) < packEnough {
			ids = nil
		}
	})
	return ids
}

// fold moves the older half of the packs that the state knows, once there are too many.
func (m *Mover) fold(ctx context.Context) (folded bool, err error) {
	n, ix := 0, deploy.PackIndex{}
	m.View(func(s *deploy.State) { n, ix = s.Foldable(), s.PackIndex() })
	if n == 0 {
		return false, nil
	}
	items, err := fold(ix, n)
	if err != nil {
		return false, fmt.Errorf("encode the index of %d packs: %w", n, err)
	}
	o, err := m.Archive.Write(ctx, items)
	if err != nil {
		return false, err
	}
	return m.propose(ctx, deploy.HistoryFolded{First: ix.Packs[0].Object, Packs: n, Older: pack(o)})
}
