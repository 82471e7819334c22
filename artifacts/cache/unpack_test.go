package cache_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/bundletest"
	"github.com/groundswell/groundswell/artifacts/cache"
)

func sha(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func fetched(t *testing.T, path string) (*cache.Cache, *artifacts.Manifest) {
	t.Helper()
	s := bundletest.NewStore(t)
	kept := bundletest.NewCache(t)
	m, err := (&cache.Fetcher{Opener: s, Cache: kept}).Fetch(t.Context(), bundletest.Push(t, s, path).Digest)
	check(t, err)
	return kept, m
}

func TestUnpackMakesTheTree(t *testing.T) {
	old := syscall.Umask(0o077) // must not matter
	defer syscall.Umask(old)
	kept, m := fetched(t, bundletest.WriteFile(t, "b.zip", bundletest.Zip(t, bundletest.Sample)))
	dest := filepath.Join(t.TempDir(), "release")
	check(t, kept.Unpack(t.Context(), m, dest))
	for _, f := range bundletest.Sample {
		info, err := os.Lstat(filepath.Join(dest, f.Name))
		check(t, err)
		switch {
		case f.Link != "":
			if target, _ := os.Readlink(filepath.Join(dest, f.Name)); target != f.Link {
				t.Errorf("%s leads to %q", f.Name, target)
			}
		case info.IsDir():
			if info.Mode().Perm() != 0o755 {
				t.Errorf("%s has mode %o", f.Name, info.Mode().Perm())
			}
		default:
			data, err := os.ReadFile(filepath.Join(dest, f.Name))
			if err != nil || string(data) != f.Data || info.Mode().Perm() != f.Perm() {
				t.Errorf("%s: %q, mode %o, %v", f.Name, data, info.Mode().Perm(), err)
			}
		}
	}
	check(t, bundletest.VerifyTree(dest, m))
	src, err := bundle.Open(dest)
	check(t, err)
	if again, err := bundletest.Pack(t, src); err != nil || again.Digest() != m.Digest() {
		t.Errorf("the unpacked tree packs as %v, %v", again, err)
	}
}

// TestHookEdits is the promise of the package: hooks run as root in the
// unpacked revision and may write to any file there. The write reaches no
// cache entry and no other release.
func TestHookEdits(t *testing.T) {
	kept, m := fetched(t, bundletest.WriteDir(t, bundletest.Sample))
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	check(t, kept.Unpack(t.Context(), m, one))
	check(t, kept.Unpack(t.Context(), m, two))
	f, err := os.OpenFile(filepath.Join(one, "bin/app"), os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte("EDIT"), 3)
	check(t, err)
	check(t, f.Truncate(9))
	check(t, f.Close())
	check(t, os.Chmod(filepath.Join(one, "appspec.yml"), 0o777))

	check(t, bundletest.VerifyTree(two, m))
	cached(t, kept)
	three := filepath.Join(t.TempDir(), "three")
	check(t, kept.Unpack(t.Context(), m, three))
	check(t, bundletest.VerifyTree(three, m))
	if err := bundletest.VerifyTree(one, m); !errors.Is(err, artifacts.ErrDigestMismatch) ||
		!strings.Contains(err.Error(), `"appspec.yml"`) {
		t.Errorf("the edited tree: %v", err)
	}
}

// TestDamagedCache is what a power loss may leave. The damage reaches no
// release, and Stage mends it.
func TestDamagedCache(t *testing.T) {
	s := bundletest.NewStore(t)
	pushed := bundletest.Push(t, s, bundletest.WriteDir(t, bundletest.Sample))
	kept := bundletest.NewCache(t)
	f := &cache.Fetcher{Opener: s, Cache: kept}
	m, err := f.Fetch(t.Context(), pushed.Digest)
	check(t, err)
	app, _ := m.Lookup("bin/app")
	entry := filepath.Join(kept.Dir(), app.Sum.String()[:2], app.Sum.String())
	for name, damage := range map[string]func(){
		"flipped": func() {
			data, err := os.ReadFile(entry)
			check(t, err)
			check(t, os.Remove(entry))
			data[3] ^= 1
			check(t, os.WriteFile(entry, data, 0o400))
		},
		"empty": func() {
			check(t, os.Remove(entry))
			check(t, os.WriteFile(entry, nil, 0o400))
		},
		"missing": func() { check(t, os.Remove(entry)) },
	} {
		damage()
		dest := filepath.Join(t.TempDir(), "r")
		err := kept.Unpack(t.Context(), m, dest)
		if !errors.Is(err, artifacts.ErrDigestMismatch) && !errors.Is(err, artifacts.ErrNotFound) ||
			!strings.Contains(err.Error(), `"bin/app"`) && !strings.Contains(err.Error(), `"lib/deep/copy"`) {
			t.Errorf("%s: unpack: %v", name, err)
		}
		if _, err := os.Lstat(dest); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a partial release is left: %v", name, err)
		}
		if name != "missing" {
			check(t, os.MkdirAll(filepath.Dir(entry), 0o700))
			check(t, os.WriteFile(entry, make([]byte, app.Size), 0o400)) // right size, wrong content
		}
		_, err = f.Stage(t.Context(), pushed.Digest, dest)
		check(t, err)
		check(t, bundletest.VerifyTree(dest, m))
	}
}

