package hooks

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// superviseArg is the first argument of a re-executed supervisor.
const superviseArg = "supervise-hook"

// MaybeSupervise turns this process into the supervisor of one script if it
// was started as one, and then never returns. Every program that uses a
// Runner calls it first in main, and its tests first in TestMain.
func MaybeSupervise() {
	if len(os.Args) != 3 || os.Args[1] != superviseArg {
		return
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// supervisor runs one script. The process holds the run's lock until the
// outcome is written.
type supervisor struct {
	dir     runDir
	order   order
	pump    *pump
	tree    tree
	signals chan os.Signal
	exits   chan syscall.WaitStatus
	reaped  chan struct{} // closed when no child is left; nil before the first
	stuck   bool          // with limits of the script: no other may run here
	begin   time.Time
}

func newSupervisor(dir runDir) *supervisor {
	return &supervisor{dir: dir, signals: make(chan os.Signal, 4), exits: make(chan syscall.WaitStatus, 1)}
}

// run does the run, to its outcome.
func (s *supervisor) run() error {
	debug.SetGCPercent(50) // it may live for an hour beside the application
	defer signal.Stop(s.signals)
	if err := s.settle(); err != nil {
		return s.end(Result{Code: CodeOther, ExitStatus: -1, Message: err.Error()})
	}
	if err := s.start(); err != nil {
		return s.end(Result{
			Code: CodeFailed, ExitStatus: -1,
			Message: fmt.Sprintf("script %s could not be started: %v%s", s.order.Location, err,
				startHint(s.order.Path, err)),
		})
	}
	return s.end(s.watch())
}

// alone says that no child is left.
func (s *supervisor) alone() bool {
	select {
	case <-s.reaped:
		return true
	default:
		return false
	}
}

// settle makes this process a fit parent and opens the files.
func (s *supervisor) settle() error {
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		unix.CloseOnExec(3) // a kernel before 5.11
	}
	// Caught, not ignored: a script would inherit what is ignored.
	signal.Notify(s.signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	syscall.Umask(0o022)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of the script's tree: %w", err)
	}
	if err := s.dir.readJSON("order", &s.order); err != nil {
		return err
	}
	var err error
	s.pump, err = openPump(s.dir, s.order.Limits)
	return err
}

// start runs the script. After it returned nil the tree is known and recorded.
func (s *supervisor) start() error {
	if c := s.order.Cred; c != nil {
		for _, src := range s.pump.sources { // so that /dev/stdout opens for the user
			if err := src.file.Chown(int(c.UID), int(c.GID)); err != nil {
				return fmt.Errorf("give the output to the user: %w", err)
			}
		}
	}
	if err := s.dir.markStarted(); err != nil {
		return err
	}
	s.begin = time.Now()
	s.tree = tree{supervisor: os.Getpid(), cgroup: newCgroup(s.order.Cgroup, s.id())}
	self, _ := identify(os.Getpid())
	// Before the script is there to kill this process: it must not get away.
	if err := s.dir.writeJSON("script", started{Supervisor: self, Cgroup: string(s.tree.cgroup)}); err != nil {
		return err
	}
	pid, err := s.exec()
	if err != nil {
		_ = s.tree.cgroup.remove()
		return err
	}
	s.tree.group = pid
	s.reaped = make(chan struct{})
	go s.reap(pid)
	script, _ := identify(pid) // a script that has ended already is in exits
	err = s.dir.writeJSON("script", started{script, self, string(s.tree.cgroup)})
	if err != nil { // the folder was removed, or the disk is full: nobody could find the script again
		s.tree.kill(killLimit)
	}
	return err
}

func (s *supervisor) id() string {
	name := s.order.Event + "-" + fmt.Sprint(os.Getpid())
	return idUnsafe.ReplaceAllString(name, "_")
}

// exec starts the script in its cgroup, else without one.
func (s *supervisor) exec() (int, error) {
	pid, err := s.execIn(s.tree.cgroup)
	if err != nil && s.tree.cgroup != "" && !errors.Is(err, syscall.ENOENT) {
		none := cgroup("")
		if pid, again := s.execIn(none); again == nil {
			_ = s.tree.cgroup.remove()
			s.tree.cgroup = none
			return pid, nil
		}
	}
	return pid, err
}

func (s *supervisor) execIn(c cgroup) (int, error) {
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer func() { _ = stdin.Close() }()
	sys := &syscall.SysProcAttr{Setsid: true}
	if cred := s.order.Cred; cred != nil {
		sys.Credential = &syscall.Credential{Uid: cred.UID, Gid: cred.GID, Groups: cred.Groups}
	}
	if c != "" {
		dir, err := os.Open(string(c))
		if err != nil {
			return 0, err
		}
		defer func() { _ = dir.Close() }()
		sys.UseCgroupFD, sys.CgroupFD = true, int(dir.Fd())
	}
	attr := &os.ProcAttr{
		Dir: s.order.Dir, Env: s.order.Env, Sys: sys,
		Files: []*os.File{stdin, s.pump.sources[0].file, s.pump.sources[1].file},
	}
	return s.confined().execScript(append(s.order.Sudo, s.order.Path), attr)
}

// confined is what is taken from the script, or given to its user.
func (s *supervisor) confined() confined {
	return confined{s.order.Confine, s.order.UserLimits, &s.stuck}
}

// busyRetries bounds the wait for a script that another process, forked while
// it was being written, still has open for writing (ETXTBSY).
const busyRetries = 50

// execScript starts argv; a script without a #! line is run by /bin/sh.
func (c confined) execScript(argv []string, attr *os.ProcAttr) (int, error) {
	for try := 0; ; try++ {
		p, err := c.start(argv, attr)
		switch {
		case err == nil:
			pid := p.Pid
			return pid, p.Release() // reap waits for it
		case errors.Is(err, syscall.ETXTBSY) && try < busyRetries:
			time.Sleep(10 * time.Millisecond)
		case errors.Is(err, syscall.ENOEXEC) && argv[0] != "/bin/sh":
			argv = append([]string{"/bin/sh"}, argv...)
		default:
			return 0, err
		}
	}
}

// startHint explains the kernel's ENOENT for a script that is there.
func startHint(path string, err error) string {
	if !errors.Is(err, syscall.ENOENT) {
		return ""
	}
	line, _ := firstLine(path)
	return fmt.Sprintf("; its first line %q names an interpreter that this host does not have", line)
}

// reap collects every child, adopted ones too, and passes the script's status
// on. It ends with the last child, or with the process.
func (s *supervisor) reap(script int) {
	defer close(s.reaped)
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return
		case pid == script && !ws.Stopped() && !ws.Continued():
			s.exits <- ws
		}
	}
}
