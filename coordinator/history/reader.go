// Package history moves deployments that have ended from the state to an artifact
// store, and reads them there.
package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/coordinator/archive"
	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Folder is where packs lie in the store.
const Folder = "history"

// Reader reads what was moved. Its methods may be called concurrently, and are bounded
// by their contexts. What cannot be read is an error that says why, never nothing.
type Reader struct{ Archive *archive.Archive }

// unreadable is the error of an object that does not come, or is another.
type unreadable struct{ error }

func (e unreadable) Unwrap() error { return e.error }

func (e unreadable) Error() string {
	if errors.Is(e.error, archive.ErrDamaged) {
		return "the history's store has lost or changed an object: " + e.error.Error() + "; put it back from a copy of " +
			"the store"
	}
	return "the history's store does not answer: " + e.error.Error() + "; try again"
}

// Kind names the error for a transport.
func (e unreadable) Kind() string {
	if errors.Is(e.error, archive.ErrDamaged) {
		return "internal"
	}
	return "unavailable"
}

// Deployment returns one that a pack holds.
func (r *Reader) Deployment(ctx context.Context, pack deploy.Digest, id string) (
	*controlv1.GetDeploymentResponse, error,
) {
	data, err := r.Archive.Find(ctx, string(pack), id)
	if err != nil {
		return nil, unreadable{err}
	}
	return decode(pack, id, data)
}

func decode(pack deploy.Digest, id string, data []byte) (*controlv1.GetDeploymentResponse, error) {
	out := &controlv1.GetDeploymentResponse{}
	if err := proto.Unmarshal(data, out); err != nil || out.GetDeployment().GetId() != id {
		return nil, unreadable{fmt.Errorf("pack %s: deployment %s: %w", pack, id, errors.Join(archive.ErrDamaged, err))}
	}
	return out, nil
}

// Find returns the deployment with an id, or those whose ids begin so, at most two of
// them; none is no error.
func (r *Reader) Find(ctx context.Context, ix deploy.PackIndex, id string) (
	out []*controlv1.GetDeploymentResponse, err error,
) {
	id = strings.ToUpper(id)
	err = r.packs(ctx, ix, func(p deploy.Pack) (bool, error) {
		if p.To < id || p.From > id && !strings.HasPrefix(p.From, id) {
			return true, nil
		}
		items, err := r.Archive.Items(ctx, string(p.Object))
		if err != nil {
			return false, unreadable{err}
		}
		at, whole := slices.BinarySearchFunc(items, id, func(i archive.Item, id string) int {
			return strings.Compare(i.Key, id)
		})
		for ; at < len(items) && strings.HasPrefix(items[at].Key, id) && len(out) < 2; at++ {
			d, err := decode(p.Object, items[at].Key, items[at].Data)
			if err != nil {
				return false, err
			}
			if out = append(out, d); whole {
				out = []*controlv1.GetDeploymentResponse{d}
				return false, nil
			}
		}
		return len(out) < 2, nil
	})
	return out, err
}

// Each gives every deployment, those that were moved last first, until yield says no.
func (r *Reader) Each(
	ctx context.Context, ix deploy.PackIndex, yield func(*controlv1.GetDeploymentResponse) bool,
) error {
	return r.packs(ctx, ix, func(p deploy.Pack) (bool, error) {
		items, err := r.Archive.Items(ctx, string(p.Object))
		if err != nil {
			return false, unreadable{err}
		}
		for _, item := range slices.Backward(items) {
			d, err := decode(p.Object, item.Key, item.Data)
			if err != nil {
				return false, err
			}
			if !yield(d) {
				return false, nil
			}
		}
		return true, nil
	})
}

// packs gives every pack, newest first, until each says no or fails.
func (r *Reader) packs(ctx context.Context, ix deploy.PackIndex, each func(deploy.Pack) (bool, error)) error {
	for {
		for _, p := range slices.Backward(ix.Packs) {
			if more, err := each(p); err != nil || !more {
				return err
			}
		}
		if ix.Older == "" {
			return nil
		}
		items, err := r.Archive.Items(ctx, string(ix.Older))
		if err != nil {
			return unreadable{err}
		}
		if ix, err = unfold(items); err != nil {
			return unreadable{errors.Join(archive.ErrDamaged, err)}
		}
	}
}

// older is the key of what names the packs before those of a folded index; theirs are
// numbers.
const older = "older"

// fold is the oldest n packs of an index as items, and what named those before them.
func fold(ix deploy.PackIndex, n int) (out []archive.Item, err error) {
	for i, p := range ix.Packs[:n] {
		data, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		out = append(out, archive.Item{Key: fmt.Sprintf("%08d", i), Data: data})
	}
	return append(out, archive.Item{Key: older, Data: []byte(ix.Older)}), nil
}

// unfold is the reverse of fold.
func unfold(items []archive.Item) (ix deploy.PackIndex, err error) {
	for _, item := range items {
		if item.Key == older {
			ix.Older = deploy.Digest(item.Data)
			continue
		}
		var p deploy.Pack
		if err := json.Unmarshal(item.Data, &p); err != nil {
			return ix, fmt.Errorf("pack %s of a folded index: %w", item.Key, err)
		}
		ix.Packs = append(ix.Packs, p)
	}
	return ix, nil
}
