package bundle_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/bundletest"
	"github.com/groundswell/groundswell/artifacts/cache"
)

// unpacked packs, pushes, fetches and unpacks a bundle, checks that unpacking
// it straight gives the same, and returns each path with what is there.
func unpacked(t *testing.T, src bundle.Source) map[string]string {
	t.Helper()
	s := bundletest.NewStore(t)
	pushed, err := bundle.Push(t.Context(), s, src, bundle.Options{TempDir: t.TempDir()})
	check(t, err)
	parent := t.TempDir()
	straight, err := src.Extract(t.Context(), filepath.Join(parent, "straight"))
	check(t, err)
	f := &cache.Fetcher{Opener: s, Cache: bundletest.NewCache(t), Move: true}
	m, err := f.Stage(t.Context(), pushed.Digest, filepath.Join(parent, "release"))
	check(t, err)
	if straight.Digest() != m.Digest() {
		t.Error("unpacked straight it has another digest")
	}
	check(t, bundletest.VerifyTree(filepath.Join(parent, "straight"), m))
	return listing(t, filepath.Join(parent, "release"))
}

func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		switch {
		case err != nil:
			return err
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			got[name] = "-> " + to
			return err
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			got[name] = string(data)
			return err
		}
		return nil
	}))
	return got
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// Links that lead out, and in circles, are kept as they are and followed by
// nobody; a host may look for them.
func TestOutsideLinks(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	check(t, os.WriteFile(victim, []byte("safe"), 0o600))
	files := []file{
		{Name: "bin/python3", Link: victim},
		{Name: "storage", Link: "/mnt/efs"},
		{Name: "up", Link: "../../x"},
		{Name: "a", Link: "b"},
		{Name: "b", Link: "a"},
		{Name: "lib64", Link: "lib"},
		{Name: "lib/f", Data: "f"},
		{Name: "deep/l", Link: "../storage/x"},
	}
	want := map[string]string{
		"bin/python3": "-> " + victim, "storage": "-> /mnt/efs", "up": "-> ../../x", "a": "-> b", "b": "-> a", "lib64": "-> lib",
		"lib/f": "f", "deep/l": "-> ../storage/x",
	}
	for name, path := range map[string]string{
		"directory": bundletest.WriteDir(t, files), "tar": bundletest.WriteFile(t, "b", bundletest.Tar(t, files)),
		"zip": bundletest.WriteFile(t, "b", bundletest.Zip(t, files)),
	} {
		src, err := bundle.Open(path)
		check(t, err)
		same(t, name, unpacked(t, src), want)
	}
	if data, err := os.ReadFile(victim); err != nil || string(data) != "safe" {
		t.Errorf("the target of a link holds %q, %v", data, err)
	}
	for link, outside := range map[string]bool{
		"/etc": true, "../x": true, "d/../../x": true, "d/f": false, "gone": false, "l": false, "out/x": true,
		"d/../d": false,
	} {
		entries := []artifacts.Entry{
			{Path: "d", Type: artifacts.TypeDir}, {Path: "l", Type: artifacts.TypeSymlink, Target: link},
		}
		if link == "out/x" {
			entries = append(entries, artifacts.Entry{Path: "out", Type: artifacts.TypeSymlink, Target: "/etc"})
		}
		m, err := artifacts.NewManifest(entries, artifacts.Limits{})
		check(t, err)
		if path, reason := m.OutsideLink(); (path != "") != outside {
			t.Errorf("link to %s: %q %q", link, path, reason)
		}
	}
}

// Linux tells names apart that differ in case only.
func TestNamesThatDifferInCase(t *testing.T) {
	files := []file{{Name: "app/README.md", Data: "1"}, {Name: "app/readme.md", Data: "2"}, {Name: "App/a", Data: "3"}}
	want := map[string]string{"app/README.md": "1", "app/readme.md": "2", "App/a": "3"}
	for _, data := range [][]byte{bundletest.Tar(t, files), bundletest.Zip(t, files)} {
		src, err := bundle.Open(bundletest.WriteFile(t, "b", data))
		check(t, err)
		same(t, "case", unpacked(t, src), want)
	}
}

// The last entry of a name counts, whatever it is.
func TestEntriesListedTwice(t *testing.T) {
	files := []file{
		{Name: "a", Data: "old"},
		{Name: "f2l", Data: "old"},
		{Name: "l2f", Link: "a"},
		{Name: "d/x", Data: "old"},
		{Name: "d/"},
		{Name: "a", Data: "new"},
		{Name: "f2l", Link: "a"},
		{Name: "l2f", Data: "new"},
		{Name: "d/./x", Data: "new"},
	}
	want := map[string]string{"a": "new", "f2l": "-> a", "l2f": "new", "d/x": "new"}
	for name, data := range map[string][]byte{"tar": bundletest.Tar(t, files), "zip": bundletest.Zip(t, files)} {
		src, err := bundle.Open(bundletest.WriteFile(t, "b", data))
		check(t, err)
		same(t, name, unpacked(t, src), want)
	}
	hard := bundletest.RawTar(t, []tar.Header{
		{Name: "a", Mode: 0o644, Size: 3, Typeflag: tar.TypeReg},
		{Name: "h", Typeflag: tar.TypeLink, Linkname: "a"},
		{Name: "a", Mode: 0o644, Size: 3, Typeflag: tar.TypeReg},
	}, func(i int) string { return []string{"old", "", "new"}[i] })
	src, err := bundle.Open(bundletest.WriteFile(t, "b", hard))
	check(t, err)
	same(t, "hard link", unpacked(t, src), map[string]string{"a": "new", "h": "old"})
}

