package bundle

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/groundswell/groundswell/artifacts"
)

// Type says how a bundle is wrapped.
type Type string

// The bundle types, named as CodeDeploy names them. As for the program tar, a
// tar may be compressed by gzip, bzip2 or xz; a tgz is.
const (
	Directory Type = "directory"
	Zip       Type = "zip"
	Tar       Type = "tar"
	Tgz       Type = "tgz"
)

// ParseType returns the type of that name, or an error that lists the
// legal ones and wraps [artifacts.ErrInvalid].
func ParseType(s string) (Type, error) {
	switch t := Type(s); t {
	case Directory, Zip, Tar, Tgz:
		return t, nil
	}
	return "", fmt.Errorf("bundle type %q: use one of directory, zip, tar, tgz: %w", s, artifacts.ErrInvalid)
}

// Source is a bundle on disk that is to be packed. It must not change while
// it is read. The zero values of Limits and SpecFile mean the defaults.
type Source struct {
	Path string
	Type Type
	// SpecFile is the appspec's name if it is not appspec.yml or
	// appspec.yaml. An archive whose only top entry is a directory that holds
	// it is read as if that level were not there.
	SpecFile string
	Limits   artifacts.Limits
	// Dropped, if set, is told of each file whose setuid or setgid bit is left
	// out, as it is read.
	Dropped func(path string)

	// once says that each content is read at most once, while it is visited.
	once bool
}

// Open looks at path and returns it as a Source, its type found from
// its content, never from its name. An error says what it is instead.
func Open(path string) (Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Source{}, fmt.Errorf("open bundle: %w", err)
	}
	if info.IsDir() {
		return Source{Path: path, Type: Directory}, nil
	}
	if !info.Mode().IsRegular() {
		return Source{}, fmt.Errorf("open bundle %s: neither a directory nor a regular file: %w", path,
			artifacts.ErrInvalid)
	}
	t, err := sniff(path)
	if err != nil {
		return Source{}, fmt.Errorf("open bundle %s: %w", path, err)
	}
	return Source{Path: path, Type: t}, nil
}

func sniff(path string) (Type, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return "", err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return Zip, nil
	case bytes.HasPrefix(head, magicGzip):
		return Tgz, nil
	case bytes.HasPrefix(head, magicBzip2), bytes.HasPrefix(head, magicXZ), isTarHeader(head):
		return Tar, nil
	}
	return "", fmt.Errorf("neither a directory nor a zip, tar or tgz archive, nor a tar.bz2 or tar.xz: %w",
		artifacts.ErrInvalid)
}

// isTarHeader knows a header by its checksum, which the oldest kind has too.
func isTarHeader(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	stated, err := strconv.ParseUint(string(bytes.Trim(head[148:156], " \x00")), 8, 32)
	sum := uint64(8 * ' ') // the field itself counts as spaces
	for i, b := range head[:512] {
		if i < 148 || i >= 156 {
			sum += uint64(b)
		}
	}
	return err == nil && sum == stated
}

// item is one thing found in a source. Its name is clean and safe; open is
// set for files, and may be called more than once until visit returns.
type item struct {
	artifacts.Entry
	open func() (io.ReadCloser, error)
	// setID says that a setuid or setgid bit was left out.
	setID bool
	// sameAs is set for a hard link: the file, met before, whose content this
	// one shares.
	sameAs string
}

type visitor func(item) error

// walk calls visit for each item, in the order of the source.
func (s Source) walk(ctx context.Context, visit visitor) error {
	g := &guard{left: s.Limits.OrDefault().Bytes, limits: s.Limits.OrDefault(), visit: visit, dropped: s.Dropped}
	var err error
	switch s.Type {
	case Directory:
		err = walkDir(ctx, s.Path, g)
	case Zip:
		err = walkZip(ctx, s.Path, g)
	case Tar, Tgz:
		err = walkTar(ctx, s.Path, s.Type == Tgz, s.once, g)
	default:
		_, err = ParseType(string(s.Type))
	}
	if err != nil {
		return fmt.Errorf("read bundle %s: %w", s.Path, err)
	}
	return nil
}

// guard applies to every item what must hold before its content is read.
type guard struct {
	limits  artifacts.Limits
	entries int
	left    int64
	visit   visitor
	dropped func(path string)
}

