package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/tree"
	"github.com/groundswell/groundswell/internal/room"
)

// Basis is a revision unpacked on this host. Its files may have been edited
// since; what is taken from it is verified like anything else.
type Basis struct {
	Digest artifacts.Digest
	Dir    string
}

// fromBases copies into the cache what m needs, the cache lacks and a
// revision on disk has. It is an economy: whatever goes wrong with a basis, a
// full disk aside, is left to the store.
func (f *Fetcher) fromBases(ctx context.Context, m *artifacts.Manifest) error {
	missing := map[artifacts.Sum]int64{}
	for e := range m.Contents() {
		if !f.Cache.Has(e.Sum, e.Size) {
			missing[e.Sum] = e.Size
		}
	}
	for _, d := range f.Bases {
		if len(missing) == 0 {
			return nil
		}
		basis, err := f.Cache.Manifest(d.Digest)
		if err != nil {
			continue
		}
		if err := f.Cache.adoptFrom(ctx, basis, d.Dir, missing, f.took); err != nil {
			return err
		}
	}
	return nil
}

// adoptFrom copies those contents of the tree in dir that are missing, takes
// them off the list and tells of each.
func (c *Cache) adoptFrom(ctx context.Context, m *artifacts.Manifest, dir string, missing map[artifacts.Sum]int64,
	got func(artifacts.Sum),
) error {
	for e := range m.Contents() {
		if _, wanted := missing[e.Sum]; !wanted {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		err := c.putFile(e, dir)
		switch {
		case errors.Is(err, artifacts.ErrNoSpace):
			return err
		case err == nil:
			delete(missing, e.Sum)
			got(e.Sum)
		}
	}
	return nil
}

// putFile adds the content of an entry of the tree in dir.
func (c *Cache) putFile(e artifacts.Entry, dir string) error {
	path := filepath.FromSlash(e.Path)
	if st, err := os.Lstat(filepath.Join(dir, path)); err != nil || !st.Mode().IsRegular() {
		// a hook made it something else
		return fmt.Errorf("%s of %s is no regular file any more: %w", e.Path, dir, artifacts.ErrNotFound)
	}
	in, err := os.OpenInRoot(dir, path)
	if err != nil {
		return err
	}
	defer in.Close()
	return c.Put(e.Sum, e.Size, in)
}

// Refill copies into the cache what revision m, unpacked in dir, has and the
// cache lacks, so that the next revision can take it over. Files that were
// edited are left out. It is for idle times: it reads the whole revision. It
// ends, without an error, where less than keepFree bytes would be left free; work
// that begins meanwhile needs them.
func (c *Cache) Refill(ctx context.Context, m *artifacts.Manifest, dir string, keepFree int64) error {
	added := 0
	for e := range m.Contents() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("refill cache from %s: %w", dir, err)
		}
		if c.Has(e.Sum, e.Size) || room.Check(c.dir, e.Size+keepFree, 1) != nil {
			continue
		}
		if err := c.putFile(e, dir); err == nil { // else it was edited: the store has it
			added++
		}
	}
	if added == 0 {
		return nil
	}
	return c.sync() // now, not with the next revision's
}

// sync writes out what the file system of the cache still has in memory.
func (c *Cache) sync() error {
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return fmt.Errorf("sync cache: %w", err)
	}
	return errors.Join(tree.Sync(root), root.Close())
}
