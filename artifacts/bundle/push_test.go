package bundle_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/bundletest"
	"github.com/groundswell/groundswell/artifacts/cache"
)

// file is short for what nearly every test here says.
type file = bundletest.File

// recorder notes what a push puts, and may stop it.
type recorder struct {
	artifacts.Store
	mu   sync.Mutex
	puts []string
	fail func(key string) error
}

func (r *recorder) Put(ctx context.Context, key string, body io.Reader, size int64) error {
	r.mu.Lock()
	r.puts = append(r.puts, key)
	r.mu.Unlock()
	if r.fail != nil {
		if err := r.fail(key); err != nil {
			return err
		}
	}
	return r.Store.Put(ctx, key, body, size)
}

func TestPushOrderAndIdempotence(t *testing.T) {
	s := &recorder{Store: bundletest.NewStore(t)}
	dir := bundletest.WriteDir(t, bundletest.Sample)
	first := bundletest.Push(t, s, dir)
	if len(s.puts) != 3 || !strings.HasPrefix(s.puts[0], "packs/") || s.puts[1] != artifacts.IndexKey(first.Digest) ||
		s.puts[2] != artifacts.ManifestKey(first.Digest) {
		t.Errorf("puts %v, want pack, index, manifest", s.puts)
	}
	if first.Files != 5 || first.UploadedBytes == 0 || first.UploadedBytes != first.StoredBytes {
		t.Errorf("first push: %+v", first)
	}
	s.puts = nil
	second := bundletest.Push(t, s, dir)
	if second.Digest != first.Digest || second.UploadedBytes != 0 || len(s.puts) != 0 {
		t.Errorf("second push: %+v, puts %v", second, s.puts)
	}
}

func TestPushThatFailsLeavesNoRevision(t *testing.T) {
	base := bundletest.NewStore(t)
	for _, prefix := range []string{"packs/", "indexes/", "manifests/"} {
		s := &recorder{Store: base, fail: func(key string) error {
			if strings.HasPrefix(key, prefix) {
				return context.DeadlineExceeded
			}
			return nil
		}}
		src, err := bundle.Open(bundletest.WriteDir(t, bundletest.Sample))
		check(t, err)
		p, err := bundle.Pack(t.Context(), src, bundle.Options{})
		check(t, err)
		defer p.Close()
		if _, err := p.Push(t.Context(), s); err == nil {
			t.Errorf("push with failing %s: no error", prefix)
		}
		if _, err := base.Stat(t.Context(), artifacts.ManifestKey(p.Manifest.Digest())); !artifacts.IsNotExist(err) {
			t.Errorf("after a failing %s a manifest is there: %v", prefix, err)
		}
	}
}

// TestPushMovesOnlyChanges also packs a file of several parts and several
// packs, then changes one small file, a mode and a time.
func TestPushMovesOnlyChanges(t *testing.T) {
	s := bundletest.NewStore(t)
	files := append([]file{
		{Name: "big", Data: bundletest.Noise(100<<20 + 5)},
		{Name: "middle", Data: bundletest.Noise(200_000)},
		{Name: "zeros", Data: strings.Repeat("\x00", 40<<20)},
	}, bundletest.Sample...)
	dir := bundletest.WriteDir(t, files)
	first := bundletest.Push(t, s, dir)
	if first.StoredBytes > 101<<20 || first.StoredBytes < 100<<20 {
		t.Errorf("stored %d bytes of %d", first.StoredBytes, first.Bytes)
	}
	prev, err := artifacts.LoadIndex(t.Context(), s, first.Digest)
	check(t, err)
	if n := len(prev.Packs()); n != 2 {
		t.Errorf("%d packs, want 2 of at most 64 MiB", n)
	}
	check(t, os.WriteFile(filepath.Join(dir, "appspec.yml"), []byte("version: 0.0\nos: linux\nfiles: []\n"), 0o644))
	check(t, os.Chmod(filepath.Join(dir, "middle"), 0o755))
	second := bundletest.Push(t, s, dir, prev)
	if second.Digest == first.Digest || second.UploadedBytes > 4096 {
		t.Errorf("second push uploaded %d bytes", second.UploadedBytes)
	}
	check(t, cache.VerifyStored(t.Context(), s, second.Digest))

	kept := bundletest.NewCache(t)
	f := &cache.Fetcher{Opener: s, Cache: kept}
	_, err = f.Fetch(t.Context(), first.Digest)
	check(t, err)
	counting := &bundletest.Faulty{Store: s}
	f = &cache.Fetcher{Opener: counting, Cache: kept}
	m, err := f.Stage(t.Context(), second.Digest, filepath.Join(t.TempDir(), "r"))
	check(t, err)
	if len(counting.Opens) != 3 {
		t.Errorf("the second fetch opened %v, want manifest, index and one pack", counting.Opens)
	}
	if m.Digest() != second.Digest {
		t.Errorf("fetched %s", m.Digest())
	}

	// A pack that the store has lost is never referred to again.
	for _, p := range prev.Packs() {
		check(t, s.Delete(t.Context(), artifacts.PackKey(p.Sum)))
	}
	check(t, os.WriteFile(filepath.Join(dir, "another"), []byte("x"), 0o644))
	third := bundletest.Push(t, s, dir, prev)
	check(t, cache.VerifyStored(t.Context(), s, third.Digest))
}

// TestPushRepairs pushes a revision again whose pack is gone.
func TestPushRepairs(t *testing.T) {
	s := bundletest.NewStore(t)
	dir := bundletest.WriteDir(t, bundletest.Sample)
	first := bundletest.Push(t, s, dir)
	x, err := artifacts.LoadIndex(t.Context(), s, first.Digest)
	check(t, err)
	check(t, s.Delete(t.Context(), artifacts.PackKey(x.Packs()[0].Sum)))
	bundletest.Push(t, s, dir)
	check(t, cache.VerifyStored(t.Context(), s, first.Digest))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
