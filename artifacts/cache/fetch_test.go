package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundletest"
	"github.com/groundswell/groundswell/artifacts/cache"
)

// file is short for what nearly every test here says.
type file = bundletest.File

// many is a bundle of several ranges and one file of several parts.
func many() []file {
	files := []file{{Name: "large", Data: bundletest.Noise(17 << 20)}}
	for i := range 300 {
		files = append(files, file{Name: fmt.Sprintf("d%d/f%03d", i%7, i), Data: bundletest.Noise(1000 + i*117)})
	}
	return append(files, bundletest.Sample...)
}

func TestFetchReportsProgress(t *testing.T) {
	s := bundletest.NewStore(t)
	pushed := bundletest.Push(t, s, bundletest.WriteDir(t, many()))
	var last cache.Progress
	calls := 0
	f := &cache.Fetcher{Opener: s, Cache: bundletest.NewCache(t), Progress: func(p cache.Progress) {
		if p.Files != calls+1 || p.Bytes < last.Bytes {
			t.Errorf("progress %+v after %+v", p, last)
		}
		calls, last = calls+1, p
	}}
	_, err := f.Fetch(t.Context(), pushed.Digest)
	check(t, err)
	if last.Files != last.TotalFiles || last.Bytes != last.TotalBytes || last.Received < last.Bytes/2 ||
		last.Files < 300 {
		t.Errorf("last progress %+v", last)
	}
}

// cached lists the content that a cache shows.
func cached(t *testing.T, c *cache.Cache) (sums []string) {
	t.Helper()
	check(t, filepath.WalkDir(c.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			sums = append(sums, d.Name())
			verifyName(t, path)
		}
		return err
	}))
	return sums
}

// verifyName fails unless the file's content has the sha256 that it is
// called by.
func verifyName(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	if sum := sha(data); sum != filepath.Base(path) {
		t.Errorf("cache shows %s of sha256 %s", path, sum)
	}
}

// TestFetchFaults injects what stores and networks do. Nothing wrong is ever
// visible in the cache; passing faults are overcome, others named.
func TestFetchFaults(t *testing.T) {
	s := bundletest.NewStore(t)
	pushed := bundletest.Push(t, s, bundletest.WriteDir(t, many()))
	pack := func(key string) bool { return strings.HasPrefix(key, "packs/") }
	type fault = func(key string, nth int, r io.ReadCloser, err error) (io.ReadCloser, error)
	on := func(match func(string) bool, times int, do func(io.ReadCloser) (io.ReadCloser, error)) fault {
		return func(key string, nth int, r io.ReadCloser, err error) (io.ReadCloser, error) {
			if err != nil || !match(key) || nth > times {
				return r, err
			}
			return do(r)
		}
	}
	cut := func(r io.ReadCloser) (io.ReadCloser, error) { return bundletest.Truncated(r, 5000), nil }
	silent := func(r io.ReadCloser) (io.ReadCloser, error) {
		return struct {
			io.Reader
			io.Closer
		}{io.LimitReader(r, 5000), r}, nil
	}
	corrupt := func(r io.ReadCloser) (io.ReadCloser, error) { return bundletest.Flipped(r), nil }
	gone := func(r io.ReadCloser) (io.ReadCloser, error) { r.Close(); return nil, artifacts.ErrNotFound }
	prefix := func(p string) func(string) bool { return func(key string) bool { return strings.HasPrefix(key, p) } }
	const always = 1 << 30
	for name, c := range map[string]struct {
		fault fault
		want  string // "" means that the fetch succeeds
		is    error
	}{
		"truncated twice":     {on(pack, 2, cut), "", nil},
		"short without error": {on(pack, 2, silent), "", nil},
		"corrupted once":      {on(pack, 1, corrupt), "", nil},
		"manifest corrupted":  {on(prefix("manifests/"), 2, corrupt), "", nil},
		"index corrupted":     {on(prefix("indexes/"), 2, corrupt), "", nil},
		"always corrupted":    {on(pack, always, corrupt), "from packs/", nil},
		"always truncated": {on(pack, always,
			func(r io.ReadCloser) (io.ReadCloser, error) {
				return bundletest.Truncated(r, 0),
					nil
			}), "from packs/", io.ErrUnexpectedEOF},
		"pack missing": {on(pack, always, gone), "from packs/", artifacts.ErrNotFound},
		"index missing": {
			on(prefix("indexes/"), always, gone), "index of " + string(pushed.Digest),
			artifacts.ErrNotFound,
		},
		"manifest missing": {
			on(prefix("manifests/"), always, gone), "manifest " + string(pushed.Digest),
			artifacts.ErrNotFound,
		},
		"manifest bad": {
			on(prefix("manifests/"), always, corrupt), "manifest " + string(pushed.Digest),
			artifacts.ErrDigestMismatch,
		},
	} {
		t.Run(name, func(t *testing.T) {
			kept := bundletest.NewCache(t)
			dest := filepath.Join(t.TempDir(), "release")
			f := &cache.Fetcher{Opener: &bundletest.Faulty{Store: s, Fault: c.fault}, Cache: kept}
			m, err := f.Stage(t.Context(), pushed.Digest, dest)
			cached(t, kept)
			if c.want == "" {
				check(t, err)
				check(t, bundletest.VerifyTree(dest, m))
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if _, err := os.Lstat(dest); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the release is there after a failed fetch: %v", err)
			}
		})
	}
}

