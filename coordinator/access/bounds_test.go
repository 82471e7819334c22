package access_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/coordinator/access"
)

const bounded = sample + `bounds:
  www: {hosts: role == "web", stores: ["s3://releases/www", "minio://m:9000/b?tls=1", "file:///srv/www"]}
  api: {hosts: role == "api", pools: [{balancers: edge, backend: api}], runAs: [www]}
  "*": {stores: ["s3://rest"]}
`

func TestStoresWithin(t *testing.T) {
	t.Parallel()
	d := parse(t, bounded)
	for store, want := range map[string]bool{
		"s3://releases/www": true, "s3://releases/www/": true, "s3://releases/www/v1": true,
		"s3://releases/www2": false, "s3://releases": false, "s3://releases/": false, "s3://releases2/www": false,
		"s3://releases/www/../api": false, "s3://releases/www/%2e%2e/api": false, "s3://releases/www/..": false,
		"s3://releases//www": true, "s3://releases/x/../www": false, "S3://releases/www": true, // the same place
		"s3://RELEASES/www": false, "s3://u:p@releases/www": false, "s3://releases/www?endpoint=evil": false,
		"s3://releases/www#x": false, "s3:releases/www": false, "minio://m:9000/b/x?tls=1": true,
		"minio://m:9000/b/x": false, "minio://m:9000/b/x?tls=0": false, "minio://m:9001/b?tls=1": false,
		"file:///srv/www": true, "file:///srv/www/x": true, "file:///srv": false, "file:///srv/wwwx": false,
		"file:///srv/www/../../etc": false, "file://host/srv/www": false, "/srv/www": false, "": false,
		"s3://rest/x": false, // of the others, not of www
	} {
		if got := d.Bound("www").AllowsStore(store); got != want {
			t.Errorf("www may have %s: %t", store, got)
		}
	}
	for app, want := range map[string]bool{"api": true, "ww": false, "new": false} {
		if got := d.Bound(app).AllowsStore("s3://anything"); got != want {
			t.Errorf("%s may have s3://anything: %t", app, got)
		}
	}
	if !d.Bound("new").AllowsStore("s3://rest/new") || d.Bound("api").Hosts != `role == "api"` ||
		d.Bound("new").Hosts != "" {
		t.Error("the bound of all others is wrong")
	}
	for pool, want := range map[[2]string]bool{
		{"edge", "api"}: true, {"edge", "api2"}: false, {"edge", "www"}: false, {"inner", "api"}: false,
		{"edge/api", ""}: false, {"", "edge/api"}: false, {"edge", "{{.App}}"}: false,
	} {
		if got := d.Bound("api").AllowsPool(pool[0], pool[1]); got != want ||
			!d.Bound("www").AllowsPool(pool[0], pool[1]) {
			t.Errorf("api may have the pool %q: %t", pool, got)
		}
	}
	var none *access.Document
	if !none.Bound("www").AllowsStore("s3://anything") {
		t.Error("no document has bounds")
	}
}

func TestWrongBounds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`www: {hosts: "role =="}`:                 "bounds.www.hosts: is no selector",
		`www: {stores: []}`:                       "bounds.www.stores: names none",
		`www: {stores: ["releases/www"]}`:         "bounds.www.stores[0]: \"releases/www\" is no artifact store",
		`www: {stores: ["s3://a", "ftp://x"]}`:    "bounds.www.stores[1]",
		`www: {stores: ["s3://u:p@a"]}`:           "no credentials",
		`www: {stores: ["s3://a/../b"]}`:          "no ..",
		`www: {stores: ["s3:///b"]}`:              "names no bucket",
		`www: {pools: []}`:                        "bounds.www.pools: names none",
		`www: {pools: [{balancers: edge}]}`:       "backend",
		`"a b": {hosts: "true"}`:                  "bounds.a b",
		`www: {host: "true"}`:                     `did you mean "hosts"?`,
		`www: {hosts: "true", users: [deployer]}`: "unknown key",
		`www: {runAs: []}`:                        "bounds.www.runAs: names none",
		`www: {runAs: [www, "a b"]}`:              "bounds.www.runAs[1]: \"a b\" is no user",
	} {
		_, err := access.Parse([]byte(sample+"bounds:\n  "+text+"\n"), "access.yaml")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n%v\nlacks %q", text, err, want)
		}
	}
	got := access.Diff(parse(t, sample), parse(t, bounded))
	want := []string{
		"bounds of *: any host, stores s3://rest, any pool, any user, was any host, any store, any pool, any user",
		`bounds of api: hosts role == "api", any store, pools api of edge, users www, was any host, any store, any pool, ` +
			`any user`,
	}
	if len(got) != 3 || !slices.Equal(got[:2], want) {
		t.Errorf("bounds are told as %q", got)
	}
}
