package bundle_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/bundletest"
	"github.com/groundswell/groundswell/artifacts/cache"
)

// FuzzUnpack feeds any bytes as each type of archive through pack, push,
// fetch and unpack. What is accepted must unpack to exactly its manifest and
// touch nothing outside. Run it with -fuzzminimizetime=10x: workers make its
// coverage vary, which sends the minimiser round in circles.
func FuzzUnpack(f *testing.F) {
	const memory = "/dev/shm" // the many syncs would wait for everyone else's writes
	if info, err := os.Stat(memory); err == nil && info.IsDir() {
		f.Setenv("TMPDIR", memory)
	}
	kinds := []bundle.Type{bundle.Tar, bundle.Tgz, bundle.Zip}
	f.Add(bundletest.Tar(f, bundletest.Sample), byte(0))
	f.Add(bundletest.Tgz(f, bundletest.Tar(f, bundletest.Sample[:4])), byte(1))
	f.Add(bundletest.Zip(f, bundletest.Sample), byte(2))
	for _, b := range hostile(f) {
		if len(b.data) > 4096 {
			continue
		}
		for i, kind := range kinds {
			if b.kind == kind {
				f.Add(b.data, byte(i))
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, kind byte) {
		src := bundle.Source{
			Path: bundletest.WriteFile(t, "bundle", data), Type: kinds[int(kind)%len(kinds)],
			Limits: artifacts.Limits{Entries: 1000, Bytes: 1 << 20},
		}
		s := bundletest.NewStore(t)
		pushed, err := bundle.Push(t.Context(), s, src, bundle.Options{TempDir: t.TempDir()})
		parent := t.TempDir()
		straight, errStraight := src.Extract(t.Context(), filepath.Join(parent, "straight"))
		if (err == nil) != (errStraight == nil) || err == nil && straight.Digest() != pushed.Digest {
			t.Fatalf("packed: %v, unpacked straight: %v", err, errStraight)
		}
		if err != nil {
			return
		}
		check(t, os.RemoveAll(filepath.Join(parent, "straight")))
		fetcher := &cache.Fetcher{Opener: s, Cache: bundletest.NewCache(t)}
		m, err := fetcher.Stage(t.Context(), pushed.Digest, filepath.Join(parent, "release"))
		check(t, err)
		check(t, bundletest.VerifyTree(filepath.Join(parent, "release"), m))
		check(t, cache.VerifyStored(t.Context(), s, pushed.Digest))
		if list, err := os.ReadDir(parent); err != nil || len(list) != 1 {
			t.Fatalf("beside the release: %v, %v", list, err)
		}
	})
}
