package hooks_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/groundswell/groundswell/hooks"
)

// scriptCase is a case of section E of the conformance list: one script and
// what must come of it.
type scriptCase struct {
	id     string
	body   string
	script hooks.Script
	root   bool // needs to be root
	code   hooks.Code
	says   []string // in the message
	logs   []string // in the log
	silent []string // not in the log
	within time.Duration
}

func scriptCases() []scriptCase {
	return []scriptCase{
		{
			id: "E01", body: "#!/bin/sh\necho out\necho err >&2\n",
			logs: []string{"LifecycleEvent - BeforeInstall", "Script - a.sh", "[stdout]out\n", "[stderr]err\n"},
		},
		{id: "E03", body: "#!/bin/sh\nkill -9 $$\n", code: hooks.CodeFailed, says: []string{"signal 9", "SIGKILL"}},
		{
			id: "E04", script: hooks.Script{Location: "scripts/gone.sh"}, code: hooks.CodeMissing,
			says: []string{"/scripts/gone.sh"},
		},
		{id: "E06", body: "echo plain $0\n", logs: []string{"[stdout]plain /"}},
		{
			id: "E07 interpreter", body: "#!/no/such/shell\n", code: hooks.CodeFailed,
			says: []string{"could not be started", "/no/such/shell"},
		},
		{
			id: "E07 CRLF", body: "#!/bin/sh\r\necho hi\r\n", code: hooks.CodeFailed,
			says: []string{"could not be started", `\r`},
		},
		{
			id: "E09", body: "#!/bin/sh\necho here\n", script: hooks.Script{Location: "/a.sh"},
			logs: []string{"[stdout]here"},
		},
		{
			id: "E10", body: "#!/bin/sh\n", script: hooks.Script{Location: "a.sh foo"}, code: hooks.CodeMissing,
			says: []string{"arguments are not supported"},
		},
		{
			id: "E12", script: hooks.Script{Location: "../../x.sh"}, code: hooks.CodeMissing,
			says: []string{"outside the revision"},
		},
		{
			id: "E15", body: "#!/bin/sh\nsleep 20\n", script: hooks.Script{Timeout: time.Second}, code: hooks.CodeTimedOut,
			says: []string{"1 seconds"}, within: 2500 * time.Millisecond,
		},
		{
			id: "E21", body: "#!/bin/sh\nenv\n",
			logs: []string{
				"APPLICATION_NAME=www", "DEPLOYMENT_ID=d-1", "DEPLOYMENT_GROUP_NAME=prod",
				"DEPLOYMENT_GROUP_ID=g-1", "LIFECYCLE_EVENT=BeforeInstall",
			}, silent: []string{"BUNDLE_", "LEAK"},
		},
		{id: "E24", body: "#!/bin/sh\nread x\necho \"status $? <$x>\"\n", logs: []string{"[stdout]status 1 <>"}},
		{id: "E25", root: true, body: "#!/bin/sh\nid -u\numask\n", logs: []string{"[stdout]0\n", "[stdout]0022"}},
		{
			id: "E27", root: true, body: "#!/bin/sh\n", script: hooks.Script{RunAs: "no-such-user"},
			code: hooks.CodeFailed, says: []string{"no-such-user"},
		},
		{
			id: "E runas", root: true, body: "#!/bin/sh\nid -un\necho \"$HOME $USER\"\necho again >/dev/stderr\n",
			script: hooks.Script{RunAs: "nobody"}, logs: []string{
				"[stdout]nobody\n", "nonexistent nobody",
				"[stderr]again",
			},
		},
		{
			id: "E28", root: true, body: "#!/bin/sh\nid -u\necho $DEPLOYMENT_ID\n", script: hooks.Script{Sudo: true},
			logs: []string{"[stdout]0\n", "[stdout]d-1\n"},
		},
		{id: "exit code", body: "#!/bin/sh\nexit 37\n", code: hooks.CodeFailed, says: []string{"exit code 37"}},
		{id: "no stray descriptors", body: "#!/bin/sh\nls /proc/self/fd | wc -l\n", logs: []string{"[stdout]4\n"}},
		{id: "working directory", body: "#!/bin/sh\ncat hello.txt\n", logs: []string{"[stdout]hello"}},
	}
}

