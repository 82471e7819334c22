package artifacts_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/dirstore"
)

// file is an entry of a bundle under test.
type file struct {
	name string
	data string
	mode fs.FileMode // 0 means 0644, or 0755 for a directory
	// link is a symlink's target; a name that ends in / is a directory.
	link string
}

func (f file) perm() fs.FileMode {
	if f.mode == 0 {
		return 0o644
	}
	return f.mode
}

var sample = []file{
	{name: "appspec.yml", data: "version: 0.0\nos: linux\n"},
	{name: "bin/"},
	{name: "bin/app", data: "#!/bin/sh\necho app\n", mode: 0o750},
	{name: "bin/current", link: "app"},
	{name: "empty"},
	{name: "hollow/"},
	{name: "lib/"},
	{name: "lib/deep/"},
	{name: "lib/deep/copy", data: "#!/bin/sh\necho app\n", mode: 0o600},
	{name: "lib/up", link: "../bin/app"},
	{name: "name with space ", data: "ä ö ü"},
}

func writeDir(t testing.TB, files []file) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		name := filepath.Join(dir, f.name)
		check(t, os.MkdirAll(filepath.Dir(name), 0o755))
		switch {
		case f.name[len(f.name)-1] == '/':
			check(t, os.MkdirAll(name, 0o755))
		case f.link != "":
			check(t, os.Symlink(f.link, name))
		default:
			check(t, os.WriteFile(name, []byte(f.data), f.perm()))
			check(t, os.Chmod(name, f.perm()))
		}
	}
	return dir
}

func tarBytes(t testing.TB, files []file) []byte {
	t.Helper()
	var headers []tar.Header
	for _, f := range files {
		h := tar.Header{Name: f.name, Mode: int64(f.perm()), Size: int64(len(f.data)), Typeflag: tar.TypeReg}
		switch {
		case f.name[len(f.name)-1] == '/':
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case f.link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.link, 0
		}
		headers = append(headers, h)
	}
	return rawTar(t, headers, func(i int) string { return files[i].data })
}

func rawTar(t testing.TB, headers []tar.Header, data func(int) string) []byte {
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

func tgzBytes(t testing.TB, tar []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(tar)
	check(t, err)
	check(t, w.Close())
	return buf.Bytes()
}

func zipBytes(t testing.TB, files []file) []byte {
	t.Helper()
	var headers []zip.FileHeader
	for _, f := range files {
		h := zip.FileHeader{Name: f.name, Method: zip.Deflate}
		mode := f.perm()
		switch {
		case f.name[len(f.name)-1] == '/':
			mode = fs.ModeDir | 0o755
		case f.link != "":
			mode = fs.ModeSymlink | 0o777
		}
		h.SetMode(mode)
		headers = append(headers, h)
	}
	return rawZip(t, headers, func(i int) string { return files[i].link + files[i].data })
}

func rawZip(t testing.TB, headers []zip.FileHeader, data func(int) string) []byte {
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

func writeFile(t testing.TB, name string, data []byte) string {
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

func newStore(t testing.TB) artifacts.Store {
	t.Helper()
	s, err := dirstore.New(t.TempDir())
	check(t, err)
	return s
}

func newCache(t testing.TB) *artifacts.Cache {
	t.Helper()
	c, err := artifacts.OpenCache(filepath.Join(t.TempDir(), "cache"))
	check(t, err)
	return c
}

func push(t testing.TB, s artifacts.Store, path string, prev ...*artifacts.Index) artifacts.Pushed {
	t.Helper()
	src, err := artifacts.OpenSource(path)
	check(t, err)
	pushed, err := artifacts.Push(t.Context(), s, src, artifacts.PackOptions{Prev: prev, TempDir: t.TempDir()})
	check(t, err)
	return pushed
}

func pack(t testing.TB, src artifacts.Source) (*artifacts.Manifest, error) {
	t.Helper()
	temp := t.TempDir()
	p, err := artifacts.Pack(t.Context(), src, artifacts.PackOptions{TempDir: temp})
	if err != nil {
		if left, _ := os.ReadDir(temp); len(left) != 0 {
			t.Errorf("a failed pack leaves %v", left)
		}
		return nil, err
	}
	check(t, p.Close())
	return p.Manifest, nil
}

// faulty wraps a real store to inject faults into Open.
type faulty struct {
	artifacts.Store
	mu    sync.Mutex
	opens []string
	fault func(key string, nth int, r io.ReadCloser, err error) (io.ReadCloser, error)
	count map[string]int
}

func (f *faulty) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := f.Store.Open(ctx, key, offset, length)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == nil {
		f.count = map[string]int{}
	}
	f.count[key]++
	f.opens = append(f.opens, key)
	if f.fault == nil {
		return r, err
	}
	return f.fault(key, f.count[key], r, err)
}

// broken returns r cut to n bytes with an error at the end, or flipped.
func truncated(r io.ReadCloser, n int64) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r, n), errReader{io.ErrUnexpectedEOF}), r}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func flipped(r io.ReadCloser) io.ReadCloser {
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
