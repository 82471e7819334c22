// Package devfleet runs a whole fleet as real processes on loopback: an S3
// server, coordinators and agents, and the steps that `dctl dev` shows.
package devfleet

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one child with its output in a file.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it was waited for
	err  error         // of Wait, after done
}

// processes starts children and ends them, with everything they left behind.
// This process is made the subreaper of all its descendants, so that
// applications that daemonise still can be found, reaped and ended.
type processes struct {
	dir string

	mu    sync.Mutex
	all   []*process
	owned map[int]bool // pids that some exec.Cmd waits for
	stop  chan struct{}
	ended sync.WaitGroup
}

func newProcesses(dir string) (*processes, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
	p := &processes{dir: dir, owned: map[int]bool{}, stop: make(chan struct{})}
	p.ended.Go(p.reap)
	return p, nil
}

// start runs a program with its output in DIR/logs/NAME.log.
func (p *processes) start(name string, env []string, stdin string, argv ...string) (*process, error) {
	log := filepath.Join(p.dir, "logs", name+".log")
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Stdin = out, out, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us alone
	pr := &process{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.owned[cmd.Process.Pid] = true
	p.all = append(p.all, pr)
	p.ended.Go(func() { p.wait(pr) })
	return pr, nil
}

func (p *processes) wait(pr *process) {
	pr.err = pr.cmd.Wait()
	p.mu.Lock()
	delete(p.owned, pr.cmd.Process.Pid)
	p.all = slices.DeleteFunc(p.all, func(o *process) bool { return o == pr })
	p.mu.Unlock()
	close(pr.done)
}

// alive reports whether the process has not ended.
func (pr *process) alive() bool {
	select {
	case <-pr.done:
		return false
	default:
		return true
	}
}

// tail returns the last lines of a process's output, for error messages.
func (pr *process) tail() string {
	b, err := os.ReadFile(pr.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// reap collects orphans that ended: their first parent is gone, so they are
// ours. A zombie would look alive to the script that waits for it.
func (p *processes) reap() {
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	defer signal.Stop(chld)
	for {
		select {
		case <-chld:
			p.reapOrphans()
		case <-p.stop:
			p.reapOrphans()
			return
		}
	}
}

func (p *processes) reapOrphans() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pid := range children(os.Getpid()) {
		if !p.owned[pid] && state(pid) == 'Z' {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // gone already is fine too
		}
	}
}

// children lists the pids whose parent is pid.
func children(pid int) []int {
	var out []int
	for _, other := range pids() {
		if parent(other) == pid {
			out = append(out, other)
		}
	}
	return out
}

func pids() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// stat returns state and parent of a process, from the fields that follow its
// name in parentheses.
func stat(pid int) (state byte, parent int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(fields[1]) // the kernel writes a number
	return fields[0][0], parent
}

func state(pid int) byte { s, _ := stat(pid); return s }
func parent(pid int) int { _, p := stat(pid); return p }

// descendants lists every living process below us but the excepted ones.
func descendants(except map[int]bool) []int {
	parents := map[int]int{}
	for _, pid := range pids() {
		if s, ppid := stat(pid); s != 'Z' && s != 0 {
			parents[pid] = ppid
		}
	}
	var out []int
	for pid := range parents {
		for up := parents[pid]; up > 1; up = parents[up] {
			if up == os.Getpid() {
				if !except[pid] {
					out = append(out, pid)
				}
				break
			}
		}
	}
	return out
}

// end stops all children in reverse order of their start, then whatever lives
// below us. It returns an error that names what would not end.
func (p *processes) end() error {
	p.mu.Lock()
	all := slices.Clone(p.all)
	p.mu.Unlock()
	slices.Reverse(all)
	for _, pr := range all {
		_ = pr.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	}
	deadline := time.Now().Add(5 * time.Second)
	for _, pr := range all {
		select {
		case <-pr.done:
		case <-time.After(time.Until(deadline)):
			_ = pr.cmd.Process.Kill()
		}
	}
	err := sweep()
	close(p.stop)
	p.ended.Wait()
	return err
}

// sweep ends the descendants that are left: TERM, then KILL after a second.
func sweep() error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			left := descendants(nil)
			if len(left) == 0 {
				return nil
			}
			for _, pid := range left {
				_ = syscall.Kill(pid, sig)
			}
		}
	}
	if left := descendants(nil); len(left) > 0 {
		return fmt.Errorf("processes %v would not end", left)
	}
	return nil
}

// run runs a short command that is waited for here, in a process group of its
// own, so that Ctrl-C reaches us alone. One that reads keys shares our group: a
// terminal stops others that read from it.
func (p *processes) run(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: cmd.Stdin == nil}
	p.mu.Lock()
	err := cmd.Start()
	if err == nil {
		p.owned[cmd.Process.Pid] = true
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	err = cmd.Wait()
	p.mu.Lock()
	delete(p.owned, cmd.Process.Pid)
	p.mu.Unlock()
	return err
}
