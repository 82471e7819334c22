package bench

import (
	"context"
	crypto "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// host is one simulated agent. It speaks with coordinators as a real one does:
// a key and a certificate of its own, one connection and stream, reports of
// whole states, one progress message a lifecycle event. Its work takes no time.
// One goroutine uses it.
type host struct {
	w       *Worker
	i       int // of all hosts
	cred    *identity.Credential
	key     []byte // PEM, and the request for its certificate, until it has that
	request []byte
	// enrolledAt is the index of the log that knows it, and instance tells it from a
	// copy, as of a real agent's process.
	enrolledAt uint64
	instance   string
	counter    uint64
	epoch      uint64
	targets    map[string]*target
	place      int // of the coordinator that is tried, in the order of this host
}

// target is one application of a host.
type target struct {
	gen     uint64
	running string
	healthy bool
	result  agentv1.Result
	staged  []string
}

// Bounds of a simulated agent's patience, those of a real one.
const (
	enrolTimeout   = 10 * time.Second
	welcomeTimeout = 30 * time.Second
	backoffFirst   = 100 * time.Millisecond
	backoffLongest = 5 * time.Second
	stagedKept     = 3
)

// lifecycle are the events that one task says it is at.
var lifecycle = []string{
	"ApplicationStop", "BeforeInstall", "Install", "AfterInstall", "ApplicationStart", "ValidateService",
}

// source is the loopback address of the host: shares are by address.
func (h *host) source() net.IP { return net.IPv4(127, 1+byte(h.i>>16), byte(h.i>>8), byte(h.i)) }

// dial connects from the host's own address.
func (h *host) dial() grpc.DialOption {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: h.source()}}
	return grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", addr)
	})
}

// coordinator is the address that is tried now. Hosts are spread evenly, and
// those of one coordinator evenly over the others.
func (h *host) coordinator() string {
	all := h.w.o.Coordinators
	n := len(all)
	at := h.i + h.place
	if h.i/n%2 == 1 { // half of them go round the other way
		at = h.i + (n-1)*h.place
	}
	return all[at%n]
}