func (g *guard) item(it item) error {
	if g.entries++; g.entries > g.limits.Entries {
		return fmt.Errorf("entry %.300q: more than %d entries: %w", it.Path, g.limits.Entries, artifacts.ErrInvalid)
	}
	if it.Type == artifacts.TypeFile && it.sameAs == "" {
		if it.Size < 0 || it.Size > g.left {
			return fmt.Errorf("entry %.300q: passes the limit of %d bytes in all: %w", it.Path, g.limits.Bytes,
				artifacts.ErrInvalid)
		}
		g.left -= it.Size
	}
	if it.setID && g.dropped != nil {
		g.dropped(it.Path)
	}
	return g.visit(it)
}

// archivePath returns the clean form of a name in an archive ("./a/" is
// "a", "." is ""), or an error that says why the name is refused.
func archivePath(name string) (string, error) {
	trimmed := strings.TrimSuffix(name, "/")
	for strings.HasPrefix(trimmed, "./") {
		trimmed = trimmed[2:]
	}
	if trimmed == "." || name == "./" {
		return "", nil
	}
	if slices.Contains(strings.Split(trimmed, "/"), "..") || strings.HasPrefix(name, "/") || trimmed == "" {
		return "", artifacts.CheckPath(name)
	}
	clean := path.Clean(trimmed)
	return clean, artifacts.CheckPath(clean)
}

// permissions keeps what a bundle may carry: setuid, setgid and sticky bits
// are masked.
func permissions(mode fs.FileMode) fs.FileMode { return mode & fs.ModePerm }

// hasSetID reports whether permissions leaves out what CodeDeploy keeps.
func hasSetID(mode fs.FileMode) bool { return mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 }

// strips returns the top directory to drop from an archive's paths, with
// its slash, or "".
func (s Source) strips(entries []artifacts.Entry) string {
	if s.Type == Directory || len(entries) == 0 {
		return ""
	}
	top, _, _ := strings.Cut(entries[0].Path, "/")
	hasSpec := false
	for _, e := range entries {
		rest, inside := strings.CutPrefix(e.Path, top+"/")
		if !inside && (e.Path != top || e.Type != artifacts.TypeDir) {
			return ""
		}
		hasSpec = hasSpec || inside && e.Type == artifacts.TypeFile && slices.Contains(s.specNames(), rest)
	}
	if !hasSpec {
		return ""
	}
	return top + "/"
}

// Check judges names, kinds and links as [Pack] does, without reading a
// content of a folder.
func (s Source) Check(ctx context.Context) error {
	var entries []artifacts.Entry
	s.once = true
	err := s.walk(ctx, func(it item) error {
		entries = append(entries, it.Entry)
		return nil
	})
	if err == nil {
		_, err = s.manifest(entries, s.strips(entries))
	}
	if err != nil {
		return fmt.Errorf("bundle %s: %w", s.Path, err)
	}
	return nil
}

func (s Source) specNames() []string {
	if s.SpecFile != "" {
		return []string{s.SpecFile}
	}
	return []string{"appspec.yml", "appspec.yaml"}
}

// maxRead bounds ReadFile: an appspec is a few kilobytes.
const maxRead = 1 << 20

// ReadFile returns one file of the bundle by the path that it will have in
// the revision, such as its appspec before it is pushed. A file that is not
// there is an error for which [artifacts.IsNotExist] holds; one of more than 1 MiB is
// refused.
func (s Source) ReadFile(ctx context.Context, name string) ([]byte, error) {
	name = path.Clean(name)
	found := map[string][]byte{}
	var entries []artifacts.Entry
	err := s.walk(ctx, func(it item) error {
		entries = append(entries, it.Entry)
		_, below, _ := strings.Cut(it.Path, "/")
		if it.Type != artifacts.TypeFile || it.open == nil || it.Path != name && below != name {
			return nil
		}
		data, err := readItem(it)
		found[it.Path] = data
		return err
	})
	if err != nil {
		return nil, err
	}
	if data, ok := found[s.strips(entries)+name]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("read %q of bundle %s: %w", name, s.Path, fs.ErrNotExist)
}

func readItem(it item) ([]byte, error) {
	if it.Size > maxRead {
		return nil, fmt.Errorf("entry %q: %d bytes, more than the %d that can be read at once: %w", it.Path, it.Size,
			maxRead, artifacts.ErrInvalid)
	}
	r, err := it.open()
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", it.Path, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", it.Path, err)
	}
	return data, nil
}