func TestScriptConformance(t *testing.T) {
	t.Setenv("LEAK", "of the agent")
	for _, c := range scriptCases() {
		t.Run(c.id, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			h := newHost(t, hooks.Options{})
			h.write("hello.txt", "hello\n")
			begin := time.Now()
			c.check(h, h.run(c.script, c.body))
			if took := time.Since(begin); c.within > 0 && took > c.within {
				t.Errorf("took %v, want at most %v", took, c.within)
			}
		})
	}
}

func (c scriptCase) check(h *host, r hooks.Result) {
	h.Helper()
	if r.Code != c.code {
		h.Fatalf("code %d (%s), want %d", r.Code, r.Message, c.code)
	}
	for _, want := range c.says {
		if !strings.Contains(r.Message, want) {
			h.Errorf("message %q lacks %q", r.Message, want)
		}
	}
	log := h.log(r)
	for _, want := range c.logs {
		if !strings.Contains(log, want) {
			h.Errorf("log lacks %q:\n%s", want, log)
		}
	}
	for _, bad := range c.silent {
		if strings.Contains(log, bad) {
			h.Errorf("log has %q:\n%s", bad, log)
		}
	}
}

// E13, and the second half of E04: in order, and none after a failure.
func TestEventRunsScriptsInOrder(t *testing.T) {
	h := newHost(t, hooks.Options{})
	h.write("one.sh", "#!/bin/sh\necho one >>order\n")
	h.write("two.sh", "#!/bin/sh\necho two >>order\n")
	order := func(locations ...string) (hooks.Result, string) {
		_ = os.Remove(filepath.Join(h.root, "order"))
		var scripts []hooks.Script
		for _, l := range locations {
			scripts = append(scripts, hooks.Script{Location: l})
		}
		h.n++
		res := h.runner.RunEvent(t.Context(), scripts, h.env("e"+strings.Join(locations, "-")), nil)
		data, _ := os.ReadFile(filepath.Join(h.root, "order"))
		return res, string(data)
	}
	if r, got := order("one.sh", "two.sh"); !r.OK() || got != "one\ntwo\n" {
		t.Errorf("got %v, %q", r, got)
	}
	if r, got := order("two.sh", "gone.sh", "one.sh"); r.Code != hooks.CodeMissing || r.Script != "gone.sh" ||
		got != "two\n" {
		t.Errorf("got %v, %q", r, got)
	}
	if r, _ := order(); !r.OK() {
		t.Errorf("no scripts: %v", r)
	}
}

// E16: a script that ignores TERM is killed after the grace, and named.
func TestTermIgnorerIsKilled(t *testing.T) {
	h := newHost(t, hooks.Options{Limits: hooks.Limits{Grace: time.Second}})
	begin := time.Now()
	r := h.run(hooks.Script{Timeout: time.Second},
		"#!/bin/sh\ntrap '' TERM\necho $$ >pid\ni=0\nwhile [ $i -lt 60 ]; do sleep 0.1; i=$((i+1)); done\n")
	if r.Code != hooks.CodeTimedOut || !strings.Contains(r.Message, "killed") {
		t.Fatalf("got %v", r)
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
	if alive(h.pid("pid")) {
		t.Error("the script is still there")
	}
}

// E18, with and without a cgroup: a child in its own session dies with the
// timeout too.
func TestEscapedSessionDiesOnTimeout(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("needs setsid")
	}
	for _, mode := range []string{"", "off"} {
		t.Run("cgroup="+mode, func(t *testing.T) {
			h := newHost(t, hooks.Options{Cgroup: mode, Limits: hooks.Limits{Grace: 50 * time.Millisecond}})
			r := h.run(hooks.Script{Timeout: time.Second},
				"#!/bin/sh\nsetsid sh -c 'echo $$ >pid; trap \"\" TERM; (sleep 60 & echo $! >pid2); sleep 60' &\nsleep 20\n")
			if r.Code != hooks.CodeTimedOut || r.Isolation != h.runner.Isolation() {
				t.Fatalf("got %+v, runner isolates by %s", r, h.runner.Isolation())
			}
			if alive(h.pid("pid")) || alive(h.pid("pid2")) {
				t.Error("an escapee survived")
			}
		})
	}
}

