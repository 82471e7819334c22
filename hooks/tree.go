package hooks

import (
	"os"
	"slices"
	"syscall"
	"time"
)

// tree is a script and everything that came of it, as far as the host lets us
// see: members of its cgroup, its process group, and, because the supervisor
// is a child subreaper, the supervisor's descendants.
type tree struct {
	group      int
	cgroup     cgroup
	supervisor int // 0 when the supervisor is gone
	// outputs are the script's files: who has them open belongs to it. They are
	// for a tree whose supervisor is gone, and with it who knew the rest.
	outputs []string
}

// survivors lists the living processes.
func (t tree) survivors() []int {
	pids := t.cgroup.members()
	if t.supervisor != 0 {
		pids = append(pids, descendants(t.supervisor)...)
	}
	if len(t.outputs) > 0 {
		pids = append(pids, holders(processes(), t.outputs...)...)
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

func (t tree) signal(s syscall.Signal) {
	if t.group > 0 {
		_ = syscall.Kill(-t.group, s) // a group that has ended is no error
	}
}

// killSweep is the pause between two rounds of killing: long enough for a
// killed tree to be gone, short against the second that a kill may take.
const killSweep = 5 * time.Millisecond

// kill ends the whole tree and returns who is left after the limit: processes
// that the kernel holds, in a disk wait for example.
func (t tree) kill(limit time.Duration) []int {
	for deadline := time.Now().Add(limit); ; time.Sleep(killSweep) {
		t.signal(syscall.SIGKILL)
		t.cgroup.kill()
		left := t.survivors()
		for _, pid := range left {
			if pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}
