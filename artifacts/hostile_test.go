package artifacts_test

import (
	"archive/tar"
	"archive/zip"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/artifacts"
)

// hostile are archives that must be refused. want is in the error: the
// entry's name and, where it helps, the reason.
func hostile(t testing.TB) map[string]struct {
	kind artifacts.BundleType
	data []byte
	want string
} {
	type bundle = struct {
		kind artifacts.BundleType
		data []byte
		want string
	}
	out := map[string]bundle{}
	both := func(name, want string, files ...file) {
		out["tar "+name] = bundle{artifacts.BundleTar, tarBytes(t, files), want}
		out["tgz "+name] = bundle{artifacts.BundleTgz, tgzBytes(t, tarBytes(t, files)), want}
		out["zip "+name] = bundle{artifacts.BundleZip, zipBytes(t, files), want}
	}
	ok := file{name: "ok", data: "ok"}
	both("dot dot", `"../evil"`, ok, file{name: "../evil", data: "x"})
	both("many dot dot", `"../../../evil"`, ok, file{name: "../../../evil", data: "x"})
	both("dot dot inside", `"a/../../evil"`, file{name: "a/../../evil", data: "x"})
	both("dot dot at the end", `"a/.."`, file{name: "a/..", data: "x"})
	both("absolute", `"/etc/cron.d/evil"`, file{name: "/etc/cron.d/evil", data: "x"})
	both("parent is a file", `"a/b"`, file{name: "a", data: "1"}, file{name: "a/b", data: "2"})
	both("parent is a symlink", `"out/passwd"`, file{name: "dir/"}, file{name: "out", link: "dir"},
		file{name: "out/passwd", data: "x"})
	both("file and directory", `"a"`, file{name: "a/"}, file{name: "a", data: "x"})
	both("long part", "longer than 255", file{name: strings.Repeat("n", 256), data: "x"})
	both("long path", "longer than 4095", file{name: strings.Repeat("abcdefg/", 600) + "x", data: "x"})
	both("below a link out", `"out/passwd"`, file{name: "out", link: "/etc"}, file{name: "out/passwd", data: "x"})
	both("below a link out, twice", `"out"`,
		file{name: "out/"}, file{name: "out/passwd", data: "x"}, file{name: "out", link: "/etc"})
	both("file, then a link above it", `"d/f"`, file{name: "d/f", data: "x"}, file{name: "d", link: "/etc"})

	header := func(name, want string, h tar.Header) {
		data := rawTar(t, []tar.Header{{Name: "ok", Mode: 0o644, Typeflag: tar.TypeReg}, h}, nil)
		out["tar "+name] = bundle{artifacts.BundleTar, data, want}
	}
	header("device", `"dev/sda"`, tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8})
	header("tty", `"dev/tty"`, tar.Header{Name: "dev/tty", Typeflag: tar.TypeChar, Devmajor: 5})
	header("fifo", `"pipe"`, tar.Header{Name: "pipe", Typeflag: tar.TypeFifo})
	header("hard link out", `"h"`, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"})
	header("hard link absolute", `"h"`, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"})
	header("hard link to nothing", `"h"`, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "later"})

	header("not UTF-8", `"bad\xff"`, tar.Header{Name: "bad\xff", Typeflag: tar.TypeReg, Format: tar.FormatGNU})
	whole := tarBytes(t, []file{
		{name: "first", data: strings.Repeat("a", 1000)},
		{name: "second", data: strings.Repeat("b", 1000)},
	})
	out["tar cut in an entry"] = bundle{artifacts.BundleTar, whole[:2*512+1024+100], `"second"`}
	out["tar cut between entries"] = bundle{artifacts.BundleTar, whole[:512+1024], `"first"`}
	out["tar cut in a header"] = bundle{artifacts.BundleTar, whole[:512+1024+200], `"first"`}
	out["tar without end mark"] = bundle{artifacts.BundleTar, whole[:len(whole)-1024], `"second"`}
	out["tar damaged"] = bundle{artifacts.BundleTar, flip(whole, 512+1024+20), `"first"`}
	tgz := tgzBytes(t, whole)
	out["tgz cut"] = bundle{artifacts.BundleTgz, tgz[:len(tgz)/2], "unexpected EOF"}
	out["tgz without checksum"] = bundle{artifacts.BundleTgz, tgz[:len(tgz)-4], `"second"`}
	out["tgz of a wrong checksum"] = bundle{artifacts.BundleTgz, flip(tgz, len(tgz)-6), `"second"`}
	out["tar called tgz"] = bundle{artifacts.BundleTgz, whole, "not a tgz"}
	out["tar called zip"] = bundle{artifacts.BundleZip, whole, "not a whole zip"}
	out["text as zip"] = bundle{artifacts.BundleZip, []byte("hello, this is text"), "not a whole zip"}
	out["text as tar"] = bundle{artifacts.BundleTar, []byte(strings.Repeat("hello ", 200)), "not a tar"}
	out["empty as tar"] = bundle{artifacts.BundleTar, nil, "cut off"}
	out["empty as tgz"] = bundle{artifacts.BundleTgz, nil, "not a tgz"}
	out["empty as zip"] = bundle{artifacts.BundleZip, nil, "not a whole zip"}
	out["rar"] = bundle{"rar", []byte("Rar!"), "directory, zip, tar, tgz"}
	z := zipBytes(t, []file{{name: "first", data: strings.Repeat("a", 1000)}})
	out["zip cut"] = bundle{artifacts.BundleZip, z[:len(z)-10], "not a whole zip"}
	out["zip damaged"] = bundle{artifacts.BundleZip, flip(z, 30+5+2), `"first"`}
	out["zip NUL"] = bundle{artifacts.BundleZip, zipBytes(t, []file{{name: "a\x00b", data: "x"}}), `a\x00b`}
	out["zip fifo"] = bundle{artifacts.BundleZip, zipMode(t, "pipe", fs.ModeNamedPipe|0o644), `"pipe"`}
	out["zip device"] = bundle{artifacts.BundleZip, zipMode(t, "dev", fs.ModeDevice|0o644), `"dev"`}
	out["zip encrypted"] = bundle{artifacts.BundleZip, zipEncrypted(t), `"secret"`}
	return out
}

