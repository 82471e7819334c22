package attack

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"maps"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// may says who gets past authorisation, method by method. It is written by hand,
// beside the table of the coordinator and not from it.
var may = map[string]string{
	"EnrolmentService/Roots": "everybody", "EnrolmentService/Enrol": "everybody",

	"AgentService/Session": "agent", "AgentService/SignArtifact": "agent", "AgentService/Renew": "agent operator",

	"PeerService/Propose": "coordinator", "PeerService/Presence": "coordinator", "PeerService/Keys": "coordinator",
	"PeerService/Join": "coordinator", "PeerService/Logs": "coordinator", "PeerService/Describe": "coordinator",

	"ControlService/CreateDeployment": "operator", "ControlService/PlanDeployment": "operator",
	"ControlService/Rollback": "operator", "ControlService/Act": "operator", "ControlService/ApplyApp": "operator",
	"ControlService/SimulateDeployment": "operator", "ControlService/SetFreeze": "operator",
	"ControlService/RotateRingKey":     "operator",
	"ControlService/SetHostAttributes": "operator", "ControlService/SplitHost": "operator",
	"AgentService/Split": "agent", "AgentService/Traffic": "agent", "PeerService/Living": "coordinator",
	"ControlService/DeleteGroup": "operator", "ControlService/CordonHost": "operator", "ControlService/DrainHost": "operator",
	"ControlService/RegisterRevision": "operator", "ControlService/ForgetHost": "operator",
	"ControlService/PruneRevisions": "operator",
	"ControlService/CreateToken":    "operator", "ControlService/ListTokens": "operator",
	"ControlService/RevokeToken": "operator", "ControlService/ConfirmPerson": "operator",
	"ControlService/RevokeIdentity": "operator", "ControlService/RemoveCoordinator": "operator",
	"ControlService/RotateCA": "operator", "ControlService/RetireCA": "operator",
	"ControlService/ActivateEpoch": "operator", "ControlService/ListHosts": "operator",
	"ControlService/GetHost": "operator", "ControlService/ClusterStatus": "operator",
	"ControlService/GetDeployment": "operator", "ControlService/ListDeployments": "operator",
	"ControlService/WatchDeployment": "operator", "ControlService/Logs": "operator",
	"ControlService/ListApps": "operator", "ControlService/GetApp": "operator",
	"ControlService/ListRevisions": "operator", "ControlService/ListPeople": "operator",
	"ControlService/ApplyAccess": "operator", "ControlService/GetAccess": "operator",
	"ControlService/ExplainAccess": "operator", "ControlService/WhoAmI": "operator",
	"ControlService/ListAudit": "operator",
	"ControlService/Backup":    "operator", "ControlService/Snapshot": "operator", "PeerService/Snapshot": "coordinator",
}

// call is one method that is served.
type call struct {
	short, full string
	stream      bool
}

func calls() (all []call) {
	for _, d := range []grpc.ServiceDesc{
		agentv1.EnrolmentService_ServiceDesc, agentv1.AgentService_ServiceDesc,
		peerv1.PeerService_ServiceDesc, controlv1.ControlService_ServiceDesc,
	} {
		short := d.ServiceName[strings.LastIndex(d.ServiceName, ".")+1:]
		for _, m := range d.Methods {
			all = append(all, call{short + "/" + m.MethodName, "/" + d.ServiceName + "/" + m.MethodName, false})
		}
		for _, s := range d.Streams {
			all = append(all, call{short + "/" + s.StreamName, "/" + d.ServiceName + "/" + s.StreamName, true})
		}
	}
	return all
}

// make calls a method with an empty message and returns the code of the answer.
func (x call) make(t *testing.T, cc *grpc.ClientConn, more ...string) codes.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), more...), 10*time.Second)
	defer cancel()
	in, out := messages(t, x.full)
	if !x.stream {
		return status.Code(cc.Invoke(ctx, x.full, in, out))
	}
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, x.full)
	if err != nil {
		return status.Code(err)
	}
	if err := s.SendMsg(in); err != nil && !errors.Is(err, io.EOF) {
		return status.Code(err)
	}
	if err := s.CloseSend(); err != nil {
		return status.Code(err)
	}
	if err := s.RecvMsg(out); err != nil && !errors.Is(err, io.EOF) {
		return status.Code(err)
	}
	return codes.OK
}

func messages(t *testing.T, full string) (in, out proto.Message) {
	t.Helper()
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(full, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := d.(protoreflect.MethodDescriptor)
	for i, n := range []protoreflect.FullName{m.Input().FullName(), m.Output().FullName()} {
		typ, err := protoregistry.GlobalTypes.FindMessageByName(n)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			in = typ.New().Interface()
		} else {
			out = typ.New().Interface()
		}
	}
	return in, out
}

