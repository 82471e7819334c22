package hooks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// failure is an error that stops a script before it starts, with the code of
// its result.
type failure struct {
	code Code
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failed(code Code, format string, args ...any) *failure {
	return &failure{code, fmt.Errorf(format, args...)}
}

// scriptPath returns the absolute path of the script at location in root. No
// link on the way may lead out of root: what lies there was never verified.
func scriptPath(root, location string) (string, error) {
	if escapes(location) {
		return "", failed(CodeMissing, "script location %q is outside the revision: name a file in it", location)
	}
	path := filepath.Join(root, location)
	st, err := os.Stat(path)
	switch {
	case err == nil && st.Mode().IsRegular():
		return path, inside(root, path)
	case err == nil:
		return "", failed(CodeMissing, "script %s is not a regular file", path)
	}
	if first, rest, found := strings.Cut(location, " "); found {
		if _, err := os.Stat(filepath.Join(root, first)); err == nil {
			return "", failed(CodeMissing,
				"script does not exist at %s: arguments are not supported, remove %q from the location", path, rest)
		}
	}
	return "", failed(CodeMissing, "script does not exist at the expected location %s: %w", path, err)
}

// inside refuses a path whose links lead out of root.
func inside(root, path string) error {
	base, err := resolved(root)
	if err != nil {
		return failed(CodeOther, "find the revision: %w", err)
	}
	real, err := resolved(path)
	if err != nil {
		return failed(CodeMissing, "follow script %s: %w", path, err)
	}
	if rel, err := filepath.Rel(base, real); err != nil || !filepath.IsLocal(rel) {
		return failed(CodeMissing,
			"script %s is a link to %s, outside the revision: nobody has verified what lies there",
			path, real)
	}
	return nil
}

// resolved is the full path of a file, with no link in it.
func resolved(path string) (string, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(full)
}

// makeExecutable sets the run bits as CodeDeploy does. The file may share its
// inode with a cache or another release, so a linked file is copied first.
func makeExecutable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return failed(CodeNotExecutable, "look at script: %w", err)
	}
	if st.Mode()&0o111 != 0 {
		return nil
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Nlink > 1 {
		if err := unshare(path); err != nil {
			return failed(CodeNotExecutable, "copy linked script to make it executable: %w", err)
		}
	}
	if err := os.Chmod(path, st.Mode().Perm()|0o111); err != nil {
		return failed(CodeNotExecutable, "make script executable: %w", err)
	}
	return nil
}

// unshare gives path an inode of its own with the same content.
func unshare(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.CreateTemp(filepath.Dir(path), ".unshare-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(out.Name()) }()
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), path)
}
