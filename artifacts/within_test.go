package artifacts

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestWithin: where nothing may be fetched nothing is, whether a URL is signed for it or a
// server redirects to it.
func TestWithin(t *testing.T) {
	asked := 0
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = io.WriteString(w, "what")
	}))
	defer other.Close()
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, other.URL+"/away", http.StatusTemporaryRedirect)
			return
		}
		_, _ = io.WriteString(w, "what")
	}))
	defer store.Close()
	no := errors.New("not from there")
	for at, want := range map[string]error{
		store.URL + "/object": nil, store.URL + "/away": no, other.URL + "/object": no, "file:///etc/hostname": no,
	} {
		o := &URLOpener{
			Sign: func(context.Context, string) (string, error) { return at, nil },
			Within: func(url string) error {
				if strings.HasPrefix(url, store.URL+"/") {
					return nil
				}
				return no
			},
		}
		r, err := o.Open(t.Context(), "k", 0, -1)
		if err == nil {
			_, err = io.ReadAll(r)
			_ = r.Close()
		}
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", at, err, want)
		}
	}
	if asked != 0 {
		t.Errorf("another server was asked %d times", asked)
	}
}
