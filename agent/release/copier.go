package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copier copies the files of an install. It uses the system calls themselves:
// package os asks of each file whether it could be waited for, which costs as
// much as copying a small one, and names below an open directory are what the
// kernel finds quickly. A copier is for one goroutine; close ends it.
type copier struct {
	buf      []byte
	root     bool // and may give files away
	from, to openDir
}

func newCopier() *copier {
	return &copier{root: os.Geteuid() == 0, from: openDir{fd: -1}, to: openDir{fd: -1}}
}

func (c *copier) close() {
	c.from.close()
	c.to.close()
}

// openDir is the directory of the last file, which is mostly that of the next.
type openDir struct {
	path string
	fd   int
}

// at returns the open directory of path.
func (d *openDir) at(path string) (fd int, name string, err error) {
	dir, name := filepath.Dir(path), filepath.Base(path)
	if d.fd >= 0 && d.path == dir {
		return d.fd, name, nil
	}
	d.close()
	if d.fd, err = openAt(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return -1, "", err
	}
	d.path = dir
	return d.fd, name, nil
}

func (d *openDir) close() {
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
		d.fd = -1
	}
}

// copyBuffer holds most files of a revision whole.
const copyBuffer = 128 << 10

// file copies content, mode, owner and modification time of a regular file to
// a name that is free, with the owner, mode and list that acc states in their
// place. A context is left to apply.
func (c *copier) file(from, to string, acc *access) error {
	dir, name, err := c.from.at(from)
	if err != nil {
		return err
	}
	in, err := openAt(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(in) }()
	var st unix.Stat_t
	if err := unix.Fstat(in, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: from, Err: err}
	}
	if dir, name, err = c.to.at(to); err != nil {
		return err
	}
	out, err := openAt(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = c.content(in, out, st.Size)
	if err == nil {
		err = c.dress(out, &st, acc)
	}
	if errClose := unix.Close(out); err == nil {
		err = errClose
	}
	if err == nil {
		err = unix.UtimesNanoAt(dir, name, []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return nil
}

// dress sets owner, mode and list of a file that is open for writing. The owner
// goes first: changing it clears setuid.
func (c *copier) dress(out int, st *unix.Stat_t, acc *access) error {
	uid, gid, mode := -1, -1, st.Mode&0o7777
	if c.root {
		uid, gid = int(st.Uid), int(st.Gid)
	}
	var list *acl
	if acc != nil {
		if acc.UID >= 0 {
			uid = acc.UID
		}
		if acc.GID >= 0 {
			gid = acc.GID
		}
		if acc.Mode != nil {
			mode = *acc.Mode
		}
		list = acc.ACL
	}
	if uid >= 0 || gid >= 0 {
		if err := unix.Fchown(out, uid, gid); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if err := unix.Fchmod(out, mode); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	if list == nil {
		return nil
	}
	return list.set(uint16(mode&0o777), func(name string,
		data []byte,
	) error {
		return unix.Fsetxattr(out, name, data, 0)
	})
}

// content copies size bytes, or fewer if the file has become shorter. Large
// ones go through the kernel, which shares their blocks if it can.
func (c *copier) content(in, out int, size int64) error {
	for size > copyBuffer {
		n, err := unix.CopyFileRange(in, nil, out, nil, int(min(size, 1<<30)), 0)
		if err != nil || n == 0 {
			break // not between these file systems
		}
		size -= int64(n)
	}
	if c.buf == nil {
		c.buf = make([]byte, copyBuffer)
	}
	for size > 0 {
		n, err := retried(func() (int, error) { return unix.Read(in, c.buf[:min(size, copyBuffer)]) })
		if err != nil || n == 0 {
			return err
		}
		size -= int64(n)
		for part := c.buf[:n]; len(part) > 0; {
			n, err := retried(func() (int, error) { return unix.Write(out, part) })
			if err != nil {
				return err
			}
			part = part[n:]
		}
	}
	return nil
}

// rename puts a file that was built in its directory in its place there.
func (c *copier) rename(tmp, to string) error {
	dir, name, err := c.to.at(to)
	if err != nil {
		return err
	}
	if err := unix.Renameat(dir, filepath.Base(tmp), dir, name); err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: to, Err: err}
	}
	return nil
}

func openAt(dir int, path string, flags int, mode uint32) (int, error) {
	fd, err := retried(func() (int, error) { return unix.Openat(dir, path, flags|unix.O_CLOEXEC, mode) })
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// retried repeats a call that a signal has interrupted.
func retried(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