func flip(data []byte, at int) []byte {
	out := append([]byte(nil), data...)
	out[at] ^= 0x15
	return out
}

func zipMode(t testing.TB, name string, mode fs.FileMode) []byte {
	h := zip.FileHeader{Name: name}
	h.SetMode(mode)
	return rawZip(t, []zip.FileHeader{h}, func(int) string { return "" })
}

func zipEncrypted(t testing.TB) []byte {
	data := zipBytes(t, []file{{name: "secret", data: "x"}})
	central := strings.Index(string(data), "PK\x01\x02")
	data[central+8] |= 1
	return data
}

func TestHostileArchives(t *testing.T) {
	bundles := hostile(t)
	if len(bundles) < 50 {
		t.Fatalf("only %d archives", len(bundles))
	}
	for name, b := range bundles {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, "bundle", b.data)
			m, err := pack(t, artifacts.Source{Path: path, Type: b.kind})
			switch {
			case err == nil:
				t.Fatalf("accepted as %d entries", m.Len())
			case !strings.Contains(err.Error(), b.want):
				t.Errorf("%v: does not say %s", err, b.want)
			}
			parent := t.TempDir()
			_, err = artifacts.Source{Path: path, Type: b.kind}.Extract(t.Context(),
				filepath.Join(parent, "a/b/release"))
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("unpacked to nowhere: %v", err)
			}
			_, err = artifacts.Source{Path: path, Type: b.kind}.Extract(t.Context(), filepath.Join(parent, "release"))
			name, _, _ := strings.Cut(strings.TrimPrefix(b.want, `"`), `"`)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("unpacked straight: %v: does not name %s", err, name)
			}
			if left, _ := os.ReadDir(parent); len(left) != 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
	t.Logf("%d hostile archives refused", len(bundles))
}

