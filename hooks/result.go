package hooks

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Code is the diagnostic code of a script or event, with CodeDeploy's numbers.
type Code int

// The diagnostic codes. CodeOutputsOpen is CodeDeploy's; no run ends with it
// here, because outputs left open do not fail a script.
const (
	CodeSuccess       Code = 0
	CodeMissing       Code = 1
	CodeNotExecutable Code = 2
	CodeTimedOut      Code = 3
	CodeFailed        Code = 4
	CodeOther         Code = 5
	CodeOutputsOpen   Code = 6
	CodeRestart       Code = 7
)

// String says the code in words.
func (c Code) String() string {
	switch c {
	case CodeSuccess:
		return "success"
	case CodeMissing:
		return "script missing"
	case CodeNotExecutable:
		return "script not executable"
	case CodeTimedOut:
		return "script timed out"
	case CodeFailed:
		return "script failed"
	case CodeOther:
		return "other failure"
	case CodeOutputsOpen:
		return "outputs left open"
	case CodeRestart:
		return "failed after agent restart"
	}
	return fmt.Sprintf("code %d", int(c))
}

// TailSize is the most that a report carries of a script's output, in bytes:
// the limit of CodeDeploy's diagnostics.
const TailSize = 2048

// Result is how a script, or a whole event, ended.
type Result struct {
	Code Code
	// Detached says that the context ended first: the script goes on under
	// its supervisor, nothing else in the result is known, and a later Run
	// with the same id waits for it again.
	Detached bool
	// Script is the location of the script that decided the result.
	Script string
	// ExitStatus is -1 when the script did not exit by itself.
	ExitStatus int
	// Signal is what killed the script, or 0.
	Signal   syscall.Signal
	Duration time.Duration
	// Tail is the end of the log, at most TailSize bytes of valid UTF-8.
	Tail string
	// Log is the path of the script's log, for ReadLog.
	Log string
	// Message is one sentence for people: what happened and to what.
	Message string
	// Notice names what a successful script left running with its output
	// open, or is empty.
	Notice string
	// Isolation is "cgroup" or "session": what a timeout could reach.
	Isolation string
}

// OK reports whether the script or event succeeded.
func (r Result) OK() bool { return r.Code == CodeSuccess && !r.Detached }

// Diagnostics is the result in the JSON form of CodeDeploy's agent.
func (r Result) Diagnostics() []byte {
	// No value below can fail to encode; invalid UTF-8 was replaced.
	data, _ := json.Marshal(struct {
		Code    Code   `json:"error_code"`
		Script  string `json:"script_name"`
		Message string `json:"message"`
		Log     string `json:"log"`
	}{r.Code, r.Script, r.Message, r.Tail})
	return data
}

// signalName says a signal as number and name.
func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return fmt.Sprintf("signal %d (%s)", int(s), name)
	}
	return fmt.Sprintf("signal %d", int(s))
}

// LastLine is the last line that the script itself wrote and that says
// something, as far as Tail has it: mostly the reason of a failure.
func (r Result) LastLine() string {
	last := ""
	for line := range strings.Lines(r.Tail) {
		for _, tag := range []string{" [stdout]", " [stderr]"} {
			if _, text, its := strings.Cut(line, tag); its && strings.TrimSpace(text) != "" {
				last = strings.TrimSpace(text)
			}
		}
	}
	return last
}
