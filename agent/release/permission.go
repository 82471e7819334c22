package release

import (
	"fmt"
	"os/user"
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

// glob matches one name; * stands for any letters, a leading dot is nothing
// special, and nothing else is, as in CodeDeploy's agent.
func glob(pattern, name string) bool {
	head, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, head)
	if !ok {
		return false
	}
	parts := strings.Split(rest, "*")
	for _, part := range parts[:len(parts)-1] {
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return strings.HasSuffix(name, parts[len(parts)-1])
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
		if acc.UID, err = userID(perm.Owner, "owner"); err != nil {
			return nil, err
		}
	}
	if perm.Group != "" {
		if acc.GID, err = groupID(perm.Group, "group"); err != nil {
			return nil, err
		}
	}
	if acc.ACL, err = resolveACL(perm.ACLs); err != nil {
		return nil, err
	}
	acc.Context = contextArgs(perm.Context)
	return acc, nil
}

// userID is the number of a user of this host; a number needs no entry. What
// says in an error what the user is for.
func userID(name, what string) (int, error) {
	u, err := user.Lookup(name)
	if err == nil {
		name = u.Uid
	}
	return number(name, what, err)
}

// groupID is the number of a group of this host; a number needs no entry.
func groupID(name, what string) (int, error) {
	g, err := user.LookupGroup(name)
	if err == nil {
		name = g.Gid
	}
	return number(name, what, err)
}

func number(id, what string, why error) (int, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s %q is unknown on this host: %w", what, id, why)
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
