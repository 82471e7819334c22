package hooks_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/groundswell/groundswell/hooks"
)

// hostileHook is a script that must cost no more than its time: after timeout,
// grace and one second nothing of it is left.
type hostileHook struct {
	name, body string
	code       hooks.Code
}

// The scripts know $MARK, which is in the environment or the arguments of all
// that they start, and $GROUP, the cgroup v2 of the host.
var hostileHooks = []hostileHook{
	{"sleeps", "sleep 9$MARK\n", hooks.CodeTimedOut},
	{"ignores TERM", "trap '' TERM; while :; do sleep 9$MARK; done\n", hooks.CodeTimedOut},
	{
		"ignores every signal it can", "trap '' TERM INT HUP QUIT USR1 USR2 PIPE ALRM; while :; do sleep 9$MARK; done\n",
		hooks.CodeTimedOut,
	},
	{"a tree that ignores TERM", "trap '' TERM; for i in 1 2 3 4 5; do (trap '' TERM; (trap '' TERM; sleep 9$MARK) & sleep 9$MARK) & done; sleep 9$MARK\n", hooks.CodeTimedOut},
	{
		"three hundred children", "i=0; while [ $i -lt 300 ]; do sleep 9$MARK & i=$((i+1)); done; wait\n",
		hooks.CodeTimedOut,
	},
	{"forks on and on", "trap '' TERM; i=0; while [ $i -lt 400 ]; do (sleep 0.05; sleep 9$MARK) & i=$((i+1)); sleep 0.002; done; wait\n", hooks.CodeTimedOut},
	{
		"a daemon in a session of its own", "setsid sh -c 'setsid sleep 9$MARK & sleep 9$MARK' & sleep 9$MARK\n",
		hooks.CodeTimedOut,
	},
	{
		"a daemon, forked twice, its parent gone",
		"(setsid sh -c '(trap \"\" TERM; setsid sleep 9$MARK &) &' &); sleep 9$MARK\n", hooks.CodeTimedOut,
	},
	{
		"a daemon without environment or files",
		"setsid env -i sh -c 'exec sleep 9'$MARK </dev/null >/dev/null 2>&1 & sleep 9$MARK\n", hooks.CodeTimedOut,
	},
	{
		"leaves its cgroup", "(echo 0 >$GROUP/cgroup.procs; setsid sleep 9$MARK) 2>/dev/null & sleep 9$MARK\n",
		hooks.CodeTimedOut,
	},
	{"stops itself", "kill -STOP $$; sleep 9$MARK\n", hooks.CodeTimedOut},
	{"stops its children", "trap '' TERM; sleep 9$MARK & kill -STOP $!; sleep 9$MARK & kill -STOP $!; wait; sleep 9$MARK\n", hooks.CodeTimedOut},
	{"endless output", "yes $MARK\n", hooks.CodeTimedOut},
	{"endless complaints", "yes $MARK >&2\n", hooks.CodeTimedOut},
	{"endless output without a line", "cat /dev/zero\n", hooks.CodeTimedOut},
	{
		"a hundred thousand lines a moment, from many", "for i in 1 2 3 4 5 6 7 8; do yes $MARK & done; wait\n",
		hooks.CodeTimedOut,
	},
	{"closes its output", "exec >&- 2>&-; sleep 9$MARK\n", hooks.CodeTimedOut},
	{
		"cuts its output off", "echo one; : >/dev/stdout; : >/proc/self/fd/1; echo two; sleep 9$MARK\n",
		hooks.CodeTimedOut,
	},
	{"its folder is gone", "rm -rf \"$PWD\"; cd /nowhere 2>/dev/null; sleep 9$MARK\n", hooks.CodeTimedOut},
	{"zombies", "sh -c 'for i in 1 2 3 4 5 6 7 8 9; do true & done; exec sleep 9'$MARK\n", hooks.CodeTimedOut},
	{"another name", "exec -a innocent sleep 9$MARK 2>/dev/null || sleep 9$MARK\n", hooks.CodeTimedOut},
	{"kills itself", "sleep 0.1; kill -KILL $$\n", hooks.CodeFailed},
	{"kills its whole group", "(trap '' TERM; exec true) & kill -KILL 0\n", hooks.CodeFailed},
	{"a fault", "kill -SEGV $$\n", hooks.CodeFailed},
	{"kills its supervisor", "kill -KILL $PPID; sleep 9$MARK\n", hooks.CodeRestart},
	{"tells its supervisor to stop", "kill -TERM $PPID; sleep 9$MARK\n", hooks.CodeOther},
	{
		"its supervisor's files are gone", "rm -rf \"$(dirname \"$(readlink /proc/$$/fd/1)\")\"; sleep 9$MARK\n",
		hooks.CodeOther,
	},
	{"no such interpreter's script", "exec /no/such/program\n", hooks.CodeFailed},
}

