package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// The file is gone and the command was run before anything is stopped, and both are
// undone after the application is validated; a file that a person had removed stays
// so; and what the machine's owner has not named is neither removed nor run.
func TestTrafficOfTheHostItself(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	file, trace := filepath.Join(dir, "run", "in-service"), filepath.Join(dir, "trace")
	note := func(word string) []string {
		return []string{"/bin/sh", "-c", "echo " + word + " $GROUNDSWELL_APP >>" + trace}
	}
	w.o.TrafficFiles = []string{filepath.Join(dir, "run")}
	w.o.TrafficCommands = map[string][]string{"out": note("out"), "in": note("in")}
	w.start()
	step := func(word string) string {
		return "test -e " + file + " && echo " + word + " served >>" + trace + " || echo " + word + " >>" + trace + "\n"
	}
	scripts := hookScripts{
		"ApplicationStop": step("stop"), "ApplicationStart": step("start"),
		"ValidateService": step("validate"),
	}
	pools := func(path, block string) func(*agentv1.Assignment) {
		return func(a *agentv1.Assignment) {
			a.Traffic = &agentv1.Traffic{Pools: []*agentv1.Pool{
				{Kind: "file", Path: path}, {Kind: "command", Block: block, Allow: "in"},
			}}
		}
	}
	told := func(want string) {
		t.Helper()
		b, _ := os.ReadFile(trace)
		if got := strings.Join(strings.Fields(strings.ReplaceAll(string(b), "\n", "; ")), " "); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		_ = os.Remove(trace)
	}
	there := func() bool { _, err := os.Stat(file); return err == nil }
	w.done(w.push("v1", scripts), pools(file, "out"))
	told("out www; start; validate; in www;")
	if !there() {
		t.Error("the host serves, and its file says that it does not")
	}
	w.done(w.push("v2", scripts), pools(file, "out"))
	told("out www; stop; start; validate; in www;")

	bad := hookScripts{"ApplicationStop": step("stop"), "ApplicationStart": "exit 1\n"}
	w.result(w.grant(w.push("v3", bad), pools(file, "out")), agentv1.Result_RESULT_FAILED)
	if b, _ := os.ReadFile(trace); strings.Contains(string(b), "served") || !there() {
		t.Errorf("a way back under traffic, or without it: file there %v\n%s", there(), b)
	}
	_ = os.Remove(trace)

	for path, block := range map[string]string{"/etc/hostname": "out", file: "reboot"} {
		r := w.result(w.grant(w.push("v4"+block, scripts), pools(path, block)), agentv1.Result_RESULT_FAILED)
		if !strings.Contains(r.Failure.GetMessage(), "agent.yaml") {
			t.Errorf("%s, %s: %v", path, block, r.Failure)
		}
	}
	r := w.result(w.grant(w.push("v4 port", scripts), func(a *agentv1.Assignment) {
		a.Traffic = &agentv1.Traffic{Pools: []*agentv1.Pool{{Kind: "nftables", Port: 22}}}
	}), agentv1.Result_RESULT_FAILED)
	if !strings.Contains(r.Failure.GetMessage(), "port 22 is not among trafficPorts of this host's agent.yaml") {
		t.Errorf("a port of the machine's owner: %v", r.Failure)
	}
	if _, err := os.Stat("/etc/hostname"); err != nil {
		t.Error(err)
	}
	_ = os.Remove(trace)

	if err := os.Remove(file); err != nil { // a person takes the host out
		t.Fatal(err)
	}
	w.done(w.push("v5", scripts), pools(file, "out"))
	if there() {
		t.Error("a host that a person took out was put back")
	}
}
