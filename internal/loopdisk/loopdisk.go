// Package loopdisk is an ext4 file system in a file, for a test to freeze and to
// break: what hangs and fails then is the kernel's own.
package loopdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is a mounted file system. Its methods are for the test's goroutine.
type Disk struct {
	t          testing.TB
	image, dir string
	mounted    bool
	frozen     bool
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
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Skipf("cannot make a file system: %v: %s", err, out)
	}
	d := &Disk{t: t, image: image, dir: dir}
	if err := d.mount(); err != nil {
		t.Skipf("cannot mount a file system of its own: %v", err)
	}
	t.Cleanup(d.Unmount)
	return d
}

func (d *Disk) mount() error {
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount %s: %w: %s", d.image, err, out)
	}
	d.mounted = true
	return nil
}

// Unmount takes the file system away, as soon as nobody uses it any more.
func (d *Disk) Unmount() {
	d.t.Helper()
	if !d.mounted {
		return
	}
	d.Thaw()
	d.mounted = false
	if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
		d.t.Errorf("unmount %s: %v", d.dir, err)
	}
}

// Repair gives who starts now what was synced on a file system that Break has broken.
// The broken one lives on where processes hold it, so this is a copy.
func (d *Disk) Repair() {
	d.t.Helper()
	d.Unmount()
	broken := d.image
	d.image += "+"
	if out, err := exec.Command("cp", "--sparse=always", broken, d.image).CombinedOutput(); err != nil {
		d.t.Fatalf("copy %s: %v: %s", broken, err, out)
	}
	if err := d.mount(); err != nil {
		d.t.Fatal(err)
	}
}

// filling is the file of Fill.
const filling = "filling"

// Fill leaves no room on it, until Empty.
func (d *Disk) Fill() {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.dir, filling))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for piece := make([]byte, 1<<20); len(piece) > 0; {
		if _, err := f.Write(piece); errors.Is(err, syscall.ENOSPC) {
			piece = piece[:len(piece)/2]
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
}

// Empty gives back what Fill took.
func (d *Disk) Empty() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, filling)); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Error(err)
	}
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
