package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// carryOut does what was planned; see the package comment for the order.
func (r *Releases) carryOut(ctx context.Context, q Request, p *plan) error {
	if err := r.prepare(q.App, p); err != nil {
		return err
	}
	if err := r.backUp(ctx, q.App, p); err != nil {
		return errors.Join(err, r.dropPlan(q.App))
	}
	if err := r.enter(q.App, p, phaseArmed); err != nil {
		return err
	}
	c := newCopier()
	defer c.close()
	for i, a := range p.Actions {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.before(string(a.Op), a.Path)
		if err := a.do(ctx, c, i); err != nil {
			return fmt.Errorf("%s %s: %w", a.Op, a.Path, err)
		}
	}
	return r.complete(q.App, p)
}

// complete makes the changes durable, then names the revision.
func (r *Releases) complete(app string, p *plan) error {
	if err := syncTouched(p); err != nil {
		return err
	}
	r.before("list")
	if err := r.writeList(app, p.New); err != nil {
		return err
	}
	r.before("switch")
	if err := r.switchTo(app, p.To); err != nil {
		return err
	}
	return r.enter(app, p, phaseDone)
}

// backUp keeps what will be replaced or removed: a second link where it can,
// since every change renames a new inode into place, else a copy.
func (r *Releases) backUp(ctx context.Context, app string, p *plan) error {
	for i, a := range p.Actions {
		if err := ctx.Err(); err != nil {
			return err
		}
		if a.Op == opAccess || a.Op == opTouch || !a.Before.Exists || !a.Before.Mode.IsRegular() {
			continue
		}
		r.before("backup", a.Path)
		to := r.backup(app, i)
		err := os.Link(a.Path, to)
		if err != nil {
			err = copyFile(a.Path, to)
		}
		if err != nil {
			return fmt.Errorf("back up %s: %w", a.Path, err)
		}
	}
	return syncFilesystem(r.app(app, "plan", "backup"))
}

func (a action) do(ctx context.Context, c *copier, i int) error {
	switch a.Op {
	case opMkdir:
		err := os.Mkdir(a.Path, 0o755)
		if st, errStat := os.Lstat(a.Path); errors.Is(err, fs.ErrExist) && errStat == nil && st.IsDir() {
			return nil // someone else needed it at the same moment
		}
		if err != nil {
			return err
		}
		return os.Chmod(a.Path, 0o755) // whatever the agent's umask is
	case opCopy:
		return a.copy(ctx, c, temporary(a.Path, i))
	case opAccess:
		return a.Access.apply(ctx, a.Path)
	case opRemove:
		return remove(a.Path)
	case opTouch:
		return touch(a.Path, a.Touch.Time)
	}
	return fmt.Errorf("unknown action %q", a.Op)
}

// copy builds the file complete with owner and mode, then renames it in.
func (a action) copy(ctx context.Context, c *copier, tmp string) error {
	link, err := a.build(c, tmp)
	if errors.Is(err, fs.ErrExist) { // left by an install that was cut off
		if err = os.Remove(tmp); err == nil {
			link, err = a.build(c, tmp)
		}
	}
	if err == nil && a.Access != nil && (link || len(a.Access.Context) > 0) {
		err = a.Access.apply(ctx, tmp)
	}
	if err == nil {
		err = c.rename(tmp, a.Path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// build makes the file or link under a name that is to be free, and says
// which. A link does not have its access yet.
func (a action) build(c *copier, tmp string) (link bool, err error) {
	if err := c.file(a.Source, tmp, a.Access); !errors.Is(err, syscall.ELOOP) {
		return false, err
	}
	target, err := os.Readlink(a.Source)
	if err != nil {
		return true, err
	}
	return true, os.Symlink(target, tmp)
}

// copyFile copies content, mode, owner, modification time and extended
// attributes.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := setOwner(to, int(sys.Uid), int(sys.Gid)); err != nil {
			return err
		}
	}
	writeAttrs(to, readAttrs(from))
	if err := os.Chmod(to, st.Mode()&modeBits); err != nil {
		return err
	}
	return os.Chtimes(to, st.ModTime(), st.ModTime())
}

// touch sets a file's time. One that was removed meanwhile has none.
func touch(path string, at time.Time) error {
	if err := os.Chtimes(path, at, at); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// remove deletes a file, or a directory that is empty; a directory that holds
// something of someone else stays.
func remove(path string) error {
	err := os.Remove(path)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR),
		errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.EBUSY):
		return nil
	}
	return err
}

// syncTouched syncs each filesystem that an action has changed.
func syncTouched(p *plan) error {
	var devices []uint64
	seen := ""
	for _, a := range p.Actions {
		dir := filepath.Dir(a.Path)
		if dir == seen {
			continue
		}
		seen = dir
		st, err := os.Stat(dir)
		if err != nil {
			continue // removed: the change is in a directory above, also listed
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok || slices.Contains(devices, uint64(sys.Dev)) {
			continue
		}
		devices = append(devices, uint64(sys.Dev))
		if err := syncFilesystem(dir); err != nil {
			return err
		}
	}
	return nil
}
