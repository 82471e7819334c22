package coordinator

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// machine is a process of an agent in a test: it speaks the protocol itself.
type machine struct {
	t        *testing.T
	cred     *identity.Credential
	instance string
	former   []string
	answers  bool // pings
}

// hello opens a session. It returns whether the host was welcomed, or why not, and
// how the session ends.
func (m machine) hello(ctx context.Context, n *node) (ended <-chan error, err error) {
	m.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	m.t.Cleanup(cancel)
	s, err := agentv1.NewAgentServiceClient(dial(m.t, n.addr.Agents, m.cred.Client())).Session(ctx)
	if err != nil {
		return nil, err
	}
	hello := &agentv1.Hello{Name: "h1", Zone: "a", Instance: m.instance, Former: m.former}
	if err := s.Send(&agentv1.Up{Message: &agentv1.Up_Hello{Hello: hello}}); err != nil {
		return nil, err
	}
	if _, err := s.Recv(); err != nil {
		return nil, err
	}
	out := make(chan error, 1)
	go func() {
		for {
			down, err := s.Recv()
			if err != nil {
				out <- err
				return
			}
			if down.GetPing() != nil && m.answers {
				_ = s.Send(&agentv1.Up{Message: &agentv1.Up_Pong{Pong: &agentv1.Pong{}}}) // else its stream has ended
			}
		}
	}()
	return out, nil
}

