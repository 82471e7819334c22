package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cgroupMaxProcs bounds a script's tree where the host delegates the pids
// controller: far above any real hook, far below what stops a host. The bound
// is lifted when the script has succeeded, so it never limits an application.
const cgroupMaxProcs = 16384

// detectCgroup returns the folder under which runs get their cgroups, made
// beside and not below the agent's own cgroup: a service manager that ends the
// agent's cgroup must not end applications. It is empty where the host has no
// cgroup v2 that can be written.
func detectCgroup() string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, ok := strings.Cut(line, " - ")
		if f := strings.Fields(before); ok && len(f) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			base := filepath.Join(f[4], "groundswell")
			if prepareCgroup(base) == nil {
				return base
			}
		}
	}
	return ""
}

func prepareCgroup(base string) error {
	if err := os.MkdirAll(filepath.Join(base, "supervisors"), 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	// The bound on processes is a bonus: most hosts delegate pids, not all.
	_ = os.WriteFile(filepath.Join(base, "cgroup.subtree_control"), []byte("+pids"), 0)
	return nil
}

// cgroup is the folder of one script's cgroup; empty is none.
type cgroup string

// newCgroup makes a cgroup below base; an empty base makes none.
func newCgroup(base, id string) cgroup {
	if base == "" {
		return ""
	}
	// The time keeps a retry apart from a tree that an earlier run left.
	path := filepath.Join(base, fmt.Sprintf("hook-%s-%x", id, time.Now().UnixNano()))
	if os.Mkdir(path, 0o755) != nil {
		return ""
	}
	c := cgroup(path)
	c.limit(strconv.Itoa(cgroupMaxProcs))
	return c
}

func (c cgroup) limit(procs string) {
	if c != "" {
		// Absent without the pids controller; see cgroupMaxProcs.
		_ = os.WriteFile(filepath.Join(string(c), "pids.max"), []byte(procs), 0)
	}
}

// members lists the processes inside, zombies excluded.
func (c cgroup) members() []int {
	if c == "" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(string(c), "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for f := range bytes.FieldsSeq(data) {
		pid, err := strconv.Atoi(string(f))
		if st, errStat := readStat(pid); err == nil && errStat == nil && st.state != 'Z' {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill ends every member at once. It answers false where the kernel (before
// 5.14) cannot, so that the caller kills one by one.
func (c cgroup) kill() bool {
	return c != "" && os.WriteFile(filepath.Join(string(c), "cgroup.kill"), []byte("1"), 0) == nil
}

// remove deletes the cgroup if it is empty.
func (c cgroup) remove() error {
	if c == "" {
		return nil
	}
	if err := os.Remove(string(c)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

// discard removes the cgroup unless someone is still in it. A member that has
// just died holds it for some milliseconds more; Sweep tries again later.
func (c cgroup) discard() {
	for range 10 {
		if len(c.members()) > 0 || c.remove() == nil {
			return
		}
		time.Sleep(killSweep)
	}
}
