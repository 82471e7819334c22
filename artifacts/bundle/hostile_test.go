package bundle_test

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
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/bundletest"
)

// hostile are archives that must be refused. want is in the error: the
// entry's name and, where it helps, the reason.
func hostile(t testing.TB) map[string]struct {
	kind bundle.Type
	data []byte
	want string
} {
	type archive = struct {
		kind bundle.Type
		data []byte
		want string
	}
	out := map[string]archive{}
	both := func(name, want string, files ...file) {
		out["tar "+name] = archive{bundle.Tar, bundletest.Tar(t, files), want}
		out["tgz "+name] = archive{bundle.Tgz, bundletest.Tgz(t, bundletest.Tar(t, files)), want}
		out["zip "+name] = archive{bundle.Zip, bundletest.Zip(t, files), want}
	}
	ok := file{Name: "ok", Data: "ok"}
	both("dot dot", `"../evil"`, ok, file{Name: "../evil", Data: "x"})
	both("many dot dot", `"../../../evil"`, ok, file{Name: "../../../evil", Data: "x"})
	both("dot dot inside", `"a/../../evil"`, file{Name: "a/../../evil", Data: "x"})
	both("dot dot at the end", `"a/.."`, file{Name: "a/..", Data: "x"})
	both("absolute", `"/etc/cron.d/evil"`, file{Name: "/etc/cron.d/evil", Data: "x"})
	both("parent is a file", `"a/b"`, file{Name: "a", Data: "1"}, file{Name: "a/b", Data: "2"})
	both("parent is a symlink", `"out/passwd"`, file{Name: "dir/"}, file{Name: "out", Link: "dir"},
		file{Name: "out/passwd", Data: "x"})
	both("file and directory", `"a"`, file{Name: "a/"}, file{Name: "a", Data: "x"})
	both("long part", "longer than 255", file{Name: strings.Repeat("n", 256), Data: "x"})
	both("long path", "longer than 4095", file{Name: strings.Repeat("abcdefg/", 600) + "x", Data: "x"})
	both("below a link out", `"out/passwd"`, file{Name: "out", Link: "/etc"}, file{Name: "out/passwd", Data: "x"})
	both("below a link out, twice", `"out"`,
		file{Name: "out/"}, file{Name: "out/passwd", Data: "x"}, file{Name: "out", Link: "/etc"})
	both("file, then a link above it", `"d/f"`, file{Name: "d/f", Data: "x"}, file{Name: "d", Link: "/etc"})

	header := func(name, want string, h tar.Header) {
		data := bundletest.RawTar(t, []tar.Header{{Name: "ok", Mode: 0o644, Typeflag: tar.TypeReg}, h}, nil)
		out["tar "+name] = archive{bundle.Tar, data, want}
	}
	header("device", `"dev/sda"`, tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8})
	header("tty", `"dev/tty"`, tar.Header{Name: "dev/tty", Typeflag: tar.TypeChar, Devmajor: 5})
	header("fifo", `"pipe"`, tar.Header{Name: "pipe", Typeflag: tar.TypeFifo})
	header("hard link out", `"h"`, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"})
	header("hard link absolute", `"h"`, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"})
	header("hard link to nothing", `"h"`, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "later"})

	header("not UTF-8", `"bad\xff"`, tar.Header{Name: "bad\xff", Typeflag: tar.TypeReg, Format: tar.FormatGNU})
	whole := bundletest.Tar(t, []file{
		{Name: "first", Data: strings.Repeat("a", 1000)},
		{Name: "second", Data: strings.Repeat("b", 1000)},
	})
	out["tar cut in an entry"] = archive{bundle.Tar, whole[:2*512+1024+100], `"second"`}
	out["tar cut between entries"] = archive{bundle.Tar, whole[:512+1024], `"first"`}
	out["tar cut in a header"] = archive{bundle.Tar, whole[:512+1024+200], `"first"`}
	out["tar without end mark"] = archive{bundle.Tar, whole[:len(whole)-1024], `"second"`}
	out["tar damaged"] = archive{bundle.Tar, flip(whole, 512+1024+20), `"first"`}
	tgz := bundletest.Tgz(t, whole)
	out["tgz cut"] = archive{bundle.Tgz, tgz[:len(tgz)/2], "unexpected EOF"}
	out["tgz without checksum"] = archive{bundle.Tgz, tgz[:len(tgz)-4], `"second"`}
	out["tgz of a wrong checksum"] = archive{bundle.Tgz, flip(tgz, len(tgz)-6), `"second"`}
	out["tar called tgz"] = archive{bundle.Tgz, whole, "not a tgz"}
	out["tar called zip"] = archive{bundle.Zip, whole, "not a whole zip"}
	out["text as zip"] = archive{bundle.Zip, []byte("hello, this is text"), "not a whole zip"}
	out["text as tar"] = archive{bundle.Tar, []byte(strings.Repeat("hello ", 200)), "not a tar"}
	out["empty as tar"] = archive{bundle.Tar, nil, "cut off"}
	out["empty as tgz"] = archive{bundle.Tgz, nil, "not a tgz"}
	out["empty as zip"] = archive{bundle.Zip, nil, "not a whole zip"}
	out["rar"] = archive{"rar", []byte("Rar!"), "directory, zip, tar, tgz"}
	z := bundletest.Zip(t, []file{{Name: "first", Data: strings.Repeat("a", 1000)}})
	out["zip cut"] = archive{bundle.Zip, z[:len(z)-10], "not a whole zip"}
	out["zip damaged"] = archive{bundle.Zip, flip(z, 30+5+2), `"first"`}
	out["zip NUL"] = archive{bundle.Zip, bundletest.Zip(t, []file{{Name: "a\x00b", Data: "x"}}), `a\x00b`}
	out["zip fifo"] = archive{bundle.Zip, zipMode(t, "pipe", fs.ModeNamedPipe|0o644), `"pipe"`}
	out["zip device"] = archive{bundle.Zip, zipMode(t, "dev", fs.ModeDevice|0o644), `"dev"`}
	out["zip encrypted"] = archive{bundle.Zip, zipEncrypted(t), `"secret"`}
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
	return bundletest.RawZip(t, []zip.FileHeader{h}, func(int) string { return "" })
}

