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
	"github.com/groundswell/groundswell/internal/durable"
)

// File is there while the host serves.
type File struct {
	Path   string
	Settle time.Duration // until whoever looks has noticed that it is gone
}

// Found reports whether the file is there.
func (f File) Found() (bool, error) {
	info, err := os.Lstat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%s is no regular file", f.Path)
	}
	return true, nil
}

// Block removes the file, durably, and returns once everybody has noticed.
func (f File) Block(ctx context.Context) error {
	there, err := f.Found()
	if err != nil {
		return err
	}
	if there {
		if err := durable.Remove(f.Path); err != nil {
			return err
		}
	}
	if !backoff.Pause(ctx, f.Settle) {
		return ctx.Err()
	}
	return nil
}

// Allow makes the file, and the folders that lead to it.
func (f File) Allow() error {
	if there, err := f.Found(); there || err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(f.Path, nil, 0o644)
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
