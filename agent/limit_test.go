package agent

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

type memory []byte

func (m memory) Open(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m)), nil
}

// TestStagingKeepsTheBandwidth reads 1 MiB at 128 KiB a second, two objects at
// once, in the time of a bubble.
func TestStagingKeepsTheBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := limitTo(memory(make([]byte, 512<<10)), 128<<10)
		begin, done := time.Now(), make(chan error)
		for range 2 {
			go func() {
				r, err := o.Open(t.Context(), "k", 0, -1)
				if err == nil {
					_, err = io.Copy(io.Discard, r)
				}
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took < 7*time.Second || took > 8*time.Second {
			t.Errorf("1 MiB at 128 KiB a second took %s", took)
		}
	})
}

// TestTwoFetchesShareTheHosts: each below a limit of its own, both together below the
// host's.
func TestTwoFetchesShareTheHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := rate.NewLimiter(128<<10, limitChunk)
		begin, done := time.Now(), make(chan error)
		for range 2 {
			o := &limited{limitTo(memory(make([]byte, 512<<10)), 1<<30), shared}
			go func() {
				r, err := o.Open(t.Context(), "k", 0, -1)
				if err == nil {
					_, err = io.Copy(io.Discard, r)
				}
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took < 7*time.Second || took > 8*time.Second {
			t.Errorf("1 MiB at 128 KiB a second took %s", took)
		}
	})
}