const hostileGrace = 200 * time.Millisecond

// TestHostileHooks runs each with a cgroup and without: one second after
// deadline and grace nothing is left, or, without a cgroup, what is left is
// named; the supervisor's memory and the log's size are bounded.
func TestHostileHooks(t *testing.T) {
	for _, mode := range []string{"", "off"} {
		h := newHost(t, hooks.Options{Cgroup: mode})
		if mode == "" && h.runner.Isolation() != "cgroup" {
			t.Log("no cgroup v2 here: only without")
			continue
		}
		t.Run("isolation="+h.runner.Isolation(), func(t *testing.T) {
			var group errgroup.Group
			group.SetLimit(6) // they mostly sleep
			for i, c := range hostileHooks {
				group.Go(func() error {
					c.run(t, mode, fmt.Sprintf("%d%04d", os.Getpid()%1000, i+len(mode)*1000))
					return nil
				})
			}
			_ = group.Wait() // none returns an error
		})
	}
	t.Logf("%d hostile hooks", len(hostileHooks))
}

func (c hostileHook) run(t *testing.T, mode, mark string) {
	h := newHost(t, hooks.Options{
		Cgroup: mode, Env: map[string]string{"MARK": mark, "GROUP": cgroupRoot()},
		Limits: hooks.Limits{Head: 32 << 10, Tail: 32 << 10, Backlog: 256 << 10, Grace: hostileGrace},
	})
	begin := time.Now()
	r := h.run(hooks.Script{Timeout: time.Second}, "#!/bin/bash\n"+c.body)
	took := time.Since(begin)
	if r.Code != c.code {
		t.Errorf("%s: code %d (%s), want %d", c.name, r.Code, r.Message, c.code)
	}
	// Timeout, grace, the second that a kill may take, and a loaded machine.
	if most := 25 * time.Second; took > most {
		t.Errorf("%s: took %v", c.name, took)
	}
	var left []string
	for end := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		if left = marked(mark); len(left) == 0 || time.Now().After(end) {
			break
		}
	}
	if len(left) > 0 && !(mode == "off" && strings.Contains(r.Message, "pid ")) {
		t.Errorf("%s: left after a second: %v; told: %s", c.name, left, r.Message)
	}
	if st, err := os.Stat(r.Log); err == nil {
		if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 2<<20 { // the log has holes
			t.Errorf("%s: the log takes %d bytes", c.name, used)
		}
	}
}

// cgroupRoot is where the host's cgroup v2 is mounted, "" for none.
func cgroupRoot() string {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(data)) {
		if before, after, ok := strings.Cut(line, " - "); ok && strings.HasPrefix(after, "cgroup2 ") {
			return strings.Fields(before)[4]
		}
	}
	return ""
}

// marked lists the living processes with the mark in their arguments or
// environment.
func marked(mark string) []string {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []string
	for _, dir := range dirs {
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			continue
		}
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if bytes.Contains(args, []byte(mark)) || bytes.Contains(env, []byte("MARK="+mark)) {
			found = append(found, filepath.Base(dir)+" "+string(bytes.ReplaceAll(args, []byte{0}, []byte(" "))))
		}
	}
	slices.Sort(found)
	return found
}
