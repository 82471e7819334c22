package agent

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/room"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// failure is why a step failed, bounded, as a report carries it.
type failure struct {
	Event    string
	Script   string `json:",omitempty"`
	Code     int    `json:",omitempty"`
	Exit     string `json:",omitempty"`
	Message  string
	Tail     string `json:",omitempty"`
	Duration time.Duration

	full   bool   // the disk was
	before string // the event that the failure was found ahead of, if it was
}

// maxMessage bounds a message, in bytes; a report carries no more.
const maxMessage = 1024

// ofScript is the failure of a hook.
func ofScript(event string, r hooks.Result) *failure {
	f := &failure{
		Event: event, Script: r.Script, Code: int(r.Code), Message: clip(r.Message,
			maxMessage), Tail: r.Tail, Duration: r.Duration,
	}
	switch {
	case r.Signal != 0:
		f.Exit = fmt.Sprintf("signal %d (%s)", int(r.Signal), unix.SignalName(r.Signal))
	case r.ExitStatus >= 0:
		f.Exit = fmt.Sprintf("exit status %d", r.ExitStatus)
	}
	return f
}

// ofStep is the failure of the agent's own work. A message of several lines
// goes into the tail whole, with its first line as the message.
func ofStep(s task.Step, err error, took time.Duration) *failure {
	text := err.Error()
	f := &failure{
		Event: s.Event, Code: int(hooks.CodeOther), Message: clip(text,
			maxMessage), Duration: took, full: room.IsFull(err),
	}
	if s.Event == "" {
		f.Event = s.Kind.String()
	}
	var missing *hooks.MissingScript
	if errors.As(err, &missing) {
		f.Code, f.Script, f.before = int(hooks.CodeMissing), missing.Location, missing.Event
		f.Message = clip(missing.Error(), maxMessage)
		return f
	}
	if head, _, many := strings.Cut(text, "\n"); many {
		f.Message, f.Tail = clip(head, maxMessage), clip(text, hooks.TailSize)
	}
	return f
}

func (f *failure) proto() *agentv1.Failure {
	if f == nil {
		return nil
	}
	return &agentv1.Failure{
		Event: f.Event, Script: f.Script, Code: int32(f.Code), Exit: f.Exit, Message: f.Message, Tail: f.Tail,
		DurationMs: f.Duration.Milliseconds(),
	}
}

// clip keeps at most n bytes of the head of a text, as valid UTF-8.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
