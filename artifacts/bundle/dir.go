package bundle

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/groundswell/groundswell/artifacts"
)

// walkDir reads a directory tree. Links are recorded, never followed; .git
// is left out; sockets, pipes and devices are refused. A checkout states no
// times and owners: they differ between clones of one commit.
func walkDir(ctx context.Context, dir string, g *guard) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("entry %q: %w", name, err)
		case ctx.Err() != nil:
			return ctx.Err()
		case name == ".":
			return nil
		case d.Name() == ".git":
			return skip(d)
		}
		it, err := dirItem(root, name, d)
		if err != nil {
			return err
		}
		return g.item(it)
	})
}

// skip leaves out d, which is a directory in a clone and a file in a
// submodule or worktree.
func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func dirItem(root *os.Root, name string, d fs.DirEntry) (item, error) {
	if err := artifacts.CheckPath(name); err != nil {
		return item{}, err
	}
	info, err := d.Info()
	if err != nil {
		return item{}, fmt.Errorf("entry %q: %w", name, err)
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		return item{Entry: artifacts.Entry{Path: name, Type: artifacts.TypeDir}}, nil
	case mode&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return item{}, fmt.Errorf("entry %q: %w", name, err)
		}
		return item{Entry: artifacts.Entry{Path: name, Type: artifacts.TypeSymlink, Target: target}}, nil
	case mode.IsRegular():
		e := artifacts.Entry{Path: name, Type: artifacts.TypeFile, Mode: permissions(mode), Size: info.Size()}
		return item{
			Entry: e, setID: hasSetID(mode),
			open: func() (io.ReadCloser, error) { return root.Open(name) },
		}, nil
	default:
		return item{}, fmt.Errorf("entry %q: a %s cannot be part of a bundle: %w", name, kindOf(mode),
			artifacts.ErrInvalid)
	}
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	case mode&fs.ModeDevice != 0:
		return "device"
	}
	return "file of mode " + mode.String()
}
