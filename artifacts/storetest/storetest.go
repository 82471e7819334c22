// Package storetest is the contract that every artifact store must pass.
package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/groundswell/groundswell/artifacts"
)

// Run checks the store that open returns against the contract of
// [artifacts.Store], and of [artifacts.Presigner] if it is one. open is
// called once a case and returns an empty store.
func Run(t *testing.T, open func(*testing.T) artifacts.Store) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, artifacts.Store)
	}{
		{"round trip", roundTrip},
		{"ranges", ranges},
		{"ranges outside", rangesOutside},
		{"missing", missing},
		{"put is idempotent and replaces", replaces},
		{"put of a wrong size stores nothing", wrongSize},
		{"put of a broken reader stores nothing", brokenReader},
		{"put of a broken large reader stores nothing", brokenLarge},
		{"delete", deletes},
		{"bad keys", badKeys},
		{"cancelled", cancelled},
		{"readers see all or nothing", atomicPut},
		{"presigned", presigned},
		{"revision", revision},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

const key = "packs/object-1"

func put(t *testing.T, s artifacts.Store, key string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(ctx context.Context, o artifacts.Opener, key string, offset, length int64) ([]byte, error) {
	r, err := o.Open(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.Read(data) // never fails
	return data
}

// roundTrip includes an empty object and one of several multipart parts.
func roundTrip(t *testing.T, s artifacts.Store) {
	for _, size := range []int{0, 1, 100_000, 33<<20 + 7} {
		data := noise(size)
		key := fmt.Sprintf("packs/%d", size)
		put(t, s, key, data)
		got, err := get(t.Context(), s, key, 0, -1)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: got %d other bytes, %v", size, len(got), err)
		}
		if n, err := s.Stat(t.Context(), key); err != nil || n != int64(size) {
			t.Errorf("stat of %d bytes: %d, %v", size, n, err)
		}
	}
}

func ranges(t *testing.T, s artifacts.Store) {
	data := noise(1000)
	put(t, s, key, data)
	for _, r := range [][2]int64{{0, 1}, {0, 1000}, {1, 998}, {999, 1}, {500, -1}, {0, -1}} {
		end := r[0] + r[1]
		if r[1] < 0 {
			end = 1000
		}
		got, err := get(t.Context(), s, key, r[0], r[1])
		if err != nil || !bytes.Equal(got, data[r[0]:end]) {
			t.Errorf("range %v: %d bytes, %v", r, len(got), err)
		}
	}
}

func rangesOutside(t *testing.T, s artifacts.Store) {
	put(t, s, key, noise(1000))
	for _, r := range [][2]int64{{990, 11}, {1000, 1}, {5000, 10}, {-1, 5}, {0, 0}, {0, -2}} {
		if got, err := get(t.Context(), s, key, r[0], r[1]); err == nil {
			t.Errorf("range %v of 1000 bytes: %d bytes and no error", r, len(got))
		}
	}
}

func missing(t *testing.T, s artifacts.Store) {
	if _, err := s.Open(t.Context(), key, 0, -1); !artifacts.IsNotExist(err) || !artifacts.IsPermanent(err) {
		t.Errorf("open: %v, want one that IsNotExist and IsPermanent", err)
	}
	if _, err := s.Open(t.Context(), key, 5, 10); !artifacts.IsNotExist(err) {
		t.Errorf("open a range: %v, want one that IsNotExist", err)
	}
	if _, err := s.Stat(t.Context(), key); !artifacts.IsNotExist(err) {
		t.Errorf("stat: %v, want one that IsNotExist", err)
	}
	put(t, s, "packs/other", nil)
	if _, err := s.Stat(t.Context(), "packs"); !artifacts.IsNotExist(err) {
		t.Errorf("stat of a prefix: %v, want one that IsNotExist", err)
	}
}

func replaces(t *testing.T, s artifacts.Store) {
	for _, data := range []string{"one", "one", "another, longer", "x"} {
		put(t, s, key, []byte(data))
		if got, err := get(t.Context(), s, key, 0, -1); err != nil || string(got) != data {
			t.Errorf("got %q, %v, want %q", got, err, data)
		}
	}
}

func wrongSize(t *testing.T, s artifacts.Store) {
	for _, size := range []int64{9, 11} {
		if err := s.Put(t.Context(), key, bytes.NewReader(noise(10)), size); err == nil {
			t.Errorf("put of 10 bytes as %d: no error", size)
		}
		absent(t, s)
	}
}

func brokenReader(t *testing.T, s artifacts.Store) {
	broken := errors.New("source broke")
	r := io.MultiReader(bytes.NewReader(noise(5000)), iotest.ErrReader(broken))
	if err := s.Put(t.Context(), key, r, 10_000); !errors.Is(err, broken) {
		t.Errorf("put: %v, want the reader's error", err)
	}
	absent(t, s)
}

func brokenLarge(t *testing.T, s artifacts.Store) {
	broken := errors.New("source broke")
	r := io.MultiReader(bytes.NewReader(noise(20<<20)), iotest.ErrReader(broken))
	if err := s.Put(t.Context(), key, r, 40<<20); err == nil {
		t.Error("put: no error")
	}
	absent(t, s)
}

func absent(t *testing.T, s artifacts.Store) {
	t.Helper()
	if n, err := s.Stat(t.Context(), key); !artifacts.IsNotExist(err) {
		t.Errorf("an object of %d bytes is there (%v)", n, err)
	}
}

func deletes(t *testing.T, s artifacts.Store) {
	put(t, s, key, []byte("data"))
	for range 2 {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Error(err)
		}
		absent(t, s)
	}
}

func badKeys(t *testing.T, s artifacts.Store) {
	for _, key := range []string{"", "/abs", "a//b", "../up", "a/../b", ".hidden", "Up", "sp ace", "nul\x00", "a/"} {
		_, open := s.Open(t.Context(), key, 0, -1)
		_, stat := s.Stat(t.Context(), key)
		put := s.Put(t.Context(), key, bytes.NewReader(nil), 0)
		del := s.Delete(t.Context(), key)
		for verb, err := range map[string]error{"open": open, "stat": stat, "put": put, "delete": del} {
			if !errors.Is(err, artifacts.ErrInvalid) {
				t.Errorf("%s %q: %v, want ErrInvalid", verb, key, err)
			}
		}
	}
}

func cancelled(t *testing.T, s artifacts.Store) {
	put(t, s, "packs/there", []byte("data"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, key, bytes.NewReader([]byte("x")), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v, want context.Canceled", err)
	}
	if _, err := get(ctx, s, "packs/there", 0, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v, want context.Canceled", err)
	}
	absent(t, s)
}
