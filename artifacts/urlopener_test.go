package artifacts_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/bundletest"
)

const (
	urlKey = "packs/abc"
	text   = "0123456789"
	secret = "X-Signature=hush"
)

// serve answers with h, which may fall back to a correct server of text.
func serve(t *testing.T, h func(w http.ResponseWriter, r *http.Request, right http.HandlerFunc)) *artifacts.URLOpener {
	t.Helper()
	right := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(w, r, right) }))
	t.Cleanup(server.Close)
	return &artifacts.URLOpener{Sign: func(_ context.Context, key string) (string, error) {
		return server.URL + "/" + key + "?" + secret, nil
	}}
}

func read(t *testing.T, o artifacts.Opener, offset, length int64) (string, error) {
	t.Helper()
	r, err := o.Open(t.Context(), urlKey, offset, length)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), err
}

func TestURLRanges(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request, right http.HandlerFunc) { right(w, r) })
	for _, c := range []struct {
		offset, length int64
		want           string
	}{{0, -1, text}, {0, 10, text}, {3, 4, "3456"}, {9, 1, "9"}, {4, -1, "456789"}} {
		if got, err := read(t, o, c.offset, c.length); err != nil || got != c.want {
			t.Errorf("%d+%d: %q, %v", c.offset, c.length, got, err)
		}
	}
	if _, err := read(t, o, 8, 5); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("beyond the end: %v", err)
	}
	if _, err := read(t, o, 20, 5); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestURLWrongAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer    func(w http.ResponseWriter, r *http.Request, right http.HandlerFunc)
		want      string
		permanent bool
	}{
		"ignores the range": {func(w http.ResponseWriter, _ *http.Request,
			_ http.HandlerFunc,
		) {
			io.WriteString(w, text)
		}, "200", true},
		"other range": {func(w http.ResponseWriter, r *http.Request, right http.HandlerFunc) {
			r.Header.Set("Range", "bytes=0-3")
			right(w, r)
		}, `"bytes 0-3/10"`, false},
		"no range stated": {
			func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(206) },
			`got ""`, false,
		},
		"breaks off": {func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
			w.Header().Set("Content-Range", "bytes 3-6/10")
			w.Header().Set("Content-Length", "4")
			w.WriteHeader(206)
			io.WriteString(w, "34")
		}, "unexpected EOF", false},
		"short": {func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
			w.Header().Set("Content-Range", "bytes 3-6/10")
			w.WriteHeader(206)
			io.WriteString(w, "34")
		}, "after 2 of 4 bytes", false},
		"404": {
			func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(404) },
			"object not found", true,
		},
		"403": {
			func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(403) },
			"expired", true,
		},
		"400": {
			func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(400) },
			"400", true,
		},
		"503": {
			func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(503) },
			"503", false,
		},
		"429": {
			func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(429) },
			"429", false,
		},
		"redirect to file":  {redirect("file:///etc/passwd"), "redirect from http to file", true},
		"redirect to https": {redirect("https://127.0.0.1:1/x?" + secret), "redirect from http to https", true},
		"redirects in a circle": {func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		}, "more than 3", true},
	} {
		o := serve(t, c.answer)
		_, err := read(t, o, 3, 4)
		if err == nil || !strings.Contains(err.Error(), c.want) || artifacts.IsPermanent(err) != c.permanent {
			t.Errorf("%s: %v (permanent %t), want %q", name, err, artifacts.IsPermanent(err), c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error shows the signature: %v", name, err)
		}
	}
}

func redirect(to string) func(http.ResponseWriter, *http.Request, http.HandlerFunc) {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.Redirect(w, r, to, http.StatusFound)
	}
}

// TestURLIsSignedAgain lets the first URL expire.
func TestURLIsSignedAgain(t *testing.T) {
	signed := 0
	good := "1"
	o := serve(t, func(w http.ResponseWriter, r *http.Request, right http.HandlerFunc) {
		if r.URL.Query().Get("n") != good {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		right(w, r)
	})
	base, err := o.Sign(t.Context(), urlKey)
	check(t, err)
	o.Sign = func(context.Context, string) (string, error) {
		signed++
		return fmt.Sprintf("%s&n=%d", base, signed), nil
	}
	for _, now := range []string{"1", "1", "2", "2"} {
		good = now
		if got, err := read(t, o, 0, 3); err != nil || got != "012" {
			t.Errorf("with signature %s: %q, %v", now, got, err)
		}
	}
	if signed != 2 {
		t.Errorf("signed %d times, want 2", signed)
	}
	good = "none"
	if _, err := read(t, o, 0, 3); !artifacts.IsPermanent(err) || signed != 3 {
		t.Errorf("refused for good: %v after %d signatures", err, signed)
	}
}

func TestURLStall(t *testing.T) {
	release := make(chan struct{})
	o := serve(t, func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Range", "bytes 3-6/10")
		w.WriteHeader(206)
		io.WriteString(w, "3")
		w.(http.Flusher).Flush()
		<-release
	})
	defer close(release)
	o.Stall = 20 * time.Millisecond
	if _, err := read(t, o, 3, 4); err == nil || !strings.Contains(err.Error(), "no byte arrived for 20ms") ||
		artifacts.IsPermanent(err) {
		t.Errorf("stalled body: %v", err)
	}
}

func TestURLForms(t *testing.T) {
	path := bundletest.WriteFile(t, "with space", []byte(text))
	for to, want := range map[string]string{
		(&url.URL{Scheme: "file", Path: path}).String():           "",
		"file://localhost" + strings.ReplaceAll(path, " ", "%20"): "",
		"file://other/dir":     `host "other"`,
		"file:///no/such/file": "no such file",
		"gopher://x":           `"gopher"`,
		"://" + secret:         "no URL",
		"http://127.0.0.1:1/":  "refused",
	} {
		o := &artifacts.URLOpener{Sign: func(context.Context, string) (string, error) { return to, nil }}
		got, err := read(t, o, 2, 3)
		if want == "" && (err != nil || got != "234") {
			t.Errorf("%s: %q, %v", to, got, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush")) {
			t.Errorf("%s: %v, want %q", to, err, want)
		}
	}
	o := &artifacts.URLOpener{Sign: func(context.Context, string) (string, error) {
		return "",
			errors.New("coordinator gone")
	}}
	if _, err := read(t, o, 0, 1); err == nil || !strings.Contains(err.Error(), "coordinator gone") {
		t.Errorf("failing signer: %v", err)
	}
}
