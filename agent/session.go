package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// welcomeTimeout bounds the time from dialling to Welcome.
const welcomeTimeout = 30 * time.Second

// greeting is a stream on which a coordinator has welcomed the host.
type greeting struct {
	address string
	conn    *grpc.ClientConn
	stream  agentv1.AgentService_SessionClient
	cancel  context.CancelFunc // of the stream
	welcome *agentv1.Welcome
}

func (g *greeting) close() {
	g.cancel()
	_ = g.conn.Close()
}

// greet says Hello to the coordinator at the address and takes its Welcome. The
// stream lives until ctx ends or the greeting is closed.
func (a *Agent) greet(ctx context.Context, address string) (_ *greeting, err error) {
	if address == "" {
		return nil, errors.New("no address of any coordinator is known; set --coordinator HOST:PORT")
	}
	g := &greeting{address: address}
	if g.conn, err = rpc.Dial([]string{address}, a.cred.Client(), a.o.dialer()...); err != nil {
		return nil, err
	}
	ctx, g.cancel = context.WithCancel(ctx)
	impatient := time.AfterFunc(welcomeTimeout, g.cancel)
	defer impatient.Stop()
	if err := a.welcomed(ctx, g); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// greetBeside greets another coordinator while a session goes on; the end of the
// session, of which ctx is, ends it.
func (a *Agent) greetBeside(ctx, outer context.Context, address string) (*greeting, error) {
	outer, cancel := context.WithCancel(outer)
	stop := context.AfterFunc(ctx, cancel)
	g, err := a.greet(outer, address)
	if err != nil {
		cancel()
		return nil, err
	}
	if !stop() {
		g.close()
		cancel()
		return nil, ctx.Err()
	}
	end := g.cancel
	g.cancel = func() { end(); cancel() }
	return g, nil
}

// welcomed waits for the Welcome of a coordinator of this epoch.
func (a *Agent) welcomed(ctx context.Context, g *greeting) error {
	var err error
	if g.stream, err = agentv1.NewAgentServiceClient(g.conn).Session(ctx); err != nil {
		return fmt.Errorf("open session: %s", rpc.Text(err))
	}
	hello, err := a.hello()
	if err != nil {
		return err
	}
	if err := g.stream.Send(&agentv1.Up{Message: &agentv1.Up_Hello{Hello: hello}}); err != nil &&
		!errors.Is(err, io.EOF) {
		return fmt.Errorf("say hello: %s", rpc.Text(err))
	}
	first, err := g.stream.Recv()
	if rpc.Kind(err) == rpc.KindSplit {
		return errSplitOff
	}
	if err != nil {
		return fmt.Errorf("wait for welcome: %s", rpc.Text(err))
	}
	if g.welcome = first.GetWelcome(); g.welcome == nil {
		return errors.New("the first message of the coordinator was no Welcome")
	}
	if err := a.ring.enter(g.welcome.Epoch); err != nil {
		return fmt.Errorf("%s: %w", g.welcome.Coordinator, err)
	}
	a.ring.told(g.welcome.Members)
	a.ring.welcomed(g.welcome.Coordinator)
	return a.instances.welcomed()
}

// session is one stream to one coordinator.
type session struct {
	a        *Agent
	stream   agentv1.AgentService_SessionClient
	logs     chan *agentv1.LogChunk
	sequence uint64 // of the last assignments
	readers  *logReaders
	pong     chan struct{} // an answer is due
	stale    chan bool     // what the coordinator says of itself; the newest
	moving   sync.Mutex
	next     *greeting // of a better coordinator, with errMoved
}

// session speaks with a coordinator that has welcomed the host until the stream
// ends, and answers why. With errMoved it answers the greeting of a better one.
// Reports are numbered above both sides' counters.
func (a *Agent) session(outer context.Context, at *greeting) (next *greeting, err error) {
	defer at.close()
	g, ctx := errgroup.WithContext(outer)
	defer context.AfterFunc(ctx, at.cancel)()
	a.out.connected(at.welcome.Counter, a.apps())
	a.o.Log.Info("session up", "coordinator", at.welcome.Coordinator)
	if at.welcome.Waits != "" {
		a.o.Log.Warn(at.welcome.Waits)
	}
	s := &session{a: a, stream: at.stream, logs: make(chan *agentv1.LogChunk, 4), pong: make(chan struct{}, 1)}
	s.stale = make(chan bool, 1)
	a.link.set(at.conn)
	defer a.link.clear()
	s.readers = &logReaders{host: a.host, out: s.logs, group: g, cancels: map[string]context.CancelFunc{}}
	g.Go(func() error { return s.send(ctx) })
	g.Go(func() error { return s.receive(ctx) })
	g.Go(func() error { return s.prefer(ctx, outer, at.address) })
	g.Go(func() error { return s.seek(ctx, outer, at.address) })
	g.Go(func() error { return s.until(ctx, a.reissued) })
	err = g.Wait()
	if s.next != nil && !errors.Is(err, errMoved) { // it ended by itself in that moment
		s.next.close()
		s.next = nil
	}
	return s.next, err
}

func (a *Agent) hello() (*agentv1.Hello, error) {
	counter, err := a.out.number()
	if err != nil {
		return nil, err
	}
	instance, former, err := a.instances.say()
	if err != nil {
		return nil, err
	}
	return &agentv1.Hello{
		Instance: instance, Former: former,
		Name: a.o.Name, Zone: a.o.Zone, Region: a.o.Region, Labels: a.o.Labels, Version: a.o.Version, Counter: counter,
		Epoch: a.ring.epoch(), Index: a.enrolledAt.Load(),
	}, nil
}

// send is the only sender on the stream. Reports go before output: nobody's
// reading may delay a result.
func (s *session) send(ctx context.Context) error {
	for {
		reports, err := s.a.out.take(s.a.report)
		if err != nil {
			return err
		}
		if len(reports) > 0 {
			if err := s.up(&agentv1.Up{Message: &agentv1.Up_Reports{Reports: &agentv1.Reports{Items: reports}}}); err != nil {
				return err
			}
		}
		late, err := s.late()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-late:
		case <-s.pong:
			err = s.up(&agentv1.Up{Message: &agentv1.Up_Pong{Pong: &agentv1.Pong{}}})
		case <-s.a.out.wake:
		case p := <-s.a.progress:
			err = s.up(&agentv1.Up{Message: &agentv1.Up_Progress{Progress: p}})
		case c := <-s.logs:
			err = s.up(&agentv1.Up{Message: &agentv1.Up_Log{Log: c}})
		}
		if err != nil {
			return err
		}
	}
}

