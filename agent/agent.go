package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// Agent is the agent of one host.
type Agent struct {
	*host
	cred      *identity.Credential
	instances *instances
	ring      *ring
	// told when the host has got a certificate of another CA
	reissued   chan struct{}
	strange    chan struct{} // asked for a token, see estranged
	enrolledAt atomic.Uint64 // index of the log, of an enrolment in this life
}

// New checks the options. Nothing is opened before Run.
func New(o Options) (*Agent, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("check agent options: %w", err)
	}
	return &Agent{
		host:     &host{o: o.withDefaults()},
		reissued: make(chan struct{}, 1), strange: make(chan struct{}, 1),
	}, nil
}

// Run is the agent: it enrols the host if need be, resumes what a former life
// left begun, and serves until ctx ends. It then takes no new work, leaves a
// hook that runs to its supervisor, leaves the gossip ring, and returns nil.
// Applications are never touched by its end. An Agent runs once.
func (a *Agent) Run(ctx context.Context) error {
	for {
		err := a.live(ctx)
		if !errors.Is(err, errAnother) || ctx.Err() != nil {
			return unlessStopped(ctx, err)
		}
		a.o.Log.Warn(err.Error()) // and so it begins anew
	}
}

// live is one life, as one host.
func (a *Agent) live(ctx context.Context) (err error) {
	if err := a.o.adoptSplit(); err != nil {
		return err
	}
	h, err := openHost(a.o)
	if err != nil {
		return err
	}
	a.host = h
	defer func() {
		h.runner.Rest()
		h.probeRunner.Rest()
		err = errors.Join(err, h.journal.Close())
	}()
	if a.instances, err = openInstances(a.o.path("identity")); err != nil {
		return err
	}
	if a.cred, err = a.identify(ctx); err != nil {
		return err
	}
	m, key, err := loadMembership(a.o.path("identity"))
	if err != nil {
		return err
	}
	if a.ring, err = openRing(a.o, m, key); err != nil {
		return err
	}
	return a.serve(ctx, m.Host)
}

// unlessStopped drops the error of what was told to end.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

func (a *Agent) serve(ctx context.Context, id string) error {
	g, ctx := errgroup.WithContext(ctx)
	a.targets.begin(ctx, g)
	g.Go(func() error { return a.ring.run(ctx) })
	if err := a.resumeTargets(); err != nil {
		g.Go(func() error { return err }) // ends the others
		return g.Wait()
	}
	g.Go(func() error { return a.janitor.run(ctx) })
	g.Go(func() error { return a.compare(ctx) })
	g.Go(func() error { return a.renew(ctx) })
	g.Go(func() error { return a.beat(ctx) })
	g.Go(func() error { return a.connect(ctx) })
	if a.o.Ready != nil {
		a.o.Ready(Status{Host: id, Name: a.o.Name, Gossip: a.ring.members.Addr(), Targets: a.apps()})
	}
	return g.Wait()
}

// targets are the applications of this host.
type targets struct {
	mu    sync.Mutex
	byApp map[string]*target
	ctx   context.Context //nolint:containedctx // of the goroutines that targets get as they come
	group *errgroup.Group
}

func (s *targets) begin(ctx context.Context, g *errgroup.Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byApp, s.ctx, s.group = map[string]*target{}, ctx, g
}

// target returns the application's target, nil if the host has none.
func (h *host) target(app string) *target {
	h.targets.mu.Lock()
	defer h.targets.mu.Unlock()
	return h.targets.byApp[app]
}

// apps lists the applications of this host.
func (h *host) apps() []string {
	h.targets.mu.Lock()
	defer h.targets.mu.Unlock()
	return slices.Sorted(maps.Keys(h.targets.byApp))
}

// wantedKept lists the revisions that a coordinator wants kept.
func (t *target) wantedKept() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	keep := slices.Clone(t.checkpoint.Keep)
	if t.latest != nil && t.latest.Stage != nil {
		keep = append(keep, revisionID(t.latest.Stage.Digest))
	}
	return keep
}

// add makes the target of an application and sets it to work.
func (h *host) add(app string) (*target, error) {
	t, err := h.newTarget(app)
	if err != nil {
		return nil, err
	}
	h.janitor.resume(t)
	t.endTastes(false)
	h.targets.mu.Lock()
	defer h.targets.mu.Unlock()
	h.targets.byApp[app] = t
	ctx := h.targets.ctx
	h.targets.group.Go(func() error { return t.run(ctx) })
	return t, nil
}

// resumeTargets sets every application of the journal to work again.
func (a *Agent) resumeTargets() error {
	for _, app := range a.journal.Apps() {
		if app == hostCounter {
			continue
		}
		if _, err := a.add(app); err != nil {
			return err
		}
	}
	return nil
}

// assign hands assignments to their targets. It never blocks on their work.
func (a *Agent) assign(m *agentv1.Assignments) {
	named := map[string]bool{}
	for _, item := range m.Items {
		named[item.App] = true
		t, err := a.target(item.App), error(nil)
		if t == nil {
			t, err = a.add(item.App)
		}
		if err != nil {
			a.o.Log.Error("assignment not taken", "app", item.App, "error", err)
			continue
		}
		t.receive(item)
	}
	for _, app := range a.apps() {
		if m.Complete && !named[app] || slices.Contains(m.Removed, app) {
			a.target(app).remove()
		}
	}
}

// report is the state of an application's target, for the outbox.
func (a *Agent) report(app string) *agentv1.Report {
	if t := a.target(app); t != nil {
		return t.report()
	}
	return nil
}
