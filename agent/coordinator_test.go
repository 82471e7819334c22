package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// fake is a coordinator in miniature behind a real TLS server. It is there to
// see what an agent says and to inject faults; it decides nothing.
type fake struct {
	patience time.Duration // of until, 20 s at least
	agentv1.UnimplementedAgentServiceServer
	agentv1.UnimplementedEnrolmentServiceServer
	t     *testing.T
	ca    *identity.CA
	token identity.Token
	addr  string
	sign  func(key string) (string, error)
	seeds []string // of gossip

	mu       sync.Mutex
	server   *rpc.Server
	enrolled int
	renewed  int
	sessions int
	greeted  int // and refused
	hello    *agentv1.Hello
	counter  uint64 // the last applied one
	reports  []*agentv1.Report
	progress []string
	chunks   []*agentv1.LogChunk
	items    map[string]*agentv1.Assignment
	push     chan *agentv1.Down
	kill     context.CancelFunc
	loseAcks bool // reports are dropped, and with them the session
	withhold bool // SignArtifact answers unavailable
	sequence uint64
	epoch    uint64           // of the Welcome
	members  *agentv1.Members // of the Welcome
	refuse   bool             // nobody is welcomed
	skipNext bool             // leave a gap in the sequence
}

func newFake(t *testing.T, ca *identity.CA) *fake {
	t.Helper()
	f := &fake{t: t, ca: ca, items: map[string]*agentv1.Assignment{}, token: identity.NewToken(ca.PEM)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	f.addr = l.Addr().String()
	f.serve(l)
	t.Cleanup(f.stop)
	return f
}

func (f *fake) serve(l net.Listener) {
	keyPEM, csr, err := identity.NewKey()
	must(f.t, err)
	certPEM, err := f.ca.Issue(csr, identity.Coordinator, "c1")
	must(f.t, err)
	cred, err := identity.NewCredential(certPEM, keyPEM, f.ca.PEM)
	must(f.t, err)
	agents := rpc.Rule{Roles: []identity.Role{identity.Agent}}
	s := rpc.NewServer(rpc.ServerOptions{Credential: cred, Anonymous: true, Table: rpc.Table{
		agentv1.EnrolmentService_Roots_FullMethodName:    {Anonymous: true},
		agentv1.EnrolmentService_Enrol_FullMethodName:    {Anonymous: true},
		agentv1.AgentService_Session_FullMethodName:      agents,
		agentv1.AgentService_SignArtifact_FullMethodName: agents,
		agentv1.AgentService_Renew_FullMethodName:        agents,
	}})
	agentv1.RegisterAgentServiceServer(s, f)
	agentv1.RegisterEnrolmentServiceServer(s, f)
	f.mu.Lock()
	f.server = s
	f.mu.Unlock()
	go func() { _ = s.Serve(l) }()
}

func (f *fake) stop() {
	f.mu.Lock()
	s := f.server
	f.mu.Unlock()
	s.Stop()
}

// restart serves again on the same address.
func (f *fake) restart() {
	f.t.Helper()
	l, err := net.Listen("tcp", f.addr)
	must(f.t, err)
	f.serve(l)
}

func (f *fake) Roots(context.Context, *agentv1.RootsRequest) (*agentv1.RootsResponse, error) {
	return &agentv1.RootsResponse{CaPem: f.ca.PEM}, nil
}

func (f *fake) Enrol(_ context.Context, r *agentv1.EnrolRequest) (*agentv1.EnrolResponse, error) {
	if r.Token != f.token.String() {
		return nil, rpc.Errorf(rpc.KindUnauthorised, "this token is not known")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.enrolled++
	id := r.HostId
	if id == "" {
		id = "h-1"
	}
	cert, err := f.ca.Issue(r.CsrDer, identity.Agent, id)
	if err != nil {
		return nil, err
	}
	return &agentv1.EnrolResponse{
		HostId: id, CertificatePem: cert, CaPem: f.ca.PEM, GossipKey: bytes.Repeat([]byte{7},
			32), Coordinators: []string{f.addr}, GossipSeeds: f.seeds, ClusterId: "test",
	}, nil
}

func (f *fake) Renew(ctx context.Context, r *agentv1.RenewRequest) (*agentv1.EnrolResponse, error) {
	who, _ := rpc.Caller(ctx)
	cert, err := f.ca.Issue(r.CsrDer, identity.Agent, who.ID)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renewed++
	return &agentv1.EnrolResponse{HostId: who.ID, CertificatePem: cert, CaPem: f.ca.PEM}, nil
}

func (f *fake) SignArtifact(_ context.Context, r *agentv1.SignArtifactRequest) (*agentv1.SignArtifactResponse, error) {
	f.mu.Lock()
	away := f.withhold
	f.mu.Unlock()
	if away {
		return nil, rpc.Errorf(rpc.KindUnavailable, "no leader")
	}
	url, err := f.sign(r.Key)
	if err != nil {
		return nil, err
	}
	return &agentv1.SignArtifactResponse{Url: url}, nil
}

func (f *fake) Session(srv agentv1.AgentService_SessionServer) error {
	first, err := srv.Recv()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(srv.Context())
	defer cancel()
	push := make(chan *agentv1.Down, 64)
	f.mu.Lock()
	if f.refuse {
		f.greeted++
		f.mu.Unlock()
		return rpc.Errorf(rpc.KindUnavailable, "not now")
	}
	f.sessions, f.hello, f.push, f.kill, f.sequence = f.sessions+1, first.GetHello(), push, cancel, 1
	all := &agentv1.Assignments{Complete: true, Sequence: 1}
	for _, a := range f.items {
		all.Items = append(all.Items, a)
	}
	welcome := &agentv1.Welcome{Counter: f.counter, Coordinator: "c1", Epoch: f.epoch, Members: f.members}
	f.mu.Unlock()
	if err := errors.Join(
		srv.Send(&agentv1.Down{Message: &agentv1.Down_Welcome{Welcome: welcome}}),
		srv.Send(&agentv1.Down{Message: &agentv1.Down_Assignments{Assignments: all}}),
	); err != nil {
		return err
	}
	go f.receive(srv, cancel)
	for {
		select {
		case <-ctx.Done():
			return errors.New("the stream was cut")
		case m := <-push:
			if err := srv.Send(m); err != nil {
				return err
			}
		}
	}
}

func (f *fake) receive(srv agentv1.AgentService_SessionServer, cancel func()) {
	for {
		up, err := srv.Recv()
		if err != nil {
			cancel()
			return
		}
		f.mu.Lock()
		switch m := up.Message.(type) {
		case *agentv1.Up_Reports:
			f.apply(m.Reports, cancel)
		case *agentv1.Up_Progress:
			f.progress = append(f.progress, m.Progress.Event)
		case *agentv1.Up_Log:
			f.chunks = append(f.chunks, m.Log)
		}
		f.mu.Unlock()
	}
}

func (f *fake) apply(m *agentv1.Reports, cancel func()) {
	if f.loseAcks {
		f.loseAcks = false
		cancel()
		return
	}
	for _, r := range m.Items {
		if r.Counter <= f.counter {
			f.t.Errorf("report counter %d is not above %d", r.Counter, f.counter)
		}
		f.counter = max(f.counter, r.Counter)
		f.reports = append(f.reports, r)
	}
	f.down(&agentv1.Down{Message: &agentv1.Down_Acknowledged{Acknowledged: &agentv1.Acknowledged{Counter: f.counter}}})
}

// down queues a message, unless the session is dead and full.
func (f *fake) down(m *agentv1.Down) {
	select {
	case f.push <- m:
	default:
	}
}

// assign changes an application's assignment, as a state change would.
func (f *fake) assign(a *agentv1.Assignment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a = proto.CloneOf(a)
	f.items[a.App] = a
	if f.push == nil {
		return
	}
	f.sequence++
	if f.skipNext {
		f.skipNext, f.sequence = false, f.sequence+1
	}
	f.down(&agentv1.Down{Message: &agentv1.Down_Assignments{Assignments: &agentv1.Assignments{
		Sequence: f.sequence, Items: []*agentv1.Assignment{a},
	}}})
}

// depart takes an application away from the host.
func (f *fake) depart(app string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.items, app)
	f.sequence++
	f.down(&agentv1.Down{Message: &agentv1.Down_Assignments{Assignments: &agentv1.Assignments{
		Sequence: f.sequence, Removed: []string{app},
	}}})
}

func (f *fake) ask(r *agentv1.LogRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down(&agentv1.Down{Message: &agentv1.Down_Log{Log: r}})
}

// cut ends the session as a dying coordinator would.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kill()
}

