package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// process names a process beyond the reuse of its pid.
type process struct {
	PID int
	// Start is field 22 of /proc/PID/stat: clock ticks since boot.
	Start uint64
	// Boot is the kernel's boot id, so that ticks of another boot never match.
	Boot string
}

type procStat struct {
	parent int
	state  byte
	start  uint64
	name   string
}

func readStat(pid int) (procStat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The name is in parentheses and may hold any byte, so look from its end.
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return procStat{}, errors.New("unexpected form of /proc stat")
	}
	f := strings.Fields(string(data[end+1:]))
	if len(f) < 20 {
		return procStat{}, errors.New("unexpected form of /proc stat")
	}
	parent, _ := strconv.Atoi(f[1])
	start, _ := strconv.ParseUint(f[19], 10, 64)
	return procStat{parent, f[0][0], start, string(data[open+1 : end])}, nil
}

// identify returns the process that has pid now.
func identify(pid int) (process, error) {
	st, err := readStat(pid)
	if err != nil {
		return process{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	return process{pid, st.start, bootID()}, nil
}

// alive reports whether the very same process still runs; a zombie does not.
func (p process) alive() bool {
	if p.PID <= 0 || p.Boot != bootID() {
		return false
	}
	st, err := readStat(p.PID)
	return err == nil && st.start == p.Start && st.state != 'Z' && st.state != 'X'
}

func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

// processes lists every pid of the host as /proc shows it.
func processes() []int {
	names, _ := filepath.Glob("/proc/[0-9]*")
	pids := make([]int, 0, len(names))
	for _, n := range names {
		if pid, err := strconv.Atoi(filepath.Base(n)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// descendants lists the living processes below root, root itself excluded.
func descendants(root int) []int {
	children := map[int][]int{}
	for _, pid := range processes() {
		if st, err := readStat(pid); err == nil && st.state != 'Z' && st.state != 'X' {
			children[st.parent] = append(children[st.parent], pid)
		}
	}
	var all []int
	for queue := children[root]; len(queue) > 0; queue = queue[1:] {
		all = append(all, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return all
}

// holders lists those of pids that have one of the files open.
func holders(pids []int, files ...string) []int {
	var stats []os.FileInfo
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			stats = append(stats, st)
		}
	}
	var found []int
	for _, pid := range pids {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if slices.ContainsFunc(fds, func(fd string) bool {
			st, err := os.Stat(fd)
			return err == nil && slices.ContainsFunc(stats, func(s os.FileInfo) bool { return os.SameFile(s, st) })
		}) {
			found = append(found, pid)
		}
	}
	return found
}

// describe names processes for a message, at most eight of them.
func describe(pids []int) string {
	var names []string
	for i, pid := range pids {
		if i == 8 {
			names = append(names, fmt.Sprintf("%d more", len(pids)-i))
			break
		}
		name := "?"
		if st, err := readStat(pid); err == nil {
			name = st.name
		}
		names = append(names, fmt.Sprintf("%s (pid %d)", name, pid))
	}
	return strings.Join(names, ", ")
}
