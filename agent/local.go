package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/groundswell/groundswell/agent/journal"
	"github.com/groundswell/groundswell/artifacts/bundle"
	"github.com/groundswell/groundswell/internal/backoff"
)

// LocalOptions is one deployment on this host without a coordinator. Bundle,
// App, Group and Root are required; the zero value of every other field takes
// its default.
type LocalOptions struct {
	// Bundle is a folder or archive; Type says which, and is found from the
	// content if it is empty.
	Bundle string
	Type   bundle.Type
	// AppSpec is the appspec's name in the bundle where it is stated.
	AppSpec string
	// App and Group name whose revisions, clean-up record and pointers these
	// are; scripts see them.
	App, Group string
	// Deployment is the deployment's id. Default one that is made up.
	Deployment string
	// Root is the state folder. One agent or local deployment at a time may
	// use it; another is refused.
	Root string
	// Events are those to run, in their order. Nil runs all thirteen; a list
	// also states which names an appspec may use.
	Events []string
	// FileExists is the option of the deployment as it was written. As in
	// CodeDeploy, one that is unknown fails an install that needs it.
	FileExists string
	// StopFails lets a failed stop script of the running revision fail the
	// deployment. Without it the deployment goes on with a warning.
	StopFails bool
	// Revert goes back to the former revision after a failure; without it the
	// host stays as the failure left it.
	Revert bool
	// Wait is how long a state folder that another one uses is waited for.
	// Default not at all. Waiting is called once, when that begins; it may be
	// nil.
	Wait    time.Duration
	Waiting func() `json:"-"`
	// MaxRevisions is how many stay on disk; what runs, and the last good ones,
	// always do. Default 5.
	MaxRevisions int

	// Supervisor and Cgroup are those of Options.
	Supervisor, Cgroup string
	// Env is handed to every script.
	Env map[string]string
	// Log gets what happens. Default none.
	Log *slog.Logger `json:"-"`
	// Progress is told of each event as it ends; it may be nil.
	Progress func(LocalEvent) `json:"-"`
}

// lookAgain is how often a state folder in use is tried.
const lookAgain = 200 * time.Millisecond

// open opens the state folder, and waits for it as long as it may.
func (d *localRun) open(ctx context.Context) (*host, error) {
	end := time.Now().Add(d.o.Wait)
	for told := false; ; told = true {
		h, err := openHost(d.options())
		if !errors.Is(err, journal.ErrLocked) || !time.Now().Before(end) {
			return h, err
		}
		if !told && d.o.Waiting != nil {
			d.o.Waiting()
		}
		if !backoff.Pause(ctx, lookAgain) {
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

// DeployLocal deploys a bundle on this host by the code of the agent, and
// returns when it has ended. A deployment that fails is no error but a result;
// wrong options, and a state folder that cannot be used, are. When ctx ends, the
// script that runs is waited for, nothing more is begun, and the next
// deployment takes the target over where this one has left it.
func DeployLocal(ctx context.Context, o LocalOptions) (LocalResult, error) {
	d, err := newLocalRun(o)
	if err != nil {
		return LocalResult{}, fmt.Errorf("check local deployment: %w", err)
	}
	h, err := d.open(ctx)
	if err != nil {
		return LocalResult{}, fmt.Errorf("deploy on this host: %w", err)
	}
	err = d.run(ctx, h)
	if err = errors.Join(err, h.journal.Close()); err != nil {
		return d.result, fmt.Errorf("deploy on this host: %w", err)
	}
	return d.result, nil
}
