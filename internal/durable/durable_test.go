package durable_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/groundswell/groundswell/internal/durable"
)

func open(t *testing.T, path string) (*durable.Log, []string) {
	t.Helper()
	var got []string
	l, err := durable.OpenLog(path, func(r []byte) error { got = append(got, string(r)); return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, got
}

func TestWriteFileReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"one", "", "three"} {
		if err := durable.WriteFile(path, []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Fatalf("read %q, %v; want %q", got, err, want)
		}
	}
	st, _ := os.Stat(path)
	if st.Mode().Perm() != 0o640 {
		t.Fatalf("mode %v", st.Mode())
	}
	left, _ := os.ReadDir(filepath.Dir(path))
	if len(left) != 1 {
		t.Fatalf("temporary files left: %v", left)
	}
}

func TestSymlinkSwitches(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "current")
	for _, to := range []string{"a", "b"} {
		if err := durable.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.Readlink(link); got != to {
			t.Fatalf("link is %q, want %q", got, to)
		}
	}
	if err := durable.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := durable.Remove(link); err != nil {
		t.Fatalf("second remove: %v", err)
	}
}

func TestLogKeepsOrderAcrossOpens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var want []string
	for i := range 5 {
		l, got := open(t, path)
		if !slices.Equal(got, want) {
			t.Fatalf("open %d: %q, want %q", i, got, want)
		}
		r := fmt.Sprintf("record %d", i)
		if err := l.Append([]byte(r), nil); err != nil {
			t.Fatal(err)
		}
		want = append(want, r, "")
	}
}

// Every possible cut of the file must open to a prefix of whole records.
func TestLogTornAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	l, _ := open(t, path)
	all := []string{"alpha", "beta", "gamma gamma"}
	var ends []int64
	for _, r := range all {
		if err := l.Append([]byte(r)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, l.Size())
	}
	whole, _ := os.ReadFile(path)
	for cut := range len(whole) + 1 {
		for _, junk := range []string{"", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
			torn := filepath.Join(dir, fmt.Sprintf("t%d-%d", cut, len(junk)))
			if err := os.WriteFile(torn, append(slices.Clone(whole[:cut]), junk...), 0o600); err != nil {
				t.Fatal(err)
			}
			n := 0
			for n < len(ends) && int64(cut) >= ends[n] {
				n++
			}
			tl, got := open(t, torn)
			if !slices.Equal(got, all[:n]) {
				t.Fatalf("cut at %d: %q, want %q", cut, got, all[:n])
			}
			if err := tl.Append([]byte("next")); err != nil {
				t.Fatal(err)
			}
			if _, got = open(t, torn); len(got) != n+1 || got[n] != "next" {
				t.Fatalf("cut at %d, appended: %q", cut, got)
			}
		}
	}
}

// A flipped bit anywhere but in the last record is damage, not a torn tail.
func TestLogFlippedByteIsReported(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	l, _ := open(t, path)
	if err := l.Append([]byte("first")); err != nil {
		t.Fatal(err)
	}
	end := l.Size()
	if err := l.Append([]byte("second")); err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(path)
	for i := range end {
		bad := slices.Clone(whole)
		bad[i] ^= 0x40
		p := filepath.Join(dir, fmt.Sprintf("bad%d", i))
		if err := os.WriteFile(p, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := durable.OpenLog(p, func([]byte) error { return nil })
		if !errors.Is(err, durable.ErrCorrupt) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if after, _ := os.ReadFile(p); !slices.Equal(after, bad) {
			t.Fatalf("byte %d: the damaged file was changed", i)
		}
	}
}

func TestLogRewriteThenAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, _ := open(t, path)
	for i := range 100 {
		if err := l.Append([]byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	before := l.Size()
	if err := l.Rewrite(slices.Values([][]byte{[]byte("kept")})); err != nil {
		t.Fatal(err)
	}
	if l.Size() >= before {
		t.Fatal("rewrite did not shrink the file")
	}
	if err := l.Append([]byte("after")); err != nil {
		t.Fatal(err)
	}
	if _, got := open(t, path); !slices.Equal(got, []string{"kept", "after"}) {
		t.Fatalf("got %q", got)
	}
	if err := l.Append(make([]byte, durable.MaxRecord+1)); err == nil {
		t.Fatal("a record over the limit was accepted")
	}
}

func TestOpenLogStopsAtReplayError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, _ := open(t, path)
	if err := l.Append([]byte("x")); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	if _, err := durable.OpenLog(path, func([]byte) error { return boom }); !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
}
