package coordinator

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// join spends a token as somebody, with a key.
func join(t *testing.T, n *node, token string, r *agentv1.EnrolRequest) (*agentv1.EnrolResponse, error) {
	t.Helper()
	parsed, err := identity.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	r.Token = token
	return (&Options{Join: []string{n.addr.API}}).enrolWith(t.Context(), parsed, r)
}

// person makes an operator by a token that somebody creates.
func person(t *testing.T, n *node, maker controlv1.ControlServiceClient, name string) controlv1.ControlServiceClient {
	t.Helper()
	out, err := maker.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "operator", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	key, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := join(t, n, out.Token, &agentv1.EnrolRequest{CsrDer: csr, Role: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.GossipKey) > 0 {
		t.Error("an operator was given the ring's key")
	}
	cred, err := identity.NewCredential(answer.CertificatePem, key, answer.CaPem)
	if err != nil {
		t.Fatal(err)
	}
	return controlv1.NewControlServiceClient(dial(t, n.addr.API, cred.Client()))
}

// three starts a cluster of three coordinators.
func three(t *testing.T) (nodes []*node, admin controlv1.ControlServiceClient) {
	t.Helper()
	first := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, admin = operator(t, first)
	nodes = []*node{first}
	for _, name := range []string{"c2", "c3"} {
		out, err := admin.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "coordinator"})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, start(t, Options{
			Name: name, Dir: t.TempDir(), Join: []string{first.addr.API},
			Token: func() (identity.Token, error) { return identity.ParseToken(out.Token) },
		}))
	}
	return nodes, admin
}

// as dials a coordinator with the credential in a folder.
func (n *node) as(t *testing.T, dir string) controlv1.ControlServiceClient {
	t.Helper()
	cred, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return controlv1.NewControlServiceClient(dial(t, n.addr.API, cred.Client()))
}

