package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/artifacts/dirstore"
)

func items(n int) (out []Item) {
	for i := range n {
		out = append(out, Item{fmt.Sprintf("k%03d", n-i), bytes.Repeat([]byte{byte(i)}, i*100)})
	}
	return out
}

func open(t *testing.T) (*Archive, string) {
	t.Helper()
	dir := t.TempDir()
	store, err := dirstore.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return New(store, "history"), dir
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	a, dir := open(t)
	o, err := a.Write(t.Context(), items(100))
	if err != nil {
		t.Fatal(err)
	}
	if o.Items != 100 || o.From != "k001" || o.To != "k100" {
		t.Errorf("it says %+v", o)
	}
	store, err := dirstore.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := New(store, "history") // another reader
	for _, item := range items(100) {
		got, err := b.Find(t.Context(), o.Digest, item.Key)
		if err != nil || !bytes.Equal(got, item.Data) {
			t.Errorf("%s: %d bytes, %v", item.Key, len(got), err)
		}
	}
	if again, err := a.Write(t.Context(), items(100)); err != nil || again != o {
		t.Errorf("the same items are %+v, %v", again, err)
	}
	if _, err := b.Find(t.Context(), o.Digest, "k101"); !errors.Is(err, ErrDamaged) {
		t.Errorf("a key that is not there: %v", err)
	}
}

func TestWhatCannotBeWritten(t *testing.T) {
	a, _ := open(t)
	for name, list := range map[string][]Item{"nothing": nil, "twice": {{"a", nil}, {"b", nil}, {"a", nil}}} {
		if o, err := a.Write(t.Context(), list); err == nil {
			t.Errorf("%s was written as %+v", name, o)
		}
	}
}

// TestDamage: every change of an object, and its absence, is an error that names it.
func TestDamage(t *testing.T) {
	a, dir := open(t)
	o, err := a.Write(t.Context(), items(10))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "history", strings.TrimPrefix(o.Digest, "sha256:"))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damage := map[string]func() error{
		"gone": func() error { return os.Remove(path) }, "empty": func() error { return os.WriteFile(path, nil, 0o600) },
		"half": func() error { return os.WriteFile(path, whole[:len(whole)/2], 0o600) },
		"more": func() error { return os.WriteFile(path, append(bytes.Clone(whole), 0), 0o600) },
	}
	for i := range whole {
		damage[fmt.Sprintf("byte %d", i)] = func() error {
			changed := bytes.Clone(whole)
			changed[i] ^= 1
			return os.WriteFile(path, changed, 0o600)
		}
	}
	for name, do := range damage {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		store, err := dirstore.New(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := New(store, "history").Items(t.Context(), o.Digest); !errors.Is(err, ErrDamaged) ||
			!strings.Contains(err.Error(), filepath.Base(path)) {
			t.Errorf("%s: %d items, %v", name, len(got), err)
		}
	}
}

// forgetful is a store that says that it has stored.
type forgetful struct{ Store }

func (forgetful) Put(_ context.Context, _ string, r io.Reader, _ int64) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func TestAStoreThatForgets(t *testing.T) {
	a, _ := open(t)
	if o, err := New(forgetful{a.store}, "history").Write(t.Context(), items(3)); !errors.Is(err, ErrDamaged) {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestADecodedBomb: an object whose items are larger than they may be is refused before
// they are read.
func TestADecodedBomb(t *testing.T) {
	data, err := encode([]Item{{"k", bytes.Repeat([]byte{0}, 1000)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := decode(bytes.Replace(data, []byte(`"items":1`), []byte(`"items":2`), 1)); err == nil {
		t.Error("an item is missing, and nobody says so")
	}
	if _, _, err := decode(bytes.Replace(data, []byte(`"format":1`), []byte(`"format":9`), 1)); err == nil ||
		!strings.Contains(err.Error(), "upgrade") {
		t.Errorf("a format of later: %v", err)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	a, _ := open(t)
	var last string
	for i := range 5 {
		o, err := a.Write(t.Context(), []Item{{fmt.Sprint(i), make([]byte, 20<<20)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Items(t.Context(), o.Digest); err != nil {
			t.Fatal(err)
		}
		last = o.Digest
	}
	if _, ok := a.kept(last); !ok || a.cached > mostCached || len(a.recent) != 3 {
		t.Errorf("%d objects of %d bytes are kept", len(a.recent), a.cached)
	}
}