// E19: output left open by a background child fails nothing, the child goes
// on, is named, and what it writes later is captured within the cap.
func TestOutputLeftOpenSucceeds(t *testing.T) {
	h := newHost(t, hooks.Options{Limits: hooks.Limits{Head: 8 << 10, Tail: 8 << 10}})
	begin := time.Now()
	r := h.run(hooks.Script{Timeout: 20 * time.Second},
		"#!/bin/sh\n(while [ ! -e stop ]; do sleep 0.02; echo later; done; dd if=/dev/zero bs=64k count=64 2>/dev/null | tr '\\0' x; echo; echo last word) &\necho $! >pid\n")
	if !r.OK() || time.Since(begin) > 5*time.Second {
		t.Fatalf("got %+v after %v", r, time.Since(begin))
	}
	pid := h.pid("pid")
	if !strings.Contains(r.Notice, "pid") || !alive(pid) {
		t.Fatalf("notice %q, alive %v", r.Notice, alive(pid))
	}
	trimmed := func(text string) func() bool {
		return func() bool {
			if err := h.runner.Trim(); err != nil {
				t.Fatal(err)
			}
			return strings.Contains(h.log(r), text)
		}
	}
	h.eventually("later output in the log", trimmed("[stdout]later"))
	h.write("stop", "")
	h.eventually("the end of the flood in the log", trimmed("last word"))
	if n := len(h.log(r)); n > 8<<10+8<<10+512<<10 {
		t.Errorf("log holds %d bytes", n)
	}
	h.eventually("the sweep takes the folder", func() bool {
		if err := h.runner.Sweep(0); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(r.Log)
		return os.IsNotExist(err)
	})
}

// E22.
func TestBundleVariables(t *testing.T) {
	h := newHost(t, hooks.Options{Env: map[string]string{"PORT": "81", "DEPLOYMENT_ID": "not this"}})
	h.write("a.sh", "#!/bin/sh\nenv\n")
	env := h.env("b")
	env.Bundle = &hooks.Bundle{Bucket: "b", Key: "k/x.tgz", ETag: "t"}
	log := h.log(h.runner.Run(t.Context(), hooks.Script{Location: "a.sh"}, env))
	for _, want := range []string{
		"BUNDLE_BUCKET=b\n", "BUNDLE_KEY=k/x.tgz\n", "BUNDLE_ETAG=t\n", "PORT=81\n",
		"DEPLOYMENT_ID=d-1\n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
	if strings.Contains(log, "BUNDLE_VERSION") {
		t.Error("BUNDLE_VERSION without a version")
	}
}

// E30, E31: diagnostics of long and binary output.
func TestDiagnostics(t *testing.T) {
	h := newHost(t, hooks.Options{})
	long := strings.Repeat("a", 2500) + strings.Repeat("z", 2500)
	r := h.run(hooks.Script{}, "#!/bin/sh\necho "+long+"\nexit 1\n")
	if r.Tail != strings.Repeat("z", hooks.TailSize) {
		t.Errorf("tail of a long line: %d bytes, %q...", len(r.Tail), r.Tail[:20])
	}
	r = h.run(hooks.Script{}, "#!/bin/sh\nprintf 'caf\\303\\251 \\377\\376\\n'\nexit 1\n")
	var d struct {
		Code int    `json:"error_code"`
		Log  string `json:"log"`
	}
	if err := json.Unmarshal(r.Diagnostics(), &d); err != nil || d.Code != 4 || !strings.Contains(d.Log, "café") {
		t.Errorf("diagnostics %s: %v", r.Diagnostics(), err)
	}
	if !utf8.ValidString(r.Tail) || r.Code != hooks.CodeFailed {
		t.Errorf("got %+v", r)
	}
}

// Code 2, and the run bit set without touching a linked cache entry.
func TestRunBitIsSetOnACopy(t *testing.T) {
	h := newHost(t, hooks.Options{})
	path := h.write("a.sh", "#!/bin/sh\necho ran\n")
	cache := filepath.Join(h.root, "cache-entry")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, cache); err != nil {
		t.Fatal(err)
	}
	if r := h.run(hooks.Script{}, ""); !r.OK() {
		t.Fatalf("got %+v", r)
	}
	if st, _ := os.Stat(cache); st.Mode().Perm() != 0o644 {
		t.Errorf("the other link has mode %v", st.Mode())
	}
}

