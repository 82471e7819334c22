package agent

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/artifacts"
)

// Place is a URL and all that lies below it, by whole segments of its path.
type Place string

// Set reads one, as a flag or a field of a file has it.
func (p *Place) Set(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || !slices.Contains([]string{"http", "https", "s3", "minio", "file"}, u.Scheme) || u.Opaque != "":
		return fmt.Errorf("%q is no place of bundles; write https://host/path as coordinators sign it, file:///folder, "+
			"or with credentials: instance-role s3://bucket/prefix", text)
	case (u.Host == "") != (u.Scheme == "file"):
		return fmt.Errorf("%q names no host, bucket or folder", text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || climbs(u):
		return fmt.Errorf("a place is named by its URL alone: no credentials, no query, no fragment, and no .. in its path")
	}
	*p = Place(text)
	return nil
}

// holds reports whether a URL lies in the place, whatever its query.
func (p Place) holds(at string) bool {
	root, err1 := url.Parse(string(p))
	u, err2 := url.Parse(at)
	if err1 != nil || err2 != nil || u.Opaque != "" || u.User != nil || climbs(u) ||
		u.Scheme != root.Scheme || !strings.EqualFold(u.Host, root.Host) {
		return false
	}
	folder, within := path.Clean("/"+u.Path), path.Clean("/"+root.Path)
	return within == "/" || folder == within || strings.HasPrefix(folder, within+"/")
}

// climbs reports whether a path means another one to some servers than to others.
func climbs(u *url.URL) bool {
	return slices.Contains(strings.Split(u.Path, "/"), "..") || strings.ContainsAny(u.Path, "\\\x00")
}

// allows says why nothing is fetched from a URL; it does not repeat its query, which may
// be a signature.
func (o *Options) allows(at string) error {
	if len(o.Stores) == 0 || slices.ContainsFunc(o.Stores, func(p Place) bool { return p.holds(at) }) {
		return nil
	}
	where := "a place that is no URL"
	if u, err := url.Parse(at); err == nil {
		where = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	}
	return artifacts.Permanent(fmt.Errorf("nothing is fetched from %s on this host: its agent.yaml allows %v (stores)",
		where, o.Stores))
}
