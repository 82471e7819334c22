package hooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Runner runs scripts under supervisors. Its methods may be called
// concurrently, for different run ids.
type Runner struct {
	dir     string
	options Options
	cgroup  string
	login   login
	standby standby
}

// Options configures a Runner. Only Dir is required.
type Options struct {
	// Dir holds one folder a run. It is made, with mode 0700: logs may hold
	// secrets. It must be on a disk that outlives a reboot.
	Dir string
	// Binary is the program to re-execute as supervisor, one that calls
	// MaybeSupervise. Default /proc/self/exe, this program even if its file
	// has been replaced.
	Binary string
	// Env is added to every script's environment.
	Env map[string]string
	// RunAs lists the users that scripts may name; empty allows all.
	RunAs []string
	// Cgroup is the folder below which scripts get cgroups. Empty finds the
	// host's cgroup v2, "off" uses none.
	Cgroup string
	// Limits bounds each script.
	Limits Limits
	// Confine is what each script is not to have.
	Confine Confinement
}

// NewRunner returns a runner over the folder of runs.
func NewRunner(o Options) (*Runner, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil || o.Dir == "" {
		return nil, fmt.Errorf("find folder of hook runs %q: %w", o.Dir, cmp.Or(err, os.ErrInvalid))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of hook runs: %w", err)
	}
	o.Binary = cmp.Or(o.Binary, "/proc/self/exe")
	o.Limits = o.Limits.withDefaults()
	r := &Runner{dir: dir, options: o, login: hostLogin}
	switch o.Cgroup {
	case "off":
	case "":
		r.cgroup = detectCgroup()
	default:
		if err := prepareCgroup(o.Cgroup); err != nil {
			return nil, err
		}
		r.cgroup = o.Cgroup
	}
	return r, nil
}

// Isolation says how a script's tree will be held: "cgroup" or "session".
func (r *Runner) Isolation() string {
	if r.cgroup != "" {
		return "cgroup"
	}
	return "session"
}

// Run runs the script and waits for it. A run id starts at most once: where
// env.ID has run before, Run answers its result; where it still runs, also
// under a former agent, Run waits for it; where it began and left no result,
// Run ends what is left of the script and answers CodeRestart.
//
// The end of ctx ends only the waiting, see Result.Detached; Stop ends the
// script.
func (r *Runner) Run(ctx context.Context, s Script, env Env) Result {
	result, known, err := r.adopt(ctx, env.ID)
	if err == nil && !known {
		result, err = r.start(ctx, s, env)
	}
	if err != nil {
		result = Result{Code: CodeOther, ExitStatus: -1, Message: fmt.Sprintf("run script %s: %v", s.Location, err)}
	}
	result.Script = s.Location
	return result
}

func (r *Runner) runDir(id string) (runDir, error) {
	if !idPattern.MatchString(id) {
		return "", fmt.Errorf("run id %q is not a plain name", id)
	}
	return runDir(filepath.Join(r.dir, id)), nil
}

// idUnsafe matches what a folder name of ours does not hold.
var idUnsafe = regexp.MustCompile(`[^A-Za-z0-9._-]`)

func (r *Runner) start(ctx context.Context, s Script, env Env) (Result, error) {
	dir, err := r.runDir(env.ID)
	if err != nil {
		return Result{}, err
	}
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return Result{}, fmt.Errorf("make folder of run: %w", err)
	}
	lock, err := dir.lock()
	if err != nil {
		return Result{}, err
	}
	if lock == nil {
		return Result{}, fmt.Errorf("run %s is being started by someone else", env.ID)
	}
	defer func() { _ = lock.Close() }()
	if err := writeHeader(dir, s, env, r.options.Limits); err != nil {
		return Result{}, err
	}
	order, err := r.order(s, env)
	if err != nil {
		return refuse(dir, s, err)
	}
	if err := dir.writeJSON("order", order); err != nil {
		return Result{}, err
	}
	return r.supervise(ctx, dir, lock)
}

func writeHeader(dir runDir, s Script, env Env, l Limits) error {
	log, err := openLog(dir.file("log"), l)
	if err != nil {
		return err
	}
	defer log.close()
	if log.end == 0 { // else the start before this one never came to anything
		log.line("", "LifecycleEvent - "+env.Event)
		log.line("", "Script - "+s.Location)
	}
	return nil
}

