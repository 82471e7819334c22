package coordinator

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// greeted opens a session as a host and returns it with its Welcome.
func greeted(t *testing.T, n *node, cred *identity.Credential) (agentv1.AgentService_SessionClient, *agentv1.Welcome) {
	t.Helper()
	s, err := agentv1.NewAgentServiceClient(dial(t, n.addr.Agents, cred.Client())).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hello := &agentv1.Hello{Instance: "i", Name: "web-1", Zone: "a", Labels: map[string]string{"role": "web"}}
	if err := s.Send(&agentv1.Up{Message: &agentv1.Up_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	m, err := s.Recv()
	if err != nil || m.GetWelcome() == nil {
		t.Fatalf("%v, %v", m, err)
	}
	return s, m.GetWelcome()
}

// backup saves the state of a cluster as dctl does.
func backup(t *testing.T, c controlv1.ControlServiceClient) string {
	t.Helper()
	in, err := c.Backup(t.Context(), &controlv1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "backup")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(m.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// afterwards checks a cluster of c1 alone in epoch 2: it knows what it knew, it
// observes until it is activated, and others join it.
func afterwards(t *testing.T, dir string, host *identity.Credential, raft string, epoch uint64) {
	t.Helper()
	n := start(t, Options{Name: "c1", Dir: dir, Raft: raft})
	n.addr.Operator = filepath.Join(dir, operatorDir)
	_, admin := operator(t, n)
	ctx := t.Context()
	s := status(t, admin)
	if s.Epoch != epoch || s.Held != "drill" || len(s.Coordinators) != 1 || s.Quorum != 1 || len(s.Missing) != 0 {
		t.Errorf("a recovered cluster: %v", s)
	}
	revs, err := admin.ListRevisions(ctx, &controlv1.ListRevisionsRequest{App: "www"})
	if err != nil || len(revs.Revisions) != 1 {
		t.Errorf("it forgot a revision: %v, %v", revs, err)
	}
	session, w := greeted(t, n, host)
	if w.Epoch != epoch {
		t.Errorf("the host is welcomed in epoch %d", w.Epoch)
	}
	told := make(chan *agentv1.Down, 1)
	go func() {
		m, err := session.Recv()
		for err == nil && (m.GetAuthorities() != nil || m.GetRingKeys() != nil) { // they are no commands
			m, err = session.Recv()
		}
		told <- m
	}()
	select {
	case m := <-told:
		t.Errorf("a cluster that observes said %v", m)
	case <-time.After(300 * time.Millisecond): // nothing comes: there is no signal for that
	}
	if _, err := admin.ActivateEpoch(ctx, &controlv1.ActivateEpochRequest{Epoch: 1}); err == nil {
		t.Error("another epoch than this was activated")
	}
	if _, err := admin.ActivateEpoch(ctx, &controlv1.ActivateEpochRequest{Epoch: epoch}); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-told:
		if m.GetAssignments() == nil || !m.GetAssignments().Complete {
			t.Errorf("once active it said %v", m)
		}
	case <-time.After(10 * time.Second):
		t.Error("the host is told nothing after the activation")
	}
	start(t, Options{Name: "c2", Dir: t.TempDir(), Join: []string{n.addr.API}, Token: coordinatorToken(t, admin)})
	if s := status(t, admin); len(s.Coordinators) != 2 || s.Held != "" {
		t.Errorf("after another has joined: %v", s)
	}
	n.stop() // a second start begins no third epoch
}

func TestRecoverALostMajority(t *testing.T) {
	nodes, admin := three(t)
	host, _ := enrolled(t, nodes[0], admin, "agent", "web-1")
	if _, err := admin.RegisterRevision(t.Context(), &controlv1.RegisterRevisionRequest{
		App: "www", Name: "v1", Digest: "sha256:" + strings.Repeat("a", 64),
	}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(nodes[0].addr.Operator)
	if _, err := Recover(dir, "c1", "drill", 0); err == nil || !strings.Contains(err.Error(), "still run") {
		t.Errorf("of a running coordinator: %v", err)
	}
	for _, n := range nodes {
		n.stop()
	}
	if _, err := Recover(dir, "c9", "drill", 0); err == nil || !strings.Contains(err.Error(), "no member") {
		t.Errorf("under another name: %v", err)
	}
	if _, err := Recover(dir, "c1", "drill", 1); err == nil || !strings.Contains(err.Error(), "use a higher one") {
		t.Errorf("into the same epoch: %v", err)
	}
	if err := refused(t, Options{Name: "c1", Dir: dir}); err == nil ||
		!strings.Contains(err.Error(), "was interrupted; run it again") {
		t.Errorf("a recovery that was interrupted: %v", err)
	}
	if epoch, err := Recover(dir, "c1", "drill", 0); err != nil || epoch != 2 {
		t.Fatalf("epoch %d, %v", epoch, err)
	}
	afterwards(t, dir, host, nodes[0].addr.Raft, 2)
}

func TestRestoreABackup(t *testing.T) {
	nodes, admin := three(t)
	host, _ := enrolled(t, nodes[0], admin, "agent", "web-1")
	if _, err := admin.RegisterRevision(t.Context(), &controlv1.RegisterRevisionRequest{
		App: "www", Name: "v1", Digest: "sha256:" + strings.Repeat("a", 64),
	}); err != nil {
		t.Fatal(err)
	}
	file := backup(t, admin)
	dir := filepath.Dir(nodes[0].addr.Operator)
	for _, n := range nodes {
		n.stop()
	}
	if _, err := Restore(dir, "c1", file, "drill", 0); err == nil ||
		!strings.Contains(err.Error(), "holds a log already") {
		t.Errorf("onto a log: %v", err)
	}
	// Everything is lost but the keys that every coordinator has, and not its own.
	if err := errors.Join(
		os.RemoveAll(filepath.Join(dir, "raft")), os.Remove(filepath.Join(dir, identityDir, "tls.key")),
		os.Remove(filepath.Join(dir, identityDir, "tls.crt")),
	); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for why, data := range map[string][]byte{
		"damaged": whole[:len(whole)-1], "is no backup": []byte("{}\n"), "other ones": append(whole[:len(whole)-2:len(whole)-2], 'x', '}'),
	} {
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(dir, "c1", bad, "drill", 0); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("a bad backup: %v, want %q", err, why)
		}
	}
	if epoch, err := Restore(dir, "c1", file, "drill", 0); err != nil || epoch != 101 {
		t.Fatalf("epoch %d, %v", epoch, err)
	}
	afterwards(t, dir, host, "", 101)
}
