package attack

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/dirstore"
	"github.com/groundswell/groundswell/coordinator"
	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// cluster is three real coordinators in this process, on loopback.
type cluster struct {
	t     *testing.T
	nodes []*node
	api   controlv1.ControlServiceClient // as the first operator
	store string                         // URL of an artifact store
	edit  func(*coordinator.Options)     // of every node before it starts; may be nil
}

type node struct {
	coordinator.Addresses
	dir  string
	stop func()
}

func newCluster(t *testing.T, size int) *cluster {
	t.Helper()
	return newClusterOf(t, size, nil)
}

func newClusterOf(t *testing.T, size int, edit func(*coordinator.Options)) *cluster {
	t.Helper()
	c := &cluster{t: t, store: "file://" + t.TempDir(), edit: edit}
	c.start(coordinator.Options{Name: "c1", Bootstrap: true})
	c.api = controlv1.NewControlServiceClient(c.dial(c.nodes[0].API, load(t, c.nodes[0].Operator)))
	for i := 1; i < size; i++ {
		secret := c.token("coordinator", 1)
		c.start(coordinator.Options{
			Name: fmt.Sprint("c", i+1), Join: []string{c.nodes[0].API},
			Token: func() (identity.Token, error) { return identity.ParseToken(secret) },
		})
	}
	return c
}

func (c *cluster) start(o coordinator.Options) {
	c.t.Helper()
	o.Dir, o.Log = c.t.TempDir(), slog.New(slog.DiscardHandler)
	o.API, o.Agents, o.Raft, o.Gossip = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	o.Store = func(_ context.Context, url string) (artifacts.Store, error) {
		return dirstore.New(strings.TrimPrefix(url, "file://"))
	}
	if c.edit != nil {
		c.edit(&o)
	}
	ready := make(chan coordinator.Addresses, 1)
	o.Ready = func(a coordinator.Addresses) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- coordinator.Run(ctx, o) }()
	n := &node{dir: o.Dir, stop: func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("coordinator %s: %v", o.Name, err)
		}
		done <- nil
	}}
	c.t.Cleanup(n.stop)
	select {
	case n.Addresses = <-ready:
		c.nodes = append(c.nodes, n)
	case err := <-done:
		done <- nil
		c.t.Fatalf("coordinator %s: %v", o.Name, err)
	case <-time.After(30 * time.Second):
		c.t.Fatalf("coordinator %s is not ready", o.Name)
	}
}

func (c *cluster) token(role string, uses int32) string {
	c.t.Helper()
	r := &controlv1.CreateTokenRequest{Role: role, Uses: uses}
	if role == "operator" {
		r.Name = "mallory"
	}
	out, err := c.api.CreateToken(c.t.Context(), r)
	if err != nil {
		c.t.Fatal(err)
	}
	return out.Token
}

// stolen is what lies in the folder of an identity: a certificate and its key.
// The zero value is nobody.
type stolen struct {
	id   string
	cert *tls.Certificate
}

func load(t *testing.T, dir string) stolen {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	return stolen{cert: &pair}
}

// save writes the certificate and its key where load reads them.
func (s stolen) save(t *testing.T, dir string) {
	t.Helper()
	var chain []byte
	for _, der := range s.cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(s.cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for name, data := range map[string][]byte{"tls.crt": chain, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// conf believes any server: an attacker does.
func (s stolen) conf() *tls.Config {
	c := &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // see above
		MinVersion:         tls.VersionTLS13, NextProtos: []string{"h2"},
	}
	if s.cert != nil {
		// Shown whatever CA the server asks for.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.cert, nil }
	}
	return c
}

func (c *cluster) dial(addr string, who stolen) *grpc.ClientConn {
	c.t.Helper()
	return dial(c.t, addr, who)
}

func dial(t *testing.T, addr string, who stolen) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(who.conf())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// request makes a key and a signing request.
func request(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

// enrol trades a token for an identity; a host says that its role is what its name
// begins with, as web-1.
func (c *cluster) enrol(role, name, token string) stolen {
	c.t.Helper()
	key, csr := request(c.t)
	r := &agentv1.EnrolRequest{Token: token, CsrDer: csr, Name: name, Role: role, Instance: "i"}
	if kind, _, ok := strings.Cut(name, "-"); ok && role == "agent" {
		r.Zone, r.Labels = "a", map[string]string{"role": kind}
	}
	client := agentv1.NewEnrolmentServiceClient(c.dial(c.nodes[0].Agents, stolen{}))
	out, err := client.Enrol(c.t.Context(), r)
	for end := time.Now().Add(20 * time.Second); status.Code(err) == codes.Unavailable && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond) // on a machine that is that busy a leader may change
		out, err = client.Enrol(c.t.Context(), r)
	}
	if err != nil {
		c.t.Fatalf("enrol %s: %v", name, err)
	}
	pair := tls.Certificate{PrivateKey: key}
	for rest := out.CertificatePem; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		pair.Certificate = append(pair.Certificate, b.Bytes)
	}
	return stolen{id: out.HostId, cert: &pair}
}

// session opens a host's stream and says Hello.
func (c *cluster) session(ctx context.Context, addr string, who stolen, h *agentv1.Hello) (
	agentv1.AgentService_SessionClient, error,
) {
	s, err := agentv1.NewAgentServiceClient(c.dial(addr, who)).Session(ctx)
	if err != nil {
		return nil, err
	}
	return s, hello(s, h)
}

func hello(s agentv1.AgentService_SessionClient, h *agentv1.Hello) error {
	h.Instance = cmp.Or(h.Instance, "i")
	if err := s.Send(&agentv1.Up{Message: &agentv1.Up_Hello{Hello: h}}); err != nil {
		return err
	}
	_, err := s.Recv()
	return err
}

// readable is the file of the log of a coordinator that does not run.
func readable(t *testing.T, n *node) string {
	t.Helper()
	path := filepath.Join(n.dir, "raft", "raft.db")
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}
