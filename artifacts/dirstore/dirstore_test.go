package dirstore_test

import (
	"bytes"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/dirstore"
	"github.com/groundswell/groundswell/artifacts/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) artifacts.Store {
		s, err := dirstore.New(filepath.Join(t.TempDir(), "a b"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestBadURLs(t *testing.T) {
	for text, want := range map[string]string{
		"file://host/dir":     `"host"`,
		"file:relative":       "absolute",
		"file:///dir?mode=rw": "no parameters",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dirstore.NewURL(u); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestLeavesNoTemporaryFile looks into the folder after a failed Put.
func TestLeavesNoTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	s, err := dirstore.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := io.MultiReader(bytes.NewReader(make([]byte, 100)), iotest.ErrReader(io.ErrClosedPipe))
	if err := s.Put(t.Context(), "packs/a", r, 200); err == nil {
		t.Fatal("no error")
	}
	for _, sub := range []string{".tmp", "packs"} {
		list, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil || len(list) != 0 {
			t.Errorf("%s holds %v, %v", sub, list, err)
		}
	}
}
