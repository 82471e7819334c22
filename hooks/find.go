package hooks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Find returns the path of the appspec relative to dir, the unpacked revision.
// The stated name may lie in a folder of the revision; without one it is
// appspec.yml, else appspec.yaml.
func Find(dir, stated string) (string, error) {
	names := []string{"appspec.yml", "appspec.yaml"}
	if stated != "" {
		names = []string{strings.TrimLeft(stated, "/")}
	}
	for _, name := range names {
		if !filepath.IsLocal(name) {
			return "", fmt.Errorf("find appspec %q: the name leads out of the revision", stated)
		}
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.Mode().IsRegular() {
			return name, nil
		}
	}
	return "", fmt.Errorf("find appspec %s in the unpacked revision %s: %w", names[0], dir, fs.ErrNotExist)
}

// Load finds and parses the appspec of the revision unpacked in dir. Links
// that lead out of dir are refused.
func Load(dir, stated string) (*AppSpec, error) {
	name, err := Find(dir, stated)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenInRoot(dir, name)
	if err != nil {
		return nil, fmt.Errorf("open appspec: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read appspec %s: %w", name, err)
	}
	return Parse(data, name)
}

// Root returns the folder that counts as the revision's root: dir itself, or
// its only entry where that is a folder with an appspec and dir has none.
// Deeper levels are not dropped.
func Root(dir, stated string) string {
	if _, err := Find(dir, stated); err == nil {
		return dir
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !entries[0].IsDir() {
		return dir
	}
	inner := filepath.Join(dir, entries[0].Name())
	if _, err := Find(inner, stated); err != nil {
		return dir
	}
	return inner
}
