package hooks

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// handle is the agent's end of a supervisor: a process that runs one script at
// a time, and is used again as long as nothing is left of the one before. A
// supervisor whose agent is gone ends with its script.
type handle struct {
	conn *net.UnixConn
}

// standby keeps one supervisor at hand, because starting a program costs more
// than a short script does.
type standby struct {
	mu       sync.Mutex
	one      *handle
	starting chan struct{} // closed when the one that is being started is at hand; nil is none
}

// Prepare starts a supervisor in the background, if none is at hand, for
// scripts that will come soon. Rest ends it, and waits for the start.
func (r *Runner) Prepare() {
	r.standby.mu.Lock()
	defer r.standby.mu.Unlock()
	if r.standby.one != nil || r.standby.starting != nil {
		return
	}
	started := make(chan struct{})
	r.standby.starting = started
	go func() { // as short as a fork
		h, err := r.spawn()
		r.standby.mu.Lock()
		defer r.standby.mu.Unlock()
		r.standby.starting = nil
		close(started)
		switch {
		case err != nil: // whoever needs one will be told
		case r.standby.one == nil:
			r.standby.one = h
		default:
			h.end()
		}
	}()
}

// Rest ends the supervisor that is at hand, or being started. Scripts that run
// are not touched. Whoever called Prepare calls it before the Runner is dropped.
func (r *Runner) Rest() {
	r.standby.mu.Lock()
	for r.standby.starting != nil {
		started := r.standby.starting
		r.standby.mu.Unlock()
		<-started
		r.standby.mu.Lock()
	}
	defer r.standby.mu.Unlock()
	if r.standby.one != nil {
		r.standby.one.end()
		r.standby.one = nil
	}
}

// take returns the supervisor that is at hand, or nil.
func (s *standby) take() *handle {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.one
	s.one = nil
	return h
}

// keep puts a supervisor back.
func (s *standby) keep(h *handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.one != nil {
		h.end()
		return
	}
	s.one = h
}

// spawn starts a supervisor that waits for its first order.
func (r *Runner) spawn() (*handle, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket for the supervisor: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "supervisor")
	defer func() { _ = theirs.Close() }()
	conn, err := unixConn(pair[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(r.options.Binary, superviseArg, r.dir)
	cmd.ExtraFiles, cmd.Dir = []*os.File{theirs}, "/"
	cmd.Env = []string{"GOMAXPROCS=1", "PATH=" + defaultPath}
	if err := r.startOutside(cmd); err != nil {
		return nil, errors.Join(fmt.Errorf("start supervisor: %w", err), conn.Close())
	}
	// The one goroutine without an owner that waits for it: it reaps the
	// supervisor, which may outlive whoever gave it its order.
	go func() { _ = cmd.Wait() }()
	return &handle{conn}, nil
}

func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "supervisor")
	defer func() { _ = f.Close() }()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("use the socket to a supervisor: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("use the socket to a supervisor: it is none of the unix kind"), c.Close())
	}
	return u, nil
}

// startOutside starts the supervisor in its own session and, where there is
// one, in a cgroup that is not the agent's.
func (r *Runner) startOutside(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if r.cgroup == "" {
		return cmd.Start()
	}
	group, err := os.Open(filepath.Join(r.cgroup, "supervisors"))
	if err != nil {
		return cmd.Start()
	}
	defer func() { _ = group.Close() }()
	again := *cmd
	again.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := again.Start(); err == nil {
		*cmd = again
		return nil
	}
	return cmd.Start()
}

// give orders the run in dir. The lock goes along: it is held without a gap,
// also if the supervisor dies before it has read the order. An error means
// that nothing was ordered.
func (h *handle) give(dir runDir, lock, complaints *os.File) error {
	rights := unix.UnixRights(int(lock.Fd()), int(complaints.Fd()))
	if _, _, err := h.conn.WriteMsgUnix([]byte(dir), rights, nil); err != nil {
		return fmt.Errorf("order a supervisor: %w", err)
	}
	return nil
}

// reusable and spent are what a supervisor says when a run has its outcome.
const (
	reusable = 'r'
	spent    = 's'
)

// await waits for the end of the run and says whether the supervisor can take
// another.
func (h *handle) await() bool {
	var answer [1]byte
	n, err := h.conn.Read(answer[:])
	return err == nil && n == 1 && answer[0] == reusable
}

// end lets the supervisor go: at once if it is idle, else after its script.
func (h *handle) end() { _ = h.conn.Close() }

// serve is the supervisor's side: it takes one order after the other until the
// agent is gone, or something is left of a script.
func serve() error {
	conn, err := unixConn(3)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for {
		dir, lock, err := accept(conn)
		if err != nil || dir == "" {
			return err
		}
		s := newSupervisor(dir)
		err = s.run()
		_ = unix.Close(lock) // the outcome is written, or there is none
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		answer := byte(spent)
		if err == nil && s.alone() && !s.stuck {
			answer = reusable
		}
		_, errTell := conn.Write([]byte{answer})
		s.tree.cgroup.discard()
		if errTell != nil || answer == spent {
			return err
		}
	}
}

// accept waits for an order, the folder of a run and its lock; "" says that
// there will be none. It makes the complaints standard error.
func accept(conn *net.UnixConn) (dir runDir, lock int, err error) {
	var text [4096]byte
	rights := make([]byte, unix.CmsgSpace(2*4))
	n, m, _, _, err := conn.ReadMsgUnix(text[:], rights)
	if err != nil || n == 0 {
		return "", 0, nil // the agent is gone
	}
	messages, err := unix.ParseSocketControlMessage(rights[:m])
	if err != nil || len(messages) != 1 {
		return "", 0, errors.Join(errors.New("an order came without its files"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 2 {
		return "", 0, errors.Join(errors.New("an order came without its files"), err)
	}
	if err := unix.Dup3(fds[1], 2, 0); err != nil {
		return "", 0, fmt.Errorf("take over the files of an order: %w", err)
	}
	return runDir(text[:n]), fds[0], unix.Close(fds[1])
}
