package hooks

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Trim moves what left-over processes wrote since their script ended into the
// logs and gives the space back. The agent calls it about once a second: two
// stats a run when there is nothing to do.
func (r *Runner) Trim() error {
	runs, err := r.finished()
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range runs {
		if d.hasOutput() {
			errs = append(errs, r.trimRun(d))
		}
	}
	return errors.Join(errs...)
}

// hasOutput reports whether there is output that the log does not have.
func (d runDir) hasOutput() bool {
	var done pumped
	_ = d.readJSON("pumped", &done) // absent: nothing copied
	for name, off := range map[string]int64{"stdout": done.Stdout, "stderr": done.Stderr} {
		if st, err := os.Stat(d.file(name)); err == nil && st.Size() != off {
			return true
		}
	}
	return false
}

func (r *Runner) trimRun(d runDir) error {
	lock, err := d.lock()
	if err != nil || lock == nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	p, err := openPump(d, r.options.Limits)
	if err != nil {
		return err
	}
	defer p.close()
	return p.finish()
}

// finished lists the runs that have an outcome.
func (r *Runner) finished() ([]runDir, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("list hook runs: %w", err)
	}
	var runs []runDir
	for _, e := range entries {
		if d := runDir(filepath.Join(r.dir, e.Name())); d.over() {
			runs = append(runs, d)
		}
	}
	return runs, nil
}

// Sweep deletes the folders of finished runs but the newest keep, and the
// cgroups that are empty by now. A folder whose files a left-over process
// still has open stays, whatever its age: a deleted file would grow unseen.
func (r *Runner) Sweep(keep int) error {
	runs, err := r.finished()
	if err != nil {
		return err
	}
	ended := map[runDir]time.Time{}
	for _, d := range runs {
		if st, err := os.Stat(d.file("outcome")); err == nil {
			ended[d] = st.ModTime()
		}
		var s started
		if d.readJSON("script", &s) == nil {
			_ = cgroup(s.Cgroup).remove() // not empty: the next sweep
		}
	}
	slices.SortFunc(runs, func(a, b runDir) int {
		return cmp.Or(ended[b].Compare(ended[a]), cmp.Compare(a, b))
	})
	var errs []error
	for _, d := range runs[min(keep, len(runs)):] {
		if len(holders(processes(), d.file("stdout"), d.file("stderr"))) == 0 {
			errs = append(errs, os.RemoveAll(string(d)))
		}
	}
	return errors.Join(errs...)
}
