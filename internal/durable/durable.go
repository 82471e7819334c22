// Package durable makes files outlive a crash: atomic replacement of a whole
// file and an append-only file of checksummed records. Everything that an
// agent or coordinator must still know after a power cut goes through it.
//
// Nothing here is policy and nothing here retries: an error means that the
// caller may not assume that the change is on disk.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// WriteFile replaces path with data atomically and durably: after a crash at
// any moment path holds the old or the new content, never a mix, and on return
// the new content and its name are on disk. The temporary file is made in the
// same directory, which must exist.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	f, err := renameio.NewPendingFile(path,
		renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return fmt.Errorf("make a temporary file for %s: %w", path, err)
	}
	defer func() { _ = f.Cleanup() }()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in dir durable. It must follow every create, rename
// or remove whose effect has to outlive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory to sync it: %w", err)
	}
	err = d.Sync()
	// Some filesystems refuse fsync on a directory and order names themselves.
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// MkdirAll makes dir and its missing parents with mode, whatever the umask is,
// and makes each new name durable.
func MkdirAll(dir string, mode fs.FileMode) error {
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MkdirAll(parent, mode); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, mode)
	if err == nil {
		err = os.Chmod(dir, mode) // whatever the umask is
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	return SyncDir(parent)
}

// Rename moves old to new, which it replaces, and makes the change durable.
// Both must be on one filesystem.
func Rename(old, new string) error {
	if err := os.Rename(old, new); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	if err := SyncDir(filepath.Dir(new)); err != nil {
		return err
	}
	if filepath.Dir(old) == filepath.Dir(new) {
		return nil
	}
	return SyncDir(filepath.Dir(old))
}

// Remove deletes path durably; a path that is not there is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return SyncDir(filepath.Dir(path))
}

// Symlink makes link point to target, atomically and durably: a reader sees
// the former target or the new one, never nothing.
func Symlink(target, link string) error {
	if err := renameio.Symlink(target, link); err != nil {
		return fmt.Errorf("switch symlink %s to %s: %w", link, target, err)
	}
	return SyncDir(filepath.Dir(link))
}
