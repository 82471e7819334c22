package artifacts

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Keep returns the set of everything that the given revisions need: their
// files and the manifests themselves.
func Keep(revisions ...*Manifest) map[Sum]struct{} {
	keep := map[Sum]struct{}{}
	for _, m := range revisions {
		if sum, err := m.Digest().Sum(); err == nil { // a Manifest's digest is always valid
			keep[sum] = struct{}{}
		}
		for _, e := range m.entries {
			if e.Type == TypeFile {
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
// freed. What keep names stays even above maxBytes. Never call it while
// anything fetches or unpacks, nor right before: removing a large tree makes
// the next file creations several times slower for about a minute.
func (c *Cache) Prune(ctx context.Context, keep map[Sum]struct{}, maxBytes int64) (freed int64, err error) {
	loose, total, err := c.survey(ctx, keep)
	if err != nil {
		return 0, fmt.Errorf("prune cache: %w", err)
	}
	slices.SortFunc(loose, func(a, b cached) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.path, b.path))
	})
	for _, f := range loose {
		if !f.stale && total-freed <= maxBytes {
			continue
		}
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		if err := os.Remove(f.path); err != nil {
			return freed, fmt.Errorf("prune cache: %w", err)
		}
		freed += f.size
	}
	return freed, nil
}

type cached struct {
	path  string
	size  int64
	at    time.Time
	stale bool
}

// survey lists what may go and the size of all.
func (c *Cache) survey(ctx context.Context, keep map[Sum]struct{}) (loose []cached, total int64, err error) {
	err = filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		total += info.Size()
		sum, nameErr := parseSum(d.Name())
		_, kept := keep[sum]
		f := cached{path: path, size: info.Size(), at: info.ModTime()}
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
