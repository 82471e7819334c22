// Package sessions serves agent streams: assignments out, reports in, batched.
package sessions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/groundswell/groundswell/deploy"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// State is the replica's own copy of the state.
type State interface {
	View(func(*deploy.State))
	// WatchHost wakes when what the host should do, or what every host is told of
	// the cluster, may have changed; stop ends that.
	WatchHost(host string) (changed <-chan struct{}, stop func())
}

// Log commits facts, through the leader if this replica is a follower.
type Log interface {
	Propose(ctx context.Context, events []deploy.Event) ([]error, error)
}

// Options of New. All functions may be called concurrently.
type Options struct {
	Name  string // of this coordinator
	State State
	Log   Log
	// of what hosts say of themselves as they come, many in one entry; nil is Log
	Joins    Log
	Identify func(context.Context) (host string, err error) // from the client certificate
	// Sign returns a short-lived URL of an object of a store.
	Sign func(ctx context.Context, app, store, key string) (string, error)
	// Presence is told when a host's stream comes and goes; it must not block.
	Presence func(host string, connected bool)
	// Progress is told what a host is doing; it must not block.
	Progress func(host string, p *agentv1.Progress)
	// Epoch is the cluster's, and whether it only observes: hosts then report, and
	// get no assignments. Nil is a cluster that acts.
	Epoch func() (epoch uint64, held bool)
	// Members are the coordinators' addresses, the same pointer while they are the
	// same. Nil tells hosts nothing.
	Members func() *agentv1.Members
	// Limited is told of what a host was slowed down in or refused, because it had
	// its share or nobody waits for it; it must not block. Nil is not told.
	Limited func(host, what string)
	// Attributes says what a host is, and how often a person has set that; nil for
	// one of which nothing is written down, which then is its name alone.
	Attributes func(host string) (is *deploy.Attributes, approved uint64)
	// Applied waits until this replica has read the log so far.
	Applied func(ctx context.Context, index uint64) error
	// RingKeys are those of the gossip ring, which hosts are told; nil tells nothing.
	RingKeys func() []byte
	// CutOff says why this replica does not know what is true now, nil if it does.
	// Tell has the hosts told.
	CutOff func() error
	// Begin has the log know which process of the host's agent speaks from now on,
	// and refuses one beside which another lives. Nil asks nobody.
	Begin func(ctx context.Context, host string, who Instance) error
	// Speaks returns the instance that does, by what is applied here.
	Speaks func(host string) string
	// Bounds are those of now; nil has none. WatchHost wakes when they change.
	Bounds func() Bounds
	// Authorities are what hosts are told of the cluster's CAs; nil is nothing yet.
	Authorities func() *agentv1.Authorities
}

// Service implements the agents' service on one replica.
type Service struct {
	agentv1.UnimplementedAgentServiceServer
	o      Options
	limits limits
	batch  chan report

	mu      sync.Mutex
	streams map[string]*stream
	logID   uint64
	told    chan struct{} // closed when one of them answers something else
}

// Tell has every host told what Authorities, CutOff and RingKeys answer now.
func (s *Service) Tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.told)
	s.told = make(chan struct{})
}

func (s *Service) authorities() (now *agentv1.Authorities, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o.Authorities(), s.told
}

// New returns a service; its reports go nowhere until Run runs.
func New(o Options) *Service {
	if o.Joins == nil {
		o.Joins = o.Log
	}
	if o.Epoch == nil {
		o.Epoch = func() (uint64, bool) { return 0, false }
	}
	if o.Bounds == nil {
		o.Bounds = func() Bounds { return Bounds{} }
	}
	if o.Members == nil {
		o.Members = func() *agentv1.Members { return nil }
	}
	if o.Limited == nil {
		o.Limited = func(string, string) {}
	}
	if o.RingKeys == nil {
		o.RingKeys = func() []byte { return nil }
	}
	if o.CutOff == nil {
		o.CutOff = func() error { return nil }
	}
	if o.Begin == nil {
		o.Begin = func(context.Context, string, Instance) error { return nil }
	}
	if o.Authorities == nil {
		o.Authorities = func() *agentv1.Authorities { return nil }
	}
	return &Service{
		o: o, limits: newLimits(), told: make(chan struct{}), batch: make(chan report, batchItems),
		streams: map[string]*stream{},
	}
}

// stream is one host's session.
type stream struct {
	host string
	who  Instance
	pong chan struct{}      // the machine has answered
	send chan *agentv1.Down // read by the sender alone
	done chan struct{}      // closed when the session ends
	stop context.CancelFunc
	ack  chan struct{} // acked rose

	asking chan struct{} // its one place is who waits for pong

	mu    sync.Mutex
	logs  map[string]*reader
	acked uint64 // highest counter that is in the log
	// unheard are applications of reports that were dropped because the host was
	// no target.
	unheard  map[string]bool
	returned time.Time // the last report that said that the host is reachable
}