// TestFetchOfAnotherManifest gives a store whose object under a digest is a
// sound manifest, but another one.
func TestFetchOfAnotherManifest(t *testing.T) {
	s := bundletest.NewStore(t)
	one := bundletest.Push(t, s, bundletest.WriteDir(t, bundletest.Sample))
	two := bundletest.Push(t, s, bundletest.WriteDir(t, bundletest.Sample[:3]))
	r, err := s.Open(t.Context(), artifacts.ManifestKey(two.Digest), 0, -1)
	check(t, err)
	defer r.Close()
	data, err := io.ReadAll(r)
	check(t, err)
	check(t, s.Put(t.Context(), artifacts.ManifestKey(one.Digest), bytes.NewReader(data), int64(len(data))))
	f := &cache.Fetcher{Opener: s, Cache: bundletest.NewCache(t)}
	if _, err := f.Fetch(t.Context(), one.Digest); !errors.Is(err, artifacts.ErrDigestMismatch) {
		t.Errorf("%v, want ErrDigestMismatch", err)
	}
	if got := cached(t, f.Cache); len(got) != 0 {
		t.Errorf("the cache shows %v", got)
	}
}

func TestFetchContinues(t *testing.T) {
	s := bundletest.NewStore(t)
	pushed := bundletest.Push(t, s, bundletest.WriteDir(t, many()))
	kept := bundletest.NewCache(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the agent stops")
	f := &cache.Fetcher{Opener: s, Cache: kept, Progress: func(p cache.Progress) {
		if p.Files == 100 {
			cancel(stop)
		}
	}}
	if _, err := f.Fetch(ctx, pushed.Digest); !errors.Is(err, stop) && !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want the cause", err)
	}
	arrived := len(cached(t, kept))
	var total int
	f = &cache.Fetcher{Opener: s, Cache: kept, Progress: func(p cache.Progress) { total = p.TotalFiles }}
	_, err := f.Fetch(t.Context(), pushed.Digest)
	check(t, err)
	if all := len(cached(t, kept)); arrived < 100 || total != all-arrived {
		t.Errorf("%d had arrived, then %d of %d were fetched", arrived, total, all)
	}
}

// TestSecondInstallNeedsNoStore is a rollback while the store is down.
func TestSecondInstallNeedsNoStore(t *testing.T) {
	s := bundletest.NewStore(t)
	pushed := bundletest.Push(t, s, bundletest.WriteDir(t, bundletest.Sample))
	kept := bundletest.NewCache(t)
	_, err := (&cache.Fetcher{Opener: s, Cache: kept}).Fetch(t.Context(), pushed.Digest)
	check(t, err)
	down := &bundletest.Faulty{Store: s, Fault: func(_ string, _ int, r io.ReadCloser, _ error) (io.ReadCloser, error) {
		return nil, errors.New("store is down")
	}}
	dest := filepath.Join(t.TempDir(), "r")
	m, err := (&cache.Fetcher{Opener: down, Cache: kept}).Stage(t.Context(), pushed.Digest, dest)
	check(t, err)
	check(t, bundletest.VerifyTree(dest, m))
}

func TestVerifyNamesTheFirstBadFile(t *testing.T) {
	s := bundletest.NewStore(t)
	pushed := bundletest.Push(t, s, bundletest.WriteDir(t, []file{
		{Name: "a", Data: bundletest.Noise(100)},
		{Name: "b", Data: bundletest.Noise(100)},
		{Name: "c", Data: bundletest.Noise(100)},
	}))
	x, err := artifacts.LoadIndex(t.Context(), s, pushed.Digest)
	check(t, err)
	key := artifacts.PackKey(x.Packs()[0].Sum)
	r, err := s.Open(t.Context(), key, 0, -1)
	check(t, err)
	data, err := io.ReadAll(r)
	check(t, err)
	check(t, r.Close())
	data[150] ^= 1 // of b
	data[250] ^= 1 // of c
	check(t, s.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))))
	err = cache.VerifyStored(t.Context(), s, pushed.Digest)
	if !errors.Is(err, artifacts.ErrDigestMismatch) ||
		!strings.Contains(err.Error(), `2 bad files, the first: file "b"`) {
		t.Errorf("verify: %v", err)
	}
	check(t, s.Delete(t.Context(), key))
	if err := cache.VerifyStored(t.Context(), s, pushed.Digest); !artifacts.IsNotExist(err) ||
		!strings.Contains(err.Error(), key) {
		t.Errorf("verify without the pack: %v", err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