// enrol trades the token for an identity. The key stays the same however often it
// is asked: an answer that was lost is given again.
func (h *host) enrol(ctx context.Context) error {
	if h.key == nil {
		var err error
		if h.key, h.request, err = identity.NewKey(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	cc, err := rpc.Dial([]string{h.coordinator()}, h.w.joining.Clone(), h.dial())
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	out, err := agentv1.NewEnrolmentServiceClient(cc).Enrol(ctx, &agentv1.EnrolRequest{
		Token: h.w.o.Token, CsrDer: h.request, Name: h.name(), Role: string(identity.Agent),
		Zone: h.zone(), Labels: h.labels(), Instance: h.instance,
	})
	if err != nil {
		return fmt.Errorf("enrol: %s", rpc.Text(err))
	}
	h.cred, err = identity.NewCredential(out.CertificatePem, h.key, out.CaPem)
	h.key, h.request, h.enrolledAt = nil, nil, out.Index
	return err
}

func (h *host) zone() string { return "eu-1" + string(rune('a'+h.i%3)) }

func (h *host) labels() map[string]string {
	return map[string]string{"role": "bench", "slot": h.w.o.Shape.Slot(h.i)}
}

func (h *host) name() string { return fmt.Sprintf("bench-%05d", h.i) }

// run enrols and has one session after the other until ctx ends. Joined is called at
// the first welcome.
func (h *host) run(ctx context.Context, joined func()) {
	h.targets, h.instance = map[string]*target{}, crypto.Text()
	pause := backoffFirst
	again := func(err error) bool {
		h.w.trouble(h.name(), err)
		t := time.NewTimer(pause/2 + rand.N(pause))
		defer t.Stop()
		pause = min(backoffLongest, pause*16/10)
		select {
		case <-t.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for h.cred == nil {
		if err := h.enrol(ctx); err != nil {
			h.place++
			if !again(err) {
				return
			}
		}
	}
	for {
		err := h.session(ctx, func() { joined(); pause = backoffFirst })
		if ctx.Err() != nil {
			return
		}
		h.place++
		if !again(err) {
			return
		}
	}
}

// session is one stream until it ends.
func (h *host) session(ctx context.Context, welcomed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cc, err := rpc.Dial([]string{h.coordinator()}, h.cred.Client(), h.dial())
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	impatient := time.AfterFunc(welcomeTimeout, cancel)
	stream, err := h.greet(ctx, cc)
	switch {
	case !impatient.Stop():
		return errors.New("open session: no welcome in time")
	case err != nil:
		return fmt.Errorf("open session: %s", rpc.Text(err))
	}
	h.w.up(h, cancel)
	defer h.w.down(h)
	welcomed()
	if err := h.reportAll(stream); err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("session: %s", rpc.Text(err))
		}
		if m.GetPing() != nil {
			if err := stream.Send(&agentv1.Up{Message: &agentv1.Up_Pong{Pong: &agentv1.Pong{}}}); err != nil {
				return err
			}
		}
		if a := m.GetAssignments(); a != nil {
			if err := h.assigned(stream, a); err != nil {
				return err
			}
		}
	}
}

func (h *host) greet(ctx context.Context, cc *grpc.ClientConn) (agentv1.AgentService_SessionClient, error) {
	stream, err := agentv1.NewAgentServiceClient(cc).Session(ctx)
	if err != nil {
		return nil, err
	}
	hello := &agentv1.Hello{
		Name: h.name(), Zone: h.zone(), Version: "bench", Counter: h.counter, Epoch: h.epoch, Labels: h.labels(),
		Instance: h.instance, Index: h.enrolledAt,
	}
	if err := stream.Send(&agentv1.Up{Message: &agentv1.Up_Hello{Hello: hello}}); err != nil {
		_, err = stream.Recv() // it says why
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	w := first.GetWelcome()
	if w == nil {
		return nil, errors.New("the first message was no Welcome")
	}
	h.counter, h.epoch = max(h.counter, w.Counter), max(h.epoch, w.Epoch)
	return stream, nil
}

// reportAll says how every target is, as at the start of a session.
func (h *host) reportAll(stream agentv1.AgentService_SessionClient) error {
	var items []*agentv1.Report
	for app := range h.targets {
		items = append(items, h.report(app))
	}
	return h.send(stream, items)
}

func (h *host) send(stream agentv1.AgentService_SessionClient, items []*agentv1.Report) error {
	if len(items) == 0 {
		return nil
	}
	h.w.reports.Add(int64(len(items)))
	return stream.Send(&agentv1.Up{Message: &agentv1.Up_Reports{Reports: &agentv1.Reports{Items: items}}})
}

func (h *host) report(app string) *agentv1.Report {
	t := h.targets[app]
	h.counter++
	r := &agentv1.Report{
		App: app, Counter: h.counter, Generation: t.gen, Result: t.result, Running: t.running,
		Staged: slices.Clone(t.staged),
	}
	if t.healthy {
		r.Health = agentv1.Health_HEALTH_HEALTHY
	}
	return r
}

// assigned does what is assigned and reports it.
func (h *host) assigned(stream agentv1.AgentService_SessionClient, m *agentv1.Assignments) error {
	var items []*agentv1.Report
	for _, a := range m.Items {
		changed, err := h.act(stream, a)
		if err != nil {
			return err
		}
		if changed {
			items = append(items, h.report(a.App))
		}
	}
	return h.send(stream, items)
}

// act does what one assignment asks for; whether there is something to report.
func (h *host) act(stream agentv1.AgentService_SessionClient, a *agentv1.Assignment) (changed bool, err error) {
	t := h.targets[a.App]
	if t == nil {
		t = &target{}
		h.targets[a.App] = t
		h.w.targets.Add(1)
		changed = true
	}
	if d := a.Stage.GetDigest(); d != "" && !slices.Contains(t.staged, d) {
		t.staged = append(t.staged, d)
		t.staged = t.staged[max(0, len(t.staged)-stagedKept):]
		changed = true
	}
	if a.Generation <= t.gen {
		return changed || a.Report, nil
	}
	t.gen, t.result = a.Generation, agentv1.Result_RESULT_IDLE
	if a.Permit == agentv1.Permit_PERMIT_UNSPECIFIED {
		return true, nil
	}
	began := time.Now()
	for _, event := range lifecycle {
		err := stream.Send(&agentv1.Up{Message: &agentv1.Up_Progress{Progress: &agentv1.Progress{
			App: a.App, Generation: a.Generation, Deployment: a.Deployment, Event: event, SinceMs: began.UnixMilli(),
		}}})
		if err != nil {
			return false, err
		}
	}
	t.result, t.running, t.healthy = agentv1.Result_RESULT_DONE, a.Goal.GetDigest(), true
	h.w.done(h, a, began)
	return true, nil
}
