package artifacts_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
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
	kinds := []artifacts.BundleType{artifacts.BundleTar, artifacts.BundleTgz, artifacts.BundleZip}
	f.Add(tarBytes(f, sample), byte(0))
	f.Add(tgzBytes(f, tarBytes(f, sample[:4])), byte(1))
	f.Add(zipBytes(f, sample), byte(2))
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
		src := artifacts.Source{
			Path: writeFile(t, "bundle", data), Type: kinds[int(kind)%len(kinds)],
			Limits: artifacts.Limits{Entries: 1000, Bytes: 1 << 20},
		}
		s := newStore(t)
		pushed, err := artifacts.Push(t.Context(), s, src, artifacts.PackOptions{TempDir: t.TempDir()})
		parent := t.TempDir()
		straight, errStraight := src.Extract(t.Context(), filepath.Join(parent, "straight"))
		if (err == nil) != (errStraight == nil) || err == nil && straight.Digest() != pushed.Digest {
			t.Fatalf("packed: %v, unpacked straight: %v", err, errStraight)
		}
		if err != nil {
			return
		}
		check(t, os.RemoveAll(filepath.Join(parent, "straight")))
		fetcher := &artifacts.Fetcher{Opener: s, Cache: newCache(t)}
		m, err := fetcher.Stage(t.Context(), pushed.Digest, filepath.Join(parent, "release"))
		check(t, err)
		check(t, artifacts.VerifyTree(filepath.Join(parent, "release"), m))
		check(t, artifacts.Verify(t.Context(), s, pushed.Digest))
		if list, err := os.ReadDir(parent); err != nil || len(list) != 1 {
			t.Fatalf("beside the release: %v, %v", list, err)
		}
	})
}
