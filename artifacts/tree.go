package artifacts

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
)

// checkTree judges entries, sorted by path, as one tree: it returns an error
// that names the first entry which is malformed, listed twice, differs from
// another only in letter case, lies under something that is no directory, or
// is a symlink that leads out of the tree.
func checkTree(entries []Entry, lim Limits) error {
	if err := checkTotals(entries, lim.orDefault()); err != nil {
		return err
	}
	folded := make(map[string]string, len(entries))
	for i, e := range entries {
		if err := e.check(); err != nil {
			return err
		}
		if i > 0 && entries[i-1].Path >= e.Path {
			return fmt.Errorf("entry %q: listed twice or out of order: %w", e.Path, ErrInvalid)
		}
		key := foldCase(e.Path)
		if other, clash := folded[key]; clash {
			return fmt.Errorf("entry %q: differs from %q only in letter case: rename one: %w", e.Path, other, ErrInvalid)
		}
		folded[key] = e.Path
	}
	return checkLinks(entries)
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

func checkLinks(entries []Entry) error {
	for _, e := range entries {
		if err := checkParent(entries, e); err != nil {
			return err
		}
		if e.Type != TypeSymlink {
			continue
		}
		if reason := linkFault(entries, e); reason != "" {
			return fmt.Errorf("entry %q: symlink to %q %s: %w", e.Path, e.Target, reason, ErrInvalid)
		}
	}
	return nil
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
			return "takes too many steps to resolve"
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
				return "passes too many symlinks"
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

// foldCase maps names that a case-blind file system would mix up to one key.
// Upper then lower also joins the letters that only meet in capitals, such
// as the long s and the Kelvin sign.
func foldCase(p string) string {
	return strings.Map(func(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }, p)
}
