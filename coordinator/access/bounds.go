package access

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/deploy/spec"
)

// Bound is what a deploy.yaml of an application can ask for at most, whoever writes it.
type Bound struct {
	// Hosts is a selector that hosts must match beside that of their group; "" is any.
	Hosts string `yaml:"hosts"`
	// Stores are the URLs of artifact stores, each with all that lies below; none is
	// any.
	Stores []string `yaml:"stores"`
	// Pools are the backends of balancers, as a deploy.yaml writes them; none is any.
	Pools []Pool `yaml:"pools"`
	// RunAs are the users that scripts of the application may run as; none is any.
	RunAs []string `yaml:"runAs"`
}

// Pool is a backend of balancers that coordinators know by a name.
type Pool struct {
	Balancers string `yaml:"balancers,required"`
	Backend   string `yaml:"backend,required"`
}

// AllowsPool reports whether hosts of the application may be taken out of a backend.
func (b Bound) AllowsPool(balancers, backend string) bool {
	return len(b.Pools) == 0 || slices.Contains(b.Pools, Pool{balancers, backend})
}

// Bound returns the bound of an application: its own, else that of every other one.
func (d *Document) Bound(app string) Bound {
	if d == nil {
		return Bound{}
	}
	if b, own := d.Bounds[app]; own {
		return b
	}
	return d.Bounds[All]
}

// AllowsStore reports whether an artifact store lies within the bound.
func (b Bound) AllowsStore(store string) bool {
	return len(b.Stores) == 0 || slices.ContainsFunc(b.Stores, func(within string) bool { return below(within, store) })
}

// below compares URLs by their parts, and paths by whole segments: a bucket or folder
// is not its namesake with more letters. What a query says, such as another server, is
// part of where a store is.
func below(within, store string) bool {
	w, err1 := url.Parse(within)
	s, err2 := url.Parse(store)
	if err1 != nil || err2 != nil || s.User != nil || s.Opaque != "" || s.Fragment != "" {
		return false
	}
	if s.Scheme != w.Scheme || s.Host != w.Host || s.RawQuery != w.RawQuery {
		return false
	}
	folder, root := folderOf(s), folderOf(w)
	return plain(s) && (root == "/" || folder == root || strings.HasPrefix(folder, root+"/"))
}

// plain reports whether a path means what it says: nothing in it leads elsewhere.
func plain(u *url.URL) bool {
	return !slices.Contains(strings.Split(u.Path, "/"), "..") && !strings.Contains(u.Path, "\\")
}

func folderOf(u *url.URL) string { return path.Clean("/" + u.Path) }

func (c checker) bound(at, app string, b Bound) {
	if app != All {
		c.name(at, "application", app)
	}
	if b.Hosts != "" {
		if _, err := spec.Compile(b.Hosts); err != nil {
			c.d.Errorf(at+".hosts", "is no selector: %v", err)
		}
	}
	for i, store := range b.Stores {
		where := fmt.Sprintf("%s.stores[%d]", at, i)
		u, err := url.Parse(store)
		switch {
		case err != nil || !slices.Contains([]string{"s3", "minio", "file"}, u.Scheme):
			c.d.Errorf(where, "%q is no artifact store; write s3://bucket/prefix, minio://host:port/bucket/prefix or "+
				"file:///folder", store)
		case u.User != nil || u.Fragment != "" || !plain(u):
			c.d.Errorf(where, "a store is named by its place alone: no credentials, no fragment, no ..")
		case u.Scheme != "file" && u.Host == "", u.Scheme == "file" && u.Host != "":
			c.d.Errorf(where, "%q names no bucket or folder", store)
		}
	}
	if c.d.Has(at+".runAs") && len(b.RunAs) == 0 {
		c.d.Errorf(at+".runAs", "names none; remove the key for any")
	}
	for i, user := range b.RunAs {
		if user == "" || strings.ContainsFunc(user, func(r rune) bool { return r <= ' ' || r == ':' || r > '~' }) {
			c.d.Errorf(fmt.Sprintf("%s.runAs[%d]", at, i), "%q is no user of a host", user)
		}
	}
	if c.d.Has(at+".pools") && len(b.Pools) == 0 {
		c.d.Errorf(at+".pools", "names none; remove the key for any")
	}
	if c.d.Has(at+".stores") && len(b.Stores) == 0 {
		c.d.Errorf(at+".stores", "names none; remove the key for any")
	}
}

// BoundsUsers reports whether the document says as whom scripts may run, which older builds
// do not read.
func (d *Document) BoundsUsers() bool {
	for _, b := range d.Bounds {
		if len(b.RunAs) > 0 {
			return true
		}
	}
	return false
}

// boundChanges says which bounds a document changes.
func boundChanges(before, after *Document) (out []string) {
	bounds := func(d *Document) map[string]Bound {
		if d == nil {
			return nil
		}
		return d.Bounds
	}
	was, is := bounds(before), bounds(after)
	for _, app := range union(slices.Collect(maps.Keys(was)), slices.Collect(maps.Keys(is))) {
		if old, now := was[app].words(), is[app].words(); old != now {
			out = append(out, fmt.Sprintf("bounds of %s: %s, was %s", app, now, old))
		}
	}
	return out
}

func (b Bound) words() string {
	hosts, stores := "any host", "any store"
	if b.Hosts != "" {
		hosts = "hosts " + b.Hosts
	}
	if len(b.Stores) > 0 {
		stores = "stores " + strings.Join(b.Stores, ", ")
	}
	pools := "any pool"
	if len(b.Pools) > 0 {
		pools = "pools"
		for _, p := range b.Pools {
			pools += fmt.Sprintf(" %s of %s", p.Backend, p.Balancers)
		}
	}
	users := "any user"
	if len(b.RunAs) > 0 {
		users = "users " + strings.Join(b.RunAs, ", ")
	}
	return hosts + ", " + stores + ", " + pools + ", " + users
}
