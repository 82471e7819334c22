package sweep_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fault is what happens at one operation of a traced process.
type fault struct {
	at int // operation, from 1; 0 is never
	// errno fails the operation instead of killing the process; sticky fails
	// every one after it, too, as a full disk does.
	errno  syscall.Errno
	sticky bool
	// before is called when the operation is about to begin.
	before func()
	// live lets the process go on behind before.
	live bool
}

// traced is what a run under a fault came to.
type traced struct {
	ops    int
	names  []string // of the operations
	hit    string   // the operation of the fault
	killed bool
}

// ops are the operations that change a file system or make a process. Errors
// are injected into those that take room on a disk or reach it.
var ops = map[uint64]struct {
	name string
	fd   bool // the first argument is a file: others than files do not count
}{
	unix.SYS_WRITE: {"write", true}, unix.SYS_PWRITE64: {"pwrite", true}, unix.SYS_OPENAT: {"open", false},
	unix.SYS_RENAME: {"rename", false}, unix.SYS_RENAMEAT: {"rename", false}, unix.SYS_RENAMEAT2: {"rename", false},
	unix.SYS_LINK: {"link", false}, unix.SYS_LINKAT: {"link", false}, unix.SYS_SYMLINK: {
		"symlink",
		false,
	}, unix.SYS_SYMLINKAT: {"symlink", false},
	unix.SYS_UNLINK: {"unlink", false}, unix.SYS_UNLINKAT: {"unlink", false}, unix.SYS_RMDIR: {"rmdir", false},
	unix.SYS_MKDIR: {"mkdir", false}, unix.SYS_MKDIRAT: {"mkdir", false},
	unix.SYS_CHMOD: {"chmod", false}, unix.SYS_FCHMOD: {"chmod", true}, unix.SYS_FCHMODAT: {
		"chmod",
		false,
	}, 452: {"chmod", false},
	unix.SYS_FCHOWN: {"chown", true}, unix.SYS_LCHOWN: {"chown", false}, unix.SYS_FCHOWNAT: {
		"chown",
		false,
	}, unix.SYS_CHOWN: {"chown", false},
	unix.SYS_UTIMENSAT: {"utimes", false}, unix.SYS_FUTIMESAT: {"utimes", false}, unix.SYS_UTIMES: {"utimes", false},
	unix.SYS_TRUNCATE: {"truncate", false}, unix.SYS_FTRUNCATE: {
		"truncate",
		true,
	}, unix.SYS_FALLOCATE: {"fallocate", true},
	unix.SYS_FSYNC: {"fsync", true}, unix.SYS_FDATASYNC: {"fsync", true}, unix.SYS_SYNCFS: {"syncfs", true},
	unix.SYS_SETXATTR: {"setxattr", false}, unix.SYS_LSETXATTR: {
		"setxattr",
		false,
	}, unix.SYS_FSETXATTR: {"setxattr", true},
	unix.SYS_REMOVEXATTR: {"removexattr", false}, unix.SYS_LREMOVEXATTR: {"removexattr", false},
	unix.SYS_COPY_FILE_RANGE: {"copy_file_range", false}, unix.SYS_SENDFILE: {
		"sendfile",
		true,
	}, unix.SYS_FLOCK: {"flock", true},
	unix.SYS_CLONE: {"fork", false}, unix.SYS_CLONE3: {"fork", false}, unix.SYS_KILL: {"kill", false},
}

// at are calls whose second argument is the path.
var at = map[uint64]bool{
	unix.SYS_RENAMEAT: true, unix.SYS_RENAMEAT2: true, unix.SYS_LINKAT: true, unix.SYS_UNLINKAT: true, unix.SYS_MKDIRAT: true,
	unix.SYS_FCHMODAT: true, 452: true, unix.SYS_FCHOWNAT: true, unix.SYS_UTIMENSAT: true,
}

// spares lists operations that are only killed at: no disk fails them.
var spares = map[string]bool{"fork": true, "kill": true, "flock": true}

// run runs the program to its end, or to the fault. All its threads are
// traced, and none of the processes that it starts: a kill of the agent ends
// nobody else.
func run(cmd *exec.Cmd, f fault) (traced, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setsid: true}
	err := cmd.Start()
	if f, ok := cmd.Stdout.(*os.File); ok {
		_ = f.Close() // the process has it
	}
	if err != nil {
		return traced{}, err
	}
	t := &tracer{pid: cmd.Process.Pid, fault: f, inside: map[int]bool{}, failing: map[int]bool{}}
	err = t.follow()
	_ = cmd.Process.Release() // wait4 has reaped it
	return t.traced, err
}

type tracer struct {
	traced
	pid     int
	fault   fault
	inside  map[int]bool // threads within a system call
	failing map[int]bool // threads whose call is made to fail
}

