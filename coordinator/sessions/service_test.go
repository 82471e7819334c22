package sessions

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/groundswell/groundswell/deploy"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// world is a state with a log of its own, as State and Log of a service.
type world struct {
	mu      sync.RWMutex
	state   *deploy.State
	watched map[chan struct{}]string // who waits, for which host
	fail    int                      // so many proposals find no leader
	gate    chan struct{}            // a proposal of reports waits for it, unless nil
	entries chan []deploy.Event      // what was committed

	is       map[string]*deploy.Attributes // what is written down of hosts
	approved map[string]uint64
}

func newWorld() *world {
	return &world{
		state: deploy.NewState(), watched: map[chan struct{}]string{},
		entries: make(chan []deploy.Event, 1000),
	}
}

func (w *world) View(f func(*deploy.State)) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	f(w.state)
}

func (w *world) WatchHost(host string) (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := make(chan struct{}, 1)
	w.watched[ch] = host
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watched, ch)
	}
}

// wake wakes who waits for a host that was touched.
func (w *world) wake() {
	for ch, host := range w.watched {
		if slices.Contains(w.state.TouchedHosts(), host) {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
}

func (w *world) Propose(ctx context.Context, events []deploy.Event) ([]error, error) {
	if _, ok := events[0].(deploy.TargetsReported); ok && w.gate != nil {
		select {
		case <-w.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail > 0 {
		w.fail--
		return nil, errors.New("no leader")
	}
	out := w.state.ApplyEntry(w.state.Index+1, deploy.Entry{Events: events})
	w.wake()
	w.entries <- events
	return out, nil
}

// must applies facts by hand.
func (w *world) must(t *testing.T, events ...deploy.Event) {
	t.Helper()
	for _, e := range events {
		if errs, err := w.Propose(t.Context(), []deploy.Event{e}); err != nil || errs[0] != nil {
			t.Fatalf("%s: %v, %v", deploy.Describe(e), errs, err)
		}
		<-w.entries
	}
}

// served is a service on an in-memory connection; a caller names its host.
type served struct {
	*Service
	w        *world
	client   agentv1.AgentServiceClient
	presence chan string
	progress chan string
}

func serve(t *testing.T) *served {
	t.Helper()
	w := newWorld()
	s := &served{w: w, presence: make(chan string, 100), progress: make(chan string, 100)}
	s.Service = New(Options{
		Name: "c1", State: w, Log: w,
		Identify: func(ctx context.Context) (string, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			return md.Get("who")[0], nil
		},
		Sign:     func(_ context.Context, _, store, key string) (string, error) { return store + "/" + key, nil },
		Presence: func(h string, on bool) { s.presence <- fmt.Sprint(h, " ", on) },
		Progress: func(h string, p *agentv1.Progress) { s.progress <- h + " " + p.App },
		Attributes: func(h string) (*deploy.Attributes, uint64) {
			w.mu.RLock()
			defer w.mu.RUnlock()
			if is, known := w.is[h]; known {
				return is, w.approved[h]
			}
			return &deploy.Attributes{Name: h, Zone: "z"}, 0
		},
		Applied: func(context.Context, uint64) error { return nil },
		Speaks:  func(string) string { return "i" },
	})
	server, lis := grpc.NewServer(), bufconn.Listen(1<<20)
	agentv1.RegisterAgentServiceServer(server, s.Service)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(lis) })
	done.Go(func() { _ = s.Run(ctx) })
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	s.client = agentv1.NewAgentServiceClient(cc)
	t.Cleanup(func() {
		_ = cc.Close()
		cancel()
		server.Stop()
		done.Wait()
	})
	return s
}

type agent struct {
	t *testing.T
	agentv1.AgentService_SessionClient
}

func (s *served) dial(t *testing.T, host string, hello *agentv1.Hello) *agent {
	t.Helper()
	str, err := s.client.Session(metadata.AppendToOutgoingContext(t.Context(), "who", host))
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{t, str}
	if hello != nil && hello.Instance == "" {
		hello.Instance = "i"
	}
	a.up(&agentv1.Up{Message: &agentv1.Up_Hello{Hello: hello}})
	return a
}

// connect returns a host's session after Welcome and the first assignments.
func (s *served) connect(t *testing.T, host string) *agent {
	t.Helper()
	a := s.dial(t, host, &agentv1.Hello{Name: host, Zone: "z"})
	if w := a.down().GetWelcome(); w == nil || w.Coordinator != "c1" {
		t.Fatalf("no welcome: %v", w)
	}
	if m := a.down().GetAssignments(); m == nil || !m.Complete || m.Sequence != 1 {
		t.Fatalf("the first assignments are %v", m)
	}
	return a
}

func (a *agent) up(m *agentv1.Up) {
	a.t.Helper()
	if err := a.Send(m); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) report(items ...*agentv1.Report) {
	a.t.Helper()
	a.up(&agentv1.Up{Message: &agentv1.Up_Reports{Reports: &agentv1.Reports{Items: items}}})
}

func (a *agent) down() *agentv1.Down {
	a.t.Helper()
	m, err := a.Recv()
	if err != nil {
		a.t.Fatal(err)
	}
	return m
}

// acked reads until that counter is acknowledged.
func (a *agent) acked(counter uint64) {
	a.t.Helper()
	for a.down().GetAcknowledged().GetCounter() < counter {
	}
}

func (s *served) group(t *testing.T, hosts ...string) {
	t.Helper()
	c, _ := deploy.Builtin("all-at-once")
	s.w.must(t, deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c, Artifacts: "s3://b"})
	for _, h := range hosts {
		s.w.must(t, deploy.HostEnrolled{Host: h, Name: h, Zone: "z"})
	}
	s.w.must(t, deploy.TargetsJoined{App: "www", Group: "prod", Hosts: hosts})
}

func TestHelloEnrolsAndIsWelcomed(t *testing.T) {
	s := serve(t)
	s.connect(t, "h1")
	if got := <-s.presence; got != "h1 true" {
		t.Error(got)
	}
	if e := (<-s.w.entries)[0].(deploy.HostEnrolled); e.Host != "h1" || e.Zone != "z" {
		t.Errorf("enrolled %+v", e)
	}
	// The same words again change nothing in the log.
	s.connect(t, "h1")
	if len(s.w.entries) != 0 {
		t.Error("a host that says the same was enrolled again")
	}
}

// TestBackFromUnreachable: the leader hears of the stream before the log hears
// of the host, else it would call it unreachable again.
func TestBackFromUnreachable(t *testing.T) {
	s := serve(t)
	s.group(t, "h1")
	s.w.must(t, deploy.HostsUnreachable{Items: []deploy.HostDown{{Host: "h1"}}})
	s.w.gate = make(chan struct{})
	a := s.dial(t, "h1", &agentv1.Hello{Name: "h1", Zone: "z", Counter: 5})
	if got := <-s.presence; got != "h1 true" {
		t.Error(got)
	}
	close(s.w.gate)
	if w := a.down().GetWelcome(); w.GetCounter() != 6 {
		t.Errorf("welcome %v", w)
	}
	s.w.View(func(st *deploy.State) {
		if st.Hosts["h1"].Unreachable {
			t.Error("still unreachable")
		}
	})
}

// TestAHostIsWhatIsWrittenDown: its own word changes nothing but what is shown to
// people, and it is told so.
func TestAHostIsWhatIsWrittenDown(t *testing.T) {
	s := serve(t)
	is := deploy.Attributes{Name: "web-1", Zone: "b", Labels: map[string]string{"role": "web"}}
	s.w.is, s.w.approved = map[string]*deploy.Attributes{"h1": &is, "h2": nil}, map[string]uint64{"h1": 3}
	hello := &agentv1.Hello{Name: "web-1", Zone: "a-first", Labels: map[string]string{"role": "db"}, Version: "1"}
	says := deploy.Attributes{Name: "web-1", Zone: "a-first", Labels: hello.Labels}
	waits := s.dial(t, "h1", hello).down().GetWelcome().GetWaits()
	for _, word := range []string{
		`zone "a-first" instead of "b"`, "role=db instead of web",
		"dctl hosts approve web-1",
	} {
		if !strings.Contains(waits, word) {
			t.Errorf("the host is told %q, without %q", waits, word)
		}
	}
	want := deploy.HostEnrolled{
		Host: "h1", Name: "web-1", Zone: "b", Labels: is.Labels, Version: "1", Says: &says, Approved: 3,
	}
	if got := (<-s.w.entries)[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("recorded %+v", got)
	}
	// The same once more is no news; its true word takes the other back.
	s.dial(t, "h1", hello).down()
	if len(s.w.entries) != 0 {
		t.Error("the same word entered the log twice")
	}
	hello.Zone, hello.Labels = "b", is.Labels
	if waits := s.dial(t, "h1", hello).down().GetWelcome().GetWaits(); waits != "" {
		t.Errorf("waits for %s", waits)
	}
	want.Says = nil
	if got := (<-s.w.entries)[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("recorded %+v", got)
	}
	// Of whom nothing is written down: its name, and no label by its word alone.
	hello = &agentv1.Hello{Name: "web-2", Labels: map[string]string{"role": "db"}}
	s.dial(t, "h2", hello).down()
	want = deploy.HostEnrolled{
		Host: "h2", Name: "web-2", Says: &deploy.Attributes{Name: "web-2", Labels: hello.Labels},
	}
	if got := (<-s.w.entries)[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("recorded %+v", got)
	}
}

// TestWhoHasNotReadOfAHostDoesNotJudgeIt: a replica that lags behind would take a
// host that has just enrolled for one of which nothing is written down.
func TestWhoHasNotReadOfAHostDoesNotJudgeIt(t *testing.T) {
	s := serve(t)
	s.o.Applied = func(ctx context.Context, index uint64) error {
		if index > 7 {
			return errors.New("behind")
		}
		return nil
	}
	if _, err := s.dial(t, "h1", &agentv1.Hello{Name: "h1", Index: 8}).Recv(); err == nil {
		t.Error("a host was welcomed before its enrolment was read")
	}
	if s.dial(t, "h1", &agentv1.Hello{Name: "h1", Index: 7}).down().GetWelcome() == nil || len(s.w.entries) != 1 {
		t.Error("the host was not welcomed once")
	}
}

func TestAHelloOfNonsenseIsRefused(t *testing.T) {
	s := serve(t)
	many := map[string]string{}
	for i := range 100 {
		many[fmt.Sprint(i)] = ""
	}
	long := strings.Repeat("x", 2000)
	for what, h := range map[string]*agentv1.Hello{
		"no name": {}, "long name": {Name: long}, "long zone": {Name: "h", Zone: long}, "long version": {
			Name:    "h",
			Version: long,
		},
		"many labels": {Name: "h", Labels: many}, "long label": {
			Name:   "h",
			Labels: map[string]string{"k": long},
		}, "no hello": nil,
	} {
		a := s.dial(t, "h1", h)
		if _, err := a.Recv(); err == nil {
			t.Errorf("%s was welcomed", what)
		}
	}
	if len(s.w.entries) != 0 {
		t.Error("it went into the log")
	}
}

func TestAssignmentsAreCompleteThenWhatChanged(t *testing.T) {
	s := serve(t)
	s.group(t, "h1", "h2")
	a := s.connect(t, "h1")
	s.w.must(t, deploy.RevisionRegistered{App: "www", Name: "v1", Digest: "d1"}) // nothing for the host
	c, _ := deploy.Builtin("all-at-once")
	s.w.must(t, deploy.DeploymentCreated{
		ID: "D", App: "www", Group: "prod", Revision: "d1", RevName: "v1", Config: c,
		Waves: []deploy.Wave{{Name: "all", Hosts: []string{"h1"}}},
	})
	s.w.must(t, deploy.DeploymentStarted{Deployment: "D"}) // until then there is nothing to fetch
	if m := a.down().GetAssignments(); m.GetComplete() || m.GetSequence() != 2 || m.Items[0].Stage.GetName() != "v1" {
		t.Errorf("the change came as %v", m)
	}
	s.w.must(t, deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h2"}}) // another host's
	s.w.must(t, deploy.TargetsLeft{App: "www", Group: "prod", Hosts: []string{"h1"}})
	if m := a.down().GetAssignments(); m.GetSequence() != 3 || len(m.Items) != 0 || fmt.Sprint(m.Removed) != "[www]" {
		t.Errorf("the removal came as %v", m)
	}
}

// TestAckMeansCommitted: no report is acknowledged before it is in the log,
// and what comes meanwhile makes one entry.
func TestAckMeansCommitted(t *testing.T) {
	s := serve(t)
	s.group(t, "h1")
	s.w.gate = make(chan struct{})
	a := s.connect(t, "h1")
	for i := range 20 {
		a.report(&agentv1.Report{App: "www", Counter: uint64(i + 1)})
	}
	// All were received once the request that follows them was.
	a.up(&agentv1.Up{Message: &agentv1.Up_Progress{Progress: &agentv1.Progress{App: "www"}}})
	<-s.progress
	if len(s.w.entries) != 0 {
		t.Error("committed before the log answered")
	}
	close(s.w.gate)
	a.acked(20)
	entries, reports := 0, 0
	for ; reports < 20; entries++ {
		reports += len((<-s.w.entries)[0].(deploy.TargetsReported).Items)
	}
	if reports != 20 || entries > 2 { // the one in flight, and the rest
		t.Errorf("%d reports in %d entries", reports, entries)
	}
	s.w.View(func(st *deploy.State) {
		if c := st.Target("h1", "www").Counter; c != 20 {
			t.Errorf("acknowledged at counter %d", c)
		}
	})
}

func TestReportsWaitForALeader(t *testing.T) {
	s := serve(t)
	s.group(t, "h1")
	a := s.connect(t, "h1")
	s.w.mu.Lock()
	s.w.fail = 2
	s.w.mu.Unlock()
	a.report(&agentv1.Report{App: "www", Counter: 1})
	a.acked(1)
}

// TestTheHostIsTheCertificate: a report is about the host whose stream it is,
// and what it says is bounded and fit for the log.
func TestTheHostIsTheCertificate(t *testing.T) {
	cut := strings.Repeat("x", 511) + "é" // a bound falls into the last character
	r := decode("h1", &agentv1.Report{
		App: strings.Repeat("a", 5000), Evidence: cut, Running: strings.Repeat("r",
			5000), StageFailed: strings.Repeat("s", 5000),
		Staged: make([]string, 1000),
		Failure: &agentv1.Failure{
			Tail: "é" + strings.Repeat("y", 2047), Message: strings.Repeat("é", 1000),
			Script: cut, Exit: cut, Event: cut,
		},
	})
	for _, text := range []string{r.Evidence, r.Failure.Tail, r.Failure.Message, r.Failure.Script, r.App} {
		if !utf8.ValidString(text) || len(text) > 2048 {
			t.Errorf("%d bytes, valid %v", len(text), utf8.ValidString(text))
		}
	}
	one := report{item: r}
	if r.Host != "h1" || len(r.Staged) != 64 || one.size() > 16<<10 {
		t.Errorf("a report of %d bytes", one.size())
	}
}

func TestEntriesAreBounded(t *testing.T) {
	big := report{item: deploy.Report{Evidence: strings.Repeat("x", 10_000)}}
	var all []report
	for range batchItems {
		all = append(all, big)
	}
	if n := fitting(all); n*10_000 > batchBytes || n < 50 {
		t.Errorf("%d reports of 10 kB make one entry", n)
	}
	huge := []report{{item: deploy.Report{Evidence: strings.Repeat("x", 2*batchBytes)}}, big}
	if n := fitting(huge); n != 1 {
		t.Errorf("a report that never fits: %d", n)
	}
	if n := fitting(all[:3]); n != 3 {
		t.Errorf("%d of 3 small ones", n)
	}
}

// TestAHostThatDoesNotReadDelaysNobody: acknowledgements never block.
func TestAHostThatDoesNotReadDelaysNobody(t *testing.T) {
	s := New(Options{Log: newWorld()})
	deaf := &stream{
		host: "deaf", send: make(chan *agentv1.Down), ack: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	for i := range 100 {
		s.commit(t.Context(), []report{{item: deploy.Report{Host: "deaf", Counter: uint64(i)}, stream: deaf}})
	}
	if got := deaf.acknowledged().GetAcknowledged().Counter; got != 99 {
		t.Errorf("the newest is %d", got)
	}
}

func TestTheSecondStreamEndsTheFirst(t *testing.T) {
	s := serve(t)
	first := s.connect(t, "h1")
	second := s.connect(t, "h1")
	if _, err := first.Recv(); err == nil {
		t.Error("the first stream lives on")
	}
	if got := s.Connected(); fmt.Sprint(got) != "[h1]" {
		t.Errorf("connected %v", got)
	}
	_ = second.CloseSend()
	var seen []string
	for len(seen) < 2 {
		seen = append(seen, <-s.presence)
	}
	if fmt.Sprint(seen) != "[h1 true h1 false]" {
		t.Errorf("presence heard %v", seen)
	}
}

func TestProgressOfStrangersIsDropped(t *testing.T) {
	s := serve(t)
	s.group(t, "h1")
	a := s.connect(t, "h1")
	for _, app := range []string{"other", strings.Repeat("x", 1000), "www"} {
		a.up(&agentv1.Up{Message: &agentv1.Up_Progress{Progress: &agentv1.Progress{App: app}}})
	}
	if got := <-s.progress; got != "h1 www" {
		t.Error(got)
	}
}

func TestSignForTargetsOnly(t *testing.T) {
	s := serve(t)
	s.group(t, "h1")
	for host, want := range map[string]string{"h1": "s3://b/k", "h2": ""} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "who", host)
		out, err := s.client.SignArtifact(ctx, &agentv1.SignArtifactRequest{App: "www", Group: "prod", Key: "k"})
		if out.GetUrl() != want || (err == nil) != (want != "") {
			t.Errorf("%s: %v, %v", host, out, err)
		}
	}
}

// logs reads a host's output in the background.
func (s *served) logs(ctx context.Context, each func(*agentv1.LogChunk) error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Logs(ctx, "h1", &agentv1.LogRequest{App: "www"}, each) }()
	return done
}