// What Extract makes is what Pack, Fetch and Unpack make: one digest, one tree.
func TestExtract(t *testing.T) {
	top := []file{
		{name: "rev-1/"},
		{name: "rev-1/appspec.yml", data: "version: 0.0\n"},
		{name: "rev-1/rev-1/x", data: "1"},
		{name: "rev-1/l", link: "rev-1/x"},
	}
	tarred := tarBytes(t, sample)
	for name, src := range map[string]artifacts.Source{
		"directory": {Path: writeDir(t, sample), Type: artifacts.BundleDirectory},
		"tar":       {Path: writeFile(t, "b", tarred), Type: artifacts.BundleTar},
		"tgz":       {Path: writeFile(t, "b", tgzBytes(t, tarred)), Type: artifacts.BundleTgz},
		"zip":       {Path: writeFile(t, "b", zipBytes(t, sample)), Type: artifacts.BundleZip},
		"top":       {Path: writeFile(t, "b", tarBytes(t, top)), Type: artifacts.BundleTar},
		"hard link": {Path: writeFile(t, "b", rawTar(t, []tar.Header{
			{Name: "a", Mode: 0o600, Size: 3, Typeflag: tar.TypeReg}, {
				Name: "d/b", Typeflag: tar.TypeLink,
				Linkname: "a",
			},
		}, func(int) string { return "abc" })), Type: artifacts.BundleTar},
	} {
		dest := filepath.Join(t.TempDir(), "r")
		m, err := src.Extract(t.Context(), dest)
		check(t, err)
		check(t, artifacts.VerifyTree(dest, m))
		packed, err := pack(t, src)
		check(t, err)
		if m.Digest() != packed.Digest() {
			t.Errorf("%s: unpacked straight it has another digest", name)
		}
	}
}

func TestLimits(t *testing.T) {
	bomb := strings.Repeat("\x00", 1<<20)
	files := []file{{name: "small", data: "x"}, {name: "bomb", data: bomb}}
	for _, src := range []artifacts.Source{
		{Type: artifacts.BundleZip, Path: writeFile(t, "b", zipBytes(t, files))},
		{Type: artifacts.BundleTgz, Path: writeFile(t, "b", tgzBytes(t, tarBytes(t, files)))},
		{Type: artifacts.BundleDirectory, Path: writeDir(t, files)},
	} {
		src.Limits.Bytes = 1 << 20
		if _, err := pack(t, src); !errors.Is(err, artifacts.ErrInvalid) ||
			!strings.Contains(err.Error(), "limit of 1048576 bytes") {
			t.Errorf("%s: bytes: %v", src.Type, err)
		}
		src.Limits = artifacts.Limits{Entries: 1}
		if _, err := pack(t, src); !errors.Is(err, artifacts.ErrInvalid) ||
			!strings.Contains(err.Error(), "more than 1 entries") {
			t.Errorf("%s: entries: %v", src.Type, err)
		}
	}
}

