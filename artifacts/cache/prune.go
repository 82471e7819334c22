package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/groundswell/groundswell/artifacts"
)

// Keep returns the set of everything that the given revisions need: their
// files and the manifests themselves.
func Keep(revisions ...*artifacts.Manifest) map[artifacts.Sum]struct{} {
	keep := map[artifacts.Sum]struct{}{}
	for _, m := range revisions {
		if sum, err := m.Digest().Sum(); err == nil { // a Manifest's digest is always valid
			keep[sum] = struct{}{}
		}
		for e := range m.All() {
			if e.Type == artifacts.TypeFile {
				keep[e.Sum] = struct{}{}
			}
		}
	}
	return keep
}

// staleTemp is how old a temporary file must be to be a crash's leftover:
// no transfer takes a day.
const staleTemp = 24 * time.Hour

// Prune removes the oldest entries that are not in keep until the cache
// holds at most maxBytes, and leftovers of crashes. It returns the bytes
// freed. What keep names stays even above maxBytes, and so does what is being
// staged. Do not call it right before an install: removing a large tree makes
// the next file creations several times slower for about a minute.
func (c *Cache) Prune(ctx context.Context, keep map[artifacts.Sum]struct{}, maxBytes int64) (freed int64, err error) {
	loose, total, err := c.survey(ctx, keep)
	if err != nil {
		return 0, fmt.Errorf("prune cache: %w", err)
	}
	freed, err = c.evictAll(ctx, loose, func(f cached, freed int64) bool { return f.stale || total-freed > maxBytes })
	if err != nil {
		return freed, fmt.Errorf("prune cache: %w", err)
	}
	return freed, nil
}

// Evict removes the oldest entries, and leftovers of crashes, until enough
// answers true: the disk is needed for something else, and all of it can be
// fetched again. What is in keep, or being staged, stays.
func (c *Cache) Evict(ctx context.Context, keep map[artifacts.Sum]struct{}, enough func() bool) error {
	loose, _, err := c.survey(ctx, keep)
	if err == nil {
		_, err = c.evictAll(ctx, loose, func(cached, int64) bool { return !enough() })
	}
	if err != nil {
		return fmt.Errorf("evict from cache: %w", err)
	}
	return nil
}

// evictAll evicts, the oldest first, what is due, and returns the bytes freed.
func (c *Cache) evictAll(
	ctx context.Context, loose []cached, due func(f cached, freed int64) bool,
) (freed int64, err error) {
	slices.SortFunc(loose, func(a, b cached) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.path, b.path))
	})
	for _, f := range loose {
		if !due(f, freed) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		gone, err := c.evict(f)
		if err != nil {
			return freed, err
		}
		if gone {
			freed += f.size
		}
	}
	return freed, nil
}

type cached struct {
	path  string
	sum   artifacts.Sum
	size  int64
	at    time.Time
	stale bool
}

// survey lists what may go and the size of all.
func (c *Cache) survey(ctx context.Context, keep map[artifacts.Sum]struct{}) (loose []cached, total int64, err error) {
	err = filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // stagings come and go beside this
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		total += info.Size()
		sum, nameErr := artifacts.ParseSum(d.Name())
		_, kept := keep[sum]
		f := cached{path: path, sum: sum, size: info.Size(), at: info.ModTime()}
		switch {
		case nameErr != nil:
			if f.stale = time.Since(f.at) > staleTemp; f.stale {
				loose = append(loose, f)
			}
		case !kept:
			loose = append(loose, f)
		}
		return nil
	})
	return loose, total, err
}
