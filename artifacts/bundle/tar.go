package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/groundswell/groundswell/artifacts"
)

// walkTar reads a tar archive once from begin to end: through gzip if zipped
// says so, else through what it begins with, as tar does. With once, contents
// are not kept for a second reading.
func walkTar(ctx context.Context, name string, zipped, once bool, g *guard) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	raw := bufio.NewReaderSize(f, 256<<10)
	in, err := uncompressed(raw)
	if err != nil {
		return fmt.Errorf("not a tar archive (%w): %w", err, artifacts.ErrInvalid)
	}
	if _, gzipped := in.(*gunzip); zipped && !gzipped {
		return fmt.Errorf("not a tgz archive: it does not begin as gzip does: %w", artifacts.ErrInvalid)
	}
	t := &tarWalk{end: &endMark{r: in}, guard: g, sizes: map[string]int32{}, once: once}
	return t.run(ctx)
}

type tarWalk struct {
	end   *endMark
	guard *guard
	// sizes holds the files met, for hard links to them.
	sizes map[string]int32 // place in files
	files []linkable
	once  bool
	owner *artifacts.Owner // of the last file
}

// linkable is what a hard link to a file takes over.
type linkable struct {
	size  int64
	mtime artifacts.Time
	mode  fs.FileMode
	owner *artifacts.Owner
}

// shared is one owner for all files that have it: an archive has few.
func (t *tarWalk) shared(o artifacts.Owner) *artifacts.Owner {
	if t.owner == nil || *t.owner != o {
		t.owner = &o
	}
	return t.owner
}

func (t *tarWalk) run(ctx context.Context) error {
	spool := &spool{}
	defer spool.remove()
	r := tar.NewReader(t.end)
	last := ""
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			return t.end.check(last)
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are judged below
			return tarFault(last, err)
		}
		last = h.Name
		if err := t.entry(h, r, spool); err != nil {
			return err
		}
	}
}

func tarFault(last string, err error) error {
	if last == "" {
		return fmt.Errorf("not a tar archive (%w): %w", err, artifacts.ErrInvalid)
	}
	return fmt.Errorf("damaged after entry %.300q (%w): %w", last, err, artifacts.ErrInvalid)
}

func (t *tarWalk) entry(h *tar.Header, r io.Reader, s *spool) error {
	if h.Typeflag == tar.TypeXGlobalHeader { // git archive writes its commit here
		return nil
	}
	it, err := t.item(h)
	if err != nil || it.Path == "" {
		return err
	}
	if it.Type == artifacts.TypeFile && it.sameAs == "" {
		if it.Size > t.guard.left { // before it is spooled to disk
			return fmt.Errorf("entry %.300q: passes the limit of %d bytes in all: %w", h.Name, t.guard.limits.Bytes,
				artifacts.ErrInvalid)
		}
		if t.once {
			it.open = func() (io.ReadCloser, error) { return io.NopCloser(r), nil }
		} else if it.open, err = s.hold(r, it.Size); err != nil {
			return fmt.Errorf("entry %.300q: content (%w): %w", h.Name, err, artifacts.ErrInvalid)
		}
		t.sizes[it.Path] = int32(len(t.files)) // at most as many as the limit of entries, which is judged before
		t.files = append(t.files, linkable{it.Size, it.MTime, it.Mode, t.shared(it.Owner)})
	}
	if it.Type != artifacts.TypeFile {
		delete(t.sizes, it.Path)
	}
	return t.guard.item(it)
}

func (t *tarWalk) item(h *tar.Header) (item, error) {
	name, err := archivePath(h.Name)
	if err != nil || name == "" {
		return item{}, err
	}
	e := artifacts.Entry{Path: name}
	switch h.Typeflag {
	case tar.TypeDir:
		e.Type = artifacts.TypeDir
	case tar.TypeSymlink:
		e.Type, e.Target, e.Owner = artifacts.TypeSymlink, h.Linkname, tarOwner(h)
	case tar.TypeReg, tar.TypeGNUSparse:
		e.Type, e.Size = artifacts.TypeFile, h.Size
		e.Mode, e.MTime, e.Owner = permissions(h.FileInfo().Mode()), tarTime(h.ModTime), tarOwner(h)
	case tar.TypeLink:
		return t.hardLink(h, e)
	default:
		return item{}, fmt.Errorf("entry %q: type %s cannot be part of a bundle: %w", h.Name, tarType(h.Typeflag),
			artifacts.ErrInvalid)
	}
	return item{Entry: e, setID: e.Type == artifacts.TypeFile && hasSetID(h.FileInfo().Mode())}, nil
}

