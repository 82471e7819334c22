package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// runDir is the folder of one run. Its files, in the order they appear:
//
//	lock     held by the supervisor from before its fork until it ends
//	order    what to run (JSON)
//	log      header, then tagged lines; bounded
//	started  durable before the script starts; without it nothing has run
//	stdout, stderr   what the script writes to
//	script   the supervisor and the cgroup, then the script's process, too (JSON)
//	outcome  how it ended (JSON); without it and without the lock: unknown
//	pumped   how much of stdout and stderr the log has (JSON)
type runDir string

func (d runDir) file(name string) string { return filepath.Join(string(d), name) }

// order is what the agent asks a supervisor to do.
type order struct {
	Location string
	Event    string
	Path     string
	Sudo     []string
	Dir      string
	Env      []string
	Timeout  time.Duration
	Cred     *credential
	Limits   Limits
	Cgroup   string
	Confine  Confinement
	KillRest bool `json:",omitempty"`
	// UserLimits are those of the user that the script changes to, by resource;
	// Confine wins.
	UserLimits map[int]limitPair `json:",omitempty"`
}

// started is what the supervisor knows about the script once it runs.
type started struct {
	Script     process
	Supervisor process
	Cgroup     string
}

// outcome is how a run ended, written once.
type outcome struct {
	Result
	Ended time.Time
}

// writeJSON replaces a file atomically but not durably: after a power cut no
// script runs any more, and a missing outcome then means what is true,
// unknown.
func (d runDir) writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s of a run: %w", name, err)
	}
	tmp := d.file(name + ".new")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write %s of a run: %w", name, err)
	}
	if err := os.Rename(tmp, d.file(name)); err != nil {
		return fmt.Errorf("write %s of a run: %w", name, err)
	}
	return nil
}

func (d runDir) readJSON(name string, v any) error {
	data, err := os.ReadFile(d.file(name))
	if err != nil {
		return fmt.Errorf("read %s of a run: %w", name, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s of a run: %w", name, err)
	}
	return nil
}

// markStarted makes durable that the script may have run. Its error must keep
// the script from starting.
func (d runDir) markStarted() error {
	f, err := os.OpenFile(d.file("started"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("mark run as started: %w", err)
	}
	if err = errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("mark run as started: %w", err)
	}
	for _, dir := range []string{string(d), filepath.Dir(string(d))} {
		if err := syncDir(dir); err != nil {
			return fmt.Errorf("mark run as started: %w", err)
		}
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d runDir) wasStarted() bool {
	_, err := os.Stat(d.file("started"))
	return err == nil
}

// lock takes the run's lock, or answers nil when a supervisor holds it.
func (d runDir) lock() (*os.File, error) {
	f, err := os.OpenFile(d.file("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of a run: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, f.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock a run: %w", err), f.Close())
	}
	return f, nil
}
