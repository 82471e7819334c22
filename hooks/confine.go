package hooks

import (
	"errors"
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
		return 0, fmt.Errorf("resource limit %q is unknown: use %s", name,
			strings.Join(slices.Sorted(maps.Keys(rlimits)), ", "))
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

// confined is a confinement over the limits of a user.
type confined struct {
	Confinement
	user map[int]limitPair
	// stuck is set when this process could not get its own limits back.
	stuck *bool
}

// start starts argv with what the confinement takes away. The limits are the
// supervisor's own while it forks, and only then.
func (c confined) start(argv []string, attr *os.ProcAttr) (p *os.Process, err error) {
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
func (c confined) limit() (restore func(), err error) {
	before := map[int]syscall.Rlimit{}
	restore = func() {
		for which, was := range before {
			if syscall.Setrlimit(which, &was) != nil { // lowered once, a hard limit stays so without CAP_SYS_RESOURCE
				*c.stuck = true
			}
		}
	}
	wanted := maps.Clone(c.user)
	if wanted == nil {
		wanted = map[int]limitPair{}
	}
	for name, want := range c.Rlimits {
		n := int64(min(want, infinity)) // as unlimited is
		wanted[rlimits[name]] = limitPair{n, n}
	}
	for _, which := range slices.Sorted(maps.Keys(wanted)) {
		var was syscall.Rlimit
		if err := syscall.Getrlimit(which, &was); err != nil {
			return restore, fmt.Errorf("set resource limit %d of the script: %w", which, err)
		}
		now := wanted[which].over(was)
		before[which] = was
		err := syscall.Setrlimit(which, &now)
		if _, users := c.user[which]; users && errors.Is(err, syscall.EPERM) { // in a container: as far as it goes
			now.Max = min(now.Max, was.Max)
			now.Cur = min(now.Cur, now.Max)
			err = syscall.Setrlimit(which, &now)
		}
		if err != nil {
			return restore, fmt.Errorf("set resource limit %d of the script to %d: %w", which, now.Cur, err)
		}
	}
	return restore, nil
}