// with calls do under the lock.
func (f *fake) with(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// report waits for a report for which ok answers true, and returns it.
func (f *fake) report(what string, ok func(*agentv1.Report) bool) *agentv1.Report {
	f.t.Helper()
	var found *agentv1.Report
	f.until("report: "+what, func() bool {
		for _, r := range f.reports {
			if ok(r) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// result waits for the report that closes a generation.
func (f *fake) result(generation uint64, want agentv1.Result) *agentv1.Report {
	f.t.Helper()
	r := f.report(fmt.Sprintf("generation %d closed", generation), func(r *agentv1.Report) bool {
		return r.Generation == generation && r.Result != agentv1.Result_RESULT_UNSPECIFIED
	})
	if r.Result != want {
		f.t.Fatalf("generation %d ended as %s, want %s: %v", generation, r.Result, want, r)
	}
	return r
}

// output waits for the end of a log request and returns what came.
func (f *fake) output(id string) string {
	f.t.Helper()
	var text []byte
	f.until("end of log "+id, func() bool {
		text = nil
		for _, c := range f.chunks {
			if c.Id != id {
				continue
			}
			text = append(text, c.Data...)
			if len(c.Data) > 32<<10 {
				f.t.Errorf("a chunk has %d bytes", len(c.Data))
			}
			if c.End {
				text = append(text, c.Error...)
				return true
			}
		}
		return false
	})
	return string(text)
}

// until polls under the lock what has no signal.
func (f *fake) until(what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(max(f.patience, 20*time.Second)); ; time.Sleep(2 * time.Millisecond) {
		f.mu.Lock()
		done := ok()
		f.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("waited in vain for: %s; reports %v", what, f.reports)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
