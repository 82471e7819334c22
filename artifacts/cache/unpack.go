package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/tree"
	"github.com/groundswell/groundswell/internal/room"
)

// Unpack builds revision m from the cache in dest, which must not exist and
// whose parent must. Every file is a copy of its own (a reflink where the
// file system has them), hashed as it is written: an edit of the tree, even
// by root, reaches no cache entry and no other release, and damage in the
// cache never reaches a release. Directories are 0755; files have the
// manifest's modes, times and, as root, owners; symlinks come last.
//
// On return the tree is durable (one syncfs) and complete; the caller renames
// or links it into place. On error dest is removed. A content that the cache
// lacks is an [artifacts.ErrNotFound]; a damaged one is dropped from the cache and an
// [artifacts.ErrDigestMismatch]; too little room is an [ErrNoSpace]. All name the file.
func (c *Cache) Unpack(ctx context.Context, m *artifacts.Manifest, dest string) error {
	return c.unpack(ctx, m, dest, nil)
}

// unpack is Unpack; with a mover, files leave the cache where they can.
func (c *Cache) unpack(ctx context.Context, m *artifacts.Manifest, dest string, v *mover) error {
	if err := c.checkRoom(m, filepath.Dir(dest), v); err != nil {
		return fmt.Errorf("unpack %s: %w", m.Digest(), err)
	}
	if err := os.Mkdir(dest, 0o755); err != nil {
		return fmt.Errorf("unpack %s: %w", m.Digest(), err)
	}
	if err := c.unpackInto(ctx, m, dest, v); err != nil {
		return fmt.Errorf("unpack %s to %s: %w", m.Digest(), dest, errors.Join(room.Marked(err), os.RemoveAll(dest)))
	}
	return nil
}

// checkRoom asks for the room of what will be created in dir: a file that
// moves there from the cache is on the disk already.
func (c *Cache) checkRoom(m *artifacts.Manifest, dir string, v *mover) error {
	bytes, entries := m.Bytes(), m.Len()
	if v != nil && sameDevice(c.dir, dir) {
		bytes, entries = v.copied(m), m.Len()-m.Files()
	}
	return room.Check(dir, bytes, entries)
}

func sameDevice(a, b string) bool {
	var sa, sb unix.Stat_t
	return unix.Stat(a, &sa) == nil && unix.Stat(b, &sb) == nil && sa.Dev == sb.Dev
}

func (c *Cache) unpackInto(ctx context.Context, m *artifacts.Manifest, dest string, v *mover) error {
	root, err := os.OpenRoot(dest)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{cache: c, root: root, owners: tree.NewOwners(m), mover: v}
	if err := u.dirs(m); err != nil {
		return err
	}
	if err := u.files(ctx, m); err != nil {
		return err
	}
	if err := u.owners.MakeLinks(root, m); err != nil {
		return err
	}
	return tree.Sync(root)
}

type unpacker struct {
	cache  *Cache
	root   *os.Root
	owners tree.Owners
	mover  *mover // nil copies
	// noClone is set once the file system has refused a reflink.
	noClone atomic.Bool
}

// dirs creates all directories, parents first as a manifest lists them.
func (u *unpacker) dirs(m *artifacts.Manifest) error {
	info, err := u.root.Stat(".")
	if err != nil {
		return err
	}
	masked := info.Mode().Perm() != 0o755 // the umask takes bits away
	if masked {
		if err := u.root.Chmod(".", 0o755); err != nil {
			return err
		}
	}
	for e := range m.All() {
		if e.Type != artifacts.TypeDir {
			continue
		}
		err := u.root.Mkdir(e.Path, 0o755)
		if err == nil && masked {
			err = u.root.Chmod(e.Path, 0o755)
		}
		if err != nil {
			return fmt.Errorf("directory %q: %w", e.Path, err)
		}
	}
	return nil
}

// unpackWorkers creates files in different directories at once: creating is
// the cost of an install, and ext4 locks by directory.
const unpackWorkers = 4

// files writes all files, one worker a directory, since resolving names
// below an open directory is what os.Root does cheaply.
func (u *unpacker) files(ctx context.Context, m *artifacts.Manifest) error {
	byDir := map[string][]artifacts.Entry{}
	for e := range m.All() {
		if e.Type == artifacts.TypeFile {
			byDir[path.Dir(e.Path)] = append(byDir[path.Dir(e.Path)], e)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan []artifacts.Entry)
	var group sync.WaitGroup
	for range unpackWorkers {
		group.Go(func() {
			for entries := range queue {
				if err := u.dir(ctx, entries); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, entries := range byDir {
		queue <- entries
	}
	close(queue)
	group.Wait()
	return context.Cause(ctx)
}

// dir writes files that share a directory; a context that ended makes it
// return at once.
func (u *unpacker) dir(ctx context.Context, entries []artifacts.Entry) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	dir, err := u.root.OpenRoot(path.Dir(entries[0].Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	at, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer at.Close()
	for _, e := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := u.file(dir, at, e); err != nil {
			return fmt.Errorf("file %q: %w", e.Path, err)
		}
	}
	return nil
}
