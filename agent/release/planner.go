package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/groundswell/groundswell/hooks"
)

// ErrConflict says that what is on the host stands in the way of a revision.
// Nothing was touched.
var ErrConflict = errors.New("install conflict")

// ErrExists is the conflict that file_exists_behavior decides: a file is there
// that no deployment put there. It comes with ErrConflict.
var ErrExists = fmt.Errorf("%w: a file already exists", ErrConflict)

// planner works out an install. Paths in made, copied and order are those of
// the appspec; actions have the install root before them.
type planner struct {
	root    string // the revision's folder, links resolved
	prefix  string // the install root
	exists  hooks.FileExists
	links   bool // keep links to directories
	old     map[string]bool
	made    map[string]bool // directories of this revision
	fresh   map[string]bool // among them, those that are not there yet, so nothing is in them
	copied  map[string]string
	order   []string
	early   []action // removals that must come first
	gone    map[string]bool
	mkdirs  []action
	copies  []action
	entries int
}

// maxPaths bounds a plan; the largest real revision seen has 25,000 paths.
const maxPaths = 2_000_000

func newPlanner(root, prefix string, old []string, exists hooks.FileExists, links bool) (*planner, error) {
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, fmt.Errorf("find the revision to install: %w", err)
	}
	p := &planner{
		root: real, prefix: prefix, exists: exists, links: links,
		old: map[string]bool{}, made: map[string]bool{}, fresh: map[string]bool{}, copied: map[string]string{},
		gone: map[string]bool{},
	}
	for _, path := range old {
		p.old[path] = true
	}
	return p, nil
}

func (p *planner) real(path string) string {
	if p.prefix == "/" {
		return path // clean and absolute, as all paths of a planner are
	}
	return filepath.Join(p.prefix, path)
}

// rest is the inverse of real.
func (p *planner) rest(real string) string {
	if p.prefix == "/" {
		return real
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(real, p.prefix), "/")
}

// file plans one entry of the files section.
func (p *planner) file(f hooks.File) error {
	source := filepath.Join(p.root, f.Source)
	kind, err := p.source(source)
	if err != nil {
		return fmt.Errorf("source %q %w", f.Source, err)
	}
	dest := filepath.Clean(f.Destination)
	if !kind.IsDir() {
		dest = filepath.Join(dest, filepath.Base(source))
		if err := p.ancestors(dest); err != nil {
			return err
		}
		return p.copy(source, dest, kind)
	}
	if err := p.ancestors(dest); err != nil {
		return err
	}
	real, err := p.follow(source)
	if err != nil {
		return fmt.Errorf("source %q %w", f.Source, err)
	}
	return p.tree(real, dest, nil)
}

// source is the kind of an entry's source: a directory for a link to one. No
// link on the way to it may lead out of the revision, nor the link that it is
// itself if that leads to a directory: what lies there was never verified.
func (p *planner) source(path string) (kind fs.FileMode, err error) {
	if path != p.root {
		if _, err := p.follow(filepath.Dir(path)); err != nil {
			return 0, err
		}
	}
	st, err := os.Lstat(path)
	if err != nil {
		return 0, fmt.Errorf("is not in the revision: %w", err)
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		if to, err := os.Stat(path); err != nil || !to.IsDir() {
			return fs.ModeSymlink, nil // installed as the link that it is
		}
		_, err := p.follow(path)
		return fs.ModeDir, err
	}
	return st.Mode().Type(), nil
}

// errOutside says that a link leads out of the revision.
var errOutside = errors.New("outside the revision, where nothing is verified")

// follow resolves the links of a path and refuses those that lead out.
func (p *planner) follow(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("is not in the revision: %w", err)
	case err != nil:
		return "", fmt.Errorf("cannot be followed: %w", err)
	case real != p.root && !strings.HasPrefix(real, p.root+"/"):
		return "", fmt.Errorf("leads through %s to %s, %w", path, real, errOutside)
	}
	return real, nil
}

