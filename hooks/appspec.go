package hooks

import (
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// AppSpec is a parsed and validated appspec file. It is read-only and free to
// share between goroutines.
type AppSpec struct {
	// Filename is the name that positions are reported under.
	Filename string
	Files    []File
	// FileExists is what the file asks for, or FileExistsUnset.
	FileExists  FileExists
	Permissions []Permission
	// Hooks holds the scripts by event name as written; names that are no
	// lifecycle event are kept, see CheckEvents.
	Hooks map[string][]Script
	// Warnings are findings that CodeDeploy tolerates.
	Warnings []Problem
}

// File is one entry of the files section: what of the revision goes where.
type File struct {
	// Source is relative to the revision's root; a leading slash and "." mean
	// the root too. A directory stands for its contents.
	Source string
	// Destination is the absolute path of a directory.
	Destination string
	Pos         Position
}

// FileExists says what Install does with a foreign file at a target path.
type FileExists uint8

// The behaviours; the appspec writes them in capitals.
const (
	FileExistsUnset FileExists = iota
	FileExistsDisallow
	FileExistsOverwrite
	FileExistsRetain
)

// String is the behaviour as the appspec writes it.
func (b FileExists) String() string {
	switch b {
	case FileExistsDisallow:
		return "DISALLOW"
	case FileExistsOverwrite:
		return "OVERWRITE"
	case FileExistsRetain:
		return "RETAIN"
	case FileExistsUnset:
	}
	return ""
}

// ParseFileExists reads the option of a deployment, where case does not
// matter; empty is FileExistsUnset.
func ParseFileExists(s string) (FileExists, error) {
	for b := FileExistsUnset; b <= FileExistsRetain; b++ {
		if strings.EqualFold(s, b.String()) {
			return b, nil
		}
	}
	return 0, fmt.Errorf("file_exists_behavior %q is unknown: use DISALLOW, OVERWRITE or RETAIN", s)
}

// Permission is one entry of the permissions section.
type Permission struct {
	// Object is the absolute path of an installed file or of a directory,
	// without a trailing slash.
	Object string
	// Pattern selects what is directly inside Object; "**" selects everything
	// at any depth.
	Pattern string
	// Except takes names directly inside Object out again.
	Except []string
	// Files and Directories say what the entry is for.
	Files, Directories bool
	// Owner and Group are names or numbers; empty leaves them.
	Owner, Group string
	// Mode is nil when none is given. Bits 07000 are setuid, setgid, sticky
	// as in chmod(2), not fs.ModeSetuid.
	Mode    *uint32
	ACLs    []ACL
	Context *Context
	Pos     Position
}

// FileMode is Mode in the terms of package fs, for os.Chmod.
func FileMode(unix uint32) fs.FileMode {
	m := fs.FileMode(unix & 0o777)
	if unix&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if unix&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if unix&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// ACL is one entry of an acls list in the syntax of setfacl.
type ACL struct {
	// Entry is the canonical text, e.g. "user:alice:rw".
	Entry string
	// Default marks an entry that only a directory can have.
	Default bool
}

// Context is an SELinux context; Type is always set.
type Context struct {
	User, Type, Range string
}

// Script is one script of a lifecycle event.
type Script struct {
	// Location is relative to the revision's root.
	Location string
	// Timeout is positive; 3,600 s unless the file says otherwise.
	Timeout time.Duration
	// RunAs names the user to run as; empty is the agent's user.
	RunAs string
	// Sudo asks for root.
	Sudo bool
	// Idempotent, an extension that CodeDeploy ignores, lets the script run
	// again when a crash left its result unknown.
	Idempotent bool
	// KillRest ends what the script has started with the script itself, however that
	// ends; no appspec says so. A service that another manager started is not of it.
	KillRest bool
	Pos      Position
}

// DefaultTimeout is CodeDeploy's limit for a script that states none.
const DefaultTimeout = 3600 * time.Second

// Scripts returns the scripts of an event in their order.
func (s *AppSpec) Scripts(e LifecycleEvent) []Script {
	if s == nil {
		return nil
	}
	return s.Hooks[e.String()]
}
