package release

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Revision is one revision on disk.
type Revision struct {
	ID     string
	Staged time.Time
}

// List returns the complete revisions of an application, newest first.
func (r *Releases) List(app string) ([]Revision, error) {
	entries, err := os.ReadDir(r.app(app, "releases"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list releases of %s: %w", app, err)
	}
	var all []Revision
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !e.IsDir() {
			continue
		}
		rev := Revision{ID: e.Name()}
		if st, err := os.Stat(r.app(app, "staged", e.Name())); err == nil {
			rev.Staged = st.ModTime()
		}
		all = append(all, rev)
	}
	slices.SortFunc(all, func(a, b Revision) int {
		return cmp.Or(b.Staged.Compare(a.Staged), cmp.Compare(b.ID, a.ID))
	})
	return all, nil
}

// Prune deletes the oldest revisions beyond the configured number and bytes,
// and left-overs of staging, and returns what it deleted. The current
// revision, both ends of an install that is not settled, and those in keep
// (the last good one and the one before, says the caller) always stay. It must
// not run while the application is staged or installed.
func (r *Releases) Prune(app string, keep ...string) ([]string, error) {
	all, keep, err := r.kept(app, keep)
	if err != nil {
		return nil, err
	}
	var deleted []string
	for _, id := range r.surplus(app, all, keep) {
		if err := r.delete(app, id); err != nil {
			return deleted, err
		}
		deleted = append(deleted, id)
	}
	return deleted, r.sweepStaging(app)
}

// Evict deletes revisions, the oldest first, until enough answers true: the
// disk is full. What Prune never deletes stays. It may be called while a
// revision that is not there yet is staged.
func (r *Releases) Evict(app string, enough func() bool, keep ...string) error {
	all, keep, err := r.kept(app, keep)
	if err != nil {
		return err
	}
	for _, rev := range slices.Backward(all) {
		if enough() {
			return nil
		}
		if !slices.Contains(keep, rev.ID) {
			if err := r.delete(app, rev.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// kept lists the revisions on disk, newest first, and adds to keep those that
// always stay.
func (r *Releases) kept(app string, keep []string) (all []Revision, stay []string, err error) {
	if all, err = r.List(app); err != nil {
		return nil, nil, err
	}
	current, err := r.Current(app)
	if err != nil {
		return nil, nil, err
	}
	p, err := r.loadPlan(app)
	if err != nil {
		return nil, nil, err
	}
	stay = append(slices.Clone(keep), current)
	if p != nil {
		stay = append(stay, p.From, p.To)
	}
	return all, stay, nil
}

// surplus lists what is beyond the limits. Revisions that must stay use up
// room like any other.
func (r *Releases) surplus(app string, all []Revision, keep []string) []string {
	count, used := 0, int64(0)
	size := func(id string) int64 {
		if r.options.KeepBytes == 0 {
			return 0
		}
		return DiskUse(r.Dir(app, id))
	}
	for _, rev := range all {
		if slices.Contains(keep, rev.ID) {
			count, used = count+1, used+size(rev.ID)
		}
	}
	var out []string
	for _, rev := range all {
		if slices.Contains(keep, rev.ID) {
			continue
		}
		bytes := size(rev.ID)
		if count+1 > r.options.Keep || r.options.KeepBytes > 0 && used+bytes > r.options.KeepBytes {
			out = append(out, rev.ID)
			continue
		}
		count, used = count+1, used+bytes
	}
	return out
}

// delete renames first, so that a half deleted revision never has its name.
func (r *Releases) delete(app, id string) error {
	gone := r.app(app, "releases", ".deleting-"+id)
	if err := os.Rename(r.Dir(app, id), gone); err != nil {
		return fmt.Errorf("prune release %s of %s: %w", id, app, err)
	}
	err := errors.Join(os.RemoveAll(gone), os.RemoveAll(r.app(app, "staged", id)))
	if err != nil {
		return fmt.Errorf("prune release %s of %s: %w", id, app, err)
	}
	return nil
}

func (r *Releases) sweepStaging(app string) error {
	left, err := filepath.Glob(r.app(app, "releases", ".*ing-*"))
	if err != nil {
		return fmt.Errorf("look for left-overs of %s: %w", app, err)
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove left-overs of %s: %w", app, err)
		}
	}
	return nil
}

// DiskUse adds up the sizes of the files below dir; files that vanish meanwhile are 0.
func DiskUse(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
