package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// adoptPoll is how often an adopted run is asked whether it has ended; it is
// no child of this process, so nobody tells.
const adoptPoll = 20 * time.Millisecond

// Adopt answers how the run of that id ended, waiting for it if it still runs.
// It answers false when the id has provably never started a script. Run does
// the same and then starts; Adopt is for a caller that must not start.
func (r *Runner) Adopt(ctx context.Context, id string) (Result, bool, error) {
	return r.adopt(ctx, id)
}

func (r *Runner) adopt(ctx context.Context, id string) (Result, bool, error) {
	dir, err := r.runDir(id)
	if err != nil {
		return Result{}, false, err
	}
	if _, err := os.Stat(string(dir)); errors.Is(err, os.ErrNotExist) {
		return Result{}, false, nil
	}
	for {
		lock, err := dir.lock()
		if err != nil {
			return Result{}, false, err
		}
		if lock != nil {
			defer func() { _ = lock.Close() }()
			return r.settled(dir)
		}
		select {
		case <-ctx.Done():
			return Result{
				Detached: true, ExitStatus: -1, Log: dir.file("log"),
				Message: "the script goes on without being waited for",
			}, true, nil
		case <-time.After(adoptPoll):
		}
	}
}

// settled answers for a run that nobody supervises (the caller has its lock).
func (r *Runner) settled(dir runDir) (Result, bool, error) {
	var o outcome
	if err := dir.readJSON("outcome", &o); err == nil {
		return o.Result, true, nil
	}
	if !dir.wasStarted() {
		return Result{}, false, nil
	}
	result, err := r.ended(dir)
	return result, true, err
}

// ended reads the outcome of a run whose supervisor is gone. Without one the
// script's fate is unknown: what still runs of the script is ended, because
// nobody may start its successor beside it, and the run has failed.
func (r *Runner) ended(dir runDir) (Result, error) {
	var o outcome
	if err := dir.readJSON("outcome", &o); err == nil {
		return o.Result, nil
	}
	var s started
	_ = dir.readJSON("script", &s) // absent: it may have been about to start
	t := tree{cgroup: cgroup(s.Cgroup), outputs: []string{dir.file("stdout"), dir.file("stderr")}}
	if s.Script.alive() {
		t.group = s.Script.PID
	}
	note := "nothing of it was left"
	if t.group != 0 || len(t.survivors()) > 0 {
		note = "what was left of it was killed"
		if left := t.kill(killLimit); len(left) > 0 {
			note = "not even KILL ended " + describe(left)
		}
	}
	var ord order
	_ = dir.readJSON("order", &ord) // only for the message
	res := Result{
		Code: CodeRestart, Script: ord.Location, ExitStatus: -1, Log: dir.file("log"), Tail: tailOf(dir.file("log")),
		Message: fmt.Sprintf("script %s was interrupted and its result is unknown; %s", ord.Location, note),
	}
	return res, dir.writeJSON("outcome", outcome{res, time.Now()})
}

// stopPatience is how long Stop waits for a supervisor that is just starting
// to say who it is.
const stopPatience = 2 * time.Second

// Stop asks the supervisor of a run to end the script and its whole tree, as
// a timeout would. It does not wait for the end, Adopt does. A run that is not
// running is no error.
func (r *Runner) Stop(id string) error {
	dir, err := r.runDir(id)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(stopPatience); !dir.over(); time.Sleep(adoptPoll) {
		var s started
		if err := dir.readJSON("script", &s); err == nil {
			return s.stop(id)
		}
		lock, err := dir.lock()
		if lock != nil {
			return lock.Close() // nobody supervises it
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) || time.Now().After(deadline) {
			return fmt.Errorf("stop run %s: its supervisor does not say who it is: %w", id,
				errors.Join(err, context.DeadlineExceeded))
		}
		if err != nil {
			return nil // there is no such run
		}
	}
	return nil
}

func (s started) stop(id string) error {
	if !s.Supervisor.alive() {
		return nil
	}
	if err := syscall.Kill(s.Supervisor.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop run %s: %w", id, err)
	}
	return nil
}
