package storetest

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/artifacts/bundletest"
	"github.com/groundswell/groundswell/artifacts/cache"
)

// atomicPut stops a Put half way and looks: the old object must be whole.
func atomicPut(t *testing.T, s artifacts.Store) {
	old := noise(1000)
	put(t, s, key, old)
	fresh := noise(2 << 20)
	looked := false
	r := io.MultiReader(bytes.NewReader(fresh[:1<<20]), &hook{func() {
		got, err := get(t.Context(), s, key, 0, -1)
		if err != nil || !bytes.Equal(got, old) {
			t.Errorf("while put: %d bytes, %v, want the old object", len(got), err)
		}
		looked = true
	}}, bytes.NewReader(fresh[1<<20:]))
	if err := s.Put(t.Context(), key, r, int64(len(fresh))); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t.Context(), s, key, 0, -1); err != nil || !bytes.Equal(got, fresh) || !looked {
		t.Errorf("after put: %d bytes, %v, looked %t", len(got), err, looked)
	}
}

// hook is an empty reader that calls do when it is reached.
type hook struct{ do func() }

func (h *hook) Read([]byte) (int, error) {
	h.do()
	return 0, io.EOF
}

// presigned reads through the URLs as a host without credentials does.
func presigned(t *testing.T, s artifacts.Store) {
	signer, ok := s.(artifacts.Presigner)
	if !ok {
		t.Fatal("the store does not presign")
	}
	data := noise(100_000)
	put(t, s, key, data)
	o := &artifacts.URLOpener{Sign: func(ctx context.Context, key string) (string, error) {
		return signer.Presign(ctx, key, time.Minute)
	}}
	for _, r := range [][2]int64{{0, -1}, {0, 10}, {99_990, 10}, {50, -1}} {
		end := r[0] + r[1]
		if r[1] < 0 {
			end = int64(len(data))
		}
		got, err := get(t.Context(), o, key, r[0], r[1])
		if err != nil || !bytes.Equal(got, data[r[0]:end]) {
			t.Errorf("range %v: %d bytes, %v", r, len(got), err)
		}
	}
	if _, err := get(t.Context(), o, "packs/none", 0, -1); !artifacts.IsNotExist(err) {
		t.Errorf("missing object: %v, want one that IsNotExist", err)
	}
	if _, err := get(t.Context(), o, key, 99_995, 10); err == nil {
		t.Error("a range that passes the end: no error")
	}
}

// revision pushes, fetches and verifies a real bundle.
func revision(t *testing.T, s artifacts.Store) {
	src := t.TempDir()
	for name, data := range map[string][]byte{
		"appspec.yml": []byte("version: 0.0\n"), "bin/app": noise(3 << 20),
		"empty": nil,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	source, err := bundle.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := bundle.Push(t.Context(), s, source, bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cache.VerifyStored(t.Context(), s, pushed.Digest); err != nil {
		t.Error(err)
	}
	kept, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(t.TempDir(), "release")
	m, err := (&cache.Fetcher{Opener: s, Cache: kept}).Stage(t.Context(), pushed.Digest, dest)
	if err != nil {
		t.Fatal(err)
	}
	if err := bundletest.VerifyTree(dest, m); err != nil {
		t.Error(err)
	}
}
