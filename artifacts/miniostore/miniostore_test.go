package miniostore_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/miniostore"
	"github.com/groundswell/groundswell/artifacts/storetest"
)

var server storetest.S3

func TestMain(m *testing.M) { os.Exit(storetest.Main(m, &server)) }

func open(t *testing.T, text string) *miniostore.Store {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := miniostore.ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	s, err := miniostore.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func address(bucket string) string {
	return "minio://" + strings.TrimPrefix(server.URL, "http://") + "/" + bucket + "?secure=false"
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) artifacts.Store {
		return open(t, address(server.Bucket(t)+"/some/Prefix"))
	})
}

func TestPermanentRefusals(t *testing.T) {
	s := open(t, address("no-such-bucket"))
	_, err := s.Open(t.Context(), "packs/a", 0, -1)
	if !artifacts.IsPermanent(err) || artifacts.IsNotExist(err) || !strings.Contains(err.Error(), "/no-such-bucket") {
		t.Errorf("missing bucket: %v", err)
	}
	secret := "not-the-secret-0123456789"
	t.Setenv("MINIO_ACCESS_KEY", server.AccessKey)
	t.Setenv("MINIO_SECRET_KEY", secret)
	s = open(t, address(server.Bucket(t)))
	err = s.Put(t.Context(), "packs/a", strings.NewReader("x"), 1)
	if !artifacts.IsPermanent(err) || strings.Contains(err.Error(), secret) ||
		strings.Contains(err.Error(), server.SecretKey) {
		t.Errorf("wrong secret: %v", err)
	}
}

func TestNoCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	_, err := miniostore.New(miniostore.Config{Host: "127.0.0.1:9000", Bucket: "b"})
	if err == nil || !strings.Contains(err.Error(), "MINIO_ACCESS_KEY") {
		t.Errorf("without credentials: %v", err)
	}
}

func TestBadURLs(t *testing.T) {
	for text, want := range map[string]string{
		"minio://":                                "minio://host:port/bucket",
		"minio://127.0.0.1:9000":                  "minio://host:port/bucket",
		"minio://user:pw@127.0.0.1:9000/b":        "credentials",
		"minio://127.0.0.1:9000/b?colour=red":     `"colour"`,
		"minio://127.0.0.1:9000/b?secure=perhaps": `"perhaps"`,
		"minio://127.0.0.1:9000/b/x/../y":         "prefix",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = miniostore.ParseURL(u)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestAnEmptyObjectHasNoBody: a signed stream of nothing is not nothing, and what
// a server leaves of it on the connection would be read as the next request.
func TestAnEmptyObjectHasNoBody(t *testing.T) {
	var puts []string
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			puts = append(puts, fmt.Sprintf("%d %s", r.ContentLength, r.Header.Get("X-Amz-Decoded-Content-Length")))
			w.Header().Set("ETag", `"d41d8cd98f00b204e9800998ecf8427e"`)
			return
		}
		_, _ = io.WriteString(w, `<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>`)
	}))
	defer fake.Close()
	t.Setenv("MINIO_ACCESS_KEY", "key")
	t.Setenv("MINIO_SECRET_KEY", "secret-0123456789")
	s := open(t, "minio://"+strings.TrimPrefix(fake.URL, "http://")+"/bucket?secure=false")
	if err := s.Put(t.Context(), "packs/empty", strings.NewReader(""), 0); err != nil {
		t.Fatal(err)
	}
	if len(puts) != 1 || puts[0] != "0 " {
		t.Errorf("it was put as %q, not as a body of 0 bytes", puts)
	}
}
