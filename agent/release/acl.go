package release

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/hooks"
)

// aclEntry is one entry of a POSIX access control list as the kernel has it.
type aclEntry struct {
	Tag, Perm uint16
	ID        uint32
}

// The tags of the kernel's format (linux/posix_acl.h), in the order that it
// demands.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20

	aclNoID    = 1<<32 - 1
	aclVersion = 2
)

// acl is an acls list with names resolved to numbers.
type acl struct {
	Access  []aclEntry `json:",omitempty"`
	Default []aclEntry `json:",omitempty"`
}

// resolveACL reads entries in the canonical form of hooks.ACL.
func resolveACL(list []hooks.ACL) (*acl, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := &acl{}
	for _, a := range list {
		parts := strings.Split(strings.TrimPrefix(a.Entry, "default:"), ":")
		e, err := resolveEntry(parts[0], parts[1], parts[2])
		if err != nil {
			return nil, fmt.Errorf("acls entry %q: %w", a.Entry, err)
		}
		if a.Default {
			out.Default = append(out.Default, e)
		} else {
			out.Access = append(out.Access, e)
		}
	}
	return out, nil
}

func resolveEntry(kind, name, perms string) (aclEntry, error) {
	e := aclEntry{ID: aclNoID, Perm: aclPerm(perms)}
	var err error
	id := 0
	switch {
	case kind == "user" && name == "":
		e.Tag = aclUserObj
	case kind == "group" && name == "":
		e.Tag = aclGroupObj
	case kind == "user":
		e.Tag = aclUser
		id, err = userID(name, "user")
		e.ID = uint32(id)
	case kind == "group":
		e.Tag = aclGroup
		id, err = groupID(name, "group")
		e.ID = uint32(id)
	case kind == "mask":
		e.Tag = aclMask
	default:
		e.Tag = aclOther
	}
	return e, err
}

// aclPerm reads up to three of r, w and x, or a digit.
func aclPerm(s string) (bits uint16) {
	if len(s) == 1 && s[0] >= '0' && s[0] <= '7' {
		return uint16(s[0] - '0')
	}
	for i, c := range "xwr" {
		if strings.ContainsRune(s, c) {
			bits |= 1 << i
		}
	}
	return bits
}

// apply sets the list over the mode that path has. As in CodeDeploy's agent
// the base entries are those of the mode, and a mask that is not stated is the
// mode's group, not the union that setfacl works out; a default list takes its
// base from the mode likewise, and its mask from its own group.
func (a *acl) apply(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	mode := uint16(st.Mode().Perm())
	access := complete(a.Access, mode, mode>>3&7)
	if err := setACL(path, "system.posix_acl_access", access); err != nil || len(a.Default) == 0 {
		return err
	}
	group := mode >> 3 & 7
	if i := slices.IndexFunc(a.Default, func(e aclEntry) bool { return e.Tag == aclGroupObj }); i >= 0 {
		group = a.Default[i].Perm
	}
	return setACL(path, "system.posix_acl_default", complete(a.Default, mode, group))
}

// complete adds the entries that a list needs, and puts it in order.
func complete(list []aclEntry, mode, mask uint16) []aclEntry {
	list = slices.Clone(list)
	has := func(tags ...uint16) bool {
		return slices.ContainsFunc(list, func(e aclEntry) bool { return slices.Contains(tags, e.Tag) })
	}
	named := has(aclUser, aclGroup)
	for _, e := range []aclEntry{{aclUserObj, mode >> 6 & 7, aclNoID}, {aclGroupObj, mode >> 3 & 7, aclNoID}, {aclOther, mode & 7, aclNoID}} {
		if !has(e.Tag) {
			list = append(list, e)
		}
	}
	if named && !has(aclMask) {
		list = append(list, aclEntry{aclMask, mask, aclNoID})
	}
	slices.SortFunc(list, func(a, b aclEntry) int { return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.ID, b.ID)) })
	return list
}

// setACL is one system call, where setfacl is a process a file.
func setACL(path, name string, list []aclEntry) error {
	data := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range list {
		data = binary.LittleEndian.AppendUint16(data, e.Tag)
		data = binary.LittleEndian.AppendUint16(data, e.Perm)
		data = binary.LittleEndian.AppendUint32(data, e.ID)
	}
	err := unix.Setxattr(path, name, data, 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("set acl: the file system of %s has none: %w", path, err)
	}
	if err != nil {
		return fmt.Errorf("set acl: %w", err)
	}
	return nil
}
