package release

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/room"
)

// Request is one install.
type Request struct {
	App string
	// To is a staged revision, or "" to have nothing installed.
	To string
	// Spec is the revision's appspec; nil installs no files.
	Spec *hooks.AppSpec
	// Root is the revision's root in its folder where that is not the folder
	// itself, see hooks.Root.
	Root string
	// FileExists is the deployment's option; the appspec's own value wins.
	FileExists hooks.FileExists
}

// Check works the install out and touches nothing: it answers the conflict or
// mistake that Install would fail with.
func (r *Releases) Check(q Request) error {
	_, err := r.plan(q, true)
	return err
}

// CheckRoom answers the *room.Shortage that Install would fail with, as the
// host is now, and no other mistake. It touches nothing.
func (r *Releases) CheckRoom(q Request) error {
	if r.surelyFits(q) {
		return nil
	}
	for _, compare := range []bool{false, true} { // what stays is only compared where it matters
		p, err := r.plan(q, compare)
		if err != nil {
			return nil // Install says so; hooks before it may mend it
		}
		if err = r.checkRoom(q.App, p); err == nil || compare {
			return err
		}
	}
	return nil
}

// Install moves the application to a revision: files, clean-up of what the
// revision before had installed, and the switch. On return all of it is
// durable and can be undone until Settle. After an error everything is as it
// was, unless the error says that this failed too; then, and after a crash,
// call Undo, or Install again, which undoes first.
func (r *Releases) Install(ctx context.Context, q Request) error {
	if err := r.Undo(ctx, q.App); err != nil {
		return fmt.Errorf("install %s of %s: undo what was left: %w", q.To, q.App, err)
	}
	p, err := r.plan(q, true)
	if err == nil && !r.surelyFits(q) {
		err = r.checkRoom(q.App, p)
	}
	if err != nil {
		return fmt.Errorf("install %s of %s: %w", q.To, q.App, err)
	}
	if err := r.carryOut(ctx, q, p); err != nil {
		err = errors.Join(room.Marked(err), r.Undo(context.WithoutCancel(ctx), q.App))
		return fmt.Errorf("install %s of %s: %w", q.To, q.App, err)
	}
	return nil
}

// plan works an install out. With compare it reads files that are there already,
// and leaves alone those that would not change.
func (r *Releases) plan(q Request, compare bool) (*plan, error) {
	if err := checkName("an application", q.App); err != nil {
		return nil, err
	}
	from, err := r.Current(q.App)
	if err != nil {
		return nil, err
	}
	old, err := r.readList(q.App)
	if err != nil {
		return nil, err
	}
	p := &plan{From: from, To: q.To, Phase: phasePrepared, Old: old}
	if q.To == "" {
		return p, r.planRemoval(p)
	}
	if !r.Has(q.App, q.To) {
		return nil, fmt.Errorf("the folder %s is gone; stage the revision again: %w", r.Dir(q.App, q.To),
			os.ErrNotExist)
	}
	return p, r.planFiles(q, p, compare)
}

func (r *Releases) planRemoval(p *plan) error {
	w := &planner{}
	var err error
	p.Actions, err = w.cleanUp(p.Old)
	return err
}

func (r *Releases) planFiles(q Request, p *plan, compare bool) error {
	spec := q.Spec
	if spec == nil {
		spec = &hooks.AppSpec{}
	}
	exists := spec.FileExists
	if exists == hooks.FileExistsUnset {
		exists = q.FileExists
	}
	root := q.Root
	if root == "" {
		root = r.Dir(q.App, q.To)
	}
	w, err := newPlanner(root, r.options.InstallRoot, p.Old, exists, r.options.KeepDirLinks)
	if err != nil {
		return err
	}
	var errs []error
	_, entries, _ := r.noted(q.App, q.To)
	w.copies = make([]action, 0, entries+entries/16)
	for i, f := range spec.Files {
		if err := w.file(f); err != nil {
			errs = append(errs, fmt.Errorf("files[%d]: %w", i, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return w.finish(spec.Permissions, p, compare)
}

// finish puts the plan in order: what is in the way, directories, files,
// directories' permissions, and last what is no longer wanted.
func (w *planner) finish(section []hooks.Permission, p *plan, compare bool) error {
	perms, err := w.permissions(section)
	if err != nil {
		return err
	}
	for i, c := range w.copies {
		w.copies[i].Access = perms[w.rest(c.Path)]
	}
	p.Actions, w.copies = w.copies, nil
	if compare {
		p.Actions = w.withoutUnchanged(p.Actions)
	}
	p.Actions = slices.Insert(p.Actions, 0, append(w.early, w.mkdirs...)...)
	for _, path := range w.order {
		p.New = append(p.New, w.real(path))
		if acc := perms[path]; acc != nil && w.made[path] {
			var before prior // none of one that is made
			if !w.fresh[path] {
				if before, err = look(w.real(path)); err != nil {
					return err
				}
			}
			p.Actions = append(p.Actions, action{Op: opAccess, Path: w.real(path), Access: acc, Before: before})
		}
	}
	late, err := w.cleanUp(p.Old)
	p.Actions = append(p.Actions, late...)
	return err
}

// Settle gives up the means of undoing the last install. Nothing unsettled is
// no error.
func (r *Releases) Settle(app string) error {
	if _, err := os.Lstat(r.planFile(app)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	is, err := r.loadPhase(app)
	switch {
	case err != nil:
		return fmt.Errorf("settle %s: %w", app, err)
	case is != phaseDone:
		return fmt.Errorf("settle %s: the install is not complete; undo it or install again", app)
	}
	return r.dropPlan(app)
}

// Pending names the revision of an install that is not settled, and whether it
// is complete.
func (r *Releases) Pending(app string) (to string, complete bool, err error) {
	p, err := r.loadPlan(app)
	if err != nil || p == nil {
		return "", false, err
	}
	return p.To, p.Phase == phaseDone, nil
}