// refuse records a script that cannot be started as a result like any other.
func refuse(dir runDir, s Script, err error) (Result, error) {
	r := Result{Code: CodeOther, Script: s.Location, ExitStatus: -1, Message: err.Error(), Log: dir.file("log")}
	var f *failure
	if errors.As(err, &f) {
		r.Code = f.code
	}
	if log, err := openLog(r.Log, Limits{}.withDefaults()); err == nil {
		log.line("[groundswell]", r.Message)
		log.close()
	}
	r.Tail = tailOf(r.Log)
	return r, dir.writeJSON("outcome", outcome{r, time.Now()})
}

// order turns a script and its environment into what a supervisor is told.
func (r *Runner) order(s Script, env Env) (order, error) {
	root, err := filepath.EvalSymlinks(env.Root)
	if err == nil {
		root, err = filepath.Abs(root)
	}
	if err != nil {
		return order{}, failed(CodeOther, "find the revision: %w", err)
	}
	env.Root = root
	if s.RunAs != "" && len(r.options.RunAs) > 0 && !slices.Contains(r.options.RunAs, s.RunAs) {
		return order{}, failed(CodeFailed, "run script as user %q: the agent's configuration does not allow this user",
			s.RunAs)
	}
	path, err := scriptPath(root, s.Location)
	if err != nil {
		return order{}, err
	}
	if err := makeExecutable(path); err != nil {
		return order{}, err
	}
	u, cred, err := account(s, os.Geteuid())
	if err != nil {
		return order{}, err
	}
	extra := map[string]string{}
	for _, vars := range []map[string]string{r.options.Env, env.Extra} {
		for k, v := range vars {
			extra[k] = v
		}
	}
	env.Extra = extra
	var l *login
	var limits map[int]limitPair
	if s.RunAs != "" {
		l = &r.login
		if os.Geteuid() == 0 { // who is not may not raise one
			limits = r.login.limitsOf(u)
		}
	}
	vars := env.variables(u, l)
	return order{
		Location: s.Location, Event: env.Event, Path: path, Sudo: sudo(s, vars), Dir: root, Env: vars,
		Timeout: cmp.Or(s.Timeout, DefaultTimeout), Cred: cred, Limits: r.options.Limits, Cgroup: r.cgroup,
		Confine: r.options.Confine, KillRest: s.KillRest,
		UserLimits: limits,
	}, nil
}

// sudo is the command that a script with sudo: true runs under. An agent that
// is root has nothing to gain from it: the script runs as root directly, with
// all its variables, on hosts without sudo too.
func sudo(s Script, vars []string) []string {
	if !s.Sudo || os.Geteuid() == 0 {
		return nil
	}
	path, err := exec.LookPath("sudo")
	if err != nil {
		path = "/usr/bin/sudo" // starting it will say that it is missing
	}
	names := make([]string, len(vars))
	for i, v := range vars {
		names[i], _, _ = strings.Cut(v, "=")
	}
	return []string{path, "-n", "--preserve-env=" + strings.Join(names, ","), "--"}
}

// supervise lets a supervisor do the run, which takes over its lock, and waits.
func (r *Runner) supervise(ctx context.Context, dir runDir, lock *os.File) (Result, error) {
	complaints, err := os.OpenFile(dir.file("supervisor"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return Result{}, fmt.Errorf("open supervisor's own log: %w", err)
	}
	h, err := r.handOver(dir, lock, complaints)
	_ = complaints.Close()
	if err != nil {
		return Result{}, err
	}
	_ = lock.Close() // the supervisor holds it now
	done := make(chan bool, 1)
	go func() { done <- h.await() }() // ends with the run, or with h
	select {
	case again := <-done:
		if again {
			r.standby.keep(h)
		} else {
			h.end()
		}
		return r.ended(dir)
	case <-ctx.Done():
		h.end()
		return Result{
			Detached: true, ExitStatus: -1, Log: dir.file("log"),
			Message: "the script goes on without being waited for",
		}, nil
	}
}

// handOver gives the run to the supervisor that is at hand, or to a new one: one
// that waited may have died.
func (r *Runner) handOver(dir runDir, lock, complaints *os.File) (*handle, error) {
	if h := r.standby.take(); h != nil {
		if err := h.give(dir, lock, complaints); err == nil {
			return h, nil
		}
		h.end()
	}
	h, err := r.spawn()
	if err != nil {
		return nil, err
	}
	if err := h.give(dir, lock, complaints); err != nil {
		h.end()
		return nil, err
	}
	return h, nil
}
