// Package pool takes this host out of the pools that it drives itself, and puts it
// back: a file that others look for, and commands of the machine's owner.
package pool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/groundswell/groundswell/internal/backoff"
)

// File is there while the host serves. It lies in a folder that the machine's owner has
// given for that; no link in it leads anywhere else.
type File struct {
	Dir    string        // absolute
	Name   string        // below it
	Settle time.Duration // until whoever looks has noticed that it is gone
}

// Within returns the file at a path, if it lies in one of the folders.
func Within(folders []string, path string) (File, error) {
	for _, dir := range folders {
		if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) && rel != "." && filepath.IsAbs(dir) {
			return File{Dir: dir, Name: rel}, nil
		}
	}
	return File{}, fmt.Errorf("%s lies in no folder of trafficFiles in this host's agent.yaml", path)
}

// Found reports whether the file is there.
func (f File) Found() (there bool, err error) {
	err = f.in(func(root *os.Root) error {
		there, err = found(root, f.Name)
		return err
	})
	return there, err
}

// in opens the folder, which is made if need be.
func (f File) in(do func(*os.Root) error) error {
	if err := os.MkdirAll(f.Dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(f.Dir)
	if err != nil {
		return err
	}
	return errors.Join(do(root), root.Close())
}

func found(root *os.Root, name string) (bool, error) {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%s in %s is no regular file", name, root.Name())
	}
	return true, nil
}

// sync makes what was done to the file durable.
func sync(root *os.Root, name string) error {
	dir, err := root.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Block removes the file, durably, and returns once everybody has noticed.
func (f File) Block(ctx context.Context) error {
	err := f.in(func(root *os.Root) error {
		there, err := found(root, f.Name)
		if !there || err != nil {
			return err
		}
		if err := root.Remove(f.Name); err != nil {
			return err
		}
		return sync(root, f.Name)
	})
	if err != nil {
		return err
	}
	if !backoff.Pause(ctx, f.Settle) {
		return ctx.Err()
	}
	return nil
}

// Allow makes the file, durably, and the folders that lead to it.
func (f File) Allow() error {
	return f.in(func(root *os.Root) error {
		there, err := found(root, f.Name)
		if there || err != nil {
			return err
		}
		if err := root.MkdirAll(filepath.Dir(f.Name), 0o755); err != nil {
			return err
		}
		file, err := root.OpenFile(f.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		return errors.Join(file.Close(), sync(root, f.Name))
	})
}

// maxTail is how much of a command's output an error shows, in bytes.
const maxTail = 2 << 10

// Command is a program of the machine's owner, with its arguments.
type Command []string

// Run runs the command until it ends, or kills it and what it started when ctx ends.
// It is told of the host by variables alone.
func (c Command) Run(ctx context.Context, env []string) error {
	if len(c) == 0 || !filepath.IsAbs(c[0]) {
		return fmt.Errorf("command %q: the first word is no absolute path", []string(c))
	}
	cmd := exec.CommandContext(ctx, c[0], c[1:]...)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, out.text())
	}
	return nil
}

// tail keeps the end of what is written.
type tail struct{ b bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.b.Write(p)
	if over := t.b.Len() - maxTail; over > 0 {
		t.b.Next(over)
	}
	return len(p), nil
}

func (t *tail) text() string {
	return strings.ToValidUTF8(strings.TrimSpace(t.b.String()), "")
}
