package discover_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/discover"
)

// service is a metadata service that wants a token, as IMDSv2 does.
func service(t *testing.T, tags map[string]string) string {
	t.Helper()
	const token = "secret-token"
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		fmt.Fprint(w, token)
	})
	mux.HandleFunc("GET /latest/meta-data/tags/instance/{name...}",
		func(w http.ResponseWriter, r *http.Request) { answer(w, r, token, tags) })
	mux.HandleFunc("GET /latest/meta-data/tags/instance",
		func(w http.ResponseWriter, r *http.Request) { answer(w, r, token, tags) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

func answer(w http.ResponseWriter, r *http.Request, token string, tags map[string]string) {
	name := r.PathValue("name")
	value, known := tags[name]
	switch {
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != token:
		w.WriteHeader(http.StatusUnauthorized)
	case tags == nil || name != "" && !known:
		w.WriteHeader(http.StatusNotFound)
	case name == "":
		fmt.Fprint(w, strings.Join(slices.Sorted(maps.Keys(tags)), "\n"))
	default:
		fmt.Fprint(w, value)
	}
}

func TestEC2Tags(t *testing.T) {
	want := map[string]string{"role": "web", "Name": "web 1", "env/stage": "prod", "empty": ""}
	got, err := discover.EC2Tags(t.Context(), discover.EC2Options{Endpoint: service(t, want)})
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestEC2Refusals(t *testing.T) {
	_, err := discover.EC2Tags(t.Context(), discover.EC2Options{Endpoint: service(t, nil)})
	if err == nil || !strings.Contains(err.Error(), "--instance-metadata-tags enabled") {
		t.Errorf("tags not let in: %v", err)
	}
	v1 := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, "role") // would answer without a token
	}))
	defer v1.Close()
	if tags, err := discover.EC2Tags(t.Context(),
		discover.EC2Options{Endpoint: v1.URL, Timeout: 5 * time.Second}); err == nil {
		t.Errorf("asked without a token: %v", tags)
	}
	begin := time.Now()
	if _, err := discover.EC2Tags(t.Context(),
		discover.EC2Options{Endpoint: "http://127.0.0.1:1", Timeout: time.Second}); err == nil ||
		time.Since(begin) > 5*time.Second {
		t.Errorf("nobody there: %v after %v", err, time.Since(begin))
	}
}
