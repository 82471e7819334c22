package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"
	"go.yaml.in/yaml/v4"

	"github.com/groundswell/groundswell/internal/config"
	"github.com/groundswell/groundswell/internal/identity"
)

// Contexts is the contexts file: the clusters that a person knows.
type Contexts struct {
	Current  string             `yaml:"current"`
	Contexts map[string]Context `yaml:"contexts"`
}

// Context is one cluster: where it is and who we are there.
type Context struct {
	Coordinators []string `yaml:"coordinators"`
	// Credentials is a folder that identity.Save wrote: tls.crt, tls.key and
	// ca.crt of an operator.
	Credentials string `yaml:"credentials"`
}

// ContextsPath returns where the contexts file is: $DCTL_CONFIG, else
// contexts.yaml in groundswell's folder of the user's configuration.
func ContextsPath(getenv func(string) (string, bool)) (string, error) {
	if path, _ := getenv("DCTL_CONFIG"); path != "" {
		return path, nil
	}
	if dir, _ := getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "groundswell", "contexts.yaml"), nil
	}
	if home, _ := getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "groundswell", "contexts.yaml"), nil
	}
	return "", errors.New("find the contexts file: neither DCTL_CONFIG nor HOME is set")
}

// ReadContexts reads the contexts file; one that does not exist is empty.
func ReadContexts(path string) (Contexts, error) {
	c := Contexts{Contexts: map[string]Context{}}
	err := config.Load(path, &c)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return c, err
}

// WriteContext adds a context to the file, or replaces the one of that name;
// with use it becomes the current one. The file is replaced whole and is 0600.
func WriteContext(path, name string, ctx Context, use bool) error {
	return changeContexts(path, func(all *Contexts) bool {
		all.Contexts[name] = ctx
		if use || all.Current == "" {
			all.Current = name
		}
		return true
	})
}

// changeContexts rewrites the file by change, which reports whether there is
// anything to write. Of several programs at once each one's change holds.
func changeContexts(path string, change func(*Contexts) bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("create folder of contexts: %w", err)
	}
	lock := flock.New(path + ".lock")
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("lock contexts: %w", err)
	}
	defer func() { _ = lock.Unlock() }() // the end of the process does too
	all, err := ReadContexts(path)
	if err != nil || !change(&all) {
		return err
	}
	return saveContexts(path, all)
}

func saveContexts(path string, all Contexts) error {
	data, err := yaml.Marshal(all)
	if err != nil {
		return fmt.Errorf("encode contexts: %w", err)
	}
	return identity.WriteSecret(path, data)
}

// pick returns the context to use: the named one, or the current.
func (c Contexts) pick(name, path string) (Context, error) {
	known := slices.Sorted(maps.Keys(c.Contexts))
	if name == "" {
		name = c.Current
	}
	ctx, ok := c.Contexts[name]
	switch {
	case ok:
		return ctx, nil
	case len(known) == 0:
		return Context{}, usage("no cluster is known: %s names none. Add one with `dctl login NAME --coordinator "+
			"host:port --credentials DIR`, or start one with `dctl dev`", path)
	case name == "":
		return Context{}, usage("no context is current in %s; choose with --context: %s", path,
			strings.Join(known, ", "))
	default:
		return Context{}, usage("no context %q in %s; there are %s", name, path, strings.Join(known, ", "))
	}
}
