package agent

import (
	"cmp"
	"fmt"
	"time"

	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/hooks"
)

// The results of a local deployment and of its events.
const (
	LocalSucceeded = "succeeded"
	LocalFailed    = "failed"
	LocalSkipped   = "skipped"
)

// LocalResult is how a local deployment ended. Its JSON is a contract: fields
// are only added.
type LocalResult struct {
	Result     string `json:"result"`
	Deployment string `json:"deployment_id"`
	// Release is the folder of the unpacked revision, "" if there is none.
	Release string `json:"release"`
	// Event, Code, Message, Script and Log say what failed first: Log is the
	// end of the script's output, at most hooks.TailSize bytes.
	Event   string     `json:"event"`
	Code    hooks.Code `json:"code"`
	Message string     `json:"message"`
	Script  string     `json:"script"`
	Log     string     `json:"log"`
	// Stop is the choice for stop scripts that fail: fail or continue.
	Stop string `json:"stop"`
	// Events are those of the deployment in their order.
	Events []LocalEvent `json:"events"`
	// Reverted are those of the way back, if there was one.
	Reverted []LocalEvent `json:"reverted,omitempty"`
	Warnings []string     `json:"warnings,omitempty"`
}

// LocalEvent is one lifecycle event. Skipped is one without a script, or one
// that the deployment did not get to.
type LocalEvent struct {
	Event   string        `json:"event"`
	Result  string        `json:"result"`
	Seconds float64       `json:"seconds"`
	Scripts []LocalScript `json:"scripts"`
}

// LocalScript is one script that was run, or could not be.
type LocalScript struct {
	Script  string     `json:"script"`
	Code    hooks.Code `json:"code"`
	Exit    string     `json:"exit"`
	Seconds float64    `json:"seconds"`
	Message string     `json:"message"`
	// LogFile is the script's whole output, on this host.
	LogFile string `json:"log_file"`
	Notice  string `json:"notice,omitempty"`
}

// eventOf is where a step belongs, for people.
func (d *localRun) eventOf(s task.Step) string {
	if s.Event != "" {
		return s.Event
	}
	return s.Kind.String()
}

func (d *localRun) warn(format string, args ...any) {
	d.result.Warnings = append(d.result.Warnings, fmt.Sprintf(format, args...))
}

// saw takes what a step has come to into the result.
func (d *localRun) saw(s task.Step, v verdict, ran []hooks.Result, took time.Duration) {
	if s.Generation != d.gen {
		if s.Kind == task.KindHook {
			d.warn("%s of the deployment that was cut off ended: %s", s.Event, v.outcome)
		}
		return
	}
	if s.Event != "" {
		d.note(s, v, ran, took)
	}
	if v.failure == nil || s.Lenient || d.result.Event != "" {
		return
	}
	f := v.failure
	d.result.Event = cmp.Or(f.before, f.Event)
	d.result.Code, d.result.Message, d.result.Script, d.result.Log = hooks.Code(f.Code), f.Message, f.Script, f.Tail
}

func (d *localRun) note(s task.Step, v verdict, ran []hooks.Result, took time.Duration) {
	e := LocalEvent{Event: s.Event, Result: LocalFailed, Seconds: took.Seconds(), Scripts: []LocalScript{}}
	switch {
	case v.outcome == task.OutcomeSkipped:
		e.Result = LocalSkipped
		if event, _ := hooks.ParseEvent(s.Event); event == hooks.BlockTraffic || event == hooks.AllowTraffic {
			e.Result = LocalSucceeded // there is no load balancer to ask
		}
		if s.Revision != "" && !d.t.releases.Has(d.t.app, s.Revision) {
			d.warn("%s skipped: the folder %s of the running revision is gone", s.Event,
				d.t.releases.Dir(d.t.app, s.Revision))
		}
	case v.outcome.OK():
		e.Result = LocalSucceeded
	case s.Lenient:
		d.warn("%s failed and the deployment goes on (stop: continue): %s", s.Event, v.failure.Message)
	}
	for _, r := range ran {
		e.Scripts = append(e.Scripts, LocalScript{
			Script: r.Script, Code: r.Code, Exit: ofScript(s.Event,
				r).Exit, Seconds: r.Duration.Seconds(), Message: r.Message,
			LogFile: r.Log, Notice: r.Notice,
		})
	}
	d.place(s, e)
}

// place puts an event where it belongs: the way back has a list of its own.
func (d *localRun) place(s task.Step, e LocalEvent) {
	if d.o.Progress != nil {
		d.o.Progress(e)
	}
	if s.Rollback {
		d.result.Reverted = append(d.result.Reverted, e)
		return
	}
	for i := range d.result.Events {
		if d.result.Events[i].Event == e.Event {
			d.result.Events[i] = e
		}
	}
}

// interrupted says that the deployment was told to stop.
func (d *localRun) interrupted(next task.Step) {
	if d.result.Event != "" {
		return
	}
	d.result.Event, d.result.Code = d.eventOf(next), hooks.CodeOther
	d.result.Message = "told to stop before " + d.eventOf(next) + "; the next deployment takes over from there"
	d.release()
}

// finish reads the result off the closed generation.
func (d *localRun) finish() {
	d.release()
	switch d.t.journal.Target(d.t.app).State().Base.Result {
	case task.ResultDone:
		d.result.Result, d.result.Message = LocalSucceeded, "deployed "+d.o.Deployment
	case task.ResultBroken:
		d.warn("the way back to the former revision failed too: the application is out of service")
	case task.ResultNone, task.ResultFailed, task.ResultRefused, task.ResultIdle:
	}
}

func (d *localRun) release() {
	if d.t.releases.Has(d.t.app, d.goal) {
		d.result.Release = d.t.root(d.goal)
	}
}
