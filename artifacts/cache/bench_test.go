package cache_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundletest"
	"github.com/groundswell/groundswell/artifacts/cache"
)

// BenchmarkStage installs 500 MB cold, half of it in small files. It reports
// the peak of memory in use, which must stay under 64 MB.
func BenchmarkStage(b *testing.B) {
	files := []file{{Name: "large", Data: strings.Repeat(bundletest.Noise(1<<20), 250)}}
	for i := range 5000 {
		files = append(files, file{Name: fmt.Sprintf("d%d/f%d", i%50, i), Data: bundletest.Noise(50_000)})
	}
	s := bundletest.NewStore(b)
	pushed := bundletest.Push(b, s, bundletest.WriteDir(b, files))
	files = nil
	b.SetBytes(pushed.Bytes)
	for b.Loop() {
		stage(b, s, pushed.Digest)
	}
}

func stage(b *testing.B, s artifacts.Store, d artifacts.Digest) {
	var peak uint64
	runtime.GC()
	f := &cache.Fetcher{Opener: s, Cache: bundletest.NewCache(b), Progress: func(p cache.Progress) {
		if p.Files%100 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse+m.StackInuse)
		}
	}}
	dest := filepath.Join(b.TempDir(), "r")
	_, err := f.Stage(b.Context(), d, dest)
	check(b, err)
	b.ReportMetric(float64(peak)/1e6, "MB-peak")
	check(b, os.RemoveAll(dest))
}
