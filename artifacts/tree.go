package artifacts

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// checkTree judges entries, sorted by path, as one tree: it returns an error
// that names the first entry which is malformed, listed twice, or lies under
// something that is no directory. Where a symlink leads is no matter of the
// tree: nothing lies below one, and nobody follows it.
func checkTree(entries []Entry, lim Limits) error {
	if err := checkTotals(entries, lim.OrDefault()); err != nil {
		return err
	}
	for i, e := range entries {
		if err := e.check(); err != nil {
			return err
		}
		if i > 0 && entries[i-1].Path >= e.Path {
			return fmt.Errorf("entry %q: listed twice or out of order: %w", e.Path, ErrInvalid)
		}
		if err := checkParent(entries, e); err != nil {
			return err
		}
	}
	return nil
}

func checkTotals(entries []Entry, lim Limits) error {
	if len(entries) > lim.Entries {
		return fmt.Errorf("entry %.300q: more than %d entries: %w", entries[lim.Entries].Path, lim.Entries, ErrInvalid)
	}
	left := lim.Bytes
	for _, e := range entries {
		if e.Size > left {
			return fmt.Errorf("entry %.300q: passes the limit of %d bytes in all: %w", e.Path, lim.Bytes, ErrInvalid)
		}
		left -= e.Size
	}
	return nil
}

// OutsideLink returns the first symlink that leads out of the revision, with
// the reason: an absolute one, one that climbs above the root, or one that
// passes through such a one. A host may refuse them.
func (m *Manifest) OutsideLink() (path, reason string) {
	for _, e := range m.entries {
		if e.Type != TypeSymlink {
			continue
		}
		if reason := linkFault(m.entries, e); reason != "" {
			return e.Path, fmt.Sprintf("symlink to %q %s", e.Target, reason)
		}
	}
	return "", ""
}

func checkParent(entries []Entry, e Entry) error {
	dir := path.Dir(e.Path)
	if dir == "." {
		return nil
	}
	parent, ok := find(entries, dir)
	if !ok {
		return fmt.Errorf("entry %q: its directory %q is not listed: %w", e.Path, dir, ErrInvalid)
	}
	if parent.Type != TypeDir {
		return fmt.Errorf("entry %q: its parent %q is a %s: %w", e.Path, dir, parent.Type, ErrInvalid)
	}
	return nil
}

const (
	// maxHops is the kernel's own limit of symlinks in one resolution.
	maxHops = 40
	// maxSteps bounds the work that one symlink may cause.
	maxSteps = 512
)

// linkFault resolves e as the kernel would in a tree that holds entries and
// nothing else. Judging the text alone is not enough: "a/b/../x" leaves the
// tree if b is itself a symlink to a shallow directory.
func linkFault(entries []Entry, e Entry) string {
	at := splitPath(path.Dir(e.Path))
	todo := strings.Split(e.Target, "/")
	if path.IsAbs(e.Target) {
		return "is absolute"
	}
	for hops, steps := 0, 0; len(todo) > 0; {
		if steps++; steps > maxSteps {
			return "takes too many steps to tell where it leads"
		}
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 {
				return "leads out of the tree"
			}
			at = at[:len(at)-1]
			continue
		}
		next, ok := find(entries, path.Join(path.Join(at...), part))
		if ok && next.Type == TypeSymlink {
			if hops++; hops > maxHops {
				return "" // a circle leads nowhere
			}
			if path.IsAbs(next.Target) {
				return "leads out of the tree"
			}
			todo = append(strings.Split(next.Target, "/"), todo...)
			continue
		}
		at = append(at, part)
	}
	return ""
}

func splitPath(p string) []string {
	if p == "." {
		return nil
	}
	return strings.Split(p, "/")
}

func find(sorted []Entry, p string) (Entry, bool) {
	i, ok := slices.BinarySearchFunc(sorted, p, func(e Entry, p string) int { return strings.Compare(e.Path, p) })
	if !ok {
		return Entry{}, false
	}
	return sorted[i], true
}
