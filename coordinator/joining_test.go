package coordinator

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundswell/groundswell/coordinator/consensus"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// said collects what is logged.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// begin runs a coordinator that may never be ready, and returns what it says.
func begin(t *testing.T, o Options) (log *said, stop func() error) {
	t.Helper()
	for _, a := range []*string{&o.API, &o.Agents, &o.Raft, &o.Gossip} {
		if *a == "" {
			*a = "127.0.0.1:0"
		}
	}
	log = &said{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return log, stop
}

func status(t *testing.T, c controlv1.ControlServiceClient) *controlv1.ClusterStatusResponse {
	t.Helper()
	out, err := c.ClusterStatus(t.Context(), &controlv1.ClusterStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// coordinatorToken makes a token of role coordinator.
func coordinatorToken(t *testing.T, c controlv1.ControlServiceClient) func() (identity.Token, error) {
	t.Helper()
	out, err := c.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "coordinator"})
	if err != nil {
		t.Fatal(err)
	}
	return func() (identity.Token, error) { return identity.ParseToken(out.Token) }
}

// A newcomer that advertises an address where nobody is changes nothing: it is
// told why, and the cluster goes on with the quorum that it had. Started again
// with the right one, without a token, it goes on where it was.
func TestUnreachableNewcomer(t *testing.T) {
	first := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, admin := operator(t, first)
	o := Options{
		Name: "c2", Dir: t.TempDir(), Join: []string{first.addr.API}, Token: coordinatorToken(t,
			admin), Advertise: "192.0.2.1",
	}
	log, stop := begin(t, o)
	eventually(t, "c2 is told why it is no voter", func() bool {
		return strings.Contains(log.String(), "c1 cannot reach c2") && strings.Contains(log.String(), "--advertise")
	})
	s := status(t, admin)
	if len(s.Coordinators) != 2 || !strings.Contains(s.Coordinators[1].Trouble, "cannot reach c2") {
		t.Errorf("the status does not say why c2 is no voter: %v", s)
	}
	if s.Coordinators[1].Voter || s.Quorum != 1 || s.Leader != "c1" || len(s.Missing) != 0 {
		t.Errorf("an unreachable newcomer changed the cluster: %v", s)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	again := Options{Name: "c2", Dir: o.Dir, Token: func() (identity.Token, error) {
		return identity.Token{}, errors.New("no token is needed any more")
	}}
	log, _ = begin(t, again)
	eventually(t, "c2 is a voter", func() bool {
		s := status(t, admin)
		return len(s.Coordinators) == 2 && s.Coordinators[1].Voter && s.Quorum == 2 && s.Coordinators[1].Trouble == ""
	})
	if !strings.Contains(log.String(), "going on with joining") {
		t.Errorf("it went on without a word:\n%s", log)
	}
	eventually(t, "what was begun is done", func() bool {
		_, err := os.Stat(filepath.Join(o.Dir, "starting"))
		return errors.Is(err, os.ErrNotExist)
	})
}

// A join whose answer was lost spends no second use: the key was on disk before
// it was used.
func TestJoinAfterALostAnswer(t *testing.T) {
	first := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, admin := operator(t, first)
	token, dir := coordinatorToken(t, admin), t.TempDir()
	_, csr, err := identity.KeptKey(filepath.Join(dir, identityDir))
	if err != nil {
		t.Fatal(err)
	}
	parsed, _ := token()
	r := &agentv1.EnrolRequest{Token: parsed.String(), CsrDer: csr, Name: "c2", Role: "coordinator"}
	if _, err := (&Options{Join: []string{first.addr.API}}).enrolWith(t.Context(), parsed, r); err != nil {
		t.Fatal(err)
	}
	start(t, Options{Name: "c2", Dir: dir, Join: []string{first.addr.API}, Token: token}) // nobody else had the answer
	if s := status(t, admin); len(s.Coordinators) != 2 {
		t.Errorf("%v", s)
	}
}

// A bootstrap that was ended at any point before its first entry goes on at the
// next start, without the flag.
func TestInterruptedBootstrap(t *testing.T) {
	for name, undo := range map[string]func(dir string) error{
		"after the first entry of raft": func(string) error { return nil },
		"before raft had a log":         func(dir string) error { return os.RemoveAll(filepath.Join(dir, "raft")) },
		"before raft was bootstrapped": func(dir string) error {
			if err := os.RemoveAll(filepath.Join(dir, "raft")); err != nil {
				return err
			}
			c := &Coordinator{o: Options{Name: "c1", Dir: dir, Raft: "127.0.0.1:0"}}
			l, err := c.o.listen("127.0.0.1:0")
			if err != nil {
				return err
			}
			n, err := consensus.Open(consensus.Options{
				Dir: filepath.Join(dir, "raft"), Name: "c1", Advertise: l.Addr().String(),
				Layer: newRaftLayer(l, nil, nil, c.o.dial), FSM: state.New(1),
			})
			if err != nil {
				return err
			}
			return n.Close()
		},
		"before its own certificate": func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "raft")),
				os.Remove(filepath.Join(dir, identityDir, "tls.crt")))
		},
		"before its first key": func(dir string) error {
			return errors.Join(
				os.RemoveAll(filepath.Join(dir, "raft")), os.RemoveAll(filepath.Join(dir, identityDir)),
				os.RemoveAll(filepath.Join(dir, operatorDir)), os.Remove(filepath.Join(dir, caKeyFile)),
			)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			o := Options{
				Name: "c1", Dir: dir, Bootstrap: true, Log: slog.New(slog.DiscardHandler),
				API: "127.0.0.1:0", Agents: "127.0.0.1:0", Raft: "127.0.0.1:0", Gossip: "127.0.0.1:0",
			}
			if err := Run(ctx, o); err != nil {
				t.Fatal(err)
			}
			if err := undo(dir); err != nil {
				t.Fatal(err)
			}
			n := start(t, Options{Name: "c1", Dir: dir})
			n.addr.Operator = filepath.Join(dir, operatorDir)
			_, admin := operator(t, n)
			if s := status(t, admin); s.Leader != "c1" || s.ClusterId == "" {
				t.Errorf("%v", s)
			}
			people, err := admin.ListPeople(t.Context(), &controlv1.ListPeopleRequest{})
			if err != nil || len(people.People) != 1 {
				t.Errorf("founders: %v, %v", people, err)
			}
		})
	}
}

