package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/hooks"
)

// look records what is at path, links not followed.
func look(path string) (prior, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return prior{}, nil
	}
	if err != nil {
		return prior{}, fmt.Errorf("look at what is there: %w", err)
	}
	b := prior{Exists: true, Mode: st.Mode()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		b.UID, b.GID = int(sys.Uid), int(sys.Gid)
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		if b.Link, err = os.Readlink(path); err != nil {
			return prior{}, fmt.Errorf("look at what is there: %w", err)
		}
		return b, nil
	}
	b.Attrs = readAttrs(path)
	return b, nil
}

// readAttrs reads extended attributes: ACLs, SELinux labels, capabilities.
// A filesystem without them has none.
func readAttrs(path string) map[string][]byte {
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if err != nil || n == 0 {
		return nil
	}
	attrs := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		if n, err := unix.Lgetxattr(path, name, value); err == nil {
			attrs[name] = value[:n]
		}
	}
	return attrs
}

// writeAttrs makes the extended attributes those given, others removed. What
// the filesystem refuses it did not have.
func writeAttrs(path string, want map[string][]byte) {
	for name := range readAttrs(path) {
		if _, ok := want[name]; !ok {
			_ = unix.Lremovexattr(path, name)
		}
	}
	for name, value := range want {
		_ = unix.Lsetxattr(path, name, value, 0)
	}
}

// setOwner changes the owner if it is another; only root can give away.
func setOwner(path string, uid, gid int) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if ok && (uid < 0 || int(sys.Uid) == uid) && (gid < 0 || int(sys.Gid) == gid) {
		return nil
	}
	return os.Lchown(path, uid, gid)
}

// modeBits is the part of a mode that os.Chmod sets.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// apply sets what a permissions entry says. The owner goes first: changing it
// clears setuid. A symlink has an owner and nothing else.
func (a *access) apply(ctx context.Context, path string) error {
	if err := setOwner(path, a.UID, a.GID); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("set permissions: %w", err)
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	if a.Mode != nil {
		if err := os.Chmod(path, hooks.FileMode(*a.Mode)); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if a.ACL != nil {
		if err := a.ACL.apply(path); err != nil {
			return err
		}
	}
	if len(a.Context) > 0 {
		return run(ctx, "chcon", append(a.Context, "--", path)...)
	}
	return nil
}

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
