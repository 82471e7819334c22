// Package traffic takes hosts out of the pools that coordinators drive, and puts them
// back, when their agents ask in the middle of a step.
//
// What a pool said before it was asked first is in the log before it is asked, so it
// is put back as it was found whatever dies in between: the next call, at this or
// another coordinator, finds the outage in the state and goes on. Every call to a
// pool is idempotent and may be made twice. A call that comes too late, of a
// coordinator that is dead by now, is put right by the leader, which asserts every
// outage again and again.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/coordinator/haproxy"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/backoff"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// Options of New. All functions may be called concurrently.
type Options struct {
	View func(func(*deploy.State))
	// Propose commits a fact, and has it applied here on return.
	Propose func(context.Context, deploy.Event) error
	HAProxy map[string]*haproxy.Balancers // by the name in the coordinators' file
	Log     *slog.Logger
}

// Service drives pools. Its methods may be called concurrently.
type Service struct{ o Options }

// New returns the service.
func New(o Options) *Service { return &Service{o: o} }

// often is how often a pool is asked how far it is.
const often = 200 * time.Millisecond

// Serve takes the host out of a pool, or puts it back, and returns once it is so. It
// sends what it waits for. Only the host itself is moved: out of a pool of its own
// group while it holds a permit, and back into one that it was taken out of.
func (s *Service) Serve(
	ctx context.Context, host string, r *agentv1.TrafficRequest, send func(*agentv1.TrafficProgress) error,
) error {
	p := decode(r.Pool)
	limit, err := s.may(host, r, p)
	if err != nil {
		return err
	}
	b, err := s.balancers(p)
	if err != nil {
		return err
	}
	m := member{s: s, b: b, pool: p, host: host, app: r.App, send: send, at: haproxy.Server{Backend: p.Backend, Name: p.Server}}
	if r.LimitNs > 0 {
		limit = min(limit, time.Duration(r.LimitNs))
	}
	m.ends = time.Now().Add(limit)
	if r.Allow {
		return m.allow(ctx, r.Restore)
	}
	return m.block(ctx, r.DrainFails)
}

func decode(p *agentv1.Pool) deploy.Pool {
	return deploy.Pool{
		Kind: p.GetKind(), Balancers: p.GetBalancers(), Backend: p.GetBackend(), Server: p.GetServer(), Path: p.GetPath(),
		Block: p.GetBlock(), Allow: p.GetAllow(), Settle: time.Duration(p.GetSettleNs()),
	}
}

func refuse(kind deploy.RefusalKind, format string, args ...any) error {
	return &deploy.Refusal{Reason: kind, Text: fmt.Sprintf(format, args...)}
}

// may says why the host may not do that, and how long it may take.
func (s *Service) may(host string, r *agentv1.TrafficRequest, p deploy.Pool) (limit time.Duration, err error) {
	s.o.View(func(st *deploy.State) {
		limit = deploy.AdmitTimeout
		out := st.Outage(host, r.App, p) != nil
		t := st.Target(host, r.App)
		if t == nil {
			if !r.Allow || !out {
				err = refuse(deploy.NotFound, "this host is no target of %s", r.App)
			}
			return
		}
		traffic := st.TrafficOf(t)
		if traffic != nil {
			limit = traffic.Admit
			if !r.Allow {
				limit = traffic.Drain
			}
		}
		switch {
		case r.Allow && out:
		case traffic == nil || !slices.Contains(traffic.Pools, p):
			err = refuse(deploy.NotFound, "%s is no pool of this host's group of %s", p.Name(), r.App)
		case r.Generation != t.Gen:
			err = refuse(deploy.Conflict, "generation %d of %s is not this host's newest, %d", r.Generation, r.App, t.Gen)
		case !r.Allow && (!t.Open || t.Permit == deploy.PermitNone):
			err = refuse(deploy.Conflict, "this host has no permit for %s, so it stays in %s", r.App, p.Name())
		}
	})
	if limit <= 0 {
		limit = deploy.DrainTimeout
	}
	return limit, err
}