func zipEncrypted(t testing.TB) []byte {
	data := bundletest.Zip(t, []file{{Name: "secret", Data: "x"}})
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
			path := bundletest.WriteFile(t, "bundle", b.data)
			m, err := bundletest.Pack(t, bundle.Source{Path: path, Type: b.kind})
			switch {
			case err == nil:
				t.Fatalf("accepted as %d entries", m.Len())
			case !strings.Contains(err.Error(), b.want):
				t.Errorf("%v: does not say %s", err, b.want)
			}
			parent := t.TempDir()
			_, err = bundle.Source{Path: path, Type: b.kind}.Extract(t.Context(),
				filepath.Join(parent, "a/b/release"))
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("unpacked to nowhere: %v", err)
			}
			_, err = bundle.Source{Path: path, Type: b.kind}.Extract(t.Context(), filepath.Join(parent, "release"))
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
		{Name: "rev-1/"},
		{Name: "rev-1/appspec.yml", Data: "version: 0.0\n"},
		{Name: "rev-1/rev-1/x", Data: "1"},
		{Name: "rev-1/l", Link: "rev-1/x"},
	}
	tarred := bundletest.Tar(t, bundletest.Sample)
	for name, src := range map[string]bundle.Source{
		"directory": {Path: bundletest.WriteDir(t, bundletest.Sample), Type: bundle.Directory},
		"tar":       {Path: bundletest.WriteFile(t, "b", tarred), Type: bundle.Tar},
		"tgz":       {Path: bundletest.WriteFile(t, "b", bundletest.Tgz(t, tarred)), Type: bundle.Tgz},
		"zip":       {Path: bundletest.WriteFile(t, "b", bundletest.Zip(t, bundletest.Sample)), Type: bundle.Zip},
		"top":       {Path: bundletest.WriteFile(t, "b", bundletest.Tar(t, top)), Type: bundle.Tar},
		"hard link": {Path: bundletest.WriteFile(t, "b", bundletest.RawTar(t, []tar.Header{
			{Name: "a", Mode: 0o600, Size: 3, Typeflag: tar.TypeReg}, {
				Name: "d/b", Typeflag: tar.TypeLink,
				Linkname: "a",
			},
		}, func(int) string { return "abc" })), Type: bundle.Tar},
	} {
		dest := filepath.Join(t.TempDir(), "r")
		m, err := src.Extract(t.Context(), dest)
		check(t, err)
		check(t, bundletest.VerifyTree(dest, m))
		packed, err := bundletest.Pack(t, src)
		check(t, err)
		if m.Digest() != packed.Digest() {
			t.Errorf("%s: unpacked straight it has another digest", name)
		}
	}
}

