package artifacts

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// file copies one entry from the cache and verifies what has landed.
func (u *unpacker) file(dir *os.Root, at *os.File, e Entry) error {
	if done, err := u.move(at, e); done || err != nil {
		return err
	}
	in, err := u.cache.Open(e.Sum)
	if err != nil {
		if IsNotExist(err) {
			return fmt.Errorf("the cache lacks %s: %w", e.Sum, ErrNotFound)
		}
		return err
	}
	defer in.Close()
	out, err := dir.OpenFile(path.Base(e.Path), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = u.copy(out, in, e)
	if errors.Is(err, ErrDigestMismatch) {
		err = errors.Join(err, u.cache.Drop(e.Sum))
	}
	if err == nil {
		err = u.finish(out, e)
	}
	return errors.Join(err, out.Close())
}

func (u *unpacker) copy(out, in *os.File, e Entry) error {
	if u.clone(out, in) {
		return u.cache.copyVerified(io.Discard, e.Sum, e.Size, out)
	}
	return u.cache.copyVerified(out, e.Sum, e.Size, in)
}

// clone shares in's blocks with out until either is written to, if the file
// system can. It is the one way to share that keeps later edits apart.
func (u *unpacker) clone(out, in *os.File) bool {
	if u.noClone.Load() {
		return false
	}
	if err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd())); err != nil {
		u.noClone.Store(true)
		return false
	}
	return true
}

// finish sets the attributes: owner first, since a change of owner may clear
// mode bits, and time last.
func (u *unpacker) finish(out *os.File, e Entry) error {
	if err := u.owners.give(out, e); err != nil {
		return err
	}
	if err := out.Chmod(e.Mode); err != nil {
		return err
	}
	seconds, stated := e.MTime.Unix()
	if !stated {
		return nil
	}
	at := unix.Timeval{Sec: seconds}
	if err := unix.Futimes(int(out.Fd()), []unix.Timeval{at, at}); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// VerifyTree hashes the tree in dir and compares it with m. It returns nil if
// they are equal, else an error that wraps [ErrDigestMismatch] and names the
// first path that is missing, foreign or different, in path order. Types,
// file modes, sizes, contents and link targets count; times and owners, and
// the modes of directories, do not.
func VerifyTree(dir string, m *Manifest) error {
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
		return fmt.Errorf("verify tree %s: %q is not part of revision %s: %w", dir, extra, m.digest, ErrDigestMismatch)
	}
	return nil
}

// firstForeign returns the least path of the tree that m does not list.
func firstForeign(root *os.Root, m *Manifest) (first string, err error) {
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

func verifyEntry(root *os.Root, e Entry) error {
	info, err := root.Lstat(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("is missing: %w", ErrDigestMismatch)
	}
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case e.Type == TypeDir && mode.IsDir():
		return nil
	case e.Type == TypeSymlink && mode&fs.ModeSymlink != 0:
		return verifyLink(root, e)
	case e.Type == TypeFile && mode.IsRegular():
		if mode&^fs.ModeType != e.Mode {
			return fmt.Errorf("has mode %o, want %o: %w", uint32(mode), uint32(e.Mode), ErrDigestMismatch)
		}
		return verifyContent(root, e)
	default:
		return fmt.Errorf("has type and mode %s: %w", mode, ErrDigestMismatch)
	}
}

func verifyLink(root *os.Root, e Entry) error {
	target, err := root.Readlink(e.Path)
	if err != nil {
		return err
	}
	if target != e.Target {
		return fmt.Errorf("leads to %q, want %q: %w", target, e.Target, ErrDigestMismatch)
	}
	return nil
}

func verifyContent(root *os.Root, e Entry) error {
	f, err := root.Open(e.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := hasher{sha256.New()}
	n, err := io.Copy(h, io.LimitReader(f, e.Size+1))
	if err != nil {
		return err
	}
	if n != e.Size || h.sum() != e.Sum {
		return fmt.Errorf("%d bytes of sha256 %s, want %d of %s: %w", n, h.sum(), e.Size, e.Sum, ErrDigestMismatch)
	}
	return nil
}
