package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/groundswell/groundswell/agent/journal"
	"github.com/groundswell/groundswell/agent/probe"
	"github.com/groundswell/groundswell/agent/release"
	"github.com/groundswell/groundswell/artifacts/cache"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/durable"
	"github.com/groundswell/groundswell/internal/naming"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// host is what the targets of this machine share.
type host struct {
	o           Options
	journal     *journal.Journal
	releases    *release.Releases
	cache       *cache.Cache
	runner      *hooks.Runner // of hooks
	probeRunner *hooks.Runner // of command probes, whose runs are not kept
	prober      probe.Prober
	link        *link
	out         *outbox
	progress    chan *agentv1.Progress // soft: dropped when nobody takes it
	janitor     *janitor
	epoch       string // of the journal, part of every run's id
	ballast     *ballast
	targets     targets
	shared      *rate.Limiter // of all fetching; nil where it has no bound

	// moving is held by the one that changes what is installed: a plan made
	// while another application makes the same folders would be wrong.
	moving sync.Mutex
}

// openHost opens everything durable. It fails if another agent has it open.
func openHost(o Options) (*host, error) {
	if err := o.makeRoot(); err != nil {
		return nil, err
	}
	h := &host{o: o, link: newLink(), progress: make(chan *agentv1.Progress, 16)}
	if o.Bandwidth > 0 {
		h.shared = rate.NewLimiter(rate.Limit(o.Bandwidth), limitChunk)
	}
	var err error
	if h.journal, err = journal.Open(o.path("state")); err != nil {
		return nil, err
	}
	if err := h.open(); err != nil {
		return nil, errors.Join(err, h.journal.Close())
	}
	if n := h.journal.Dropped(); n > 0 {
		o.Log.Warn("the journal's last record was torn by a crash and is dropped", "bytes", n)
	}
	h.prober = probe.Prober{Commands: h.probeRunner}
	h.out = newOutbox(h.journal)
	h.janitor = newJanitor(h)
	return h, nil
}

func (h *host) open() (err error) {
	if h.releases, err = release.New(release.Options{
		Root: h.o.path("releases"), InstallRoot: h.o.InstallRoot, Keep: h.o.KeepReleases, KeepBytes: h.o.KeepBytes,
	}); err != nil {
		return err
	}
	h.ballast = &ballast{path: h.o.path("state", "ballast")}
	h.ballast.restore()
	if h.epoch, err = h.o.epoch(); err != nil {
		return err
	}
	if h.cache, err = cache.Open(h.o.path("cache")); err != nil {
		return err
	}
	if h.runner, err = hooks.NewRunner(h.hookOptions("hooks")); err != nil {
		return err
	}
	h.probeRunner, err = hooks.NewRunner(h.hookOptions("probes"))
	return err
}

// epoch names the journal's life. Without it, a journal that was lost would
// count generations anew, and a step of the new count would take the result of
// an old run of the same number for its own.
func (o Options) epoch() (string, error) {
	path := o.path("state", "epoch")
	data, err := os.ReadFile(path)
	if err == nil {
		return string(data), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the journal's epoch: %w", err)
	}
	fresh := strings.ToLower(rand.Text()[:8])
	if err := durable.WriteFile(path, []byte(fresh), 0o600); err != nil {
		return "", fmt.Errorf("write the journal's epoch: %w", err)
	}
	return fresh, nil
}

func (h *host) hookOptions(dir string) hooks.Options {
	return hooks.Options{
		Dir: h.o.path(dir), Binary: h.o.Supervisor, Env: h.o.Env, RunAs: h.o.RunAs, Cgroup: h.o.Cgroup,
		Confine: h.o.Confine,
	}
}

// tell passes progress on, unless nobody takes it.
func (h *host) tell(p *agentv1.Progress) {
	select {
	case h.progress <- p:
	default:
	}
}

// newTarget resumes an application's target from disk.
func (h *host) newTarget(app string) (*target, error) {
	if err := naming.Check("application", app); err != nil { // it becomes a folder
		return nil, err
	}
	t := &target{
		host: h, app: app, wake: make(chan struct{}, 1), started: time.Now().UnixNano(),
		file: checkpointFile{path: h.o.path("state", "targets", app+".json")},
	}
	var err error
	if t.checkpoint, err = t.file.load(); err != nil {
		return nil, err
	}
	if err := t.adopt(); err != nil {
		return nil, err
	}
	t.resume()
	return t, nil
}