func TestUnpackRefusesAnExistingPath(t *testing.T) {
	kept, m := fetched(t, bundletest.WriteDir(t, bundletest.Sample))
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "mine"), []byte("x"), 0o600))
	if err := kept.Unpack(t.Context(), m, dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("unpack over a directory: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine")); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
}

func TestUnpackSetsTimes(t *testing.T) {
	at := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	kept := bundletest.NewCache(t)
	sum := sha256.Sum256(nil)
	check(t, kept.Put(sum, 0, strings.NewReader("")))
	e := artifacts.Entry{
		Path: "f", Type: artifacts.TypeFile, Mode: 0o4711 & 0o777, Sum: sum,
		MTime: artifacts.At(at.Unix()), Owner: artifacts.Owner{UID: 65534, GID: 65534},
	}
	m, err := artifacts.NewManifest([]artifacts.Entry{e}, artifacts.Limits{})
	check(t, err)
	dest := filepath.Join(t.TempDir(), "r")
	check(t, kept.Unpack(t.Context(), m, dest))
	info, err := os.Stat(filepath.Join(dest, "f"))
	check(t, err)
	if !info.ModTime().Equal(at) || info.Mode() != 0o711 {
		t.Errorf("time %s, mode %s", info.ModTime(), info.Mode())
	}
	if owner := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 && (owner.Uid != 65534 || owner.Gid != 65534) {
		t.Errorf("owner %d:%d", owner.Uid, owner.Gid)
	}
}

func TestUnpackChecksSpaceFirst(t *testing.T) {
	e := artifacts.Entry{Path: "huge", Type: artifacts.TypeFile, Mode: 0o644, Size: 1 << 60}
	m, err := artifacts.NewManifest([]artifacts.Entry{e}, artifacts.Limits{Bytes: 1 << 61})
	check(t, err)
	dest := filepath.Join(t.TempDir(), "r")
	if err := bundletest.NewCache(t).Unpack(t.Context(), m, dest); !errors.Is(err, artifacts.ErrNoSpace) ||
		!strings.Contains(err.Error(), "disk full") {
		t.Errorf("%v, want ErrNoSpace", err)
	}
}

func TestVerifyTreeNamesTheFirstDifference(t *testing.T) {
	kept, m := fetched(t, bundletest.WriteDir(t, bundletest.Sample))
	for name, c := range map[string]struct {
		change func(dir string) error
		want   string
	}{
		"missing": {func(d string) error { return os.Remove(filepath.Join(d, "empty")) }, `"empty": is missing`},
		"foreign": {
			func(d string) error { return os.WriteFile(filepath.Join(d, "aaa"), nil, 0o600) },
			`"aaa" is not part`,
		},
		"first": {func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "empty")), os.Mkdir(filepath.Join(d, "b"), 0o700))
		}, `"b" is not part`},
		"mode": {
			func(d string) error { return os.Chmod(filepath.Join(d, "bin/app"), 0o777) },
			`"bin/app": has mode 777`,
		},
		"setuid": {
			func(d string) error { return os.Chmod(filepath.Join(d, "bin/app"), 0o750|fs.ModeSetuid) },
			`"bin/app": has mode`,
		},
		"content": {
			func(d string) error { return os.WriteFile(filepath.Join(d, "empty"), []byte("x"), 0o644) },
			`"empty"`,
		},
		"link": {func(d string) error {
			os.Remove(filepath.Join(d, "lib/up"))
			return os.Symlink("deep", filepath.Join(d, "lib/up"))
		}, `"lib/up": leads to "deep"`},
		"link to dir": {func(d string) error {
			os.Remove(filepath.Join(d, "hollow"))
			return os.Symlink("lib", filepath.Join(d, "hollow"))
		}, `"hollow": has type`},
	} {
		dest := filepath.Join(t.TempDir(), "r")
		check(t, kept.Unpack(t.Context(), m, dest))
		check(t, c.change(dest))
		if err := bundletest.VerifyTree(dest, m); !errors.Is(err, artifacts.ErrDigestMismatch) ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestPrune(t *testing.T) {
	s := bundletest.NewStore(t)
	kept := bundletest.NewCache(t)
	f := &cache.Fetcher{Opener: s, Cache: kept}
	keep, err := f.Fetch(t.Context(), bundletest.Push(t, s, bundletest.WriteDir(t, bundletest.Sample)).Digest)
	check(t, err)
	larger := append(bundletest.Sample,
		file{Name: "other", Data: bundletest.Noise(50_000)}, file{Name: "more", Data: bundletest.Noise(50_000)})
	_, err = f.Fetch(t.Context(), bundletest.Push(t, s, bundletest.WriteDir(t, larger)).Digest)
	check(t, err)
	if freed, err := kept.Prune(t.Context(), cache.Keep(keep), 1<<30); err != nil || freed != 0 {
		t.Errorf("with room for all: freed %d, %v", freed, err)
	}
	if freed, err := kept.Prune(t.Context(), cache.Keep(keep), 60_000); err != nil || freed < 50_000 ||
		freed > 55_000 {
		t.Errorf("with room for one: freed %d, %v", freed, err)
	}
	if _, err := kept.Prune(t.Context(), cache.Keep(keep), 0); err != nil {
		t.Error(err)
	}
	down := &cache.Fetcher{Opener: &bundletest.Faulty{}, Cache: kept}
	dest := filepath.Join(t.TempDir(), "r")
	_, err = down.Stage(t.Context(), keep.Digest(), dest)
	check(t, err)
}
