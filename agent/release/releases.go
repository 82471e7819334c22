package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/internal/durable"
)

// Options configures Releases. Root is required.
type Options struct {
	// Root holds one folder an application.
	Root string
	// InstallRoot is put before every destination of an appspec. Default "/".
	InstallRoot string
	// Keep is how many revisions Prune leaves. Default 5, CodeDeploy's.
	Keep int
	// KeepBytes is how much disk they may take; 0 is no limit. What
	// Prune is told to keep stays whatever it takes.
	KeepBytes int64
	// KeepDirLinks installs a symlink to a directory as a symlink. The
	// default, for CodeDeploy's sake, is a directory with copies.
	KeepDirLinks bool
}

// Releases is the set of revisions of every application on this host.
type Releases struct {
	options Options
	// point is called before each effect; tests crash in it. Nil is nothing.
	point func(string)
}

// before says that an effect comes next.
func (r *Releases) before(what ...string) {
	if r.point != nil {
		r.point(strings.Join(what, " "))
	}
}

// New returns the releases below the root, which is made if need be.
func New(o Options) (*Releases, error) {
	for _, dir := range []*string{&o.Root, &o.InstallRoot} {
		*dir = cmp.Or(*dir, "/")
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return nil, fmt.Errorf("find folder of releases: %w", err)
		}
		*dir = abs
	}
	if o.Root == "/" {
		return nil, errors.New("find folder of releases: no root is configured")
	}
	o.Keep = cmp.Or(o.Keep, 5)
	// Revisions may hold secrets, but hooks of other users run in them.
	if err := durable.MkdirAll(o.Root, 0o755); err != nil {
		return nil, fmt.Errorf("make folder of releases: %w", err)
	}
	if err := durable.MkdirAll(o.InstallRoot, 0o755); err != nil {
		return nil, fmt.Errorf("make install root: %w", err)
	}
	return &Releases{options: o}, nil
}

// idPattern keeps applications and revisions plain folder names.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

func checkName(what, name string) error {
	if !idPattern.MatchString(name) {
		return fmt.Errorf("use %q as the name of %s: it must be letters, digits, ., _ and -, at most 128", name, what)
	}
	return nil
}

func (r *Releases) app(app string, elem ...string) string {
	return filepath.Join(append([]string{r.options.Root, app}, elem...)...)
}

// Dir is the folder of a revision, there or not.
func (r *Releases) Dir(app, id string) string { return r.app(app, "releases", id) }

// Has reports whether the complete revision is on disk.
func (r *Releases) Has(app, id string) bool {
	if checkName("an application", app) != nil || checkName("a revision", id) != nil {
		return false
	}
	st, err := os.Stat(r.Dir(app, id))
	return err == nil && st.IsDir()
}

// Stage makes the folder of a revision: fill gets a fresh empty folder and
// must put the verified tree there. Only a tree that is complete and on disk
// gets the revision's name. A revision that is there already is left alone,
// and a partial tree is removed.
func (r *Releases) Stage(ctx context.Context, app, id string, fill func(ctx context.Context, dest string) error) error {
	if err := errors.Join(checkName("an application", app), checkName("a revision", id)); err != nil {
		return err
	}
	if r.Has(app, id) {
		return nil
	}
	for _, dir := range []string{"releases", "staged"} {
		if err := durable.MkdirAll(r.app(app, dir), 0o755); err != nil {
			return fmt.Errorf("stage %s of %s: %w", id, app, err)
		}
	}
	tmp := r.app(app, "releases", ".staging-"+id)
	err := r.fillFresh(ctx, tmp, fill)
	if err == nil {
		err = durable.WriteFile(r.app(app, "staged", id), nil, 0o644)
	}
	if err == nil {
		err = durable.Rename(tmp, r.Dir(app, id))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("stage %s of %s: %w", id, app, err), os.RemoveAll(tmp))
	}
	return nil
}

func (r *Releases) fillFresh(ctx context.Context, dir string, fill func(context.Context, string) error) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove an older attempt: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := fill(ctx, dir); err != nil {
		return err
	}
	return syncFilesystem(dir)
}

// syncFilesystem makes everything written so far to dir's filesystem durable:
// one call instead of an fsync a file.
func syncFilesystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open folder to sync its filesystem: %w", err)
	}
	if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
		return fmt.Errorf("sync filesystem of %s: %w", dir, err)
	}
	return nil
}

// Current returns the revision that is installed, "" for none.
func (r *Releases) Current(app string) (string, error) {
	target, err := os.Readlink(r.app(app, "current"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read current release of %s: %w", app, err)
	}
	return filepath.Base(target), nil
}

// switchTo makes current point to the revision, or removes it for "".
func (r *Releases) switchTo(app, id string) error {
	link := r.app(app, "current")
	if id == "" {
		return durable.Remove(link)
	}
	if !r.Has(app, id) {
		return fmt.Errorf("switch %s to %s: its folder %s is gone; stage it again: %w", app, id, r.Dir(app, id),
			os.ErrNotExist)
	}
	return durable.Symlink(filepath.Join("releases", id), link)
}
