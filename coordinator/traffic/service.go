// Package traffic takes hosts out of the pools that coordinators drive, and puts them
// back, when their agents ask in the middle of a step.
//
// What a pool said before it was asked first is in the log before it is asked, so it
// is put back as it was found whatever dies in between: the next call, at this or
// another coordinator, finds the outage in the state and goes on. Every call to a
// pool is idempotent and may be made twice. While an outage lasts the leader asserts
// it again and again, so a balancer that forgot, or a call that came late, is put right;
// a call that comes after its end is not.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
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
type Service struct {
	o Options

	mu   sync.Mutex
	busy map[[2]string]bool      // hosts and applications that a request is about
	read map[[2]string]time.Time // when the log was last asked for one
}

// New returns the service.
func New(o Options) *Service {
	return &Service{o: o, busy: map[[2]string]bool{}, read: map[[2]string]time.Time{}}
}

// Times of Serve.
const (
	often   = 200 * time.Millisecond // how often a pool is asked how far it is
	readGap = time.Second            // between entries that one host's questions cost
)

// Serve takes the host out of a pool, or puts it back, and returns once it is so. It
// sends what it waits for. Only the host itself is moved: out of a pool of its own
// group while it holds a permit, and back into one that it was taken out of. A host has
// one request for an application at a time.
func (s *Service) Serve(
	ctx context.Context, host string, r *agentv1.TrafficRequest, send func(*agentv1.TrafficProgress) error,
) error {
	p := decode(r.Pool)
	may, err := s.may(host, r, p)
	if err != nil {
		return err
	}
	done, err := s.begin(host, r.App)
	if err != nil {
		return err
	}
	defer done()
	m := member{
		s: s, pool: p, host: host, app: r.App, send: send,
		at: haproxy.Server{Backend: p.Backend, Name: p.Server},
	}
	limit := may.limit
	if r.LimitNs > 0 {
		limit = min(limit, time.Duration(r.LimitNs))
	}
	m.ends = time.Now().Add(limit)
	if r.Allow && !may.out {
		if may.known {
			if err := m.current(ctx); err != nil {
				return err
			}
		}
		if r.Restore && m.outage() == nil { // a way back, whatever became of the pool
			return send(&agentv1.TrafficProgress{Done: true, Text: "it was not taken out"})
		}
	}
	if m.b, err = s.balancers(p); err != nil {
		return err
	}
	if r.Allow {
		return m.allow(ctx)
	}
	return m.block(ctx, r.DrainFails)
}

// begin takes the place of the one request that a host may have.
func (s *Service) begin(host, app string) (done func(), err error) {
	key := [2]string{host, app}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[key] {
		return nil, unavailable{fmt.Errorf("another request of this host about %s is not over", app)}
	}
	s.busy[key] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.busy, key)
	}, nil
}

// current has this replica know what every other had written down of the host before:
// an entry that changes nothing is applied here. A host has one a second.
func (m *member) current(ctx context.Context) error {
	key := [2]string{m.host, m.app}
	m.s.mu.Lock()
	at := m.s.read[key].Add(readGap)
	if now := time.Now(); at.Before(now) {
		at = now
	}
	m.s.read[key] = at
	if len(m.s.read) > 1<<16 { // of hosts that are gone too
		clear(m.s.read)
	}
	m.s.mu.Unlock()
	if !backoff.Pause(ctx, time.Until(at)) {
		return ctx.Err()
	}
	return m.set(ctx, deploy.TrafficAllowed, nil)
}

func decode(p *agentv1.Pool) deploy.Pool {
	return deploy.Pool{
		Kind: p.GetKind(), Balancers: p.GetBalancers(), Backend: p.GetBackend(), Server: p.GetServer(), Path: p.GetPath(),
		Block: p.GetBlock(), Allow: p.GetAllow(), Settle: time.Duration(p.GetSettleNs()),
		Port: int(p.GetPort()),
	}
}

func refuse(kind deploy.RefusalKind, format string, args ...any) error {
	return &deploy.Refusal{Reason: kind, Text: fmt.Sprintf(format, args...)}
}

// allowed is what a host may have done.
type allowed struct {
	limit time.Duration
	out   bool // of the pool
	known bool // the pool is one of its group's
}