// What the host's configuration takes from every script; the supervisor, which
// serves many, keeps its own.
func TestConfinement(t *testing.T) {
	h := newHost(t, hooks.Options{Confine: hooks.Confinement{
		Rlimits: map[string]uint64{"nofile": 123, "core": 0, "nproc": 4567}, NoNewPrivileges: true,
	}})
	h.runner.Prepare()
	defer h.runner.Rest()
	for range 2 {
		r := h.run(hooks.Script{}, "#!/bin/sh\nulimit -n; ulimit -c; grep NoNewPrivs /proc/self/status; grep processes /proc/self/limits\n")
		log := h.log(r)
		for _, want := range []string{"[stdout]123\n", "[stdout]0\n", "NoNewPrivs:\t1", "4567"} {
			if !strings.Contains(log, want) {
				t.Errorf("no %q in\n%s", want, log)
			}
		}
	}
	plain := newHost(t, hooks.Options{})
	if log := plain.log(plain.run(hooks.Script{},
		"#!/bin/sh\ngrep NoNewPrivs /proc/self/status\n")); !strings.Contains(log, "NoNewPrivs:\t0") {
		t.Errorf("taken without being asked:\n%s", log)
	}
	for _, bad := range [][2]string{{"as", "1"}, {"nofile", "many"}, {"nofile", "-1"}} {
		if _, err := hooks.ParseRlimit(bad[0], bad[1]); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

// A script of another user sees what `su USER -c` gives: the environment of the
// host, and the limits of the user, over which those of the agent go.
func TestRunAsIsALogin(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	h := newHost(t, hooks.Options{Confine: hooks.Confinement{Rlimits: map[string]uint64{"core": 4096}}})
	environment, limits := filepath.Join(h.dir, "environment"), filepath.Join(h.dir, "limits.conf")
	for file, text := range map[string]string{
		environment: "DATABASE_URL=postgres://db\n", limits: "nobody - nofile 4321\nnobody soft core 0\nnobody hard nproc 9999\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	hooks.SetLogin(h.runner, environment, limits)
	const script = "#!/bin/sh\necho \"$DATABASE_URL $USER $SHELL\"; ulimit -n; ulimit -c; grep processes /proc/self/limits\n"
	r := h.run(hooks.Script{RunAs: "nobody"}, script)
	for _, want := range []string{"postgres://db nobody /bin/sh", "]4321", "]8", "9999"} {
		if !strings.Contains(strings.ReplaceAll(r.Tail, " ", ""), strings.ReplaceAll(want, " ", "")) {
			t.Errorf("runas lacks %s:\n%s %s", want, r.Message, r.Tail)
		}
	}
	r = h.run(hooks.Script{}, script)
	if strings.Contains(r.Tail, "postgres") || strings.Contains(r.Tail, "4321") {
		t.Errorf("without runas:\n%s", r.Tail)
	}
}
