package artifacts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Donor is a revision unpacked on this host. Its files may have been edited
// since; what is taken from it is verified like anything else.
type Donor struct {
	Digest Digest
	Dir    string
}

// fromDonors copies into the cache what m needs, the cache lacks and a
// revision on disk has. It is an economy: whatever goes wrong with a donor, a
// full disk aside, is left to the store.
func (f *Fetcher) fromDonors(ctx context.Context, m *Manifest) error {
	missing := map[Sum]int64{}
	for e := range m.contents() {
		if !f.Cache.Has(e.Sum, e.Size) {
			missing[e.Sum] = e.Size
		}
	}
	for _, d := range f.Donors {
		if len(missing) == 0 {
			return nil
		}
		donor, err := f.Cache.Manifest(d.Digest)
		if err != nil {
			continue
		}
		if err := f.Cache.adoptFrom(ctx, donor, d.Dir, missing, f.took); err != nil {
			return err
		}
	}
	return nil
}

// adoptFrom copies those contents of the tree in dir that are missing, takes
// them off the list and tells of each.
func (c *Cache) adoptFrom(ctx context.Context, m *Manifest, dir string, missing map[Sum]int64, got func(Sum)) error {
	for e := range m.contents() {
		if _, wanted := missing[e.Sum]; !wanted {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		err := c.putFile(e, filepath.Join(dir, filepath.FromSlash(e.Path)))
		switch {
		case errors.Is(err, ErrNoSpace):
			return err
		case err == nil:
			delete(missing, e.Sum)
			got(e.Sum)
		}
	}
	return nil
}

func (c *Cache) putFile(e Entry, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	return c.Put(e.Sum, e.Size, in)
}

// Refill copies into the cache what revision m, unpacked in dir, has and the
// cache lacks, so that the next revision can take it over. Files that were
// edited are left out. It is for idle times: it reads the whole revision.
func (c *Cache) Refill(ctx context.Context, m *Manifest, dir string) error {
	missing := map[Sum]int64{}
	var bytes int64
	for e := range m.contents() {
		if !c.Has(e.Sum, e.Size) {
			missing[e.Sum] = e.Size
			bytes += e.Size
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := checkSpace(c.dir, bytes, len(missing)); err != nil {
		return fmt.Errorf("refill cache: %w", err)
	}
	if err := c.adoptFrom(ctx, m, dir, missing, func(Sum) {}); err != nil {
		return fmt.Errorf("refill cache from %s: %w", dir, err)
	}
	return c.sync() // now, not with the next revision's
}

// sync writes out what the file system of the cache still has in memory.
func (c *Cache) sync() error {
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return fmt.Errorf("sync cache: %w", err)
	}
	return errors.Join(syncFS(root), root.Close())
}
