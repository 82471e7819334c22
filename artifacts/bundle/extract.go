package bundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/tree"
	"github.com/groundswell/groundswell/internal/room"
)

// Extract unpacks the bundle into dest, which must not exist and whose parent
// must, in a single pass: each content is hashed as it is written and written
// once. It refuses what [Pack] refuses, drops a single top directory likewise,
// and sets the attributes that [cache.Cache.Unpack] sets.
//
// On return the tree is durable (one syncfs) and is what the manifest says; on
// error dest is removed. Memory does not depend on the size of the files.
func (s Source) Extract(ctx context.Context, dest string) (*artifacts.Manifest, error) {
	if err := os.Mkdir(dest, 0o755); err != nil {
		return nil, fmt.Errorf("unpack bundle %s: %w", s.Path, err)
	}
	m, err := s.extract(ctx, dest)
	if err != nil {
		return nil, fmt.Errorf("unpack bundle %s: %w", s.Path, errors.Join(room.Marked(err), os.RemoveAll(dest)))
	}
	return m, nil
}

func (s Source) extract(ctx context.Context, dest string) (*artifacts.Manifest, error) {
	root, err := os.OpenRoot(dest)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := root.Chmod(".", 0o755); err != nil { // whatever the umask is
		return nil, err
	}
	s.once = true
	x := &extractor{
		root: root, owners: tree.Owners{}, sums: map[string]artifacts.Sum{}, made: map[string]bool{".": true},
		buf: make([]byte, 128<<10),
	}
	defer x.leave()
	if err := s.walk(ctx, x.add); err != nil {
		return nil, err
	}
	top := s.strips(x.entries)
	m, err := s.manifest(x.entries, top)
	if err != nil {
		return nil, err
	}
	if err := x.dropTop(top); err != nil {
		return nil, err
	}
	if err := x.owners.MakeLinks(root, m); err != nil { // last: nothing was written through one
		return nil, err
	}
	return m, tree.Sync(root)
}

// extractor writes items below root as they come. It is for one goroutine.
type extractor struct {
	root    *os.Root
	owners  tree.Owners
	entries []artifacts.Entry
	sums    map[string]artifacts.Sum // of files, for hard links
	summed  int                      // entries that sums knows
	made    map[string]bool          // directories
	dir     *os.File                 // the directory of the last file
	at      string
	buf     []byte
}

func (x *extractor) add(it item) error {
	var err error
	switch {
	case it.Type == artifacts.TypeDir:
		err = x.mkdir(it.Path)
	case it.Type == artifacts.TypeFile && it.sameAs != "":
		it.Sum = x.sumOf(it.sameAs)
		err = x.copyOf(it)
	case it.Type == artifacts.TypeFile:
		it.Sum, err = x.file(it.Entry, it.open)
	}
	if err != nil {
		return fmt.Errorf("entry %q: %w", it.Path, err)
	}
	x.entries = append(x.entries, it.Entry)
	return nil
}

// sumOf is the content of the file that is at a path by now.
func (x *extractor) sumOf(path string) artifacts.Sum {
	for _, e := range x.entries[x.summed:] {
		if e.Type == artifacts.TypeFile {
			x.sums[e.Path] = e.Sum
		}
	}
	x.summed = len(x.entries)
	return x.sums[path]
}

// mkdir makes a directory and those above it that the archive does not list.
func (x *extractor) mkdir(p string) error {
	if x.made[p] {
		return nil
	}
	if err := x.mkdir(path.Dir(p)); err != nil {
		return err
	}
	if err := x.root.Mkdir(p, 0o755); err != nil {
		return listedTwice(err)
	}
	x.made[p] = true
	return x.root.Chmod(p, 0o755) // whatever the umask is
}

// listedTwice says of a name that is taken what that means here: the folder
// was empty.
func listedTwice(err error) error {
	if errors.Is(err, os.ErrExist) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("listed twice, or below a file (%w): %w", err, artifacts.ErrInvalid)
	}
	return err
}

// enter opens the directory of a file, which is mostly that of the last one:
// names below an open directory are what os.Root resolves cheaply.
func (x *extractor) enter(dir string) error {
	if x.dir != nil && x.at == dir {
		return nil
	}
	if err := x.mkdir(dir); err != nil {
		return err
	}
	next, err := x.root.Open(dir)
	if err != nil {
		return err
	}
	x.leave()
	x.dir, x.at = next, dir
	return nil
}

// create makes a file in the open directory. The name is one part of a path
// that was judged, and no link: nothing that it says leads elsewhere. It is
// opened by the system call itself, which costs a third of what os.Root does
// for each file.
func (x *extractor) create(name string) (*os.File, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	for {
		fd, err := unix.Openat(int(x.dir.Fd()), name, flags, 0o600)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EEXIST) && unix.Unlinkat(int(x.dir.Fd()), name, 0) == nil {
			continue // listed before: the last one counts
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

func (x *extractor) leave() {
	if x.dir != nil {
		x.dir.Close()
	}
}

// file writes one content and hashes it on the way.
func (x *extractor) file(e artifacts.Entry, open func() (io.ReadCloser, error)) (artifacts.Sum, error) {
	if err := x.enter(path.Dir(e.Path)); err != nil {
		return artifacts.Sum{}, err
	}
	in, err := open()
	if err != nil {
		return artifacts.Sum{}, err
	}
	defer in.Close()
	out, err := x.create(path.Base(e.Path))
	if err != nil {
		return artifacts.Sum{}, listedTwice(err)
	}
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(out, h)},
		struct{ io.Reader }{io.LimitReader(in, e.Size+1)}, x.buf)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || err == nil && n != e.Size:
		err = fmt.Errorf("content has %d bytes, %d are stated: %w", n, e.Size, artifacts.ErrInvalid)
	case err == nil:
		x.owners.Learn(e.Owner)
		err = x.owners.SetAttributes(x.dir, out, e)
	}
	return artifacts.Sum(h.Sum(nil)), errors.Join(err, out.Close())
}

// copyOf writes a hard link of the archive as a copy of its own.
func (x *extractor) copyOf(it item) error {
	_, err := x.file(it.Entry, func() (io.ReadCloser, error) { return x.root.Open(it.sameAs) })
	return err
}

// dropTop moves what lies in the single top directory up.
func (x *extractor) dropTop(top string) error {
	if top == "" {
		return nil
	}
	x.leave()
	x.dir = nil
	const aside = ".groundswell-top" // no name of the archive: top was its only entry
	if err := x.root.Rename(path.Clean(top), aside); err != nil {
		return err
	}
	dir, err := x.root.Open(aside)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if err := x.root.Rename(path.Join(aside, name), name); err != nil {
			return err
		}
	}
	return x.root.Remove(aside)
}
