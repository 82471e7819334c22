package stores_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/stores"
)

func TestOpen(t *testing.T) {
	t.Setenv("MINIO_ACCESS_KEY", "key")
	t.Setenv("MINIO_SECRET_KEY", "secret")
	for _, text := range []string{
		"file://" + t.TempDir(), "s3://bucket/prefix?region=eu-west-1",
		"minio://127.0.0.1:9000/bucket",
	} {
		s, err := stores.Open(t.Context(), text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, ok := s.(artifacts.Presigner); !ok {
			t.Errorf("%s: the store does not presign", text)
		}
	}
}

func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"/just/a/path":                   "no scheme",
		"":                               "no scheme",
		"gs://bucket":                    `"gs"`,
		"s3://k:hunter2@bucket":          "environment",
		"minio://k:hunter2@h:1/b":        "environment",
		"file://k:hunter2@/dir":          "environment",
		"s3://k:hunter2@bucket:port/%zz": "write file:///absolute/path",
		"file:relative/path":             "absolute",
	} {
		_, err := stores.Open(t.Context(), text)
		if !errors.Is(err, artifacts.ErrInvalid) || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want ErrInvalid with %q", text, err, want)
		}
	}
}