// Compressions that tar knows by their first bytes; padding behind gzip; a tgz
// of several members; what is labelled tar and is a tgz.
func TestCompressedTars(t *testing.T) {
	whole := bundletest.Tar(t, []file{{Name: "a", Data: strings.Repeat("1", 3000)}})
	gz := bundletest.Tgz(t, whole)
	many := append(bundletest.Tgz(t, whole[:700]), bundletest.Tgz(t, whole[700:])...)
	cases := map[string][]byte{
		"bzip2": through(t, whole, "bzip2", "-c"), "xz": through(t, whole, "xz", "-c"), "gzip": gz,
		"gzip and zeros": append(slices.Clone(gz), make([]byte, 3<<20)...), "gzip in members": many,
	}
	for name, data := range cases {
		if data == nil {
			continue
		}
		path := bundletest.WriteFile(t, "b", data)
		src, err := bundle.Open(path)
		check(t, err)
		for _, kind := range []bundle.Type{src.Type, bundle.Tar} {
			same(t, name+" as "+string(kind), unpacked(t, bundle.Source{Path: path, Type: kind}),
				map[string]string{"a": strings.Repeat("1", 3000)})
		}
	}
	for name, data := range map[string][]byte{
		"garbage behind gzip": append(slices.Clone(gz),
			"garbage"...), "bzip2 cut": cut(cases["bzip2"]), "xz cut": cut(cases["xz"]),
	} {
		if data == nil {
			continue
		}
		src := bundle.Source{Path: bundletest.WriteFile(t, "b", data), Type: bundle.Tar}
		if m, err := bundletest.Pack(t, src); err == nil {
			t.Errorf("%s: accepted as %d entries", name, m.Len())
		}
	}
}

func cut(data []byte) []byte { return data[:len(data)*2/3] }

// through compresses by a program of the host; nil if it has none.
func through(t *testing.T, data []byte, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Logf("not tried: %v", err)
		return nil
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	check(t, err)
	return out
}

// rawNames is a zip whose names are those bytes, of a creator.
func rawNames(t *testing.T, creator uint16, names ...string) []byte {
	t.Helper()
	var headers []zip.FileHeader
	for _, name := range names {
		headers = append(headers, zip.FileHeader{
			Name: name, NonUTF8: true, CreatorVersion: creator << 8,
			ExternalAttrs: 0o100644 << 16,
		})
	}
	return bundletest.RawZip(t, headers, func(i int) string { return names[i] })
}

// Names as unzip writes them: \ is a separator in a zip of DOS that has no
// other, and a letter of the name elsewhere; code page 437 becomes UTF-8.
func TestNamesOfZips(t *testing.T) {
	const dos, unix = 0, 3
	for name, c := range map[string]struct {
		data []byte
		want []string
	}{
		"dos":      {rawNames(t, dos, `app\a\b.txt`, "x"), []string{"app/a/b.txt", "x"}},
		"dos both": {rawNames(t, dos, `app/a\b.txt`), []string{`app/a\b.txt`}},
		"unix":     {rawNames(t, unix, `app\a\b.txt`), []string{`app\a\b.txt`}},
		"cp437":    {rawNames(t, dos, "gr\x81n"), []string{"grün"}},
		"utf8":     {rawNames(t, unix, "grün"), []string{"grün"}},
	} {
		src, err := bundle.Open(bundletest.WriteFile(t, "b", c.data))
		check(t, err)
		got := slices.Sorted(maps.Keys(unpacked(t, src)))
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	evil := bundle.Source{Path: bundletest.WriteFile(t, "b", rawNames(t, dos, `..\..\evil`)), Type: bundle.Zip}
	if _, err := bundletest.Pack(t, evil); err == nil || !strings.Contains(err.Error(), "..") {
		t.Errorf("a name that leads out: %v", err)
	}
}

// A zip whose entries are compressed by bzip2.
func TestZipOfBzip2(t *testing.T) {
	text := strings.Repeat("text ", 1000)
	packed := through(t, []byte(text), "bzip2", "-c")
	if packed == nil {
		t.Skip("no bzip2 here")
	}
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	w.RegisterCompressor(12, func(out io.Writer) (io.WriteCloser, error) { return &canned{out, packed}, nil })
	out, err := w.CreateHeader(&zip.FileHeader{Name: "a", Method: 12})
	check(t, err)
	_, err = io.WriteString(out, text)
	check(t, err)
	check(t, w.Close())
	src, err := bundle.Open(bundletest.WriteFile(t, "b", buf.Bytes()))
	check(t, err)
	same(t, "bzip2", unpacked(t, src), map[string]string{"a": text})
}

// canned writes what was compressed before, whatever it is given.
type canned struct {
	io.Writer
	data []byte
}

func (c *canned) Write(p []byte) (int, error) { return len(p), nil }
func (c *canned) Close() error                { _, err := c.Writer.Write(c.data); return err }

// The epoch is a time like any other; a path may be as long as the kernel's.
func TestEpochAndLongPaths(t *testing.T) {
	long := strings.Repeat(strings.Repeat("d", 200)+"/", 20) + "f" // 4,021 bytes
	headers := []tar.Header{
		{Name: "epoch", Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)},
		{Name: long, Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(7, 0)},
	}
	src, err := bundle.Open(bundletest.WriteFile(t, "b", bundletest.RawTar(t, headers, nil)))
	check(t, err)
	dest := filepath.Join(t.TempDir(), "r")
	m, err := src.Extract(t.Context(), dest)
	check(t, err)
	check(t, bundletest.VerifyTree(dest, m))
	info, err := os.Stat(filepath.Join(dest, "epoch"))
	check(t, err)
	if info.ModTime().Unix() != 0 {
		t.Errorf("the epoch became %v", info.ModTime())
	}
	if _, ok := m.Lookup(long); !ok {
		t.Error("the long path is missing")
	}
	check(t, os.RemoveAll(dest))
}
