package retry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/dirstore"
	"github.com/groundswell/groundswell/artifacts/retry"
	"github.com/groundswell/groundswell/artifacts/storetest"
)

var errPassing = errors.New("503 slow down")

// flaky is a real store whose calls fail so many times first.
type flaky struct {
	*dirstore.Store
	fail  int
	err   error
	calls int
	// cut breaks each body after so many bytes, if set.
	cut int64
}

func (f *flaky) fault() error {
	f.calls++
	if f.fail == 0 {
		return nil
	}
	f.fail--
	return f.err
}

func (f *flaky) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := f.fault(); err != nil {
		_, _ = io.CopyN(io.Discard, r, size/2) // half is gone
		return err
	}
	return f.Store.Put(ctx, key, r, size)
}

func (f *flaky) Stat(ctx context.Context, key string) (int64, error) {
	if err := f.fault(); err != nil {
		return 0, err
	}
	return f.Store.Stat(ctx, key)
}

func (f *flaky) Delete(ctx context.Context, key string) error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.Store.Delete(ctx, key)
}

func (f *flaky) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := f.fault(); err != nil {
		return nil, err
	}
	r, err := f.Store.Open(ctx, key, offset, length)
	if err != nil || f.cut < 0 {
		return r, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r, f.cut), broken{}), r}, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func newFlaky(t *testing.T, fail int, err error) *flaky {
	t.Helper()
	s, dirErr := dirstore.New(t.TempDir())
	if dirErr != nil {
		t.Fatal(dirErr)
	}
	return &flaky{Store: s, fail: fail, err: err, cut: -1}
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) artifacts.Store { return retry.New(newFlaky(t, 0, nil), retry.Options{}) })
}

func TestPassingFaults(t *testing.T) {
	data := []byte("the content of the object")
	synctest.Test(t, func(t *testing.T) {
		f := newFlaky(t, 0, errPassing)
		s := retry.New(f, retry.Options{})
		f.fail = 3
		if err := s.Put(t.Context(), "packs/a", bytes.NewReader(data), int64(len(data))); err != nil {
			t.Error(err)
		}
		f.fail = 3
		if n, err := s.Stat(t.Context(), "packs/a"); err != nil || n != int64(len(data)) {
			t.Error(n, err)
		}
		f.fail = 3
		r, err := s.Open(t.Context(), "packs/a", 4, -1)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != string(data[4:]) {
			t.Errorf("%q, %v", got, err)
		}
		r.Close()
		f.fail = 3
		if err := s.Delete(t.Context(), "packs/a"); err != nil {
			t.Error(err)
		}
	})
}

func TestPermanentFaultsAreNotRepeated(t *testing.T) {
	for _, cause := range []error{
		artifacts.ErrNotFound, artifacts.Permanent(errPassing), artifacts.ErrInvalid,
		context.Canceled,
	} {
		f := newFlaky(t, 100, cause)
		_, err := retry.New(f, retry.Options{}).Stat(t.Context(), "packs/a")
		if !errors.Is(err, cause) || f.calls != 1 {
			t.Errorf("%v: %v after %d calls", cause, err, f.calls)
		}
	}
}

func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlaky(t, 1<<30, errPassing)
		began := time.Now()
		_, err := retry.New(f, retry.Options{GiveUp: time.Minute}).Stat(t.Context(), "packs/a")
		if took := time.Since(began); !errors.Is(err, errPassing) || !strings.Contains(err.Error(), "attempts") ||
			took > time.Minute || f.calls < 5 {
			t.Errorf("%v after %s and %d calls", err, took, f.calls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began = time.Now()
		_, err = retry.New(f, retry.Options{GiveUp: time.Minute}).Stat(ctx, "packs/a")
		if took := time.Since(began); !errors.Is(err, errPassing) || took < 50*time.Minute || took > time.Hour {
			t.Errorf("with a deadline: %v after %s", err, took)
		}
	})
}

// TestBodyGoesOn breaks every connection after 7 bytes.
func TestBodyGoesOn(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10)
	f := newFlaky(t, 0, errPassing)
	s := retry.New(f, retry.Options{First: time.Microsecond})
	if err := s.Put(t.Context(), "packs/a", bytes.NewReader(data), 100); err != nil {
		t.Fatal(err)
	}
	f.cut = 7
	for _, r := range [][2]int64{{0, 100}, {13, 80}, {99, 1}} {
		in, err := s.Open(t.Context(), "packs/a", r[0], r[1])
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(in)
		if err != nil || !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
			t.Errorf("%v: %d bytes, %v", r, len(got), err)
		}
		in.Close()
	}
	f.cut, f.calls = 0, 0 // no connection ever brings a byte
	in, err := s.Open(t.Context(), "packs/a", 5, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := io.ReadAll(in); !errors.Is(err, io.ErrUnexpectedEOF) ||
		!strings.Contains(err.Error(), "packs/a at byte 5") || f.calls > 10 {
		t.Errorf("%v after %d calls", err, f.calls)
	}
}

// plain hides that the store presigns.
type plain struct{ artifacts.Store }

func TestPresignsOnlyIfTheStoreDoes(t *testing.T) {
	f := newFlaky(t, 0, nil)
	if _, ok := retry.New(f, retry.Options{}).(artifacts.Presigner); !ok {
		t.Error("the presigner is lost")
	}
	if _, ok := retry.New(plain{f}, retry.Options{}).(artifacts.Presigner); ok {
		t.Error("a presigner out of nothing")
	}
}

// TestPutOfAStreamIsTriedOnce since what was read is gone.
func TestPutOfAStreamIsTriedOnce(t *testing.T) {
	f := newFlaky(t, 1, errPassing)
	err := retry.New(f, retry.Options{}).Put(t.Context(), "packs/a",
		io.LimitReader(bytes.NewReader([]byte("abc")), 3), 3)
	if !errors.Is(err, errPassing) || f.calls != 1 {
		t.Errorf("%v after %d calls", err, f.calls)
	}
}
