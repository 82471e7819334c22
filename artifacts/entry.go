package artifacts

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"unicode/utf8"
)

// EntryType says what an [Entry] is. There are no devices, pipes or sockets
// in a bundle.
type EntryType string

// The entry types.
const (
	TypeFile    EntryType = "file"
	TypeDir     EntryType = "dir"
	TypeSymlink EntryType = "symlink"
)

// Entry is one path of a revision. Which fields a type has is part of the
// format: a field that does not belong to the type is zero.
type Entry struct {
	// Path is relative, clean, UTF-8 and separated by '/'.
	Path string
	Type EntryType
	// Mode holds a file's permission bits (0777) only; directories are always
	// 0755, so that a packer's umask changes no identity.
	Mode fs.FileMode
	// Size and Sum are a file's.
	Size int64
	Sum  Sum
	// Target is a symlink's text, whatever it leads to. Nobody here follows it.
	Target string
	// MTime and Owner are install attributes: zero unless an archive stated
	// them. They are part of the identity but move no content.
	MTime Time
	Owner Owner
}

// Time is a file's time in whole seconds. The zero value is none; the Unix
// epoch, which tools write to make archives reproducible, is a time.
type Time struct {
	stated  bool
	seconds int64
}

// At is the time of so many Unix seconds.
func At(seconds int64) Time { return Time{true, seconds} }

// Unix is the time in seconds, and whether there is one.
func (t Time) Unix() (seconds int64, stated bool) { return t.seconds, t.stated }

// MarshalJSON writes the seconds.
func (t Time) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, t.seconds, 10), nil }

// UnmarshalJSON reads seconds.
func (t *Time) UnmarshalJSON(data []byte) error {
	n, err := strconv.ParseInt(string(data), 10, 64)
	if err != nil {
		return fmt.Errorf("mtime %.40q is no number of seconds: %w", data, ErrInvalid)
	}
	*t = At(n)
	return nil
}

// Owner is the owner that an archive stated. A host that has the named user
// or group takes the name's number, as tar does. The zero value means not
// stated; root:root is the zero value too, since only root can install
// owners and its files are root's anyway.
type Owner struct {
	UID   int    `json:"uid,omitempty"`
	GID   int    `json:"gid,omitempty"`
	User  string `json:"user,omitempty"`
	Group string `json:"group,omitempty"`
}

const maxID = 1<<31 - 1

func (o Owner) check() error {
	if o.UID < 0 || o.GID < 0 || o.UID > maxID || o.GID > maxID {
		return fmt.Errorf("owner %d:%d is out of range: %w", o.UID, o.GID, ErrInvalid)
	}
	if len(o.User) > maxName || len(o.Group) > maxName || !utf8.ValidString(o.User+o.Group) {
		return fmt.Errorf("owner name is not UTF-8 of at most %d bytes: %w", maxName, ErrInvalid)
	}
	return nil
}

// check tells whether e is well formed by itself; checkTree judges it among
// its neighbours.
func (e Entry) check() error {
	if err := CheckPath(e.Path); err != nil {
		return err
	}
	if err := e.checkFields(); err != nil {
		return fmt.Errorf("entry %q: %w", e.Path, err)
	}
	return nil
}

func (e Entry) checkFields() error {
	bare := Entry{Path: e.Path, Type: e.Type}
	switch e.Type {
	case TypeDir:
	case TypeFile:
		bare.Mode, bare.Size, bare.Sum, bare.MTime, bare.Owner = e.Mode, e.Size, e.Sum, e.MTime, e.Owner
		if e.Size < 0 || e.Mode&^fs.ModePerm != 0 {
			return fmt.Errorf("a file of size %d and mode %o: %w", e.Size, uint32(e.Mode), ErrInvalid)
		}
	case TypeSymlink:
		bare.Target, bare.Owner = e.Target, e.Owner
		if e.Target == "" || len(e.Target) > MaxTarget || !utf8.ValidString(e.Target) ||
			strings.ContainsRune(e.Target, 0) {
			return fmt.Errorf("a symlink whose target is not UTF-8 of 1 to %d bytes: %w", MaxTarget, ErrInvalid)
		}
	default:
		return fmt.Errorf("type %q is none of file, dir, symlink: %w", string(e.Type), ErrInvalid)
	}
	if bare != e {
		return fmt.Errorf("a %s with fields of another type: %w", e.Type, ErrInvalid)
	}
	return e.Owner.check()
}

// CheckPath refuses every name that could leave the tree or mean two things;
// the error wraps [ErrInvalid].
func CheckPath(p string) error {
	if reason := pathFault(p); reason != "" {
		return fmt.Errorf("entry %.300q: %s: %w", p, reason, ErrInvalid)
	}
	return nil
}

func pathFault(p string) string {
	switch {
	case p == "":
		return "the name is empty"
	case len(p) > maxPath:
		return fmt.Sprintf("the name is longer than %d bytes", maxPath)
	case strings.ContainsRune(p, 0):
		return "the name holds a NUL byte"
	case !utf8.ValidString(p):
		return "the name is not UTF-8"
	case p[0] == '/':
		return "the name is absolute"
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "..":
			return "the name has a .. part"
		case part == "" || part == ".":
			return "the name is not in its shortest form"
		case len(part) > maxName:
			return fmt.Sprintf("a part of the name is longer than %d bytes", maxName)
		}
	}
	return ""
}