// A member whose log is gone must not vote again under its name.
func TestAMemberWithoutItsLog(t *testing.T) {
	dir := t.TempDir()
	start(t, Options{Name: "c1", Dir: dir, Bootstrap: true}).stop()
	if err := os.RemoveAll(filepath.Join(dir, "raft")); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Name: "c1", Dir: dir, Bootstrap: true, Log: slog.New(slog.DiscardHandler),
		API: "127.0.0.1:0", Agents: "127.0.0.1:0", Raft: "127.0.0.1:0", Gossip: "127.0.0.1:0",
	}
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "dctl cluster remove c1") {
		t.Errorf("%v", err)
	}
}

func TestRemoveCoordinator(t *testing.T) {
	nodes, admin := three(t)
	ctx := t.Context()
	remove := func(name string, change ...func(*controlv1.RemoveCoordinatorRequest)) error {
		r := &controlv1.RemoveCoordinatorRequest{Name: name}
		for _, f := range change {
			f(r)
		}
		_, err := admin.RemoveCoordinator(ctx, r)
		return err
	}
	if err := remove("c9"); rpc.Kind(err) != rpc.KindNotFound {
		t.Errorf("one that there is not: %v", err)
	}
	nodes[2].stop()
	eventually(t, "c3 is missed", func() bool { return slices.Equal(status(t, admin).Missing, []string{"c3"}) })
	force := func(r *controlv1.RemoveCoordinatorRequest) { r.Force = true }
	for why, err := range map[string]error{
		"2 must answer and 1 do (missing: c3)": remove("c2"),
		"--force needs a reason":               remove("c2", force),
	} {
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, want %q", err, why)
		}
	}
	if err := remove("c3"); err != nil {
		t.Fatal(err)
	}
	if err := remove("c3"); err != nil {
		t.Errorf("once more, its answer was lost: %v", err)
	}
	s := status(t, admin)
	if len(s.Coordinators) != 2 || s.Quorum != 2 || len(s.Missing) != 0 {
		t.Errorf("after the removal: %v", s)
	}
	// Its name comes back with a token, on another machine.
	start(t, Options{
		Name: "c3", Dir: t.TempDir(), Join: []string{nodes[1].addr.API},
		Token: coordinatorToken(t, admin),
	})
	if s := status(t, admin); len(s.Coordinators) != 3 || len(s.Missing) != 0 {
		t.Errorf("after its successor has joined: %v", s)
	}
	// The leader goes the same way: it hands over, its successor removes it.
	follower := nodes[1].as(t, nodes[0].addr.Operator)
	eventually(t, "the leader c1 is removed", func() bool {
		_, err := follower.RemoveCoordinator(ctx, &controlv1.RemoveCoordinatorRequest{Name: "c1"})
		if kind := rpc.Kind(err); err != nil && kind != rpc.KindUnavailable {
			t.Fatal(err)
		}
		return err == nil
	})
	if s := status(t, follower); len(s.Coordinators) != 2 || s.Leader == "c1" {
		t.Errorf("after the leader was removed: %v", s)
	}
}

// Without a leader every answer names who is missing, and the status still comes.
func TestNoLeaderNamesTheMissing(t *testing.T) {
	nodes, admin := three(t)
	nodes[1].stop()
	nodes[2].stop()
	eventually(t, "c1 leads no more and says why", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := admin.RegisterRevision(ctx,
			&controlv1.RegisterRevisionRequest{App: "a", Name: "v", Digest: "sha256:" + strings.Repeat("a", 64)})
		return err != nil && strings.Contains(err.Error(),
			"of 3 voters c2, c3 do not answer; 2 must be there and 1 are (c1)")
	})
	s := status(t, admin)
	if !slices.Equal(s.Missing, []string{"c2", "c3"}) || s.Quorum != 2 || s.Leader != "" || len(s.Coordinators) != 3 {
		t.Errorf("status without a leader: %v", s)
	}
}
