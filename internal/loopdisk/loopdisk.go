// Package loopdisk is an ext4 file system in a file, for a test to freeze and to
// break: what hangs and fails then is the kernel's own.
package loopdisk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is a mounted file system. Its methods are for the test's goroutine.
type Disk struct {
	t      testing.TB
	dir    string
	frozen bool
}

// Requests of ioctl, of linux/fs.h and fs/ext4/ext4.h.
const (
	freeze   = 0xC0045877 // FIFREEZE
	thaw     = 0xC0045878 // FITHAW
	shutdown = 0x8004587D // EXT4_IOC_SHUTDOWN
)

// Mount mounts a new file system of 256 MiB at dir, which it makes, until the test
// ends. Where that is not allowed, or its tools are not there, the test is skipped.
func Mount(t testing.TB, dir string) *Disk {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(image, nil, 0o600),
		os.Truncate(image, 256<<20)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("cannot mount a file system of its own: %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	d := &Disk{t: t, dir: dir}
	t.Cleanup(func() {
		d.Thaw()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return d
}

// Freeze has every write to it hang until Thaw.
func (d *Disk) Freeze() {
	d.t.Helper()
	d.ioctl(freeze, 0)
	d.frozen = true
}

// Thaw has writes go on. One that is not frozen is left as it is.
func (d *Disk) Thaw() {
	d.t.Helper()
	if d.frozen {
		d.frozen = false
		d.ioctl(thaw, 0)
	}
}

// Break has every write fail with EIO from now on, as a disk that is gone.
func (d *Disk) Break() {
	d.t.Helper()
	const withoutLog = 2
	d.ioctl(shutdown, withoutLog)
}

func (d *Disk) ioctl(request uint, value int) {
	d.t.Helper()
	f, err := os.OpenFile(d.dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), request, value); err != nil {
		d.t.Fatalf("ioctl %#x on %s: %v", request, d.dir, err)
	}
}