func TestLogsAreRoutedToWhoAsked(t *testing.T) {
	s := serve(t)
	if err := s.Logs(t.Context(), "h1", &agentv1.LogRequest{}, nil); !errors.Is(err, ErrNoStream) {
		t.Errorf("a host without a stream: %v", err)
	}
	a := s.connect(t, "h1")
	var one, two strings.Builder
	first := s.logs(t.Context(), func(c *agentv1.LogChunk) error { one.Write(c.Data); return nil })
	id1 := a.down().GetLog().Id
	second := s.logs(t.Context(), func(c *agentv1.LogChunk) error { two.Write(c.Data); return nil })
	id2 := a.down().GetLog().Id
	for _, c := range []*agentv1.LogChunk{
		{Id: id1, Data: []byte("a")},
		{Id: id2, Data: []byte("x")},
		{Id: "nobody", Data: []byte("?")},
		{Id: id1, Data: []byte("b"), End: true},
		{Id: id2, Error: "no such event"},
	} {
		a.up(&agentv1.Up{Message: &agentv1.Up_Log{Log: c}})
	}
	if err := <-first; err != nil || one.String() != "ab" {
		t.Errorf("%q, %v", one.String(), err)
	}
	var refusal *deploy.Refusal
	if err := <-second; !errors.As(err, &refusal) || two.String() != "x" {
		t.Errorf("%q, %v", two.String(), err)
	}
}

