package s3store_test

import (
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/s3store"
	"github.com/groundswell/groundswell/artifacts/storetest"
)

var server storetest.S3

func TestMain(m *testing.M) { os.Exit(storetest.Main(m, &server)) }

func open(t *testing.T, text string) *s3store.Store {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s3store.ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	s, err := s3store.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) artifacts.Store {
		return open(t, "s3://"+server.Bucket(t)+"/some/Prefix?region=us-east-1&endpoint="+server.URL)
	})
}

func TestEndpointFromEnvironment(t *testing.T) {
	for _, name := range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, server.URL)
			s := open(t, "s3://"+server.Bucket(t))
			if err := s.Put(t.Context(), "packs/a", strings.NewReader("x"), 1); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestPermanentRefusals(t *testing.T) {
	s := open(t, "s3://no-such-bucket?endpoint="+server.URL)
	_, err := s.Open(t.Context(), "packs/a", 0, -1)
	if !artifacts.IsPermanent(err) || artifacts.IsNotExist(err) ||
		!strings.Contains(err.Error(), "s3://no-such-bucket") {
		t.Errorf("missing bucket: %v", err)
	}
	secret := "not-the-secret-0123456789"
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	s = open(t, "s3://"+server.Bucket(t)+"?endpoint="+server.URL)
	err = s.Put(t.Context(), "packs/a", strings.NewReader("x"), 1)
	if !artifacts.IsPermanent(err) || strings.Contains(err.Error(), secret) ||
		strings.Contains(err.Error(), server.SecretKey) {
		t.Errorf("wrong secret: %v", err)
	}
}

func TestBadURLs(t *testing.T) {
	for text, want := range map[string]string{
		"s3://":                                      "no bucket",
		"s3://user:pw@bucket/":                       "credentials",
		"s3://bucket?colour=red":                     `"colour"`,
		"s3://bucket?path-style=maybe":               `"maybe"`,
		"s3://bucket?endpoint=ftp://x":               "endpoint",
		"s3://bucket?endpoint=http://u:pw@127.0.0.1": "endpoint",
		"s3://bucket/a/../b":                         "prefix",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s3store.ParseURL(u)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// Without credentials one sentence says what to set, and it is final; where the
// SDK has looked is its own matter.
func TestNoCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
	s := open(t, "s3://"+server.Bucket(t)+"?endpoint="+server.URL)
	_, err := s.Stat(t.Context(), "packs/a")
	if !artifacts.IsPermanent(err) || !strings.Contains(err.Error(), "no credentials: set AWS_ACCESS_KEY_ID") ||
		strings.Contains(strings.ToLower(err.Error()), "imds") || strings.Contains(err.Error(), "operation error") {
		t.Errorf("%v", err)
	}
}

// A server that is not there is told by one line.
func TestNoServer(t *testing.T) {
	s := open(t, "s3://bucket?endpoint=http://127.0.0.1:1")
	_, err := s.Stat(t.Context(), "packs/a")
	if want := "stat packs/a in s3://bucket: dial tcp 127.0.0.1:1: connect: connection " +
		"refused"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