func (p *planner) ancestors(path string) error {
	parent := filepath.Dir(path)
	if parent == path {
		return nil
	}
	if err := p.ancestors(parent); err != nil {
		return err
	}
	return p.mkdir(parent)
}

// tree plans the contents of a directory, whose path has no link. Links to
// directories are followed inside the revision, and never in a circle: others
// stay links.
func (p *planner) tree(source, dest string, above []string) error {
	if err := p.mkdir(dest); err != nil {
		return err
	}
	entries, err := os.ReadDir(source)
	if err != nil {
		return fmt.Errorf("list a directory of the revision: %w", err)
	}
	for _, e := range entries {
		if err := p.entry(join(source, e.Name()), join(dest, e.Name()), e.Type(), append(above, source)); err != nil {
			return err
		}
	}
	return nil
}

// join adds a name to a path that is clean, which filepath.Join would make sure
// of once more for each file.
func join(dir, name string) string {
	if dir == "/" {
		return dir + name
	}
	return dir + "/" + name
}

func (p *planner) entry(source, dest string, kind fs.FileMode, above []string) error {
	if kind.IsDir() {
		return p.tree(source, dest, above)
	}
	if kind&fs.ModeSymlink != 0 && !p.links {
		if real, err := p.follow(source); err == nil && !slices.Contains(above, real) {
			if st, err := os.Lstat(real); err == nil && st.IsDir() {
				return p.tree(real, dest, above)
			}
		}
	}
	return p.copy(source, dest, kind)
}

// mkdir plans a directory unless it is there.
func (p *planner) mkdir(path string) error {
	if p.made[path] {
		return nil
	}
	if _, ok := p.copied[path]; ok {
		return fmt.Errorf("%w: %s is needed as a directory and as a file", ErrConflict, path)
	}
	if p.fresh[filepath.Dir(path)] {
		return p.make(path)
	}
	real := p.real(path)
	st, err := os.Stat(real)
	switch link, errLink := os.Readlink(real); {
	case errLink == nil && p.old[real]: // our own link gives way to a directory
		if err := p.vacate(real); err != nil {
			return err
		}
	case errLink == nil && err != nil:
		return fmt.Errorf("%w: %s is a link to %s, which is not there, but %s needs it as a directory", ErrConflict,
			real, link, path)
	case err == nil && st.IsDir():
		if p.old[real] && !p.gone[real] { // ours, and stays ours
			return p.own(path)
		}
		return nil
	case err == nil && p.old[real]:
		if err := p.vacate(real); err != nil {
			return err
		}
	case err == nil:
		return fmt.Errorf("%w: %s is not a directory, but %s needs it as one", ErrConflict, real, path)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("look at destination: %w", err)
	}
	return p.make(path)
}

// make plans a directory where nothing is, or will be by then.
func (p *planner) make(path string) error {
	p.mkdirs = append(p.mkdirs, action{Op: opMkdir, Path: p.real(path)})
	p.fresh[path] = true
	return p.own(path)
}

func (p *planner) own(path string) error {
	p.made[path] = true
	p.order = append(p.order, path)
	if p.entries++; p.entries > maxPaths {
		return fmt.Errorf("the revision has more than %d paths", maxPaths)
	}
	return nil
}

// copy plans a file or symlink.
func (p *planner) copy(source, dest string, kind fs.FileMode) error {
	if other, ok := p.copied[dest]; ok {
		return fmt.Errorf("%w: %s is installed twice, from %s and %s", ErrConflict, dest, p.rel(other), p.rel(source))
	}
	if p.made[dest] {
		return fmt.Errorf("%w: %s is needed as a directory and as a file", ErrConflict, dest)
	}
	if !kind.IsRegular() && kind&fs.ModeSymlink == 0 {
		return fmt.Errorf("%s is neither a file nor a link nor a directory", p.rel(source))
	}
	before, keep, err := p.target(dest)
	if err != nil || keep {
		return err
	}
	p.copied[dest] = source
	p.order = append(p.order, dest)
	p.entries++
	p.copies = append(p.copies, action{Op: opCopy, Path: p.real(dest), Source: source, Before: before})
	return nil
}