func TestAReaderWhoGoesIsCancelled(t *testing.T) {
	s := serve(t)
	a := s.connect(t, "h1")
	ctx, cancel := context.WithCancel(t.Context())
	done := s.logs(ctx, func(*agentv1.LogChunk) error { return nil })
	id := a.down().GetLog().Id
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if m := a.down().GetLog(); m.GetId() != id || !m.Cancel {
		t.Errorf("the host was told %v", m)
	}
	// A session that ends, ends its readers.
	done = s.logs(t.Context(), func(*agentv1.LogChunk) error { return nil })
	a.down()
	_ = a.CloseSend()
	if err := <-done; err == nil {
		t.Error("the output of a host that went ended well")
	}
}

// TestASlowReaderIsCutOff, and so is a host that sends too much at once; the
// stream and its reports go on.
func TestASlowReaderIsCutOff(t *testing.T) {
	s := serve(t)
	s.group(t, "h1")
	a := s.connect(t, "h1")
	stuck := make(chan struct{})
	done := s.logs(t.Context(), func(*agentv1.LogChunk) error { <-stuck; return nil })
	id := a.down().GetLog().Id
	for range logBuffer + 10 {
		a.up(&agentv1.Up{Message: &agentv1.Up_Log{Log: &agentv1.LogChunk{Id: id, Data: []byte("x")}}})
	}
	a.report(&agentv1.Report{App: "www", Counter: 1})
	a.acked(1)
	close(stuck)
	if err := <-done; err == nil || !strings.Contains(err.Error(), "too slow") {
		t.Error(err)
	}
	done = s.logs(t.Context(), func(*agentv1.LogChunk) error { return nil })
	for id = ""; id == ""; {
		if m := a.down().GetLog(); m != nil && !m.Cancel {
			id = m.Id
		}
	}
	a.up(&agentv1.Up{Message: &agentv1.Up_Log{Log: &agentv1.LogChunk{Id: id, Data: make([]byte, longestChunk+1)}}})
	if err := <-done; err == nil || !strings.Contains(err.Error(), "65537 bytes of output at once") {
		t.Errorf("a chunk of any size: %v", err)
	}
}