// eventually polls what has no signal.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited 10 s for: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestTokens(t *testing.T) {
	nodes, admin := three(t)
	ctx := t.Context()
	create := func(r *controlv1.CreateTokenRequest) *controlv1.CreateTokenResponse {
		t.Helper()
		out, err := admin.CreateToken(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	// A fresh token works at every coordinator at once.
	for i := range 30 {
		_, csr, err := identity.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		token := create(&controlv1.CreateTokenRequest{}).Token
		if _, err := join(t, nodes[i%3], token,
			&agentv1.EnrolRequest{CsrDer: csr, Role: "agent", Name: "h", Instance: "i"}); err != nil {
			t.Fatalf("token %d at %s: %v", i, nodes[i%3].addr.Name, err)
		}
	}
	// A wrong role is refused unspent, and is nobody in the state.
	_, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	once := create(&controlv1.CreateTokenRequest{Role: "operator", Name: "ann"})
	for role, want := range map[string]string{
		"agent": "not agent", "coordinator": "not coordinator",
		"": "unknown role",
	} {
		r := &agentv1.EnrolRequest{CsrDer: csr, Role: role, Name: "x", Instance: "i"}
		_, err := join(t, nodes[1], once.Token, r)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("as %q: %v", role, err)
		}
	}
	list, err := admin.ListTokens(ctx, &controlv1.ListTokensRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var ann *controlv1.JoinToken
	for _, k := range list.Tokens {
		if k.Id == once.Id {
			ann = k
		}
	}
	if ann.GetUses() != 1 || ann.GetActor() != "admin" || ann.GetName() != "ann" || len(ann.GetUsedBy()) > 0 ||
		ann.GetLeftMs() <= 0 {
		t.Errorf("the token after it was refused: %v", ann)
	}
	if people, err := admin.ListPeople(ctx, &controlv1.ListPeopleRequest{}); err != nil || len(people.People) != 1 {
		t.Errorf("people: %v, %v", people, err)
	}
	// A revoked one is refused, at every coordinator at once.
	gone := create(&controlv1.CreateTokenRequest{})
	if _, err := admin.RevokeToken(ctx, &controlv1.RevokeTokenRequest{Id: gone.Id[:5]}); err != nil {
		t.Fatal(err)
	}
	if _, err := join(t, nodes[2], gone.Token,
		&agentv1.EnrolRequest{CsrDer: csr, Role: "agent", Name: "h", Instance: "i"}); err == nil ||
		!strings.Contains(err.Error(), "revoked") {
		t.Errorf("a revoked token: %v", err)
	}
	if _, err := admin.RevokeToken(ctx, &controlv1.RevokeTokenRequest{Id: "zzz"}); rpc.Kind(err) != rpc.KindNotFound {
		t.Errorf("a token that there is not: %v", err)
	}
}

// A secret that is wrong writes nothing: the log does not grow.
func TestWrongSecretsWriteNothing(t *testing.T) {
	n := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, admin := operator(t, n)
	out, err := admin.CreateToken(t.Context(), &controlv1.CreateTokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	good, err := identity.ParseToken(out.Token)
	if err != nil {
		t.Fatal(err)
	}
	index := func() uint64 {
		s, err := admin.ClusterStatus(t.Context(), &controlv1.ClusterStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Index
	}
	eventually(t, "the rules are raised", func() bool { // an entry each
		return status(t, admin).Rules == deploy.RulesKnown
	})
	before := index()
	bad := good
	bad.Secret = strings.Repeat("a", len(good.Secret))
	for range 20 {
		if _, err := join(t, n, bad.String(),
			&agentv1.EnrolRequest{CsrDer: csr, Role: "agent", Name: "h", Instance: "i"}); err == nil {
			t.Fatal("a wrong secret was accepted")
		}
	}
	if after := index(); after != before {
		t.Errorf("20 wrong secrets made %d entries", after-before)
	}
}

// A renewal is for the key that the caller has shown, and for nobody else's.
func TestRenewalIsForTheSameKey(t *testing.T) {
	n := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, control := operator(t, n)
	cred, _ := enrolled(t, n, control, "agent", "web-1")
	_, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	agent := agentv1.NewAgentServiceClient(dial(t, n.addr.API, cred.Client()))
	if _, err := agent.Renew(t.Context(), &agentv1.RenewRequest{CsrDer: csr}); rpc.Kind(err) != rpc.KindInvalid {
		t.Errorf("a certificate for another key: %v", err)
	}
}

func TestBreakGlass(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "glass")
	n := start(t, Options{Name: "c1", Dir: dir, Bootstrap: true})
	ends, err := BreakGlass(dir, "root", out)
	if err != nil || time.Until(ends) > 24*time.Hour {
		t.Fatalf("%v, %v", ends, err)
	}
	_, admin := operator(t, n)
	glass := n.as(t, out)
	if _, err := glass.ListApps(t.Context(), &controlv1.ListAppsRequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its first use is recorded", func() bool {
		people, err := admin.ListPeople(t.Context(), &controlv1.ListPeopleRequest{})
		if err != nil {
			t.Fatal(err)
		}
		last := people.People[len(people.People)-1]
		return last.BreakGlass && last.Name == "root" && last.UsedAt == "c1"
	})
	cred, err := identity.Load(out)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.KeyOf(out)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := identity.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	renew := agentv1.NewAgentServiceClient(dial(t, n.addr.API, cred.Client()))
	if _, err := renew.Renew(t.Context(), &agentv1.RenewRequest{CsrDer: csr}); rpc.Kind(err) != rpc.KindInvalid {
		t.Errorf("it was renewed: %v", err)
	}
	// It makes two people of the first operator and whom that one made.
	ann := person(t, n, admin, "ann")
	countsAs := func() string {
		people, err := ann.ListPeople(t.Context(), &controlv1.ListPeopleRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range people.People {
			if p.Name == "ann" {
				return p.CountsAs
			}
		}
		return ""
	}
	if _, err := admin.ConfirmPerson(t.Context(),
		&controlv1.ConfirmPersonRequest{Name: "ann"}); rpc.Kind(err) != rpc.KindConflict || countsAs() != "admin" {
		t.Errorf("admin vouched for whom admin made: %v, counts as %s", err, countsAs())
	}
	if _, err := glass.ConfirmPerson(t.Context(), &controlv1.ConfirmPersonRequest{Name: "ann"}); err != nil ||
		countsAs() != "ann" {
		t.Errorf("break-glass: %v, counts as %s", err, countsAs())
	}
	if _, err := admin.RevokeIdentity(t.Context(),
		&controlv1.RevokeIdentityRequest{Role: "operator", Name: "root"}); err != nil {
		t.Fatal(err)
	}
	if _, err := glass.ListApps(t.Context(), &controlv1.ListAppsRequest{}); rpc.Kind(err) != rpc.KindUnauthorised {
		t.Errorf("revoked: %v", err)
	}
}

// Break-glass works where no leader is: two of three coordinators are gone.
func TestBreakGlassWithoutALeader(t *testing.T) {
	nodes, _ := three(t)
	nodes[1].stop()
	nodes[2].stop()
	out := filepath.Join(t.TempDir(), "glass")
	if _, err := BreakGlass(filepath.Dir(nodes[0].addr.Operator), "root", out); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[0].as(t, out).ListApps(t.Context(), &controlv1.ListAppsRequest{}); err != nil {
		t.Error(err)
	}
}

// What a person could come back by ends with it: no token that it made is good
// after its end, also none that it makes while it is revoked.
func TestTokensEndWithTheirMaker(t *testing.T) {
	nodes, admin := three(t)
	ctx := t.Context()
	ann := person(t, nodes[0], admin, "ann")
	_ = person(t, nodes[0], ann, "bob")
	var secrets []string
	var mu sync.Mutex
	var all sync.WaitGroup
	begun := make(chan struct{}, 100)
	for range 4 {
		all.Go(func() {
			for {
				out, err := ann.CreateToken(ctx, &controlv1.CreateTokenRequest{Role: "operator", Name: "carol"})
				if rpc.Kind(err) == rpc.KindTooMany {
					continue
				}
				if err != nil {
					return
				}
				mu.Lock()
				secrets = append(secrets, out.Token)
				mu.Unlock()
				select {
				case begun <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 5 {
		<-begun
	}
	out, err := admin.RevokeIdentity(ctx, &controlv1.RevokeIdentityRequest{Role: "operator", Name: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	if out.Tokens < 5 || !slices.Equal(out.Made, []string{"bob"}) {
		t.Errorf("%d tokens closed, operators that stay %v", out.Tokens, out.Made)
	}
	all.Wait()
	for i, s := range secrets {
		if i%(1+len(secrets)/20) > 0 { // anonymous callers have a share
			continue
		}
		_, csr, err := identity.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := join(t, nodes[0], s, &agentv1.EnrolRequest{CsrDer: csr, Role: "operator"}); err == nil {
			t.Fatalf("a token that ann made, of %d, makes %s", len(secrets), out.HostId)
		}
	}
	left, err := admin.ListTokens(ctx, &controlv1.ListTokensRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tk := range left.Tokens {
		if slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(s, "."+tk.Id+".") }) {
			t.Errorf("token %s, whose secret ann knows, is open", tk.Id)
		}
	}
}

// A revoked person is refused at every coordinator, and a watch that runs ends
// within a second; so does a host's session.
func TestRevokedEverywhere(t *testing.T) {
	nodes, admin := three(t)
	ctx := t.Context()
	ann := person(t, nodes[2], admin, "ann")
	host, _ := enrolled(t, nodes[0], admin, "agent", "web-1")
	session, err := agentv1.NewAgentServiceClient(dial(t, nodes[1].addr.Agents, host.Client())).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	hello := &agentv1.Up{Message: &agentv1.Up_Hello{Hello: &agentv1.Hello{Instance: "i", Name: "web-1", Zone: "a"}}}
	if err := session.Send(hello); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Recv(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := session.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	if _, err := ann.ListApps(ctx, &controlv1.ListAppsRequest{}); err != nil {
		t.Fatal(err)
	}
	for role, name := range map[string]string{"operator": "ann", "agent": "web-1"} {
		if _, err := admin.RevokeIdentity(ctx, &controlv1.RevokeIdentityRequest{Role: role, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		if rpc.Kind(err) != rpc.KindUnauthorised || !strings.Contains(err.Error(), "revoked by admin") {
			t.Errorf("the session ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the session of a revoked host goes on")
	}
	eventually(t, "ann is refused at a follower", func() bool {
		_, err := ann.ListApps(ctx, &controlv1.ListAppsRequest{})
		return rpc.Kind(err) == rpc.KindUnauthorised
	})
	if _, err := ann.RegisterRevision(ctx, &controlv1.RegisterRevisionRequest{
		App: "a", Name: "v",
		Digest: "d",
	}); rpc.Kind(err) != rpc.KindUnauthorised {
		t.Errorf("a forwarded call of a revoked person: %v", err)
	}
	again, err := agentv1.NewAgentServiceClient(dial(t, nodes[0].addr.Agents, host.Client())).Session(ctx)
	if err == nil {
		_, err = again.Recv()
	}
	if rpc.Kind(err) != rpc.KindUnauthorised {
		t.Errorf("a new session of a revoked host: %v", err)
	}
	// A host that was forgotten, and somebody of whom a restored backup knows nothing.
	_, gone := enrolled(t, nodes[0], admin, "agent", "web-2")
	for _, r := range []*controlv1.RevokeIdentityRequest{
		{Role: "agent", Name: "web-2"}, {Role: "agent", Name: gone.HostId}, {
			Role: "operator", Name: "x",
			Unknown: true,
		},
	} {
		if out, err := admin.RevokeIdentity(ctx, r); err != nil || r.Role == "agent" &&
			out.Identity != "agent/"+gone.HostId {
			t.Errorf("%v: %v, %v", r, out, err)
		}
	}
	for _, bad := range []*controlv1.RevokeIdentityRequest{
		{Role: "operator", Name: "../x", Unknown: true},
		{Role: "operator", Name: "nobody"},
		{Role: "agent", Name: "nobody"},
		{
			Role: "coordinator",
			Name: "c1",
		},
		{Role: "x", Name: "c1"},
	} {
		if _, err := admin.RevokeIdentity(ctx, bad); err == nil {
			t.Errorf("%v was revoked", bad)
		}
	}
}

// Keys are for members: not for whoever holds a certificate of that role, such
// as one that was issued and whose coordinator was removed.
func TestKeysAreForMembers(t *testing.T) {
	n := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	cas, err := readCAs(filepath.Dir(n.addr.Operator), mustCA(t, n), 0)
	if err != nil {
		t.Fatal(err)
	}
	key, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"c1", "c9"} { // another key of a member, and nobody
		cert, err := cas.Issue(csr, identity.Coordinator, name)
		if err != nil {
			t.Fatal(err)
		}
		cred, err := identity.NewCredential(cert, key, cas.PEM())
		if err != nil {
			t.Fatal(err)
		}
		peer := peerv1.NewPeerServiceClient(dial(t, n.addr.API, cred.Client()))
		if _, err := peer.Keys(t.Context(), &peerv1.KeysRequest{}); err == nil {
			t.Errorf("the keys were given to a false %s", name)
		}
		if _, err := peer.Propose(t.Context(), &peerv1.ProposeRequest{}); err == nil ||
			rpc.Kind(err) == rpc.KindInternal {
			t.Errorf("a false %s may propose: %v", name, err)
		}
	}
}

func mustCA(t *testing.T, n *node) []byte {
	t.Helper()
	cred, err := identity.Load(n.addr.Operator)
	if err != nil {
		t.Fatal(err)
	}
	return cred.CA()
}

// A client reads its own writes at any replica: its requests carry the index.
func TestReadYourWrites(t *testing.T) {
	nodes, _ := three(t)
	cred, err := identity.Load(nodes[0].addr.Operator)
	if err != nil {
		t.Fatal(err)
	}
	var seen rpc.Seen
	at := func(n *node) controlv1.ControlServiceClient {
		cc, err := rpc.Dial([]string{n.addr.API}, cred.Client(), seen.Options()...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cc.Close() })
		return controlv1.NewControlServiceClient(cc)
	}
	clients := []controlv1.ControlServiceClient{at(nodes[0]), at(nodes[1]), at(nodes[2])}
	for i := range 18 {
		name := "v" + string(rune('A'+i))
		wrote, err := clients[i%3].RegisterRevision(t.Context(), &controlv1.RegisterRevisionRequest{
			App: "www", Name: name, Digest: "sha256:" + strings.Repeat("a",
				62) + string("0123456789"[i/10]) + string("0123456789"[i%10]),
		})
		if err != nil || wrote.Index == 0 {
			t.Fatalf("index %d, %v", wrote.GetIndex(), err)
		}
		revs, err := clients[(i+1)%3].ListRevisions(t.Context(),
			&controlv1.ListRevisionsRequest{App: "www", Name: name})
		if err != nil || len(revs.Revisions) != 1 {
			t.Fatalf("write %d at c%d is not read at c%d: %v, %v", i, i%3+1, (i+1)%3+1, revs, err)
		}
	}
	// What no replica has yet is waited for, and not answered with an older state.
	ahead := metadata.AppendToOutgoingContext(t.Context(), "groundswell-index", "1000000")
	ahead, cancel := context.WithTimeout(ahead, 300*time.Millisecond)
	defer cancel()
	if out, err := clients[1].ListRevisions(ahead, &controlv1.ListRevisionsRequest{App: "www"}); err == nil {
		t.Errorf("a replica that lags answered %d revisions", len(out.Revisions))
	}
}
