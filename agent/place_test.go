package agent

import (
	"strings"
	"testing"
)

// TestPlaces: by whole words, never by a beginning (K2), an encoded step or another server.
func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		place, at string
		holds     bool
	}{
		{"https://s3.example/releases/www", "https://s3.example/releases/www/packs/1?X-Amz-Signature=a", true},
		{"https://s3.example/releases/www/", "https://S3.EXAMPLE/releases/www", true},
		{"https://s3.example", "https://s3.example/any", true},
		{"https://s3.example/releases/www", "https://s3.example/releases/www2/packs/1", false},
		{"https://s3.example/releases/www", "https://s3.example/releases/www/../api/packs/1", false},
		{"https://s3.example/releases/www", "https://s3.example/releases/www/%2e%2e/api/packs/1", false},
		{"https://s3.example/releases/www", "https://s3.example/releases/www%2f..%2fapi", false},
		{"https://s3.example/releases/www", "https://s3.example/releases/www/..\\api", false},
		{"https://s3.example/releases", "http://s3.example/releases/1", false},
		{"https://s3.example/releases", "https://s3.example.evil/releases/1", false},
		{"https://s3.example/releases", "https://s3.example:8443/releases/1", false},
		{"https://s3.example/releases", "https://s3.example@evil/releases/1", false},
		{"https://s3.example/releases", "https://evil/?https://s3.example/releases/1", false},
		{"https://s3.example/releases", "https:s3.example/releases", false},
		{"file:///srv/releases", "file:///srv/releases/1", true},
		{"file:///srv/releases", "file:///etc/shadow", false},
		{"s3://releases/www", "s3://releases/www?region=a", true},
		{"s3://releases/www", "s3://other/www", false},
	} {
		var p Place
		if err := p.Set(c.place); err != nil {
			t.Errorf("%s: %v", c.place, err)
		}
		if p.holds(c.at) != c.holds {
			t.Errorf("%s holds %s: %t", c.place, c.at, !c.holds)
		}
	}
	for _, bad := range []string{
		"", "releases", "https://", "ftp://a/b", "https://a:b@c/d", "https://a/b?c=d", "https://a/../b", "file://host/a",
		"https:a", "https://a/b#c", "s3:///a",
	} {
		if new(Place).Set(bad) == nil {
			t.Errorf("%q is taken for a place", bad)
		}
	}
	o := Options{Stores: []Place{"https://a/b"}}
	if err := o.allows("https://evil/x?X-Amz-Signature=secret"); err == nil || strings.Contains(err.Error(), "secret") ||
		!strings.Contains(err.Error(), "https://evil/x") {
		t.Errorf("it says %v", err)
	}
}