// hardLink makes a second file of the same content: releases share no inode
// within a tree either.
func (t *tarWalk) hardLink(h *tar.Header, e artifacts.Entry) (item, error) {
	target, err := archivePath(h.Linkname)
	if err != nil {
		return item{}, fmt.Errorf("entry %q: hard link: %w", h.Name, err)
	}
	at, ok := t.sizes[target]
	if !ok {
		return item{}, fmt.Errorf("entry %q: hard link to %q, which is no file before it: %w", h.Name, h.Linkname,
			artifacts.ErrInvalid)
	}
	t.sizes[e.Path] = at
	first := t.files[at]
	e.Type, e.Size, e.Mode, e.MTime, e.Owner = artifacts.TypeFile, first.size, first.mode, first.mtime, *first.owner
	return item{Entry: e, sameAs: target}, nil
}

func tarType(flag byte) string {
	switch flag {
	case tar.TypeChar, tar.TypeBlock:
		return "device"
	case tar.TypeFifo:
		return "named pipe"
	}
	return fmt.Sprintf("%q", flag)
}

// tarTime is the time that every entry of a tar states.
func tarTime(at time.Time) artifacts.Time { return artifacts.At(at.Unix()) }

func tarOwner(h *tar.Header) artifacts.Owner {
	if h.Uid == 0 && h.Gid == 0 {
		return artifacts.Owner{}
	}
	return artifacts.Owner{UID: h.Uid, GID: h.Gid, User: h.Uname, Group: h.Gname}
}

// endMark tells a whole archive from one cut off between two entries:
// archive/tar answers io.EOF to both, but only the cut one reads to the end
// of its input.
type endMark struct {
	r    io.Reader
	seen bool
}

func (m *endMark) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if n > 0 && err == io.EOF {
		return n, nil // the end mark itself may come together with the end
	}
	m.seen = m.seen || err == io.EOF
	return n, err
}

// maxTrailer is what may follow the end mark: padding of a tape record.
const maxTrailer = 1 << 20

func (m *endMark) check(last string) error {
	if m.seen {
		return fmt.Errorf("cut off after entry %.300q: no end mark: %w", last, artifacts.ErrInvalid)
	}
	n, err := io.Copy(io.Discard, io.LimitReader(m.r, maxTrailer)) // gzip's checksum lies behind it
	if err != nil {
		return fmt.Errorf("damaged after entry %.300q (%w): %w", last, err, artifacts.ErrInvalid)
	}
	if n == maxTrailer {
		return fmt.Errorf("more than %d bytes follow the end mark after entry %.300q: %w", maxTrailer, last,
			artifacts.ErrInvalid)
	}
	return nil
}

// spool keeps one entry of a stream at a time so that it can be read twice:
// small ones in memory, others in a temporary file without a name.
type spool struct {
	file *os.File
	mem  []byte
}

// inMemory is one part: what the packer holds at once anyway.
const inMemory = artifacts.MaxPart

func (s *spool) hold(r io.Reader, size int64) (func() (io.ReadCloser, error), error) {
	if size <= inMemory {
		buf := bytes.NewBuffer(s.mem[:0])
		if _, err := io.CopyN(buf, r, size); err != nil {
			return nil, short(err)
		}
		s.mem = buf.Bytes()
		return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(s.mem)), nil }, nil
	}
	if err := s.reset(); err != nil {
		return nil, err
	}
	if _, err := io.CopyN(s.file, r, size); err != nil {
		return nil, short(err)
	}
	return func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(s.file, 0, size)), nil }, nil
}

func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *spool) reset() error {
	if s.file != nil {
		if err := s.file.Truncate(0); err != nil {
			return err
		}
		_, err := s.file.Seek(0, io.SeekStart)
		return err
	}
	f, err := os.CreateTemp("", "groundswell-spool-")
	if err != nil {
		return err
	}
	s.file = f
	return os.Remove(f.Name())
}

func (s *spool) remove() {
	if s.file != nil {
		s.file.Close()
	}
}
