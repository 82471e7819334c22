package coordinator

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/dirstore"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// node is a coordinator run in this process.
type node struct {
	addr Addresses
	dir  string
	stop func()
}

func start(t *testing.T, o Options) *node {
	t.Helper()
	for _, a := range []*string{&o.API, &o.Agents, &o.Raft, &o.Gossip} {
		if *a == "" {
			*a = "127.0.0.1:0"
		}
	}
	o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	o.Store = func(_ context.Context, url string) (artifacts.Store, error) {
		return dirstore.New(strings.TrimPrefix(url, "file://"))
	}
	ready := make(chan Addresses, 1)
	o.Ready = func(a Addresses) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	n := &node{dir: o.Dir, stop: func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("coordinator %s: %v", o.Name, err)
		}
		done <- nil
	}}
	select {
	case n.addr = <-ready:
	case err := <-done:
		t.Fatalf("coordinator %s did not start: %v", o.Name, err)
	case <-time.After(30 * time.Second):
		t.Fatal("coordinator is not ready")
	}
	t.Cleanup(n.stop)
	return n
}

func dial(t *testing.T, addr string, conf *tls.Config) *grpc.ClientConn {
	t.Helper()
	cc, err := rpc.Dial([]string{addr}, conf, grpc.WithChainUnaryInterceptor(patient))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// patient asks again, as dctl does, while a machine that is busy with other tests
// elects a leader.
func patient(
	ctx context.Context, method string, q, a any, cc *grpc.ClientConn, call grpc.UnaryInvoker, o ...grpc.CallOption,
) (err error) {
	for range 100 {
		err = call(ctx, method, q, a, cc, o...)
		if err == nil || !strings.Contains(err.Error(), "one will lead soon") &&
			!strings.Contains(err.Error(), "the log changed hands") {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

func operator(t *testing.T, n *node) (*grpc.ClientConn, controlv1.ControlServiceClient) {
	t.Helper()
	cred, err := identity.Load(n.addr.Operator)
	if err != nil {
		t.Fatal(err)
	}
	cc := dial(t, n.addr.API, cred.Client())
	return cc, controlv1.NewControlServiceClient(cc)
}

// enrolled returns the credential of a new identity, made with a token.
func enrolled(t *testing.T, n *node, c controlv1.ControlServiceClient, role,
	name string,
) (*identity.Credential, *agentv1.EnrolResponse) {
	t.Helper()
	ctx := t.Context()
	out, err := c.CreateToken(ctx, &controlv1.CreateTokenRequest{Role: role})
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(out.Token)
	if err != nil {
		t.Fatal(err)
	}
	key, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	r := &agentv1.EnrolRequest{
		Token: out.Token, CsrDer: csr, Name: name, Role: role, Instance: "i", Zone: "a", Labels: map[string]string{"role": "web"},
	}
	at := &Options{Join: []string{n.addr.Agents}}
	answer, err := at.enrolWith(ctx, token, r)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := at.enrolWith(ctx, token, r); err != nil || again.HostId != answer.HostId {
		t.Errorf("the same key and token once more: %v, %v", again, err)
	}
	_, other, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	r = &agentv1.EnrolRequest{Token: out.Token, CsrDer: other, Name: name, Role: role, Instance: "i"}
	if _, err := at.enrolWith(ctx, token, r); err == nil || !strings.Contains(err.Error(), "used up") {
		t.Errorf("a token was used twice: %v", err)
	}
	cred, err := identity.NewCredential(answer.CertificatePem, key, answer.CaPem)
	if err != nil {
		t.Fatal(err)
	}
	return cred, answer
}

func TestEveryMethodHasARow(t *testing.T) {
	rows, rights := table(), needs()
	for _, d := range []grpc.ServiceDesc{
		agentv1.EnrolmentService_ServiceDesc, agentv1.AgentService_ServiceDesc,
		peerv1.PeerService_ServiceDesc, controlv1.ControlService_ServiceDesc,
	} {
		var names []string
		for _, m := range d.Methods {
			names = append(names, m.MethodName)
		}
		for _, m := range d.Streams {
			names = append(names, m.StreamName)
		}
		for _, n := range names {
			rule, ok := rows["/"+d.ServiceName+"/"+n]
			if !ok {
				t.Errorf("%s/%s has no row: nobody may call it", d.ServiceName, n)
			}
			if rule.Anonymous && d.ServiceName != "groundswell.agent.v1.EnrolmentService" {
				t.Errorf("%s/%s is open to everyone", d.ServiceName, n)
			}
			delete(rows, "/"+d.ServiceName+"/"+n)
			if _, ok := rights["/"+d.ServiceName+"/"+n]; !ok && ofControl("/"+d.ServiceName+"/"+n) {
				t.Errorf("%s/%s has no row of rights: nobody may call it", d.ServiceName, n)
			}
			delete(rights, "/"+d.ServiceName+"/"+n)
		}
	}
	for _, m := range slices.Sorted(maps.Keys(rights)) {
		t.Errorf("row of rights of %s, which is not served", m)
	}
	for _, m := range slices.Sorted(maps.Keys(rows)) {
		t.Errorf("row of %s, which is not served", m)
	}
}

func TestWhoMayCallWhat(t *testing.T) {
	n := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, control := operator(t, n)
	agent, answer := enrolled(t, n, control, "agent", "web-1")
	ctx := t.Context()

	asAgent := dial(t, n.addr.API, agent.Client())
	if _, err := controlv1.NewControlServiceClient(asAgent).ListHosts(ctx,
		&controlv1.ListHostsRequest{}); rpc.Kind(err) != rpc.KindForbidden {
		t.Errorf("an agent may list hosts: %v", err)
	}
	if _, err := peerv1.NewPeerServiceClient(asAgent).Keys(ctx,
		&peerv1.KeysRequest{}); rpc.Kind(err) != rpc.KindForbidden {
		t.Errorf("an agent may have the CA's key: %v", err)
	}
	conf := agent.Client()
	conf.GetClientCertificate = nil
	if _, err := controlv1.NewControlServiceClient(dial(t, n.addr.API, conf)).ListApps(ctx,
		&controlv1.ListAppsRequest{}); rpc.Kind(err) != rpc.KindUnauthorised {
		t.Errorf("a call without certificate: %v", err)
	}
	other, err := identity.NewCA("other")
	if err != nil {
		t.Fatal(err)
	}
	key, csr, _ := identity.NewKey()
	cert, err := other.Issue(csr, identity.Operator, "mallory")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := identity.NewCredential(cert, key, other.PEM)
	if err != nil {
		t.Fatal(err)
	}
	conf = forged.Client()
	conf.RootCAs = agent.Client().RootCAs
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := controlv1.NewControlServiceClient(dial(t, n.addr.API, conf)).ListApps(short,
		&controlv1.ListAppsRequest{}); err == nil {
		t.Error("a certificate of another CA was accepted")
	}

	peer, err := agent.Peer()
	if err != nil || peer.ID != answer.HostId || peer.Role != identity.Agent {
		t.Errorf("enrolled as %+v, %v", peer, err)
	}
	session, err := agentv1.NewAgentServiceClient(asAgent).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Send(&agentv1.Up{Message: &agentv1.Up_Hello{Hello: &agentv1.Hello{
		Name: "web-1", Zone: "a", Instance: "i",
		Labels: map[string]string{"role": "web"},
	}}}); err != nil {
		t.Fatal(err)
	}
	if down, err := session.Recv(); err != nil || down.GetWelcome() == nil {
		t.Fatalf("first message down: %v, %v", down, err)
	}
	hosts, err := control.ListHosts(ctx, &controlv1.ListHostsRequest{Role: "web"})
	if err != nil || len(hosts.Hosts) != 1 || hosts.Hosts[0].Id != answer.HostId {
		t.Errorf("hosts: %v, %v", hosts, err)
	}
}

func TestThreeCoordinators(t *testing.T) {
	first := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, control := operator(t, first)
	nodes := []*node{first}
	for _, name := range []string{"c2", "c3"} {
		out, err := control.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "coordinator"})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, start(t, Options{
			Name: name, Dir: t.TempDir(), Join: []string{first.addr.API},
			Token: func() (identity.Token, error) { return identity.ParseToken(out.Token) },
		}))
	}
	out, err := control.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "coordinator"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(out.Token)
	if err != nil {
		t.Fatal(err)
	}
	_, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	at := &Options{Join: []string{nodes[1].addr.API}}
	_, err = at.enrolWith(t.Context(), token, &agentv1.EnrolRequest{
		Token: out.Token, CsrDer: csr, Name: "c2", Role: "coordinator",
	})
	if err == nil || !strings.Contains(err.Error(), "member of the cluster already") {
		t.Errorf("the identity of c2 was given away: %v", err)
	}
	cred, err := identity.Load(first.addr.Operator)
	if err != nil {
		t.Fatal(err)
	}
	// A mutation at a follower is forwarded, and who asked for it travels along.
	follower := controlv1.NewControlServiceClient(dial(t, nodes[2].addr.API, cred.Client()))
	if _, err := follower.RegisterRevision(t.Context(), &controlv1.RegisterRevisionRequest{
		Mutation: &controlv1.Mutation{RequestId: "r1"}, App: "www", Name: "v1", Digest: "sha256:" + strings.Repeat("a", 64),
	}); err != nil {
		t.Fatal(err)
	}
	revs, err := control.ListRevisions(t.Context(), &controlv1.ListRevisionsRequest{App: "www"})
	if err != nil || len(revs.Revisions) != 1 || revs.Revisions[0].Actor != "admin" {
		t.Errorf("revisions at the leader: %v, %v", revs, err)
	}
	status, err := follower.ClusterStatus(t.Context(), &controlv1.ClusterStatusRequest{})
	if err != nil || len(status.Coordinators) != 3 || status.Leader != "c1" {
		t.Errorf("cluster status at a follower: %v, %v", status, err)
	}
	if _, err := follower.RegisterRevision(t.Context(), &controlv1.RegisterRevisionRequest{
		Mutation: &controlv1.Mutation{RequestId: "r1"}, App: "www", Name: "v9", Digest: "sha256:" + strings.Repeat("b", 64),
	}); rpc.Kind(err) != rpc.KindConflict {
		t.Errorf("one request id for two requests: %v", err)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Options{Name: "c1", Dir: dir, Bootstrap: true})
	_, control := operator(t, n)
	if _, err := control.RegisterRevision(t.Context(),
		&controlv1.RegisterRevisionRequest{
			App: "www", Name: "v1",
			Digest: "sha256:" + strings.Repeat("a", 64),
		}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	again := start(t, Options{Name: "c1", Dir: dir, Raft: n.addr.Raft})
	again.addr.Operator = filepath.Join(dir, operatorDir)
	_, control = operator(t, again)
	revs, err := control.ListRevisions(t.Context(), &controlv1.ListRevisionsRequest{App: "www"})
	if err != nil || len(revs.Revisions) != 1 {
		t.Errorf("after a restart: %v, %v", revs, err)
	}
}

func TestKeysAreSecret(t *testing.T) {
	dir := t.TempDir()
	start(t, Options{Name: "c1", Dir: dir, Bootstrap: true})
	for _, f := range []string{"ca.key", "gossip.key", "identity/tls.key", "operator/tls.key"} {
		info, err := os.Stat(filepath.Join(dir, f))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	good := Options{
		Name: "c", Dir: "d", API: "127.0.0.1:1", Agents: "127.0.0.1:2", Raft: "127.0.0.1:3",
		Gossip: "127.0.0.1:4",
	}
	for flag, change := range map[string]func(*Options){
		"--name":      func(o *Options) { o.Name = "a b" },
		"--dir":       func(o *Options) { o.Dir = "" },
		"--api":       func(o *Options) { o.API = "nonsense" },
		"--advertise": func(o *Options) { o.Raft = ":7102" },
		"--debug":     func(o *Options) { o.Debug = "0.0.0.0:7190" },
		"--bootstrap": func(o *Options) { o.Bootstrap, o.Join = true, []string{"x"} },

		"gates: prometheus":        func(o *Options) { o.Gates.Prometheus = "prometheus:9090" },
		"gates: webhookSecretFile": func(o *Options) { o.Gates.SecretFile = "/nonexistent" },
	} {
		o := good
		change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("wrong %s: %v", flag, err)
		}
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

// TestMetricsSayHowLongCertificatesLive scrapes a real coordinator.
func TestMetricsSayHowLongCertificatesLive(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	debug := l.Addr().String()
	_ = l.Close() // it was open a moment ago
	start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true, Debug: debug, CertificateLife: 2 * time.Hour})
	out, err := http.Get("http://" + debug + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		var name string
		var v float64
		if rest, ok := strings.CutPrefix(line, "groundswell_certificate_expires_seconds"); ok {
			if _, err := fmt.Sscan(rest, &name, &v); err != nil {
				t.Fatal(err)
			}
			found[name] = v
		}
	}
	if own, ca := found[`{certificate="coordinator"}`], found[`{certificate="ca"}`]; own < 7100 || own > 7200 ||
		ca < 9*365*86400 {
		t.Errorf("certificates live for %v", found)
	}
}
