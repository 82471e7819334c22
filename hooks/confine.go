package hooks

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Confinement is what the host's configuration takes from every script beside
// the agent's environment and descriptors. The zero value takes nothing.
type Confinement struct {
	// Rlimits are resource limits, by the names of ParseRlimit.
	Rlimits map[string]uint64 `json:",omitempty"`
	// NoNewPrivileges keeps scripts, and all they start, from gaining any
	// privilege by a setuid program: sudo then fails.
	NoNewPrivileges bool `json:",omitempty"`
}

// rlimits are the limits that a script may get. Address space is not among
// them: the supervisor sets limits on itself for the moment of the fork, and
// could not live with that one.
var rlimits = map[string]int{
	"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "fsize": unix.RLIMIT_FSIZE, "memlock": unix.RLIMIT_MEMLOCK,
	"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "stack": unix.RLIMIT_STACK,
}

// ParseRlimit reads one limit: a name of setrlimit(2) in lower case and a
// number in its unit, or "unlimited".
func ParseRlimit(name, value string) (uint64, error) {
	if _, ok := rlimits[name]; !ok {
		return 0, fmt.Errorf("resource limit %q is unknown: use %s", name, strings.Join(slices.Sorted(maps.Keys(rlimits)), ", "))
	}
	if value == "unlimited" {
		return unix.RLIM_INFINITY, nil
	}
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("resource limit %s: %q is neither a number nor unlimited", name, value)
	}
	return n, nil
}

// start starts argv with what the confinement takes away. The limits are the
// supervisor's own while it forks, and only then.
func (c Confinement) start(argv []string, attr *os.ProcAttr) (p *os.Process, err error) {
	restore, err := c.limit()
	defer restore()
	if err != nil {
		return nil, err
	}
	if !c.NoNewPrivileges {
		return os.StartProcess(argv[0], argv, attr)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the promise cannot be taken back, so the thread ends
		// with this goroutine.
		runtime.LockOSThread()
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err == nil {
			p, err = os.StartProcess(argv[0], argv, attr)
		}
	}()
	<-done
	return p, err
}

// limit sets the limits; restore brings the former ones back.
func (c Confinement) limit() (restore func(), err error) {
	before := map[int]syscall.Rlimit{}
	restore = func() {
		for which, was := range before {
			_ = syscall.Setrlimit(which, &was) // a hard limit once lowered stays so without root
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Rlimits)) {
		which, want := rlimits[name], c.Rlimits[name]
		var was syscall.Rlimit
		if err := syscall.Getrlimit(which, &was); err != nil {
			return restore, fmt.Errorf("set limit %s: %w", name, err)
		}
		before[which] = was
		if err := syscall.Setrlimit(which, &syscall.Rlimit{Cur: want, Max: want}); err != nil {
			return restore, fmt.Errorf("set limit %s of the script: %w", name, err)
		}
	}
	return restore, nil
}