// TestEveryCallByEveryIdentity: at the leader and at a follower.
func TestEveryCallByEveryIdentity(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	token := c.token("agent", 3)
	revoked := c.enrol("agent", "revoked", token)
	who := map[string]stolen{
		"anonymous": {}, "agent": c.enrol("agent", "web-1", token), "agent of another host": c.enrol("agent",
			"web-2", token),
		"operator":      c.enrol("operator", "mallory", c.token("operator", 1)),
		"coordinator":   load(t, c.nodes[1].dir+"/identity"),
		"revoked agent": revoked, "agent of another CA": forged(t, "agent"), "operator of another CA": forged(t,
			"operator"),
		"coordinator of another CA": forged(t, "coordinator"), "self-signed nonsense": forged(t, "root"),
	}
	if s, err := c.session(t.Context(), c.nodes[0].Agents, revoked, &agentv1.Hello{Name: "revoked"}); err != nil {
		t.Fatal(err)
	} else if _, err := c.api.RevokeIdentity(t.Context(), &controlv1.RevokeIdentityRequest{
		Role: "agent", Name: "revoked",
	}); err != nil {
		t.Fatal(err)
	} else {
		for err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("the session of a revoked host ended with %v", err)
		}
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(who)) {
		for i, n := range c.nodes {
			cc := c.dial(n.API, who[name])
			for _, x := range calls() {
				row, known := may[x.short]
				if !known {
					t.Errorf("%s has no row: say who may call it", x.short)
				}
				seen[x.short] = true
				role, _, _ := strings.Cut(name, " of another host")
				passes := row == "everybody" || slices.Contains(strings.Fields(row), role)
				foreign := strings.Contains(name, "CA") || strings.Contains(name, "nonsense")
				if name == "coordinator" && (x.short == "PeerService/Presence" || x.short == "PeerService/Keys") {
					continue // what it is: everything. SECURITY.md says so
				}
				if name == "operator" && (x.short == "ControlService/RotateCA" ||
					x.short == "ControlService/RetireCA") {
					continue // it would be done
				}
				got := x.make(t, cc)
				switch denied := got == codes.PermissionDenied || got == codes.Unauthenticated; {
				case foreign && got != codes.Unavailable: // no handshake
					t.Errorf("%s calls %s at c%d: %s", name, x.short, i+1, got)
				case foreign:
				case name == "revoked agent" && row != "everybody" && !denied:
					t.Errorf("%s calls %s at c%d: %s", name, x.short, i+1, got)
				case name == "revoked agent":
				case passes && denied, !passes && !denied:
					t.Errorf("%s calls %s at c%d: %s, may: %s", name, x.short, i+1, got, row)
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(may)) {
		if !seen[name] {
			t.Errorf("row of %s, which is not served", name)
		}
	}
}

// TestNobodyForwards: the words by which a coordinator names a caller are worth
// nothing in another mouth.
func TestNobodyForwards(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	agent := c.enrol("agent", "web-1", c.token("agent", 1))
	words := []string{
		"groundswell-forwarded", "1", "groundswell-caller-role", "operator", "groundswell-caller-id", "admin",
		"groundswell-caller-key-bin", "x", "groundswell-caller-break-glass", "1",
	}
	for _, who := range []stolen{{}, agent} {
		cc := c.dial(c.nodes[0].API, who)
		for _, x := range calls() {
			if row := may[x.short]; row == "everybody" || strings.Contains(row, "agent") {
				continue
			}
			if got := x.make(t, cc, words...); got != codes.PermissionDenied && got != codes.Unauthenticated {
				t.Errorf("%s with a coordinator's words: %s", x.short, got)
			}
		}
	}
}

// TestAnotherHostsThings: an agent gets no URL of what it is no target of, nor
// of what is no object.
func TestAnotherHostsThings(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	token := c.token("agent", 2)
	mine, other := c.enrol("agent", "web-1", token), c.enrol("agent", "db-1", token)
	c.application("www", "web")
	for name, who := range map[string]stolen{"web": mine, "db": other} {
		s, err := c.session(t.Context(), c.nodes[0].Agents, who, &agentv1.Hello{
			Name: name + "-1", Zone: "a", Labels: map[string]string{"role": name},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.CloseSend() }()
	}
	sign := func(who stolen, key string) error {
		_, err := agentv1.NewAgentServiceClient(c.dial(c.nodes[0].Agents, who)).SignArtifact(t.Context(),
			&agentv1.SignArtifactRequest{App: "www", Group: "prod", Key: key})
		return err
	}
	c.until("web-1 is no target", func() bool { return sign(mine, "bundles/x") == nil })
	if err := sign(other, "bundles/x"); status.Code(err) != codes.NotFound {
		t.Errorf("another host's object: %v", err)
	}
	for _, key := range []string{"../../etc/passwd", "/etc/passwd", "a/../../../etc/shadow", "..", "a\x00b", ""} {
		if err := sign(mine, key); err == nil {
			t.Errorf("a URL of %q", key)
		}
	}
}

// forged makes a credential of a CA of the attacker's own.
func forged(t *testing.T, role string) stolen {
	t.Helper()
	key, _ := request(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "c1"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{{Scheme: "groundswell", Host: role, Path: "/c1"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, any(key).(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return stolen{cert: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}