func (s *Service) balancers(p deploy.Pool) (*haproxy.Balancers, error) {
	if !p.AtCoordinator() {
		return nil, refuse(deploy.Invalid, "%s is driven by the host itself", p.Name())
	}
	b := s.o.HAProxy[p.Balancers]
	if b == nil {
		known := strings.Join(slices.Sorted(maps.Keys(s.o.HAProxy)), ", ")
		if known == "" {
			known = "there are none"
		}
		return nil, refuse(deploy.NotFound, "no balancers are called %s in this coordinator's file (balancers: %s)",
			p.Balancers, known)
	}
	return b, nil
}

// member is one host in one pool, for one request.
type member struct {
	s         *Service
	b         *haproxy.Balancers
	pool      deploy.Pool
	at        haproxy.Server
	host, app string
	ends      time.Time
	send      func(*agentv1.TrafficProgress) error
}

func (m *member) set(ctx context.Context, stage deploy.TrafficStage, found []string) error {
	return m.s.o.Propose(ctx, deploy.TrafficSet{
		Host: m.host, App: m.app, Pool: m.pool, Stage: stage, Found: found,
	})
}

func (m *member) outage() (out *deploy.Outage) {
	m.s.o.View(func(st *deploy.State) {
		if o := st.Outage(m.host, m.app, m.pool); o != nil {
			is := *o
			out = &is
		}
	})
	return out
}

// failed is an error of the pool itself, which another try may cure.
func (m *member) failed(err error) error {
	return unavailable{fmt.Errorf("%s: %w", m.pool.Name(), err)}
}

type unavailable struct{ error }

func (unavailable) Kind() string    { return "unavailable" }
func (u unavailable) Unwrap() error { return u.error }

func (m *member) block(ctx context.Context, drainFails bool) error {
	var found []string
	if m.outage() == nil {
		var err error
		if found, err = m.b.Found(ctx, m.at); err != nil {
			return m.failed(err)
		}
	}
	if err := m.set(ctx, deploy.TrafficBlocked, found); err != nil {
		return err
	}
	if err := m.b.Drain(ctx, m.at); err != nil {
		return m.failed(err)
	}
	for {
		n, err := m.b.Sessions(ctx, m.at)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		late := time.Now().After(m.ends)
		switch {
		case err != nil && late: // blocked it is; how much it still has to do nobody knows
			return m.failed(err)
		case err == nil && n > 0 && late && drainFails:
			return refuse(deploy.Conflict, "%s: %d sessions are left after the time for draining", m.pool.Name(), n)
		case err == nil && (n == 0 || late):
			if err := m.b.Close(ctx, m.at); err != nil {
				return m.failed(err)
			}
			return m.send(&agentv1.TrafficProgress{Done: true, Sessions: int32(n)})
		}
		said := &agentv1.TrafficProgress{Sessions: int32(n), Text: fmt.Sprintf("%d sessions", n)}
		if err != nil {
			said.Text = err.Error()
		}
		if err := m.send(said); err != nil {
			return err
		}
		if !backoff.Pause(ctx, often) {
			return ctx.Err()
		}
	}
}

func (m *member) allow(ctx context.Context, restore bool) error {
	// Without an outage it changes nothing, and what another coordinator wrote down is
	// read here once it is applied.
	if err := m.set(ctx, deploy.TrafficAllowed, nil); err != nil {
		return err
	}
	out := m.outage()
	if out == nil && restore {
		return m.send(&agentv1.TrafficProgress{Done: true, Text: "it was not taken out"})
	}
	if out != nil {
		if err := m.b.Restore(ctx, m.at, out.Found); err != nil {
			return m.failed(err)
		}
	}
	for {
		why, err := m.b.Serves(ctx, m.at)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && why == "":
			if out != nil {
				if err := m.set(ctx, deploy.TrafficRestored, nil); err != nil {
					return err
				}
			}
			return m.send(&agentv1.TrafficProgress{Done: true})
		case time.Now().After(m.ends):
			if err == nil {
				err = errors.New(why)
			}
			return m.notTaken(ctx, out, err)
		}
		if err != nil {
			why = err.Error()
		}
		if err := m.send(&agentv1.TrafficProgress{Text: why}); err != nil {
			return err
		}
		if !backoff.Pause(ctx, often) {
			return ctx.Err()
		}
	}
}

