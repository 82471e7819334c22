package artifacts_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
)

// BenchmarkStage installs 500 MB cold, half of it in small files. It reports
// the peak of memory in use, which must stay under 64 MB.
func BenchmarkStage(b *testing.B) {
	files := []file{{name: "large", data: strings.Repeat(noise(1<<20), 250)}}
	for i := range 5000 {
		files = append(files, file{name: fmt.Sprintf("d%d/f%d", i%50, i), data: noise(50_000)})
	}
	s := newStore(b)
	pushed := push(b, s, writeDir(b, files))
	files = nil
	b.SetBytes(pushed.Bytes)
	for b.Loop() {
		stage(b, s, pushed.Digest)
	}
}

func stage(b *testing.B, s artifacts.Store, d artifacts.Digest) {
	var peak uint64
	runtime.GC()
	f := &artifacts.Fetcher{Opener: s, Cache: newCache(b), Progress: func(p artifacts.Progress) {
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