// errSilent says that a coordinator takes reports and does not commit them.
var errSilent = errors.New("reports were not acknowledged in time")

// late returns a channel that wakes the sender when an acknowledgement will be
// overdue, and errSilent when one is.
func (s *session) late() (<-chan time.Time, error) {
	left, waiting := s.a.out.overdue()
	switch {
	case !waiting:
		return nil, nil
	case left <= 0:
		return nil, errSilent
	}
	return time.After(left), nil
}

func (s *session) up(m *agentv1.Up) error {
	if err := s.stream.Send(m); err != nil {
		return fmt.Errorf("send to the coordinator: %s", rpc.Text(err))
	}
	return nil
}

// errMoved says that the session was ended for a better coordinator's sake.
var errMoved = errors.New("the coordinator that this host belongs to is back")

// errReissued says that the host has a certificate of another CA to show.
var errReissued = errors.New("the host's certificate comes from another CA now")

// until ends the session when there is another certificate to show.
func (s *session) until(ctx context.Context, reissued <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-reissued:
		return errReissued
	}
}

// errGap says that assignments were lost on the way.
var errGap = errors.New("assignments came with a gap in their sequence")

func (s *session) receive(ctx context.Context) error {
	for {
		down, err := s.stream.Recv()
		if err != nil {
			return fmt.Errorf("the stream ended: %s", rpc.Text(err))
		}
		switch m := down.Message.(type) {
		case *agentv1.Down_Assignments:
			if err := s.assignments(m.Assignments); err != nil {
				return err
			}
		case *agentv1.Down_Acknowledged:
			s.a.out.acknowledged(m.Acknowledged.Counter)
		case *agentv1.Down_RingKeys:
			if err := s.a.ring.setKeys(m.RingKeys.Keys); err != nil { // gossip is a hint
				s.a.o.Log.Warn("the ring's new keys are not taken into use", "error", err)
			}
		case *agentv1.Down_Stale:
			select { // what was said before it is of no interest any more
			case <-s.stale:
			default:
			}
			s.stale <- m.Stale.Stale
		case *agentv1.Down_Ping:
			signal(s.pong)
		case *agentv1.Down_Members:
			s.a.ring.told(m.Members)
		case *agentv1.Down_Log:
			s.readers.handle(ctx, m.Log)
		case *agentv1.Down_Authorities:
			if m.Authorities.Hash != identity.Hash(s.a.cred.CA()) {
				s.a.cred.RenewSoon(time.Duration(m.Authorities.WithinMs) * time.Millisecond)
			}
		}
	}
}

func (s *session) assignments(m *agentv1.Assignments) error {
	if s.sequence == 0 && !m.Complete || s.sequence > 0 && m.Sequence != s.sequence+1 {
		return fmt.Errorf("%w: %d after %d", errGap, m.Sequence, s.sequence)
	}
	s.sequence = m.Sequence
	s.a.assign(m)
	return nil
}