// wnothread restricts wait4 to tracees of this thread. Together with the
// process group it leaves alone what other tries run beside this one.
const wnothread = 0x20000000

func (t *tracer) follow() error {
	first := true
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-t.pid, &ws, syscall.WALL|wnothread, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD):
			return nil
		case err != nil:
			return fmt.Errorf("wait for the traced process: %w", err)
		case ws.Exited() || ws.Signaled():
			if pid == t.pid {
				t.killed = ws.Signaled()
				return nil
			}
			continue
		case !ws.Stopped():
			continue
		}
		if first {
			first = false
			const exitKill = 0x100000
			if err := syscall.PtraceSetOptions(pid,
				syscall.PTRACE_O_TRACESYSGOOD|syscall.PTRACE_O_TRACECLONE|exitKill); err != nil {
				return fmt.Errorf("trace: %w", err)
			}
		}
		signal := 0
		switch sig := ws.StopSignal(); {
		case sig == syscall.SIGTRAP|0x80:
			if t.syscall(pid) {
				return t.kill()
			}
		case sig == syscall.SIGTRAP, sig == syscall.SIGSTOP: // events, and new threads
		default:
			signal = int(sig)
		}
		_ = syscall.PtraceSyscall(pid, signal) // a thread that is gone is waited for
	}
}

// kill ends the process as kill -9 does.
func (t *tracer) kill() error {
	if err := syscall.Kill(t.pid, syscall.SIGKILL); err != nil {
		return err
	}
	t.killed = true
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-t.pid, &ws, syscall.WALL|wnothread, nil)
		if errors.Is(err, syscall.ECHILD) || err == nil && pid == t.pid && (ws.Exited() || ws.Signaled()) {
			return nil
		}
	}
}

// syscall handles the begin or the end of a call, and says that the process is
// to be killed now.
func (t *tracer) syscall(pid int) bool {
	var r syscall.PtraceRegs
	if syscall.PtraceGetRegs(pid, &r) != nil {
		return false
	}
	t.inside[pid] = !t.inside[pid]
	if !t.inside[pid] {
		if t.failing[pid] {
			delete(t.failing, pid)
			r.Rax = uint64(-int64(t.fault.errno))
			_ = syscall.PtraceSetRegs(pid, &r)
		}
		return false
	}
	name, counts := t.counts(pid, &r)
	if !counts {
		return false
	}
	t.ops++
	t.names = append(t.names, name)
	if t.ops < t.fault.at || t.fault.at == 0 || t.ops > t.fault.at && !t.fault.sticky {
		return false
	}
	if t.ops == t.fault.at {
		t.hit = name
		if t.fault.before != nil {
			t.fault.before()
		}
	}
	if t.fault.errno == 0 {
		return !t.fault.live
	}
	if !spares[strings.Fields(name)[0]] {
		t.failing[pid] = true
		r.Orig_rax = ^uint64(0)
		_ = syscall.PtraceSetRegs(pid, &r)
	}
	return false
}

// counts says which operation a call is, and whether it is one.
func (t *tracer) counts(pid int, r *syscall.PtraceRegs) (string, bool) {
	op, ok := ops[r.Orig_rax]
	if !ok {
		return "", false
	}
	path := ""
	switch {
	case op.fd:
		path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, r.Rdi))
		if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "/dev/") || strings.HasPrefix(path, "/proc/") {
			return "", false
		}
	case op.name == "open":
		path = text(pid, uintptr(r.Rsi))
		if r.Rdx&(unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC) == 0 || strings.HasPrefix(path, "/dev/") ||
			strings.HasPrefix(path, "/proc/") {
			return "", false
		}
	case r.Orig_rax == unix.SYS_CLONE:
		if r.Rdi&unix.CLONE_THREAD != 0 {
			return "", false
		}
	case r.Orig_rax == unix.SYS_CLONE3:
		var flags [8]byte
		if _, err := syscall.PtracePeekData(pid, uintptr(r.Rdi), flags[:]); err != nil ||
			*(*uint64)(unsafe.Pointer(&flags))&unix.CLONE_THREAD != 0 {
			return "", false
		}
	case at[r.Orig_rax]:
		path = text(pid, uintptr(r.Rsi))
	default:
		path = text(pid, uintptr(r.Rdi))
	}
	return op.name + " " + path, true
}

// text reads a string of the process, at most 256 bytes; it is for messages
// and for telling devices from files.
func text(pid int, at uintptr) string {
	var b [256]byte
	n, _ := syscall.PtracePeekData(pid, at, b[:])
	s, _, _ := strings.Cut(string(b[:n]), "\x00")
	return s
}