// returnPause is how long a stream waits until it says so again.
const returnPause = 10 * time.Second

// returns reports whether the stream may say that its host is reachable.
func (s *stream) returns(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.returned) < returnPause {
		return false
	}
	s.returned = now
	return true
}

// mostUnheard bounds the list of a stream: a host has fewer applications, and
// reports none that it was told to be no target of.
const mostUnheard = 64

// note remembers that a report about the application is dropped; false if there
// are too many.
func (s *stream) note(app string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unheard == nil {
		s.unheard = map[string]bool{}
	}
	if len(s.unheard) >= mostUnheard && !s.unheard[app] {
		return false
	}
	s.unheard[app] = true
	return true
}

// forget takes the note back; whether there was one.
func (s *stream) forget(app string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	noted := s.unheard[app]
	delete(s.unheard, app)
	return noted
}

// acknowledge lets the sender tell the host that its reports up to counter are
// in the log. It never blocks: a host that does not read delays no other.
func (s *stream) acknowledge(counter uint64) {
	s.mu.Lock()
	s.acked = max(s.acked, counter)
	s.mu.Unlock()
	select {
	case s.ack <- struct{}{}:
	default:
	}
}

func (s *stream) acknowledged() *agentv1.Down {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &agentv1.Down{Message: &agentv1.Down_Acknowledged{Acknowledged: &agentv1.Acknowledged{Counter: s.acked}}}
}

// Connected returns the hosts that have a stream here, in order.
func (s *Service) Connected() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.streams))
}

// Session implements the agent's stream. A second stream of one host ends the
// first: the newer one is the agent that lives.
func (s *Service) Session(srv agentv1.AgentService_SessionServer) error {
	host, err := s.o.Identify(srv.Context())
	if err != nil {
		return err
	}
	first, err := srv.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return &deploy.Refusal{Reason: deploy.Invalid, Text: "the first message of a session must be Hello"}
	}
	if err := check(hello); err != nil {
		return err
	}
	if !s.limits.hellos.Allow(host, 1) {
		return s.refuse(host, "sessions")
	}
	if epoch, _ := s.o.Epoch(); hello.Epoch > epoch {
		return &deploy.Refusal{Reason: deploy.Conflict, Text: fmt.Sprintf(
			"this coordinator is of epoch %d of the cluster and the host has seen %d: it belongs to "+
				"the past", epoch, hello.Epoch)}
	}
	ctx, stop := context.WithCancel(srv.Context())
	defer stop()
	if err := s.o.CutOff(); err != nil {
		return err
	}
	who := Instance{ID: hello.Instance, Former: hello.Former, Address: caller(ctx)}
	if s.o.Speaks(host) != who.ID {
		if !s.limits.processes.Allow(host, 1) {
			return s.refuse(host, "new processes of its agent")
		}
		if err := s.o.Begin(ctx, host, who); err != nil {
			return err
		}
	}
	st := &stream{
		host: host, who: who, pong: make(chan struct{}, 1), asking: make(chan struct{}, 1),
		send: make(chan *agentv1.Down, 16), done: make(chan struct{}), stop: stop,
		ack: make(chan struct{}, 1), logs: map[string]*reader{},
	}
	// Present first, reachable then: the other way round the leader would call
	// the host unreachable again, whose stream it does not see yet.
	s.add(st)
	defer s.remove(st)
	if now := s.o.Speaks(host); now != who.ID {
		return anotherSpeaks // it began after this one, and Living did not see this stream yet
	}
	waits, err := s.enrolled(ctx, host, hello)
	if err != nil {
		return err
	}
	sent, received := make(chan error, 1), make(chan error, 1)
	go func() { sent <- s.sender(ctx, st, srv, waits) }()
	go func() { received <- s.receive(ctx, st, srv) }()
	// Whoever ends the session, returning from here is what ends the stream and
	// with it the reader, which nothing else can interrupt.
	select {
	case err = <-received:
	case <-ctx.Done():
	}
	stop()
	t := time.NewTimer(sendGrace)
	defer t.Stop()
	select {
	case <-sent:
	case <-t.C: // the host does not read; the sender ends with the stream
	}
	return err
}

// sendGrace is how long the end of a session waits for a message that is being
// sent.
const sendGrace = time.Second

// add and remove tell presence under the lock, so that it hears of comings and
// goings in the order in which they happened.
func (s *Service) add(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.streams[st.host]
	s.streams[st.host] = st
	if old != nil {
		old.stop()
		return
	}
	s.o.Presence(st.host, true)
}

