package bundletest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/groundswell/groundswell/artifacts"
)

// VerifyTree hashes the tree in dir and compares it with m. It returns nil if
// they are equal, else an error that wraps [artifacts.ErrDigestMismatch] and names the
// first path that is missing, foreign or different, in path order. Types,
// file modes, sizes, contents and link targets count; times and owners, and
// the modes of directories, do not.
func VerifyTree(dir string, m *artifacts.Manifest) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("verify tree: %w", err)
	}
	defer root.Close()
	extra, err := firstForeign(root, m)
	if err != nil {
		return fmt.Errorf("verify tree %s: %w", dir, err)
	}
	for e := range m.All() {
		if extra != "" && extra < e.Path {
			break
		}
		if err := verifyEntry(root, e); err != nil {
			return fmt.Errorf("verify tree %s: %s %q: %w", dir, e.Type, e.Path, err)
		}
	}
	if extra != "" {
		return fmt.Errorf("verify tree %s: %q is not part of revision %s: %w", dir, extra, m.Digest(),
			artifacts.ErrDigestMismatch)
	}
	return nil
}

// firstForeign returns the least path of the tree that m does not list.
func firstForeign(root *os.Root, m *artifacts.Manifest) (first string, err error) {
	err = fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if _, ok := m.Lookup(name); !ok && (first == "" || name < first) {
			first = name
		}
		return nil
	})
	return first, err
}

func verifyEntry(root *os.Root, e artifacts.Entry) error {
	info, err := root.Lstat(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("is missing: %w", artifacts.ErrDigestMismatch)
	}
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case e.Type == artifacts.TypeDir && mode.IsDir():
		return nil
	case e.Type == artifacts.TypeSymlink && mode&fs.ModeSymlink != 0:
		return verifyLink(root, e)
	case e.Type == artifacts.TypeFile && mode.IsRegular():
		if mode&^fs.ModeType != e.Mode {
			return fmt.Errorf("has mode %o, want %o: %w", uint32(mode), uint32(e.Mode), artifacts.ErrDigestMismatch)
		}
		return verifyContent(root, e)
	default:
		return fmt.Errorf("has type and mode %s: %w", mode, artifacts.ErrDigestMismatch)
	}
}

func verifyLink(root *os.Root, e artifacts.Entry) error {
	target, err := root.Readlink(e.Path)
	if err != nil {
		return err
	}
	if target != e.Target {
		return fmt.Errorf("leads to %q, want %q: %w", target, e.Target, artifacts.ErrDigestMismatch)
	}
	return nil
}

func verifyContent(root *os.Root, e artifacts.Entry) error {
	f, err := root.Open(e.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, e.Size+1))
	if err != nil {
		return err
	}
	if got := artifacts.Sum(h.Sum(nil)); n != e.Size || got != e.Sum {
		return fmt.Errorf("%d bytes of sha256 %s, want %d of %s: %w", n, got, e.Size, e.Sum,
			artifacts.ErrDigestMismatch)
	}
	return nil
}
