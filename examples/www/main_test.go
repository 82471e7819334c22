package main

import (
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBundleIsComplete(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "b")
	if err := run([]string{"bundle", "--dir", dir, "--revision", "v7"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"appspec.yml", "scripts/start.sh", "scripts/stop.sh", "www", "revision"} {
		info, err := os.Stat(filepath.Join(dir, f))
		if err != nil || strings.HasPrefix(f, "scripts") && info.Mode()&0o100 == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Setenv("WWW_STATE", t.TempDir())
	get := func(behaviour, path string) (int, string) {
		rec := httptest.NewRecorder()
		handler("v7", behaviour).ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		return rec.Code, rec.Body.String()
	}
	if code, body := get("", "/"); code != 200 || !strings.Contains(body, `"revision":"v7"`) {
		t.Errorf("/: %d %s", code, body)
	}
	if code, _ := get("500", "/healthz"); code != 500 {
		t.Errorf("a broken one: %d", code)
	}
	if code, _ := get("500", "/ping"); code != 200 {
		t.Errorf("/ping of a broken one: %d", code)
	}
	if err := os.WriteFile(state("drain"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _ := get("", "/healthz"); code != 503 {
		t.Errorf("draining: %d", code)
	}
	if code, _ := get("", "/"); code != 200 {
		t.Errorf("a request while draining: %d", code)
	}
}
