package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// age replaces the operator's certificate by one that was issued so long ago
// and lives for so much longer.
func (c *cluster) age(issued, left time.Duration) {
	c.t.Helper()
	caKey, err := c.ca.KeyPEM()
	must(c.t, err)
	ca, err := tls.X509KeyPair(c.ca.PEM, caKey)
	must(c.t, err)
	certPEM, err := os.ReadFile(c.credentials() + "/tls.crt")
	must(c.t, err)
	block, _ := pem.Decode(certPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	must(c.t, err)
	leaf.NotBefore, leaf.NotAfter = time.Now().Add(-issued), time.Now().Add(left)
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca.Leaf, leaf.PublicKey, ca.PrivateKey)
	must(c.t, err)
	must(c.t, identity.SaveRenewed(c.credentials(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		c.ca.PEM))
}

// renewer is a coordinator that renews, as the real one does.
type renewer struct {
	agentv1.UnimplementedAgentServiceServer
	agentv1.UnimplementedEnrolmentServiceServer
	fake
	ca      *identity.CA
	renewed int
}

func (r *renewer) Renew(ctx context.Context, q *agentv1.RenewRequest) (*agentv1.EnrolResponse, error) {
	who, _ := rpc.Caller(ctx)
	cert, err := r.ca.Issue(q.CsrDer, who.Role, who.ID)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.renewed++
	return &agentv1.EnrolResponse{HostId: who.ID, CertificatePem: cert, CaPem: r.ca.PEM}, nil
}

func (r *renewer) Roots(context.Context, *agentv1.RootsRequest) (*agentv1.RootsResponse, error) {
	return &agentv1.RootsResponse{CaPem: r.ca.PEM}, nil
}

func (r *renewer) Enrol(_ context.Context, q *agentv1.EnrolRequest) (*agentv1.EnrolResponse, error) {
	return nil, rpc.Errorf(rpc.KindInvalid, "the join token is for the role agent, not %s", q.Role)
}

// renewing serves a renewer and returns its address.
func (c *cluster) renewing(r *renewer) string {
	c.t.Helper()
	cert, key := c.issue(identity.Coordinator, "c1")
	cred, err := identity.NewCredential(cert, key, c.ca.PEM)
	must(c.t, err)
	people := rpc.Rule{Roles: []identity.Role{identity.Operator}}
	s := rpc.NewServer(rpc.ServerOptions{Credential: cred, Table: rpc.Table{
		agentv1.AgentService_Renew_FullMethodName:             people,
		controlv1.ControlService_ClusterStatus_FullMethodName: people,
		agentv1.EnrolmentService_Roots_FullMethodName:         {Anonymous: true},
		agentv1.EnrolmentService_Enrol_FullMethodName:         {Anonymous: true},
	}, Anonymous: true})
	agentv1.RegisterEnrolmentServiceServer(s, r)
	agentv1.RegisterAgentServiceServer(s, r)
	controlv1.RegisterControlServiceServer(s, &r.fake)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(c.t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // ends by Stop
	}()
	c.t.Cleanup(func() { s.Stop(); <-served })
	return l.Addr().String()
}

const day = 24 * time.Hour

// A certificate that is due is renewed by whatever command is used, without a
// word; one that is not due is left alone.
func TestRenewedInPassing(t *testing.T) {
	cl := newCluster(t)
	r := &renewer{ca: cl.ca}
	cl.context(cl.renewing(r))
	ends := func() time.Time {
		cred, err := identity.Load(cl.credentials())
		must(t, err)
		return cred.Ends()
	}
	cl.age(10*day, 20*day)
	before := ends()
	if got := cl.call("cluster", "status"); got.code != 0 || !ends().Equal(before) || r.renewed != 0 {
		t.Errorf("a certificate of ten days was renewed %d times: %+v", r.renewed, got)
	}
	cl.age(25*day, 5*day)
	if got := cl.call("cluster", "status"); got.code != 0 || got.err != "" {
		t.Errorf("%+v", got)
	}
	if left := time.Until(ends()); r.renewed != 1 || left < 29*day {
		t.Errorf("renewed %d times, and it lives for %s", r.renewed, left)
	}
}

// A coordinator that cannot renew keeps nobody from working while the
// certificate is good; one that has ended is answered with the way back.
func TestEndedCredential(t *testing.T) {
	cl := newCluster(t)
	cl.context(cl.serve(&fake{})) // it does not know Renew
	cl.age(29*day, day)
	if got := cl.call("cluster", "status"); got.code != 0 {
		t.Errorf("with a certificate that is due and cannot be renewed: %+v", got)
	}
	cl.age(31*day, -time.Minute)
	got := cl.call("cluster", "status")
	for _, want := range []string{
		"marco ended at", "dctl token create --role operator --name marco",
		"dcoord operator",
	} {
		if got.code != exitAuth || !strings.Contains(got.err, want) {
			t.Errorf("with one that has ended, want %q: %+v", want, got)
		}
	}
}

// A token of another role is refused and leaves nothing behind.
func TestLoginRefusedLeavesNothing(t *testing.T) {
	cl := newCluster(t)
	address := cl.renewing(&renewer{ca: cl.ca})
	dir := cl.dir + "/new"
	token := identity.NewToken(cl.ca.PEM)
	file := cl.dir + "/token"
	must(t, os.WriteFile(file, []byte(token.String()), 0o600))
	if got := cl.call("login", "prod", "-C", address, "--credentials", dir, "--token-file", file, "--timeout",
		"2s"); got.code == 0 ||
		!strings.Contains(got.err, "not operator") {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("a refused login left %s: %v", dir, err)
	}
}

// A credential of a CA that a cluster has no more is taken over by a token of the
// new one, with the same key; one that works is not overwritten.
func TestLoginOverARetiredCA(t *testing.T) {
	cl := newCluster(t)
	other, err := identity.NewCA("other")
	must(t, err)
	for _, x := range []struct {
		ca   []byte
		want string
	}{{cl.ca.PEM, "holds a credential already"}, {other.PEM, "connection refused"}} {
		file := filepath.Join(t.TempDir(), "token")
		must(t, os.WriteFile(file, []byte(identity.NewToken(x.ca).String()), 0o600))
		got := cl.call("login", "again", "-C", "127.0.0.1:1", "--credentials", cl.credentials(), "--token-file", file)
		if got.code == 0 || !strings.Contains(got.err, x.want) {
			t.Errorf("%+v, want %q", got, x.want)
		}
	}
}

// retirer is a coordinator of a cluster whose CA is being replaced. It notes by
// which CAs the one was known who retired the old one.
type retirer struct {
	renewer
	cas   *identity.Authorities
	known []string
}

func (r *retirer) Renew(ctx context.Context, q *agentv1.RenewRequest) (*agentv1.EnrolResponse, error) {
	who, _ := rpc.Caller(ctx)
	cert, err := r.cas.Issue(q.CsrDer, who.Role, who.ID)
	return &agentv1.EnrolResponse{HostId: who.ID, CertificatePem: cert, CaPem: r.cas.PEM()}, err
}

func (r *retirer) RetireCA(ctx context.Context, _ *controlv1.RetireCARequest) (*controlv1.RetireCAResponse, error) {
	r.known = rpc.CallerCAs(ctx)
	return &controlv1.RetireCAResponse{}, nil
}

// Who retires the CA of his own certificate has another one before.
func TestWhoRetiresACAStaysIn(t *testing.T) {
	cl := newCluster(t)
	next, err := identity.NewCA("next")
	must(t, err)
	oldKey, err := cl.ca.KeyPEM()
	must(t, err)
	nextKey, err := next.KeyPEM()
	must(t, err)
	r := &retirer{}
	r.cas, err = identity.ParseAuthorities(append(append([]byte{}, next.PEM...), cl.ca.PEM...),
		append(oldKey, nextKey...), 0)
	must(t, err)
	key, csr, err := identity.NewKey()
	must(t, err)
	cert, err := r.cas.Issue(csr, identity.Coordinator, "c1")
	must(t, err)
	cred, err := identity.NewCredential(cert, key, r.cas.PEM())
	must(t, err)
	people := rpc.Rule{Roles: []identity.Role{identity.Operator}}
	s := rpc.NewServer(rpc.ServerOptions{Credential: cred, Table: rpc.Table{
		agentv1.AgentService_Renew_FullMethodName:             people,
		controlv1.ControlService_ClusterStatus_FullMethodName: people,
		controlv1.ControlService_RetireCA_FullMethodName:      people,
	}})
	agentv1.RegisterAgentServiceServer(s, r)
	controlv1.RegisterControlServiceServer(s, r)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // ends by Stop
	}()
	t.Cleanup(func() { s.Stop(); <-served })
	cl.context(l.Addr().String())
	if got := cl.call("cluster", "ca", "retire", "--yes"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if !slices.Equal(r.known, []string{next.ID()}) {
		t.Errorf("who retired it was known by %v, not by %s", r.known, next.ID())
	}
}