func TestDirectoryRefusesWhatIsNoFile(t *testing.T) {
	dir := writeDir(t, sample)
	check(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	if _, err := pack(t, artifacts.Source{Path: dir, Type: artifacts.BundleDirectory}); err == nil ||
		!strings.Contains(err.Error(), `"pipe": a named pipe`) {
		t.Errorf("named pipe: %v", err)
	}
	check(t, os.Remove(filepath.Join(dir, "pipe")))
	t.Chdir(dir) // a socket's path is short
	l, err := net.Listen("unix", "sock")
	check(t, err)
	defer l.Close()
	if _, err := pack(t, artifacts.Source{Path: dir, Type: artifacts.BundleDirectory}); err == nil ||
		!strings.Contains(err.Error(), `"sock": a socket`) {
		t.Errorf("socket: %v", err)
	}
}

func TestDirectorySkipsGit(t *testing.T) {
	dir := writeDir(t, append(sample, file{name: ".git/config", data: "x"}, file{name: "sub/.git", data: "gitdir: x"},
		file{name: ".gitignore", data: "x"}))
	m, err := pack(t, artifacts.Source{Path: dir, Type: artifacts.BundleDirectory})
	check(t, err)
	for _, path := range []string{".git", ".git/config", "sub/.git"} {
		if _, ok := m.Lookup(path); ok {
			t.Errorf("%s is part of the revision", path)
		}
	}
	if _, ok := m.Lookup(".gitignore"); !ok {
		t.Error(".gitignore is missing")
	}
}

// TestTopDirectory covers cases G02 and G03.
func TestTopDirectory(t *testing.T) {
	for name, c := range map[string]struct {
		files []file
		spec  string
		want  string
	}{
		"dropped": {
			[]file{{name: "top/appspec.yml", data: "x"}, {name: "top/a", data: "x"}},
			"",
			"appspec.yml",
		},
		"dropped for yaml": {[]file{{name: "top/appspec.yaml", data: "x"}}, "", "appspec.yaml"},
		"other spec":       {[]file{{name: "top/my.yml", data: "x"}}, "my.yml", "my.yml"},
		"nested spec":      {[]file{{name: "top/conf/x.yml", data: "x"}}, "conf/x.yml", "conf/x.yml"},
		"two levels":       {[]file{{name: "one/two/appspec.yml", data: "x"}}, "", "one/two/appspec.yml"},
		"a file beside": {
			[]file{{name: "top/appspec.yml", data: "x"}, {name: "beside", data: "x"}},
			"",
			"top/appspec.yml",
		},
		"no spec":        {[]file{{name: "top/a", data: "x"}}, "", "top/a"},
		"spec is a link": {[]file{{name: "top/appspec.yml", link: "a"}, {name: "top/a", data: "x"}}, "", "top/a"},
	} {
		src := artifacts.Source{
			Path: writeFile(t, "b", tarBytes(t, c.files)), Type: artifacts.BundleTar,
			SpecFile: c.spec,
		}
		m, err := pack(t, src)
		check(t, err)
		if _, ok := m.Lookup(c.want); !ok {
			t.Errorf("%s: no %s", name, c.want)
		}
		if data, err := src.ReadFile(t.Context(), c.want); err != nil || string(data) != "x" {
			t.Errorf("%s: read %s: %q, %v", name, c.want, data, err)
		}
		if _, err := src.ReadFile(t.Context(), "none"); !artifacts.IsNotExist(err) {
			t.Errorf("%s: read a missing file: %v", name, err)
		}
	}
}

// TestAttributes says when an archive states modes, times and owners.
func TestAttributes(t *testing.T) {
	at := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	headers := []tar.Header{
		{Name: "plain", Mode: 0o640, Typeflag: tar.TypeReg},
		{
			Name: "stated", Mode: 0o6755, Typeflag: tar.TypeReg, Size: 1, ModTime: at, Uid: 1001, Gid: 1002,
			Uname: "deploy", Gname: "www",
		},
		{Name: "hard", Typeflag: tar.TypeLink, Linkname: "stated"},
		{Name: "root", Mode: 0o600, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Uname: "root", Gname: "root"},
	}
	m, err := pack(t, artifacts.Source{
		Path: writeFile(t, "b", rawTar(t, headers, func(int) string { return "x" })),
		Type: artifacts.BundleTar,
	})
	check(t, err)
	owner := artifacts.Owner{UID: 1001, GID: 1002, User: "deploy", Group: "www"}
	for path, want := range map[string]artifacts.Entry{
		"plain":  {Mode: 0o640, MTime: artifacts.At(0)},
		"stated": {Mode: 0o755, MTime: artifacts.At(at.Unix()), Owner: owner, Size: 1},
		"hard":   {Mode: 0o755, MTime: artifacts.At(at.Unix()), Owner: owner, Size: 1},
		"root":   {Mode: 0o600, MTime: artifacts.At(0)},
	} {
		e, _ := m.Lookup(path)
		if e.Mode != want.Mode || e.MTime != want.MTime || e.Owner != want.Owner || e.Size != want.Size {
			t.Errorf("%s: %+v, want %+v", path, e, want)
		}
	}

	none := zip.FileHeader{Name: "none"} // FAT, no time
	timed := zip.FileHeader{Name: "timed", Modified: at}
	timed.SetMode(0o755 | fs.ModeSetuid)
	m, err = pack(t, artifacts.Source{Path: writeFile(t, "b",
		rawZip(t, []zip.FileHeader{none, timed}, func(int) string { return "" })), Type: artifacts.BundleZip})
	check(t, err)
	if e, _ := m.Lookup("none"); e.Mode != 0o644 || e.MTime != (artifacts.Time{}) {
		t.Errorf("zip without attributes: %+v, want readable", e)
	}
	if e, _ := m.Lookup("timed"); e.Mode != 0o755 || e.MTime != artifacts.At(at.Unix()) {
		t.Errorf("zip with attributes: %+v", e)
	}
}

func TestOpenSourceRefusals(t *testing.T) {
	for name, path := range map[string]string{
		"text": writeFile(t, "x.zip", []byte("hello")), "empty": writeFile(t, "x.tar",
			nil), "missing": "/no/such/bundle",
	} {
		if _, err := artifacts.OpenSource(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error that names it", name, err)
		}
	}
}
