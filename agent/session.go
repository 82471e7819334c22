package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// welcomeTimeout bounds the time from dialling to Welcome.
const welcomeTimeout = 30 * time.Second

// session is one stream to one coordinator.
type session struct {
	a        *Agent
	stream   agentv1.AgentService_SessionClient
	logs     chan *agentv1.LogChunk
	sequence uint64 // of the last assignments
	readers  *logReaders
}

// session speaks with the coordinator at the address until the stream ends.
// It answers whether it was welcomed, and why it ended.
func (a *Agent) session(ctx context.Context, address string) (welcomed bool, err error) {
	if address == "" {
		return false, errors.New("no address of any coordinator is known; set --coordinator HOST:PORT")
	}
	cc, err := rpc.Dial([]string{address}, a.cred.Client(), a.o.dialer()...)
	if err != nil {
		return false, err
	}
	defer func() { _ = cc.Close() }()
	g, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{a: a, logs: make(chan *agentv1.LogChunk, 4)}
	if err := s.open(ctx, cancel, agentv1.NewAgentServiceClient(cc)); err != nil {
		return false, err
	}
	a.link.set(cc)
	defer a.link.clear()
	s.readers = &logReaders{host: a.host, out: s.logs, group: g, cancels: map[string]context.CancelFunc{}}
	g.Go(func() error { return s.send(ctx) })
	g.Go(func() error { return s.receive(ctx) })
	g.Go(func() error { return s.prefer(ctx, address) })
	g.Go(func() error { return s.until(ctx, a.reissued) })
	return true, g.Wait()
}

// open says Hello and takes the Welcome; reports are numbered above both
// sides' counters from then on.
func (s *session) open(ctx context.Context, cancel context.CancelFunc, c agentv1.AgentServiceClient) error {
	impatient := time.AfterFunc(welcomeTimeout, cancel)
	defer impatient.Stop()
	stream, err := c.Session(ctx)
	if err != nil {
		return fmt.Errorf("open session: %s", rpc.Text(err))
	}
	s.stream = stream
	hello, err := s.a.hello()
	if err != nil {
		return err
	}
	if err := stream.Send(&agentv1.Up{Message: &agentv1.Up_Hello{Hello: hello}}); err != nil &&
		!errors.Is(err, io.EOF) {
		return fmt.Errorf("say hello: %s", rpc.Text(err))
	}
	first, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("wait for welcome: %s", rpc.Text(err))
	}
	w := first.GetWelcome()
	if w == nil {
		return errors.New("the first message of the coordinator was no Welcome")
	}
	if err := s.a.ring.enter(w.Epoch); err != nil {
		return fmt.Errorf("%s: %w", w.Coordinator, err)
	}
	s.a.out.connected(w.Counter, s.a.apps())
	s.a.o.Log.Info("session up", "coordinator", w.Coordinator)
	return nil
}

func (a *Agent) hello() (*agentv1.Hello, error) {
	counter, err := a.out.number()
	if err != nil {
		return nil, err
	}
	return &agentv1.Hello{
		Name: a.o.Name, Zone: a.o.Zone, Region: a.o.Region, Labels: a.o.Labels, Version: a.o.Version, Counter: counter,
		Epoch: a.ring.epoch(),
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
