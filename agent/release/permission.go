package release

import (
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"path"
	"strconv"
	"strings"

	"github.com/groundswell/groundswell/hooks"
)

// permissions resolves the section to the paths of this install: what the
// deployment itself puts on disk, and nothing else.
func (p *planner) permissions(section []hooks.Permission) (map[string]*access, error) {
	all := map[string]*access{}
	for i, perm := range section {
		paths, err := p.matches(perm)
		if err != nil {
			return nil, fmt.Errorf("permissions[%d]: %w", i, err)
		}
		if len(paths) == 0 {
			continue
		}
		acc, err := resolve(perm)
		if err != nil {
			return nil, fmt.Errorf("permissions[%d]: %w", i, err)
		}
		for _, path := range paths {
			if all[path] != nil {
				return nil, fmt.Errorf("permissions[%d]: %s has permissions from an earlier entry already", i, path)
			}
			if _, isFile := p.copied[path]; isFile && hasDefaultACL(perm) {
				return nil, fmt.Errorf("permissions[%d]: %s is a file: a default acl is for directories", i, path)
			}
			all[path] = acc
		}
	}
	return all, nil
}

// matches lists what the entry is for, in the order of installation.
func (p *planner) matches(perm hooks.Permission) ([]string, error) {
	if _, isFile := p.copied[perm.Object]; isFile {
		if !perm.Files {
			return nil, nil
		}
		if perm.Pattern != "**" || len(perm.Except) > 0 {
			return nil, fmt.Errorf("object %s is a file: pattern and except are for directories", perm.Object)
		}
		return []string{perm.Object}, nil
	}
	var paths []string
	for _, path := range p.order {
		if p.made[path] && perm.Directories || !p.made[path] && perm.Files {
			if selects(perm, path) {
				paths = append(paths, path)
			}
		}
	}
	return paths, nil
}

// selects reports whether path lies below the object and fits pattern and
// except, both of which only know names directly inside the object.
func selects(perm hooks.Permission, path string) bool {
	rest, below := strings.CutPrefix(path, strings.TrimSuffix(perm.Object, "/")+"/")
	if !below || rest == "" {
		return false
	}
	direct := !strings.Contains(rest, "/")
	for _, pattern := range perm.Except {
		if direct && glob(pattern, rest) {
			return false
		}
	}
	return perm.Pattern == "**" || direct && glob(perm.Pattern, rest)
}

// glob is fnmatch on one name; a leading dot is nothing special, and a pattern
// that is none matches nothing.
func glob(pattern, name string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "[!", "[^"), name)
	return err == nil && ok
}

func hasDefaultACL(perm hooks.Permission) bool {
	for _, a := range perm.ACLs {
		if a.Default {
			return true
		}
	}
	return false
}

// resolve finds users, groups and programs now, so that none is missing later.
func resolve(perm hooks.Permission) (*access, error) {
	acc := &access{UID: -1, GID: -1, Mode: perm.Mode}
	var err error
	if perm.Owner != "" {
		if acc.UID, err = number(perm.Owner, "owner", func(s string) (string, error) {
			u, err := user.Lookup(s)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}); err != nil {
			return nil, err
		}
	}
	if perm.Group != "" {
		if acc.GID, err = number(perm.Group, "group", func(s string) (string, error) {
			g, err := user.LookupGroup(s)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		}); err != nil {
			return nil, err
		}
	}
	for _, a := range perm.ACLs {
		acc.ACL = append(acc.ACL, a.Entry)
	}
	if len(acc.ACL) > 0 {
		if _, err := exec.LookPath("setfacl"); err != nil {
			return nil, errors.New("acls need the program setfacl, which this host does not have: install the package acl")
		}
	}
	acc.Context = contextArgs(perm.Context)
	return acc, nil
}

func number(name, what string, lookup func(string) (string, error)) (int, error) {
	id, err := lookup(name)
	if err != nil {
		id = name // a number needs no entry in a table
	}
	n, errNumber := strconv.ParseUint(id, 10, 32)
	if errNumber != nil {
		return 0, fmt.Errorf("%s %q is unknown on this host: %w", what, name, err)
	}
	return int(n), nil
}

// contextArgs is empty on a host without SELinux, where a context has no
// meaning and an appspec that states one must still install.
func contextArgs(c *hooks.Context) []string {
	if c == nil || !hooks.SELinux() {
		return nil
	}
	return chconArgs(c)
}

func chconArgs(c *hooks.Context) []string {
	args := []string{"-t", c.Type}
	if c.User != "" {
		args = append(args, "-u", c.User)
	}
	if c.Range != "" {
		args = append(args, "-l", c.Range)
	}
	return args
}
