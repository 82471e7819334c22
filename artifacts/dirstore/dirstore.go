// Package dirstore keeps artifacts in a directory, for one machine or a
// shared file system.
package dirstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/groundswell/groundswell/artifacts"
)

// Store is an [artifacts.Store] and [artifacts.Presigner] in one directory.
// An object is a file of mode 0644 named by its key; several processes may
// use the directory at once.
type Store struct{ dir string }

// temp is where objects are written before they get their name; no key
// begins with a dot.
const temp = ".tmp"

// New returns the store in dir, an absolute path, and creates it if need be.
func New(dir string) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open store in directory %q: want an absolute path: %w", dir, artifacts.ErrInvalid)
	}
	if err := os.MkdirAll(filepath.Join(dir, temp), 0o755); err != nil {
		return nil, fmt.Errorf("open store in directory: %w", err)
	}
	return &Store{dir: filepath.Clean(dir)}, nil
}

// NewURL returns the store of a file:///absolute/path URL.
func NewURL(u *url.URL) (*Store, error) {
	switch {
	case u.Host != "" && u.Host != "localhost":
		return nil, fmt.Errorf("open store %s: the URL names host %q: write file:///absolute/path: %w", u.Redacted(),
			u.Host, artifacts.ErrInvalid)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("open store %s: a file URL takes no parameters: %w", u.Redacted(), artifacts.ErrInvalid)
	}
	return New(u.Path)
}

// Put implements [artifacts.Store]: write to a temporary file, fsync, rename,
// fsync the directory.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := artifacts.CheckKey(key); err != nil {
		return err
	}
	if err := s.put(ctx, key, r, size); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, r io.Reader, size int64) (err error) {
	name := s.path(key)
	if err := mkdirs(s.dir, filepath.Dir(name)); err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(name, renameio.WithTempDir(filepath.Join(s.dir, temp)),
		renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, artifacts.SizedReader(reader{ctx, r}, size, "content")); err != nil {
		return errors.Join(err, f.Cleanup())
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return errors.Join(err, f.Cleanup())
	}
	return syncDir(filepath.Dir(name))
}

// mkdirs creates the directories below root that lead to dir, each durable.
func mkdirs(root, dir string) error {
	if dir == root {
		return nil
	}
	if err := mkdirs(root, filepath.Dir(dir)); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// reader ends a copy when ctx does.
type reader struct {
	ctx context.Context //nolint:containedctx // lives for one call
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Open implements [artifacts.Opener].
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := errors.Join(artifacts.CheckKey(key), artifacts.CheckRange(key, offset, length), ctx.Err()); err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(key))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, notFound(err))
	}
	r, err := artifacts.FileRange(f, offset, length)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, errors.Join(err, f.Close()))
	}
	return struct {
		io.Reader
		io.Closer
	}{reader{ctx, artifacts.FullBody(r, length, "read "+key)}, r}, nil
}

// Stat implements [artifacts.Store].
func (s *Store) Stat(ctx context.Context, key string) (int64, error) {
	if err := errors.Join(artifacts.CheckKey(key), ctx.Err()); err != nil {
		return 0, err
	}
	info, err := os.Stat(s.path(key))
	if err != nil {
		return 0, fmt.Errorf("stat %s: %w", key, notFound(err))
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("stat %s: %w", key, artifacts.ErrNotFound)
	}
	return info.Size(), nil
}

// Delete implements [artifacts.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := errors.Join(artifacts.CheckKey(key), ctx.Err()); err != nil {
		return err
	}
	if err := os.Remove(s.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// Presign implements [artifacts.Presigner]: the object's file:// URL, good
// for whoever may read the directory, and for ever.
func (s *Store) Presign(_ context.Context, key string, _ time.Duration) (string, error) {
	if err := artifacts.CheckKey(key); err != nil {
		return "", err
	}
	return (&url.URL{Scheme: "file", Path: s.path(key)}).String(), nil
}

func (s *Store) path(key string) string { return filepath.Join(s.dir, filepath.FromSlash(key)) }

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", artifacts.ErrNotFound, err)
	}
	return err
}