func (s *Service) remove(st *stream) {
	close(st.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[st.host] == st {
		delete(s.streams, st.host)
		s.o.Presence(st.host, false)
	}
}

// sender is the only goroutine that sends on the stream.
func (s *Service) sender(ctx context.Context, st *stream, srv agentv1.AgentService_SessionServer, waits string) error {
	var counter uint64
	s.o.State.View(func(state *deploy.State) {
		if h := state.Hosts[st.host]; h != nil {
			counter = h.Counter
		}
	})
	epoch, _ := s.o.Epoch()
	members := s.o.Members()
	err := srv.Send(&agentv1.Down{Message: &agentv1.Down_Welcome{Welcome: &agentv1.Welcome{
		Counter: counter, Coordinator: s.o.Name, Epoch: epoch, Members: members, Waits: waits,
	}}})
	last := assigned{complete: true, unheard: st.forget}
	changed, unwatch := s.o.State.WatchHost(st.host)
	defer unwatch()
	stale, ring := false, []byte(nil)
	for said := ""; err == nil; {
		now, others := s.authorities()
		if now != nil && now.Hash != said {
			said = now.Hash
			if err = srv.Send(&agentv1.Down{Message: &agentv1.Down_Authorities{Authorities: now}}); err != nil {
				break
			}
		}
		if now := s.o.RingKeys(); !bytes.Equal(now, ring) {
			ring = now
			if err = srv.Send(&agentv1.Down{Message: &agentv1.Down_RingKeys{RingKeys: &agentv1.RingKeys{Keys: ring}}}); err != nil {
				break
			}
		}
		if is := s.o.CutOff() != nil; is != stale {
			stale = is
			if err = srv.Send(&agentv1.Down{Message: &agentv1.Down_Stale{Stale: &agentv1.Stale{Stale: is}}}); err != nil {
				break
			}
		}
		if m := s.next(&last, st.host); m != nil {
			if err = srv.Send(&agentv1.Down{Message: &agentv1.Down_Assignments{Assignments: m}}); err != nil {
				break
			}
		}
		if now := s.o.Members(); now != members {
			members = now
			if err = srv.Send(&agentv1.Down{Message: &agentv1.Down_Members{Members: now}}); err != nil {
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-others:
		case <-st.ack:
			err = srv.Send(st.acknowledged())
		case m := <-st.send:
			err = srv.Send(m)
		}
	}
	st.stop()
	return err
}

// next is what the host is to be told; nothing while the cluster observes: an
// assignment of a state that went back in time could undo what the host knows.
func (s *Service) next(last *assigned, host string) *agentv1.Assignments {
	if _, held := s.o.Epoch(); held {
		return nil
	}
	return last.next(s.o.State, host, s.o.Bounds())
}

// receive reads the stream until it ends.
func (s *Service) receive(ctx context.Context, st *stream, srv agentv1.AgentService_SessionServer) error {
	for {
		up, err := srv.Recv()
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.pace(ctx, st.host, up); err != nil {
			return err
		}
		switch m := up.Message.(type) {
		case *agentv1.Up_Reports:
			if err := s.accept(ctx, st, m.Reports); err != nil {
				return err
			}
		case *agentv1.Up_Pong:
			select {
			case st.pong <- struct{}{}:
			default:
			}
		case *agentv1.Up_Log:
			st.deliver(m.Log)
		case *agentv1.Up_Progress:
			s.progress(st.host, m.Progress)
		}
	}
}

// progress passes on what a host does for an application that it is a target
// of; nothing else is remembered of it.
func (s *Service) progress(host string, p *agentv1.Progress) {
	known := false
	s.o.State.View(func(st *deploy.State) { known = st.Target(host, p.App) != nil })
	if known {
		p.Event, p.Script, p.Deployment = clip(p.Event, 64), clip(p.Script, 512), clip(p.Deployment, 64)
		s.o.Progress(host, p)
	}
}

// SignArtifact returns a URL of an object of a store that one of the caller's
// groups uses.
func (s *Service) SignArtifact(ctx context.Context,
	r *agentv1.SignArtifactRequest,
) (*agentv1.SignArtifactResponse, error) {
	host, err := s.o.Identify(ctx)
	if err != nil {
		return nil, err
	}
	store := ""
	s.o.State.View(func(st *deploy.State) {
		if t := st.Target(host, r.App); t != nil && t.Group == r.Group {
			store = st.Groups[deploy.GroupKey(t.App, t.Group)].Artifacts
		}
	})
	if store == "" {
		return nil, &deploy.Refusal{
			Reason: deploy.NotFound,
			Text:   fmt.Sprintf("this host is no target of %s/%s", r.App, r.Group),
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	url, err := s.o.Sign(ctx, r.App, store, r.Key)
	if err != nil {
		return nil, fmt.Errorf("sign %s of %s: %w", r.Key, store, err)
	}
	return &agentv1.SignArtifactResponse{Url: url}, nil
}