// may says why the host may not do that.
func (s *Service) may(host string, r *agentv1.TrafficRequest, p deploy.Pool) (is allowed, err error) {
	s.o.View(func(st *deploy.State) {
		is.limit, is.out = deploy.AdmitTimeout, st.Outage(host, r.App, p) != nil
		t := st.Target(host, r.App)
		if r.Allow && st.Drained(host) {
			err = refuse(deploy.Conflict, "this host is drained, and stays out of %s until it is undrained", p.Name())
			return
		}
		if t == nil {
			if !r.Allow || !is.out {
				err = refuse(deploy.NotFound, "this host is no target of %s", r.App)
			}
			return
		}
		if traffic := st.TrafficOf(t); traffic != nil {
			is.known, is.limit = slices.Contains(traffic.Pools, p), traffic.Admit
			if !r.Allow {
				is.limit = traffic.Drain
			}
		}
		name := ""
		if h := st.Hosts[host]; h != nil {
			name = h.Name
		}
		switch {
		case is.out:
		case r.Generation > t.Gen:
			err = unavailable{fmt.Errorf("this coordinator has not read of generation %d of %s yet",
				r.Generation, r.App)}
		case r.Generation < t.Gen:
			err = refuse(deploy.Conflict, "generation %d of %s is not this host's newest, %d", r.Generation,
				r.App, t.Gen)
		case !is.known && r.Allow && r.Restore:
		case !is.known:
			err = refuse(deploy.NotFound, "%s is no pool of this host's group of %s", p.Name(), r.App)
		case !r.Allow && (!t.Open || t.Permit == deploy.PermitNone) && !st.Drained(host):
			err = refuse(deploy.Conflict, "this host has no permit for %s, so it stays in %s", r.App, p.Name())
		case st.Names[name] != host: // whoever had it first moves by it
			err = refuse(deploy.Conflict, "%d hosts are called %s, and %s knows them by that; give this one another name "+
				"(`dctl hosts label %s --name OTHER`)", len(st.Named(name)), name, p.Name(), host)
		}
	})
	if is.limit <= 0 {
		is.limit = deploy.DrainTimeout
	}
	return is, err
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
		return nil, unavailable{fmt.Errorf("no balancers are called %s in this coordinator's file (balancers: %s); every "+
			"coordinator's file needs them", p.Balancers, known)}
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

func (m *member) allow(ctx context.Context) error {
	out := m.outage()
	var found []string
	if out != nil {
		found = out.Found
		if lacks := m.b.Lacks(found); lacks != "" {
			return m.failed(fmt.Errorf("the host was taken out of balancer %s too, which this coordinator's file does not name; "+
				"the files of all coordinators name the same balancers", lacks))
		}
		// Before anybody looks who else is out: of two that come back at once, the later in
		// the log sees the other allowed or gone, and puts it back.
		if err := m.set(ctx, deploy.TrafficAllowed, nil); err != nil {
			return err
		}
	}
	for {
		if out != nil && m.shared() { // whoever is the last to be back has it put back
			if err := m.set(ctx, deploy.TrafficRestored, nil); err != nil {
				return err
			}
			return m.send(&agentv1.TrafficProgress{
				Done: true,
				Text: "another application of the host is still out of it",
			})
		}
		waits, answered, silent := m.b.Settle(ctx, m.at, found)
		late := time.Now().After(m.ends)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case waits == "" && silent == nil:
			if out != nil {
				if err := m.set(ctx, deploy.TrafficRestored, nil); err != nil {
					return err
				}
			}
			return m.send(&agentv1.TrafficProgress{Done: true})
		case late && waits == "" && answered > 0: // the leader tells the others when they are back
			return m.send(&agentv1.TrafficProgress{Done: true, Text: silent.Error()})
		case late && silent != nil:
			return m.notTaken(ctx, out, errors.Join(errors.New(waits), silent))
		case late:
			return m.notTaken(ctx, out, errors.New(waits))
		}
		if silent != nil {
			waits += " " + silent.Error()
		}
		if err := m.send(&agentv1.TrafficProgress{Text: waits}); err != nil {
			return err
		}
		if !backoff.Pause(ctx, often) {
			return ctx.Err()
		}
	}
}

// shared reports whether somebody else of the cluster is out of the same place.
func (m *member) shared() (yes bool) {
	m.s.o.View(func(st *deploy.State) {
		for _, o := range st.Outages {
			other := o.Host != m.host || o.App != m.app
			yes = yes || other && !o.Allowed && o.Pool.Same(m.pool) && st.Hosts[o.Host] != nil
		}
	})
	return yes
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
	patience = 10 * time.Second // with one outage
	atOnce   = 16
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
	var round sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, o := range all {
		slots <- struct{}{}
		round.Go(func() {
			defer func() { <-slots }()
			s.assert(ctx, o)
		})
	}
	round.Wait()
}

// assert is about an outage as it is now: a round is long.
func (s *Service) assert(ctx context.Context, was deploy.Outage) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m := member{s: s, pool: was.Pool, host: was.Host, app: was.App}
	o, here := m.outage(), false
	s.o.View(func(st *deploy.State) { here = st.Hosts[was.Host] != nil })
	if o == nil || !here { // of a host that is gone nobody moves anything
		return
	}
	b, err := s.balancers(o.Pool)
	if err != nil || b.Lacks(o.Found) != "" {
		return // who asks for it is told
	}
	m.b, m.at = b, haproxy.Server{Backend: o.Pool.Backend, Name: o.Pool.Server}
	if !o.Allowed && s.orphaned(*o) {
		err := m.set(ctx, deploy.TrafficAllowed, nil)
		s.o.Log.Info("a host is put back into a pool that its group does not have any more", "pool", o.Pool.Name(),
			"host", o.Host, "error", err)
		return
	}
	if o.Allowed && m.shared() {
		return
	}
	if o.Allowed {
		if waits, _, silent := b.Settle(ctx, m.at, o.Found); waits == "" && silent == nil {
			_ = m.set(ctx, deploy.TrafficRestored, nil) // else in the next round
		}
		return
	}
	forgot, err := b.Out(ctx, m.at)
	if forgot == 0 {
		if err != nil && ctx.Err() == nil {
			s.o.Log.Debug("balancers not asked", "pool", o.Pool.Name(), "error", err)
		}
		return
	}
	if now := m.outage(); (now == nil || now.Allowed) && !m.shared() { // it was let in meanwhile
		_, _, err = b.Settle(ctx, m.at, o.Found)
	}
	s.o.Log.Info("a balancer had forgotten that a host is out, and was told", "pool", o.Pool.Name(), "host", o.Host,
		"server", o.Pool.Server, "balancers", forgot, "error", err)
}

// orphaned reports whether nobody will ask for the way back: the pool is none of the
// target's any more, and no generation is open that may still ask.
func (s *Service) orphaned(o deploy.Outage) (yes bool) {
	s.o.View(func(st *deploy.State) {
		t := st.Target(o.Host, o.App)
		if st.Drained(o.Host) || t != nil && t.Open {
			return
		}
		if t == nil { // it left its group, without a permit
			yes = st.Hosts[o.Host] != nil
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