func (p *planner) rel(path string) string { return strings.TrimPrefix(path, p.root+"/") }

// target decides about what is at the place of a file: keep says that the
// foreign file there stays.
func (p *planner) target(dest string) (before prior, keep bool, err error) {
	real := p.real(dest)
	if p.fresh[filepath.Dir(dest)] {
		return prior{}, false, nil
	}
	before, err = look(real)
	switch {
	case err != nil || !before.Exists:
		return before, false, err
	case before.Mode.IsDir() && p.vanishing(real):
		return prior{}, false, p.vacate(real)
	case before.Mode.IsDir() && p.exists == hooks.FileExistsRetain:
		return before, true, nil
	case before.Mode.IsDir():
		return before, false, fmt.Errorf("%w: a directory is at %s, where the revision has a file", ErrConflict, real)
	case p.old[real] || p.exists == hooks.FileExistsOverwrite:
		return before, false, nil
	case p.exists == hooks.FileExistsRetain:
		return before, true, nil
	}
	return before, false, fmt.Errorf("%w at %s that no deployment put there (file_exists_behavior is DISALLOW)",
		ErrExists, real)
}

// owned are directories that deployments made.
type owned struct {
	paths map[string]bool
	links map[string]bool // whether a link has taken their place, as found
}

func newOwned(paths ...[]string) owned {
	o := owned{map[string]bool{}, map[string]bool{}}
	for _, list := range paths {
		for _, path := range list {
			o.paths[path] = true
		}
	}
	return o
}

// linked reports whether a directory of ours above path has become a link by
// now, which an application or a hook did: what lies behind it is not ours.
func (o owned) linked(path string) bool {
	dir := filepath.Dir(path)
	if dir == path || !o.paths[dir] {
		return false
	}
	if is, known := o.links[dir]; known {
		return is
	}
	st, err := os.Lstat(dir)
	is := err == nil && st.Mode()&fs.ModeSymlink != 0 || o.linked(dir)
	o.links[dir] = is
	return is
}

// vanishing reports whether everything at and below path is on the clean-up
// list.
func (p *planner) vanishing(path string) bool {
	if !p.old[path] {
		return false
	}
	st, err := os.Lstat(path)
	if err != nil || !st.IsDir() {
		return err == nil
	}
	entries, err := os.ReadDir(path)
	return err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return !p.vanishing(filepath.Join(path, e.Name()))
	})
}

// vacate plans the removal, before anything is made, of a path whose kind
// changes.
func (p *planner) vacate(path string) error {
	before, err := look(path)
	if err != nil {
		return err
	}
	if before.Mode.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil {
			return fmt.Errorf("list a directory to remove: %w", err)
		}
		for _, e := range entries {
			if err := p.vacate(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	p.gone[path] = true
	p.early = append(p.early, action{Op: opRemove, Path: path, Before: before})
	return nil
}

// cleanUp plans the removal of what the new revision does not have, children
// first.
func (p *planner) cleanUp(old []string) ([]action, error) {
	if len(old) == 0 {
		return nil, nil
	}
	stays := map[string]bool{}
	for _, path := range p.order {
		stays[p.real(path)] = true
	}
	var all []action
	ours := newOwned(old)
	for _, path := range slices.Backward(old) {
		if stays[path] || p.gone[path] || ours.linked(path) {
			continue
		}
		before, err := look(path)
		if err != nil {
			return nil, err
		}
		if before.Exists {
			all = append(all, action{Op: opRemove, Path: path, Before: before})
		}
	}
	return all, nil
}
