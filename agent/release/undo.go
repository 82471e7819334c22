package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// Undo puts back exactly what was there before the install that is not
// settled: files, directories, clean-up list and switch. It may be called in
// any state, after a crash in itself too, and as often as one likes; nothing
// unsettled is no error. It works on a full disk: what the install added goes
// first, and what is as it was is not written again.
func (r *Releases) Undo(ctx context.Context, app string) error {
	p, err := r.loadPlan(app)
	if err != nil || p == nil {
		return err
	}
	if p.Phase == phasePrepared {
		return r.dropPlan(app)
	}
	r.point("undo switch")
	ours := newOwned(p.Old, p.New)
	if err := errors.Join(r.switchBack(app, p), r.takeAway(p, ours)); err != nil {
		return fmt.Errorf("undo install of %s: %w", app, err)
	}
	for i, a := range slices.Backward(p.Actions) {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.point(fmt.Sprintf("undo %s %s", a.Op, a.Path))
		if ours.linked(a.Path) {
			continue // a hook put a link in a directory's place: what lies behind it is not ours
		}
		if err := r.putBack(app, i, a); err != nil {
			return fmt.Errorf("undo install of %s: put back %s: %w", app, a.Path, err)
		}
	}
	if err := syncTouched(p); err != nil {
		return fmt.Errorf("undo install of %s: %w", app, err)
	}
	r.point("undo list")
	if now, err := r.readList(app); err != nil || !slices.Equal(now, p.Old) {
		if err := r.writeList(app, p.Old); err != nil {
			return err
		}
	}
	return r.dropPlan(app)
}

// takeAway removes what the install put where nothing was, and what it had not
// finished: that gives the room which putting back may take.
func (r *Releases) takeAway(p *plan, ours owned) error {
	for i, a := range p.Actions {
		if a.Op != opCopy || ours.linked(a.Path) {
			continue
		}
		if err := remove(temporary(a.Path, i)); err != nil {
			return err
		}
		if !a.Before.Exists {
			if err := remove(a.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

// switchBack points current to where it was. A folder that was deleted by
// hand meanwhile must not keep the files from being put back.
func (r *Releases) switchBack(app string, p *plan) error {
	to := p.From
	if to != "" && !r.Has(app, to) {
		to = ""
	}
	if now, err := r.Current(app); err == nil && now == to {
		return nil
	}
	return r.switchTo(app, to)
}

// putBack makes one path again what it was before the action.
func (r *Releases) putBack(app string, i int, a action) error {
	if err := remove(temporary(a.Path, i)); err != nil {
		return err
	}
	if a.Op == opTouch {
		return touch(a.Path, a.Was)
	}
	switch b := a.Before; {
	case a.Op == opAccess && !b.Exists:
		return nil // made by an earlier action, which is undone after this one
	case !b.Exists:
		return remove(a.Path)
	case b.Mode.IsDir():
		return b.putDirectory(a.Path)
	case b.Mode&fs.ModeSymlink != 0:
		return b.putLink(a.Path, temporary(a.Path, i))
	case b.Mode.IsRegular():
		return putFile(r.backup(app, i), a.Path, temporary(a.Path, i))
	}
	return nil // devices and sockets are never replaced without a backup
}

func (b prior) putDirectory(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := setOwner(path, b.UID, b.GID); err != nil {
		return err
	}
	if err := os.Chmod(path, b.Mode&modeBits); err != nil {
		return err
	}
	writeAttrs(path, b.Attrs)
	return nil
}

func (b prior) putLink(path, tmp string) error {
	if target, err := os.Readlink(path); err == nil && target == b.Link {
		return nil
	}
	if err := os.Symlink(b.Link, tmp); err != nil {
		return err
	}
	if err := setOwner(tmp, b.UID, b.GID); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// putFile renames the backup's inode, or a copy of it, into place. The backup
// stays: Undo may have to run again.
func putFile(backup, path, tmp string) error {
	kept, err := os.Lstat(backup)
	if err != nil {
		return err
	}
	if now, err := os.Lstat(path); err == nil && os.SameFile(kept, now) {
		return nil // and renaming one link over the other would do nothing
	}
	if err := os.Link(backup, tmp); err != nil {
		if !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EMLINK) {
			return err
		}
		if err := copyFile(backup, tmp, true); err != nil {
			return err
		}
	}
	return os.Rename(tmp, path)
}
