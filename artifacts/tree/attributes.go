package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/artifacts"
)

// SetAttributes sets those of a file in the open directory at: owner first,
// since a change of owner may clear mode bits, and time last.
func (o Owners) SetAttributes(at, out *os.File, e artifacts.Entry) error {
	if err := o.give(out, e); err != nil {
		return err
	}
	if err := out.Chmod(e.Mode); err != nil {
		return err
	}
	seconds, stated := e.MTime.Unix()
	if !stated {
		return nil
	}
	stamp := unix.Timespec{Sec: seconds}
	times := []unix.Timespec{stamp, stamp}
	if err := unix.UtimesNanoAt(int(at.Fd()), path.Base(e.Path), times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// MakeLinks makes the symlinks of m below root, and the directories of one that
// an archive does not list. It comes last: then nothing was written through one.
func (o Owners) MakeLinks(root *os.Root, m *artifacts.Manifest) error {
	for e := range m.All() {
		if e.Type != artifacts.TypeSymlink {
			continue
		}
		err := parent(root, path.Dir(e.Path)) // an archive may not list it
		if err == nil {
			err = root.Symlink(e.Target, e.Path)
		}
		if errors.Is(err, fs.ErrExist) { // a file of an archive that lists the name twice
			if err = root.Remove(e.Path); err == nil {
				err = root.Symlink(e.Target, e.Path)
			}
		}
		if err == nil {
			err = o.giveLink(root, e)
		}
		if err != nil {
			return fmt.Errorf("symlink %q: %w", e.Path, err)
		}
	}
	return nil
}

// parent makes a directory and those above it that are missing.
func parent(root *os.Root, dir string) error {
	if _, err := root.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := parent(root, path.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return root.Chmod(dir, 0o755) // whatever the umask is
}

// Sync makes the file system of root durable (syncfs).
func Sync(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	return nil
}
