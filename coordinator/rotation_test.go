package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/groundswell/groundswell/coordinator/sessions"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// forged returns a credential that somebody made who has the CA's key.
func forged(t *testing.T, cas *identity.Authorities, role identity.Role,
	name string,
) (c *identity.Credential, key []byte) {
	t.Helper()
	key, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := cas.Issue(csr, role, name)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = identity.NewCredential(cert, key, cas.PEM()); err != nil {
		t.Fatal(err)
	}
	return c, key
}

func renewal(t *testing.T, key []byte) *agentv1.RenewRequest {
	t.Helper()
	csr, err := identity.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	return &agentv1.RenewRequest{CsrDer: csr}
}

// TestAThiefOfTheCA: somebody has a copy of a coordinator's folder, and makes what
// certificates he likes. Once the CA is replaced nothing of that is left: not by a
// renewal in between, not by a connection that is held, at whatever coordinator, not
// by a backup of the time between.
func TestAThiefOfTheCA(t *testing.T) {
	nodes, admin := three(t)
	ctx := t.Context()
	dir := filepath.Dir(nodes[0].addr.Operator)
	stolen, err := readCAs(dir, mustCA(t, nodes[0]), 0)
	if err != nil {
		t.Fatal(err)
	}
	leader, follower := status(t, admin).Leader, nodes[0]
	for _, n := range nodes {
		if n.addr.Name != leader {
			follower = n
		}
	}
	mallory, key := forged(t, stolen, identity.Operator, "mallory")
	held := dial(t, follower.addr.API, mallory.Client())
	api := controlv1.NewControlServiceClient(held)
	if _, err := api.CreateToken(ctx, &controlv1.CreateTokenRequest{}); err != nil {
		t.Fatalf("the thief is not let in, and this test shows nothing: %v", err)
	}

	next, err := admin.RotateCA(ctx, &controlv1.RotateCARequest{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "every coordinator issues by the new CA", func() bool {
		s := status(t, admin)
		return s.Ca == next.Id && len(s.CaBehind) == 0
	})
	if _, err := agentv1.NewAgentServiceClient(held).Renew(ctx,
		renewal(t, key)); rpc.Kind(err) != rpc.KindUnauthorised {
		t.Errorf("a renewal of what nobody gave: %v", err)
	}
	own, err := identity.KeyOf(nodes[0].addr.Operator)
	if err != nil {
		t.Fatal(err)
	}
	cc, _ := operator(t, nodes[0])
	mine, err := agentv1.NewAgentServiceClient(cc).Renew(ctx, renewal(t, own))
	if err != nil {
		t.Fatalf("a renewal of what the log knows: %v", err)
	}
	file := backup(t, admin)
	if err := identity.SaveRenewed(nodes[0].addr.Operator, mine.CertificatePem, mine.CaPem); err != nil {
		t.Fatal(err)
	}
	_, admin = operator(t, nodes[0])
	if _, err := admin.RetireCA(ctx, &controlv1.RetireCARequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old CA is trusted nowhere", func() bool {
		_, err := api.ListPeople(ctx, &controlv1.ListPeopleRequest{})
		return err != nil
	})
	if out, err := api.CreateToken(ctx, &controlv1.CreateTokenRequest{}); err == nil {
		t.Errorf("a call that the leader answers went through on a connection of before: %v", out)
	}
	if _, err := controlv1.NewControlServiceClient(dial(t, follower.addr.API, mallory.Client())).ListPeople(ctx,
		&controlv1.ListPeopleRequest{}); err == nil {
		t.Error("a new connection with a certificate of the retired CA")
	}
	for _, n := range nodes {
		n.stop()
	}
	if err := os.RemoveAll(filepath.Join(dir, "raft")); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(dir, "c1", file, "drill", 0); err == nil ||
		!strings.Contains(err.Error(), "restore a newer one") {
		t.Errorf("a backup that trusts the retired CA: %v", err)
	}
}

// TestARemovedCoordinatorIsNotHeard: raft heeds whoever appends to it, so who is in
// no more is refused at the handshake.
func TestARemovedCoordinatorIsNotHeard(t *testing.T) {
	n := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, admin := operator(t, n)
	cred, _ := enrolled(t, n, admin, "coordinator", "c9")
	heard := func() bool { // who is let in hears nothing, who is not is sent away
		conn, err := tls.Dial("tcp", n.addr.Raft, cred.Client())
		if err != nil {
			return false
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err = conn.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	if !heard() {
		t.Fatal("a coordinator that has joined is not heard, and this test shows nothing")
	}
	if _, err := admin.RemoveCoordinator(t.Context(),
		&controlv1.RemoveCoordinatorRequest{Name: "c9", Force: true}); err != nil {
		t.Fatal(err)
	}
	if heard() {
		t.Error("a coordinator that was removed is heard by raft")
	}
}

// refusing is a leader that does not know its members yet.
type refusing struct {
	peerv1.UnimplementedPeerServiceServer
}

func (refusing) Presence(in peerv1.PeerService_PresenceServer) error {
	if _, err := in.Recv(); err != nil {
		return err
	}
	return rpc.Errorf(rpc.KindUnavailable, "try again")
}

// TestARefusedPresenceIsHeard: a follower whose hosts are quiet learns that the
// leader did not take its presence stream, and can begin another.
func TestARefusedPresenceIsHeard(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	peerv1.RegisterPeerServiceServer(server, refusing{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	p := newPresence(&Coordinator{sessions: sessions.New(sessions.Options{})})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	leads := func() bool { return ctx.Err() == nil }
	if err := p.tellThrough(ctx, peerv1.NewPeerServiceClient(cc), leads); err == nil || ctx.Err() != nil {
		t.Errorf("the refusal was not heard: %v, %v", err, ctx.Err())
	}
}