// notTaken takes a host out again that its pool did not take: what follows stops the
// application.
func (m *member) notTaken(ctx context.Context, out *deploy.Outage, why error) error {
	err := refuse(deploy.Conflict, "%s does not take the host: %v", m.pool.Name(), why)
	if out == nil {
		return err
	}
	return errors.Join(err, m.set(ctx, deploy.TrafficBlocked, nil), m.b.Close(ctx, m.at))
}

// Times of Reassert.
const (
	reassert = 2 * time.Second
	patience = 10 * time.Second // of one round
)

// Reassert keeps hosts out of pools that forgot it, as HAProxy does when it is
// reloaded, and ends outages of hosts that serve again though nobody was there to
// say so. It runs where the leader is, until ctx ends; without an outage it asks
// nobody anything.
func (s *Service) Reassert(ctx context.Context) error {
	for backoff.Pause(ctx, reassert) {
		s.Assert(ctx)
	}
	return nil
}

// Assert is one round of Reassert.
func (s *Service) Assert(ctx context.Context) {
	var all []deploy.Outage
	s.o.View(func(st *deploy.State) { all = slices.Clone(st.Outages) })
	for _, o := range all {
		s.assert(ctx, o)
	}
}

func (s *Service) assert(ctx context.Context, o deploy.Outage) {
	b, err := s.balancers(o.Pool)
	if err != nil {
		return // who asks for it is told
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	at := haproxy.Server{Backend: o.Pool.Backend, Name: o.Pool.Server}
	if !o.Allowed && s.orphaned(o) {
		err := s.o.Propose(ctx, deploy.TrafficSet{Host: o.Host, App: o.App, Pool: o.Pool, Stage: deploy.TrafficAllowed})
		if err == nil {
			err = b.Restore(ctx, at, o.Found)
		}
		s.o.Log.Info("a host is put back into a pool that its group does not have any more", "pool", o.Pool.Name(),
			"host", o.Host, "error", err)
		return
	}
	if !o.Allowed {
		forgot, err := b.Out(ctx, at)
		if forgot > 0 {
			s.o.Log.Info("a balancer had forgotten that a host is out, and was told", "pool", o.Pool.Name(), "host", o.Host,
				"server", o.Pool.Server, "balancers", forgot)
		}
		if err != nil && ctx.Err() == nil {
			s.o.Log.Debug("balancers not asked", "pool", o.Pool.Name(), "error", err)
		}
		return
	}
	if why, err := b.Serves(ctx, at); err == nil && why == "" {
		_ = s.o.Propose(ctx, deploy.TrafficSet{
			Host: o.Host, App: o.App, Pool: o.Pool, Stage: deploy.TrafficRestored,
		}) // else in the next round
	}
}

// orphaned reports whether nobody will ask for the way back: the pool is none of the
// target's any more, and no generation is open that may still ask.
func (s *Service) orphaned(o deploy.Outage) (yes bool) {
	s.o.View(func(st *deploy.State) {
		t := st.Target(o.Host, o.App)
		if t == nil || t.Open {
			return
		}
		traffic := st.TrafficOf(t)
		yes = traffic == nil || !slices.Contains(traffic.Pools, o.Pool)
	})
	return yes
}

// Doubts says why hosts could not be taken out of pools that coordinators drive: no
// such balancers, one that does not answer, an unknown backend or server.
func (s *Service) Doubts(ctx context.Context, pools []deploy.Pool) error {
	var errs []error
	servers := map[string][]haproxy.Server{}
	for _, p := range pools {
		if !p.AtCoordinator() {
			continue
		}
		if _, err := s.balancers(p); err != nil {
			if _, told := servers[p.Balancers]; !told {
				errs = append(errs, err)
				servers[p.Balancers] = nil
			}
			continue
		}
		servers[p.Balancers] = append(servers[p.Balancers], haproxy.Server{Backend: p.Backend, Name: p.Server})
	}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		if b := s.o.HAProxy[name]; b != nil {
			errs = append(errs, b.Known(ctx, servers[name]))
		}
	}
	return errors.Join(errs...)
}
