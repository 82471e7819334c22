package hooks

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// The pump looks for output this often while there is some, and backs off to
// the slow pace in silence.
const (
	pumpFast = 5 * time.Millisecond
	pumpSlow = 80 * time.Millisecond
)

// killLimit is how long a killed tree may take to vanish. A kill by cgroup
// was measured to need under 20 ms.
const killLimit = time.Second

// watch waits for the script's end, its timeout, or a request to stop.
func (s *supervisor) watch() Result {
	timeout := time.NewTimer(s.order.Timeout)
	defer timeout.Stop()
	pace := pumpFast
	tick := time.NewTimer(pace)
	defer tick.Stop()
	for {
		select {
		case ws := <-s.exits:
			if s.order.KillRest {
				return s.clear(s.ended(ws))
			}
			return s.ended(ws)
		case <-timeout.C:
			r := Result{Code: CodeTimedOut, Message: fmt.Sprintf("script %s failed to complete in %d seconds",
				s.order.Location, int(s.order.Timeout.Seconds()))}
			return s.terminate(r)
		case sig := <-s.signals:
			if sig == syscall.SIGTERM {
				return s.terminate(Result{
					Code:    CodeOther,
					Message: fmt.Sprintf("script %s was stopped on request", s.order.Location),
				})
			}
		case <-tick.C:
			pace = min(pace*2, pumpSlow)
			if s.pump.step() {
				pace = pumpFast
			}
			tick.Reset(pace)
		}
	}
}

// ended makes the result of a script that ended by itself.
func (s *supervisor) ended(ws syscall.WaitStatus) Result {
	r := Result{ExitStatus: ws.ExitStatus()}
	switch {
	case ws.Signaled():
		r.Code, r.Signal = CodeFailed, ws.Signal()
		r.Message = fmt.Sprintf("script %s was killed by %s", s.order.Location, signalName(ws.Signal()))
	case ws.ExitStatus() != 0:
		r.Code = CodeFailed
		r.Message = fmt.Sprintf("script %s failed with exit code %d", s.order.Location, ws.ExitStatus())
	default:
		s.tree.cgroup.limit("max")
		r.Message = fmt.Sprintf("script %s succeeded", s.order.Location)
	}
	if left := s.leftWriting(); len(left) > 0 && !s.order.KillRest {
		r.Notice = fmt.Sprintf("still running with the script's output open: %s", describe(left))
	}
	return r
}

// letGo is how long a child that the script left has to let go of its output: a
// shell forks before it redirects, and may end between the two.
const letGo = 500 * time.Millisecond

// leftWriting lists what the script left with its output open. Mostly there is
// no child any more, which is told at once; only else the host is searched.
func (s *supervisor) leftWriting() []int {
	select {
	case <-s.reaped:
		return nil
	case <-time.After(time.Millisecond):
	}
	for deadline := time.Now().Add(letGo); ; time.Sleep(letGo / 50) {
		left := holders(s.tree.survivors(), s.dir.file("stdout"), s.dir.file("stderr"))
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// terminate ends the whole tree: TERM to the group, the grace, then KILL. The
// script's own end in the grace changes nothing about the result.
func (s *supervisor) terminate(r Result) Result {
	r.ExitStatus = -1
	if s.order.KillRest {
		return s.clear(r)
	}
	s.tree.signal(syscall.SIGTERM)
	for deadline := time.Now().Add(s.order.Limits.Grace); time.Now().Before(deadline); time.Sleep(4 * killSweep) {
		s.pump.step()
		if len(s.tree.survivors()) == 0 {
			return r
		}
	}
	if left := s.tree.kill(killLimit); len(left) > 0 {
		r.Message += "; not even KILL ended " + describe(left)
	} else {
		r.Message += "; it outlived TERM and was killed"
	}
	return r
}

// clear ends a script and what it has started, in whatever session: TERM to each, the grace, then
// KILL. Only what not even that ends is a failure.
func (s *supervisor) clear(r Result) Result {
	told := map[int]bool{}
	for deadline := time.Now().Add(s.order.Limits.Grace); ; time.Sleep(killSweep) {
		left := s.tree.survivors()
		if len(left) == 0 {
			return r
		}
		for _, pid := range left {
			if !told[pid] && pid != os.Getpid() {
				told[pid] = true
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
		}
		if time.Now().After(deadline) {
			if stuck := s.tree.kill(killLimit); len(stuck) > 0 {
				r.Message += "; not even KILL ended " + describe(stuck)
				if r.Code == CodeSuccess {
					r.Code = CodeOther
				}
			}
			return r
		}
		s.pump.step()
	}
}

// end records the result and gives up the script's files.
func (s *supervisor) end(r Result) error {
	r.Script = s.order.Location
	if !s.begin.IsZero() {
		r.Duration = time.Since(s.begin)
	}
	r.Isolation = "session"
	if s.tree.cgroup != "" {
		r.Isolation = "cgroup"
	}
	if s.pump != nil {
		s.lastLines(r)
	}
	r.Log = s.dir.file("log")
	r.Tail = tailOf(r.Log)
	if err := s.dir.writeJSON("outcome", outcome{r, time.Now()}); err != nil {
		return fmt.Errorf("record outcome in %s: %w", s.dir, err)
	}
	return nil
}

// lastLines brings the log to the end of the script and says there what only
// the supervisor knows.
func (s *supervisor) lastLines(r Result) {
	if err := s.pump.finish(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if r.Notice != "" {
		s.pump.log.line("[groundswell]", r.Notice)
	}
	if r.ExitStatus < 0 {
		s.pump.log.line("[groundswell]", r.Message)
	}
	s.pump.close()
}
