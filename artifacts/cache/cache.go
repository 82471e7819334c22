package cache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/internal/room"
)

// Cache keeps content on this host by its sha256, so that a revision moves
// only what changed and a rollback moves nothing. Several goroutines may use
// it; one process owns its folder.
//
// An entry appears by rename after its content was verified, so a reader
// never meets half of one. Entries are not synced: after a power loss one may
// be empty or damaged. That is safe because [Cache.Unpack] hashes what it
// copies and drops an entry that is not what its name says.
type Cache struct {
	dir     string
	buffers sync.Pool
	claims  claims
}

const cacheTemp = "tmp"

// Open opens the cache in dir and creates it if need be, mode 0700:
// bundles may hold secrets.
func Open(dir string) (*Cache, error) {
	if err := os.MkdirAll(filepath.Join(dir, cacheTemp), 0o700); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	c := &Cache{dir: dir}
	c.buffers.New = func() any { return new([copyBuffer]byte) }
	return c, nil
}

// copyBuffer is one read of a worker: larger ones gain nothing.
const copyBuffer = 128 << 10

// Dir returns the cache's folder.
func (c *Cache) Dir() string { return c.dir }

// Has reports whether the cache has an entry of that name and size. It does
// not hash it: a damaged entry is found when it is copied.
func (c *Cache) Has(sum artifacts.Sum, size int64) bool {
	info, err := os.Lstat(c.path(sum))
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// Open returns the entry's file for reading, or an error for which
// [artifacts.IsNotExist] holds. The caller verifies what it reads and closes it.
func (c *Cache) Open(sum artifacts.Sum) (*os.File, error) {
	f, err := os.Open(c.path(sum))
	if err != nil {
		return nil, fmt.Errorf("open cache entry: %w", err)
	}
	return f, nil
}

// Put reads r to its end and keeps it as sum. Content of another size or
// digest is refused with [artifacts.ErrDigestMismatch] and leaves nothing behind.
func (c *Cache) Put(sum artifacts.Sum, size int64, r io.Reader) error {
	f, err := os.CreateTemp(filepath.Join(c.dir, cacheTemp), "put-") // O_EXCL, 0600
	if err != nil {
		return fmt.Errorf("add to cache: %w", room.Marked(err))
	}
	if err := c.fill(f, sum, size, r); err != nil {
		return fmt.Errorf("add %s to cache: %w", sum, errors.Join(room.Marked(err), os.Remove(f.Name())))
	}
	return nil
}

func (c *Cache) fill(f *os.File, sum artifacts.Sum, size int64, r io.Reader) error {
	err := c.copyVerified(f, sum, size, r)
	if err = errors.Join(err, f.Chmod(0o400), f.Close()); err != nil {
		return err
	}
	return c.adopt(f.Name(), sum)
}

// adopt renames a verified file to its name.
func (c *Cache) adopt(temp string, sum artifacts.Sum) error {
	err := os.Rename(temp, c.path(sum))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(filepath.Dir(c.path(sum)), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Rename(temp, c.path(sum))
}

// copyVerified copies r to w, and refuses more or fewer than size bytes and
// any other digest.
func (c *Cache) copyVerified(w io.Writer, sum artifacts.Sum, size int64, r io.Reader) error {
	buf := c.buffers.Get().(*[copyBuffer]byte)
	defer c.buffers.Put(buf)
	h := sha256.New()
	// The struct hides ReadFrom and WriteTo, which would bypass the hash's
	// share of the buffer.
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(w, h)},
		struct{ io.Reader }{io.LimitReader(r, size+1)}, buf[:])
	if err != nil {
		return err
	}
	if got := artifacts.Sum(h.Sum(nil)); n != size || got != sum {
		return fmt.Errorf("%d bytes of sha256 %s, want %d of %s: %w", n, got, size, sum, artifacts.ErrDigestMismatch)
	}
	return nil
}

// Drop removes an entry; one that is not there is no error.
func (c *Cache) Drop(sum artifacts.Sum) error {
	if err := os.Remove(c.path(sum)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop cache entry: %w", err)
	}
	return nil
}

// Manifest returns the manifest of d if the cache holds it whole, or an
// error for which [artifacts.IsNotExist] holds or that is [ErrDigestMismatch].
func (c *Cache) Manifest(d artifacts.Digest) (*artifacts.Manifest, error) {
	sum, err := d.Sum()
	if err != nil {
		return nil, err
	}
	f, err := c.Open(sum)
	if err != nil {
		return nil, fmt.Errorf("cached manifest %s: %w", d, err)
	}
	defer f.Close()
	m, err := artifacts.ReadManifest(f, d)
	if err != nil {
		return nil, fmt.Errorf("cached manifest %s: %w", d, err)
	}
	return m, nil
}

// PutManifest keeps m, so that its revision can be installed again without
// the store.
func (c *Cache) PutManifest(m *artifacts.Manifest) error {
	var text bytes.Buffer
	if err := m.Encode(&text); err != nil {
		return err
	}
	sum, err := m.Digest().Sum()
	if err != nil {
		return err
	}
	return c.Put(sum, int64(text.Len()), &text)
}

func (c *Cache) path(sum artifacts.Sum) string {
	name := sum.String()
	return filepath.Join(c.dir, name[:2], name)
}
