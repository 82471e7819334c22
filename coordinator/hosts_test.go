package coordinator

import (
	"context"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// TestNoHostTalksItselfIntoAGroup: over the real API, through a follower: what a
// token binds holds whatever the host says, at its enrolment and later; a person
// changes it, and the one who looked at something else does not.
func TestNoHostTalksItselfIntoAGroup(t *testing.T) {
	nodes, admin := three(t)
	ctx := t.Context()
	if _, err := admin.ApplyApp(ctx, &controlv1.ApplyAppRequest{Source: []byte(`
app: db
artifacts: file:///nowhere
groups:
  prod: {select: 'role == "db"', config: all-at-once}
`)}); err != nil {
		t.Fatal(err)
	}
	token, err := admin.CreateToken(ctx, &controlv1.CreateTokenRequest{
		Host: "web-7", Zone: "b", Labels: map[string]string{"role": "web"},
	})
	if err != nil || token.Returns {
		t.Fatal(token, err)
	}
	key, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	says := map[string]string{"role": "db"}
	answer, err := join(t, nodes[1], token.Token, &agentv1.EnrolRequest{
		CsrDer: csr, Role: "agent", Instance: "i", Name: "db-1", Zone: "a-first", Labels: says,
	})
	if err != nil {
		t.Fatal(err)
	}
	cred, err := identity.NewCredential(answer.CertificatePem, key, answer.CaPem)
	if err != nil {
		t.Fatal(err)
	}
	hello := func(n *node) *agentv1.Welcome {
		t.Helper()
		ctx, cancel := context.WithCancel(ctx)
		t.Cleanup(cancel)
		s, err := agentv1.NewAgentServiceClient(dial(t, n.addr.Agents, cred.Client())).Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&agentv1.Up{Message: &agentv1.Up_Hello{Hello: &agentv1.Hello{
			Name: "db-1", Zone: "a-first", Labels: says, Index: answer.Index, Instance: "i",
		}}}); err != nil {
			t.Fatal(err)
		}
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m.GetWelcome()
	}
	if waits := hello(nodes[2]).GetWaits(); !strings.Contains(waits, "hosts approve web-7") {
		t.Errorf("it is told %q", waits)
	}
	host := func() *controlv1.Host {
		t.Helper()
		out, err := admin.GetHost(ctx, &controlv1.GetHostRequest{Host: answer.HostId})
		if err != nil {
			t.Fatal(err)
		}
		return out.Host
	}
	h := host()
	if h.Name != "web-7" || h.Zone != "b" || h.Labels["role"] != "web" || len(h.Targets) > 0 ||
		len(h.Differences) != 3 {
		t.Errorf("the host is %+v", h)
	}
	set := func(a *controlv1.Attributes, approved uint64) error {
		_, err := admin.SetHostAttributes(ctx, &controlv1.SetHostAttributesRequest{
			Host: h.Id, Attributes: a, Approved: approved,
		})
		return err
	}
	if err := set(&controlv1.Attributes{Name: "web-7", Zone: "c"}, 0); err != nil {
		t.Fatal(err)
	}
	if err := set(&controlv1.Attributes{Name: "web-7", Zone: "c"}, 0); err != nil {
		t.Errorf("the answer was lost, and asked for again: %v", err)
	}
	if err := set(h.Says, 0); err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("who read what it was before approves: %v", err)
	}
	if h = host(); h.Zone != "c" || len(h.Labels) != 0 || h.Approved != 1 {
		t.Errorf("the host is %+v", h)
	}
	for _, bad := range []*controlv1.Attributes{nil, {Name: "-x"}, {Name: "x", Zone: "\x1b"}} {
		if err := set(bad, 1); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	// Taken at its word it joins the group whose label it claims.
	if err := set(h.Says, 1); err != nil {
		t.Fatal(err)
	}
	if waits := hello(nodes[0]).GetWaits(); waits != "" {
		t.Errorf("it is told %q", waits)
	}
	eventually(t, "the host is a target", func() bool { h = host(); return len(h.Targets) == 1 })
	if h.Name != "db-1" || h.Says != nil {
		t.Errorf("the host is %+v", h)
	}
	for what, r := range map[string]*controlv1.CreateTokenRequest{
		"a coordinator's zone": {Role: "coordinator", Zone: "a"},
		"many of one name":     {Host: "web-9", Uses: 2},
		"a wrong label":        {Labels: map[string]string{"a\nb": "c"}},
		"a host that is here":  {Host: "db-1"},
	} {
		if _, err := admin.CreateToken(ctx, r); err == nil {
			t.Errorf("a token for %s was made", what)
		}
	}
}