// TestACopiedDisk: of two machines that live with one identity neither gets work,
// at whatever coordinators they are; a person splits them; restarted agents and
// those whose machine died are taken for what they are.
func TestACopiedDisk(t *testing.T) {
	nodes, admin := three(t)
	ctx := t.Context()
	cred, answer := enrolled(t, nodes[0], admin, "agent", "h1")
	m := machine{t: t, cred: cred, instance: "i", answers: true}
	first, err := m.hello(ctx, nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	second := m
	second.instance, second.former = "i2", []string{"i"}
	if _, err = second.hello(ctx, nodes[1]); err == nil {
		t.Fatal("beside a process that lives another was welcomed")
	}
	if !strings.Contains(err.Error(), "two machines speak as this host") {
		t.Errorf("the second is told %v", err)
	}
	if err := <-first; !strings.Contains(err.Error(), "two machines") {
		t.Errorf("the first session ended by %v", err)
	}
	for i, instance := range []string{"i", "i2", "i3"} {
		m.instance, m.former = instance, []string{"i", "i2"}
		if _, err := m.hello(ctx, nodes[i]); err == nil {
			t.Errorf("%s was welcomed while two have one identity", instance)
		}
	}
	host, err := admin.GetHost(ctx, &controlv1.GetHostRequest{Host: answer.HostId})
	if err != nil || !strings.Contains(host.Host.Quarantine, "hosts split h1") {
		t.Errorf("people are told %q, %v", host.GetHost().GetQuarantine(), err)
	}
	split := func(instances ...string) (*agentv1.EnrolResponse, []byte, error) {
		key, csr, err := identity.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		at := agentv1.NewAgentServiceClient(dial(t, nodes[1].addr.Agents, cred.Client()))
		out, err := at.Split(ctx, &agentv1.SplitRequest{CsrDer: csr, Instances: instances, Name: "h1"})
		return out, key, err
	}
	if _, _, err := split("i", "i2"); err == nil {
		t.Error("a machine that no person has split off made itself an identity")
	}
	if _, err := admin.SplitHost(ctx, &controlv1.SplitHostRequest{Host: "h1"}); err == nil ||
		!strings.Contains(err.Error(), "say which machine") {
		t.Errorf("nobody said which machine keeps the identity: %v", err)
	}
	addresses := regexp.MustCompile(`from (\S+) and (\S+);`).FindStringSubmatch(host.Host.Quarantine)
	done, err := admin.SplitHost(ctx, &controlv1.SplitHostRequest{Host: "h1", Keep: addresses[1]})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s keeps the identity, %s is split off", done.Kept, done.Split)
	again, err := admin.SplitHost(ctx, &controlv1.SplitHostRequest{Host: "h1", Keep: addresses[1]})
	if err != nil || again.Kept != done.Kept {
		t.Errorf("asked again, because the answer was lost: %v, %v", again, err)
	}
	if _, err := admin.SplitHost(ctx, &controlv1.SplitHostRequest{Host: "h1", Keep: addresses[2]}); err == nil {
		t.Error("the other one keeps it, after the first does")
	}
	m.instance, m.former = "i", nil
	if _, err = m.hello(ctx, nodes[0]); err != nil {
		t.Fatalf("the one that keeps the identity: %v", err)
	}
	m.instance, m.former = "i4", []string{"i", "i2"} // restarted since
	eventually(t, "the one that was split off is told so", func() bool {
		_, err := m.hello(ctx, nodes[2])
		return rpc.Kind(err) == rpc.KindSplit
	})
	out, key, err := split("i", "i2", "i4")
	if err != nil || out.HostId == answer.HostId || out.HostId == "" {
		t.Fatal(out, err)
	}
	if _, _, err := split("i", "i2", "i4"); err == nil {
		t.Error("one copy made itself two identities")
	}
	other := machine{t: t, instance: "j", answers: true}
	if other.cred, err = identity.NewCredential(out.CertificatePem, key, out.CaPem); err != nil {
		t.Fatal(err)
	}
	if _, err := other.hello(ctx, nodes[1]); err != nil {
		t.Fatalf("the copy as a host of its own: %v", err)
	}
	hosts, err := admin.ListHosts(ctx, &controlv1.ListHostsRequest{})
	if err != nil || len(hosts.Hosts) != 2 || hosts.Hosts[0].Name == hosts.Hosts[1].Name {
		t.Errorf("hosts: %v, %v", hosts, err)
	}
	for _, h := range hosts.Hosts {
		if h.Quarantine != "" || h.State == "unreachable" {
			t.Errorf("%s is %s, %s", h.Name, h.State, h.Quarantine)
		}
	}
}

// TestAProcessThatDied: its successor is let in once nobody answers on the stream
// that hangs, wherever that is.
func TestAProcessThatDied(t *testing.T) {
	nodes, admin := three(t)
	ctx := t.Context()
	cred, _ := enrolled(t, nodes[0], admin, "agent", "h1")
	m := machine{t: t, cred: cred, instance: "i"} // never answers
	ended, err := m.hello(ctx, nodes[1])
	if err != nil {
		t.Fatal(err)
	}
	m.instance, m.former, m.answers = "i2", []string{"i"}, true
	if _, err = m.hello(ctx, nodes[2]); err != nil {
		t.Fatalf("the successor: %v", err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the stream on which nobody answers stays")
	}
}

// TestWhoCutsTheQuestionShort: a copy that ends its first session before anybody was
// asked is asked about with the next.
func TestWhoCutsTheQuestionShort(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Options{Name: "c1", Dir: dir, Bootstrap: true})
	_, admin := operator(t, n)
	ctx := t.Context()
	cred, answer := enrolled(t, n, admin, "agent", "h1")
	m := machine{t: t, cred: cred, instance: "i", answers: true}
	if _, err := m.hello(ctx, n); err != nil {
		t.Fatal(err)
	}
	// What its session has written before it is cut: the process, and no more.
	entry, err := state.Encode(state.Entry{Cluster: []state.ClusterEvent{state.InstanceBegan{
		Host: answer.HostId, Was: "i", Machine: state.Machine{Instance: "copy"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	self, err := identity.Load(filepath.Join(dir, identityDir))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := peerv1.NewPeerServiceClient(dial(t, n.addr.API, self.Client())).Propose(ctx,
		&peerv1.ProposeRequest{Entry: entry}); err != nil || out.Refusals[0].Kind != "" {
		t.Fatal(out, err)
	}
	m.instance, m.former = "copy", []string{"i"}
	if _, err := m.hello(ctx, n); err == nil || !strings.Contains(err.Error(), "two machines") {
		t.Errorf("the copy is told %v", err)
	}
}

// TestAForgottenCloneIsSplit: neither machine has a session, so the host is forgotten
// in time; people can still say which of the two it is.
func TestAForgottenCloneIsSplit(t *testing.T) {
	n := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, admin := operator(t, n)
	ctx := t.Context()
	cred, answer := enrolled(t, n, admin, "agent", "h1")
	m := machine{t: t, cred: cred, instance: "i", answers: true}
	if _, err := m.hello(ctx, n); err != nil {
		t.Fatal(err)
	}
	m.instance, m.former = "copy", []string{"i"}
	if _, err := m.hello(ctx, n); err == nil {
		t.Fatal("a copy was welcomed")
	}
	host, err := admin.GetHost(ctx, &controlv1.GetHostRequest{Host: answer.HostId})
	if err != nil {
		t.Fatal(err)
	}
	address := regexp.MustCompile(`from (\S+) and`).FindStringSubmatch(host.Host.Quarantine)[1]
	eventually(t, "the host is forgotten", func() bool {
		_, err := admin.ForgetHost(ctx, &controlv1.ForgetHostRequest{Host: answer.HostId})
		return err == nil
	})
	if _, err := admin.SplitHost(ctx, &controlv1.SplitHostRequest{Host: "h1", Keep: address}); err != nil {
		t.Fatal(err)
	}
	m.instance, m.former = "i", nil
	if _, err := m.hello(ctx, n); err != nil {
		t.Errorf("the one that keeps the identity: %v", err)
	}
}

// TestANewKeyEndsAClone: the quarantine goes with its reason.
func TestANewKeyEndsAClone(t *testing.T) {
	n := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, admin := operator(t, n)
	ctx := t.Context()
	cred, answer := enrolled(t, n, admin, "agent", "h1")
	m := machine{t: t, cred: cred, instance: "i", answers: true}
	if _, err := m.hello(ctx, n); err != nil {
		t.Fatal(err)
	}
	m.instance, m.former = "copy", []string{"i"}
	if _, err := m.hello(ctx, n); err == nil {
		t.Fatal("a copy was welcomed")
	}
	var token *controlv1.CreateTokenResponse
	eventually(t, "a token for the host", func() (done bool) {
		var err error
		token, err = admin.CreateToken(ctx, &controlv1.CreateTokenRequest{Host: "h1"})
		return err == nil
	})
	key, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	out, err := join(t, n, token.Token, &agentv1.EnrolRequest{CsrDer: csr, Role: "agent", Instance: "j", Name: "h1"})
	if err != nil || out.HostId != answer.HostId {
		t.Fatal(out, err)
	}
	again := machine{t: t, instance: "j", answers: true}
	if again.cred, err = identity.NewCredential(out.CertificatePem, key, out.CaPem); err != nil {
		t.Fatal(err)
	}
	if _, err := again.hello(ctx, n); err != nil {
		t.Error(err)
	}
	host, err := admin.GetHost(ctx, &controlv1.GetHostRequest{Host: answer.HostId})
	if err != nil || host.Host.Quarantine != "" {
		t.Errorf("with a new key it is %q, %v", host.GetHost().GetQuarantine(), err)
	}
	if _, err := m.hello(ctx, n); err == nil {
		t.Error("the former key is let in")
	}
}
