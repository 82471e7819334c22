package bundletest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/cache"
	"github.com/groundswell/groundswell/artifacts/dirstore"
)

// File is an entry of a bundle under test.
type File struct {
	Name string
	Data string
	Mode fs.FileMode // 0 means 0644, or 0755 for a directory
	// Link is a symlink's target; a name that ends in / is a directory.
	Link string
}

// Perm is the mode that the file has in the end.
func (f File) Perm() fs.FileMode {
	if f.Mode == 0 {
		return 0o644
	}
	return f.Mode
}

// Sample has one of each kind of entry.
var Sample = []File{
	{Name: "appspec.yml", Data: "version: 0.0\nos: linux\n"},
	{Name: "bin/"},
	{Name: "bin/app", Data: "#!/bin/sh\necho app\n", Mode: 0o750},
	{Name: "bin/current", Link: "app"},
	{Name: "empty"},
	{Name: "hollow/"},
	{Name: "lib/"},
	{Name: "lib/deep/"},
	{Name: "lib/deep/copy", Data: "#!/bin/sh\necho app\n", Mode: 0o600},
	{Name: "lib/up", Link: "../bin/app"},
	{Name: "name with space ", Data: "ä ö ü"},
}

// WriteDir writes files to a new folder and returns it.
func WriteDir(t testing.TB, files []File) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		name := filepath.Join(dir, f.Name)
		check(t, os.MkdirAll(filepath.Dir(name), 0o755))
		switch {
		case f.Name[len(f.Name)-1] == '/':
			check(t, os.MkdirAll(name, 0o755))
		case f.Link != "":
			check(t, os.Symlink(f.Link, name))
		default:
			check(t, os.WriteFile(name, []byte(f.Data), f.Perm()))
			check(t, os.Chmod(name, f.Perm()))
		}
	}
	return dir
}

// Tar is a tar of files.
func Tar(t testing.TB, files []File) []byte {
	t.Helper()
	var headers []tar.Header
	for _, f := range files {
		h := tar.Header{Name: f.Name, Mode: int64(f.Perm()), Size: int64(len(f.Data)), Typeflag: tar.TypeReg}
		switch {
		case f.Name[len(f.Name)-1] == '/':
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.Link, 0
		}
		headers = append(headers, h)
	}
	return RawTar(t, headers, func(i int) string { return files[i].Data })
}

// RawTar is a tar of headers; data is asked for the content of those with a size.
func RawTar(t testing.TB, headers []tar.Header, data func(int) string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range headers {
		check(t, w.WriteHeader(&headers[i]))
		if headers[i].Size > 0 {
			_, err := io.WriteString(w, data(i))
			check(t, err)
		}
	}
	check(t, w.Close())
	return buf.Bytes()
}

// Tgz compresses a tar.
func Tgz(t testing.TB, tar []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(tar)
	check(t, err)
	check(t, w.Close())
	return buf.Bytes()
}

// Zip is a zip of files.
func Zip(t testing.TB, files []File) []byte {
	t.Helper()
	var headers []zip.FileHeader
	for _, f := range files {
		h := zip.FileHeader{Name: f.Name, Method: zip.Deflate}
		mode := f.Perm()
		switch {
		case f.Name[len(f.Name)-1] == '/':
			mode = fs.ModeDir | 0o755
		case f.Link != "":
			mode = fs.ModeSymlink | 0o777
		}
		h.SetMode(mode)
		headers = append(headers, h)
	}
	return RawZip(t, headers, func(i int) string { return files[i].Link + files[i].Data })
}

// RawZip is a zip of headers with contents from data.
func RawZip(t testing.TB, headers []zip.FileHeader, data func(int) string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for i := range headers {
		out, err := w.CreateHeader(&headers[i])
		check(t, err)
		if d := data(i); d != "" {
			_, err := io.WriteString(out, d)
			check(t, err)
		}
	}
	check(t, w.Close())
	return buf.Bytes()
}

// WriteFile writes data to a file of that name in a new folder and returns its
// path.
func WriteFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	check(t, os.WriteFile(path, data, 0o600))
	return path
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// NewStore is an empty store in a folder.
func NewStore(t testing.TB) artifacts.Store {
	t.Helper()
	s, err := dirstore.New(t.TempDir())
	check(t, err)
	return s
}

// NewCache is an empty cache.
func NewCache(t testing.TB) *cache.Cache {
	t.Helper()
	c, err := cache.Open(filepath.Join(t.TempDir(), "cache"))
	check(t, err)
	return c
}

// Push packs what is at path and stores it.
func Push(t testing.TB, s artifacts.Store, path string, prev ...*artifacts.Index) bundle.Pushed {
	t.Helper()
	src, err := bundle.Open(path)
	check(t, err)
	pushed, err := bundle.Push(t.Context(), s, src, bundle.Options{Prev: prev, TempDir: t.TempDir()})
	check(t, err)
	return pushed
}

// Pack packs src, and fails the test if a refusal leaves files behind.
func Pack(t testing.TB, src bundle.Source) (*artifacts.Manifest, error) {
	t.Helper()
	temp := t.TempDir()
	p, err := bundle.Pack(t.Context(), src, bundle.Options{TempDir: temp})
	if err != nil {
		if left, _ := os.ReadDir(temp); len(left) != 0 {
			t.Errorf("a failed pack leaves %v", left)
		}
		return nil, err
	}
	check(t, p.Close())
	return p.Manifest, nil
}

// Noise is n bytes that do not compress.
func Noise(n int) string {
	data := make([]byte, n)
	_, _ = rand.Read(data) // never fails
	return string(data)
}

// Faulty wraps a real store to inject faults into Open: Fault sees what the nth
// opening of a key gives and answers instead. Opens are the keys, in their order.
type Faulty struct {
	artifacts.Store
	mu    sync.Mutex
	Opens []string
	Fault func(key string, nth int, r io.ReadCloser, err error) (io.ReadCloser, error)
	count map[string]int
}

// Open is the store's, and what Fault makes of it.
func (f *Faulty) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := f.Store.Open(ctx, key, offset, length)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == nil {
		f.count = map[string]int{}
	}
	f.count[key]++
	f.Opens = append(f.Opens, key)
	if f.Fault == nil {
		return r, err
	}
	return f.Fault(key, f.count[key], r, err)
}

// Truncated is r that breaks after n bytes.
func Truncated(r io.ReadCloser, n int64) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r, n), errReader{io.ErrUnexpectedEOF}), r}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// Flipped is r with one bit changed.
func Flipped(r io.ReadCloser) io.ReadCloser {
	data, err := io.ReadAll(r)
	if err != nil || len(data) == 0 {
		return r
	}
	data[len(data)/2] ^= 0x40
	return struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(data), r}
}