// TestAStoppedServiceLeavesNothing: Run waits for the entry in flight.
func TestAStoppedServiceLeavesNothing(t *testing.T) {
	w := newWorld()
	w.gate = make(chan struct{})
	s := New(Options{State: w, Log: w})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	st := &stream{ack: make(chan struct{}, 1), done: make(chan struct{}), stop: func() {}}
	s.accept(ctx, st, &agentv1.Reports{Items: []*agentv1.Report{{Counter: 1}}})
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
}

// TestWhoIsDoubtedHasToAnswer: gossip calls both dead. One answers and stays, the
// other one's process was stopped.
func TestWhoIsDoubtedHasToAnswer(t *testing.T) {
	s := serve(t)
	lives, stopped := s.connect(t, "lives"), s.connect(t, "stopped")
	for range 2 {
		<-s.presence
	}
	s.Doubt("nobody")
	s.Doubt("stopped")
	for range 3 { // together, and again: an answer is that of one question
		s.Doubt("lives")
		if lives.down().GetPing() == nil {
			t.Fatal("who is doubted is not asked")
		}
		lives.up(&agentv1.Up{Message: &agentv1.Up_Pong{Pong: &agentv1.Pong{}}})
	}
	select {
	case got := <-s.presence:
		if got != "stopped false" {
			t.Errorf("presence heard %q", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("who does not answer keeps his stream")
	}
	for { // a ping that nobody read, then the end
		if _, err := stopped.Recv(); err != nil {
			break
		}
	}
	if got := s.Connected(); fmt.Sprint(got) != "[lives]" {
		t.Errorf("connected %v", got)
	}
}