func TestLimits(t *testing.T) {
	bomb := strings.Repeat("\x00", 1<<20)
	files := []file{{Name: "small", Data: "x"}, {Name: "bomb", Data: bomb}}
	for _, src := range []bundle.Source{
		{Type: bundle.Zip, Path: bundletest.WriteFile(t, "b", bundletest.Zip(t, files))},
		{Type: bundle.Tgz, Path: bundletest.WriteFile(t, "b", bundletest.Tgz(t, bundletest.Tar(t, files)))},
		{Type: bundle.Directory, Path: bundletest.WriteDir(t, files)},
	} {
		src.Limits.Bytes = 1 << 20
		if _, err := bundletest.Pack(t, src); !errors.Is(err, artifacts.ErrInvalid) ||
			!strings.Contains(err.Error(), "limit of 1048576 bytes") {
			t.Errorf("%s: bytes: %v", src.Type, err)
		}
		src.Limits = artifacts.Limits{Entries: 1}
		if _, err := bundletest.Pack(t, src); !errors.Is(err, artifacts.ErrInvalid) ||
			!strings.Contains(err.Error(), "more than 1 entries") {
			t.Errorf("%s: entries: %v", src.Type, err)
		}
	}
}

func TestDirectoryRefusesWhatIsNoFile(t *testing.T) {
	dir := bundletest.WriteDir(t, bundletest.Sample)
	check(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	if _, err := bundletest.Pack(t, bundle.Source{Path: dir, Type: bundle.Directory}); err == nil ||
		!strings.Contains(err.Error(), `"pipe": a named pipe`) {
		t.Errorf("named pipe: %v", err)
	}
	check(t, os.Remove(filepath.Join(dir, "pipe")))
	t.Chdir(dir) // a socket's path is short
	l, err := net.Listen("unix", "sock")
	check(t, err)
	defer l.Close()
	if _, err := bundletest.Pack(t, bundle.Source{Path: dir, Type: bundle.Directory}); err == nil ||
		!strings.Contains(err.Error(), `"sock": a socket`) {
		t.Errorf("socket: %v", err)
	}
}

func TestDirectorySkipsGit(t *testing.T) {
	dir := bundletest.WriteDir(t, append(bundletest.Sample, file{Name: ".git/config", Data: "x"},
		file{Name: "sub/.git", Data: "gitdir: x"}, file{Name: ".gitignore", Data: "x"}))
	m, err := bundletest.Pack(t, bundle.Source{Path: dir, Type: bundle.Directory})
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
			[]file{{Name: "top/appspec.yml", Data: "x"}, {Name: "top/a", Data: "x"}},
			"",
			"appspec.yml",
		},
		"dropped for yaml": {[]file{{Name: "top/appspec.yaml", Data: "x"}}, "", "appspec.yaml"},
		"other spec":       {[]file{{Name: "top/my.yml", Data: "x"}}, "my.yml", "my.yml"},
		"nested spec":      {[]file{{Name: "top/conf/x.yml", Data: "x"}}, "conf/x.yml", "conf/x.yml"},
		"two levels":       {[]file{{Name: "one/two/appspec.yml", Data: "x"}}, "", "one/two/appspec.yml"},
		"a file beside": {
			[]file{{Name: "top/appspec.yml", Data: "x"}, {Name: "beside", Data: "x"}},
			"",
			"top/appspec.yml",
		},
		"no spec":        {[]file{{Name: "top/a", Data: "x"}}, "", "top/a"},
		"spec is a link": {[]file{{Name: "top/appspec.yml", Link: "a"}, {Name: "top/a", Data: "x"}}, "", "top/a"},
	} {
		src := bundle.Source{
			Path: bundletest.WriteFile(t, "b", bundletest.Tar(t, c.files)), Type: bundle.Tar,
			SpecFile: c.spec,
		}
		m, err := bundletest.Pack(t, src)
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
	m, err := bundletest.Pack(t, bundle.Source{
		Path: bundletest.WriteFile(t, "b", bundletest.RawTar(t, headers, func(int) string { return "x" })),
		Type: bundle.Tar,
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
	m, err = bundletest.Pack(t, bundle.Source{Path: bundletest.WriteFile(t, "b",
		bundletest.RawZip(t, []zip.FileHeader{none, timed}, func(int) string { return "" })), Type: bundle.Zip})
	check(t, err)
	if e, _ := m.Lookup("none"); e.Mode != 0o644 || e.MTime != (artifacts.Time{}) {
		t.Errorf("zip without attributes: %+v, want readable", e)
	}
	if e, _ := m.Lookup("timed"); e.Mode != 0o755 || e.MTime != artifacts.At(at.Unix()) {
		t.Errorf("zip with attributes: %+v", e)
	}
}

func TestOpenRefusals(t *testing.T) {
	for name, path := range map[string]string{
		"text": bundletest.WriteFile(t, "x.zip", []byte("hello")), "empty": bundletest.WriteFile(t, "x.tar",
			nil), "missing": "/no/such/bundle",
	} {
		if _, err := bundle.Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error that names it", name, err)
		}
	}
}
