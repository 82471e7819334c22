package coordinator

import (
	"context"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

const someRights = `version: 1
teams: {oncall: [ann], judges: [cat]}
rules:
  - {people: [admin], role: admin, applications: ["*"]}
  - {people: [maker], verbs: [operator-token], role: viewer, applications: ["*"]}
  - {people: [ann], role: deployer, applications: [www]}
  - {people: [visitor], role: viewer, applications: ["*"]}
`

// personAPI enrols an operator and returns their API.
func personAPI(
	t *testing.T, n *node, admin controlv1.ControlServiceClient, name string,
) controlv1.ControlServiceClient {
	t.Helper()
	out, err := admin.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "operator", Name: name})
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
	at := &Options{Join: []string{n.addr.Agents}}
	answer, err := at.enrolWith(t.Context(), token, &agentv1.EnrolRequest{
		Token: out.Token, CsrDer: csr, Name: name, Role: "operator",
	})
	if err != nil {
		t.Fatal(err)
	}
	cred, err := identity.NewCredential(answer.CertificatePem, key, answer.CaPem)
	if err != nil {
		t.Fatal(err)
	}
	return controlv1.NewControlServiceClient(dial(t, n.addr.API, cred.Client()))
}

// TestNobodyMakesMoreThanThemselves: a token of a person is a credential of that person
// in the hands of who makes it (K5).
func TestNobodyMakesMoreThanThemselves(t *testing.T) {
	t.Parallel()
	n := start(t, Options{Name: "c1", Dir: t.TempDir(), Bootstrap: true})
	_, admin := operator(t, n)
	maker, ann := personAPI(t, n, admin, "maker"), personAPI(t, n, admin, "ann")
	if _, err := admin.ApplyAccess(t.Context(), &controlv1.ApplyAccessRequest{Source: []byte(someRights)}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"visitor": "", "stranger": "", "admin": "admin may more than maker", "ann": "ann is in team oncall",
		"maker": "", "cat": "cat is in team judges",
	} {
		_, err := maker.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "operator", Name: name})
		if (err == nil) != (want == "") || err != nil && (rpc.Kind(err) != rpc.KindForbidden ||
			!strings.Contains(err.Error(), want)) {
			t.Errorf("a token of %s: %v", name, err)
		}
	}
	_, err := ann.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Role: "operator", Name: "stranger"})
	if rpc.Kind(err) != rpc.KindForbidden || !strings.Contains(err.Error(), "operator-token on the cluster") ||
		!strings.Contains(err.Error(), "ask admin") {
		t.Errorf("ann makes tokens: %v", err)
	}
	_, err = admin.RevokeIdentity(t.Context(), &controlv1.RevokeIdentityRequest{Role: "operator", Name: "admin"})
	if rpc.Kind(err) != rpc.KindConflict {
		t.Errorf("the last admin was revoked: %v", err)
	}
	who, err := ann.WhoAmI(t.Context(), &controlv1.WhoAmIRequest{})
	if err != nil || who.Name != "ann" || len(who.Rules) != 1 || len(who.Teams) != 1 || who.CountsAs != "admin" {
		t.Errorf("ann is %v, %v", who, err)
	}
	people, err := ann.ListPeople(t.Context(), &controlv1.ListPeopleRequest{})
	if err != nil || len(people.People) != 1 || people.People[0].Name != "ann" {
		t.Errorf("ann knows of %v, %v", people, err)
	}
}

// TestRightsThatChangeInBetween: what a handler decided under one document is not
// applied under another, and the request is decided anew.
func TestRightsThatChangeInBetween(t *testing.T) {
	t.Parallel()
	c := &Coordinator{store: state.New(deploy.RulesKnown), needs: needs()}
	ctx := rpc.WithCaller(t.Context(), identity.Peer{Role: identity.Operator, ID: "ann"})
	by := func() uint64 {
		out, err := c.may(ctx, controlv1.ControlService_WhoAmI_FullMethodName, &controlv1.WhoAmIRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return allowedBy(out.Context)
	}
	if got := by(); got != 1 {
		t.Errorf("without a document requests are allowed by %d", got)
	}
	if got := allowedBy(context.Background()); got != 0 {
		t.Errorf("what nobody asks is allowed by %d", got)
	}
	if _, err := c.may(ctx, "/groundswell.control.v1.ControlService/New", nil); rpc.Kind(err) != rpc.KindForbidden {
		t.Errorf("a method without a row: %v", err)
	}
	for _, p := range []identity.Peer{
		{Role: identity.Agent, ID: "admin"}, {Role: identity.Coordinator, ID: "admin"},
	} {
		if r, _ := c.rights(rpc.WithCaller(t.Context(), p)); r.May("view", "www", "prod") {
			t.Errorf("%s %s has the rights of a person", p.Role, p.ID)
		}
	}
	if r, _ := c.rights(t.Context()); r.May("view", "www", "prod") {
		t.Error("nobody has rights")
	}
}

// TestApproversMoveOnce: the key of coordinator.yaml becomes the first document, and is
// refused by the next start.
func TestApproversMoveOnce(t *testing.T) {
	t.Parallel()
	o := Options{
		Name: "c1", Dir: t.TempDir(), Bootstrap: true,
		Approvers: map[string][]string{"oncall": {"ann", "bob"}, "qa": {"cat"}},
	}
	n := start(t, o)
	_, admin := operator(t, n)
	var out *controlv1.GetAccessResponse
	eventually(t, "the approvers are not imported", func() bool {
		var err error
		out, err = admin.GetAccess(t.Context(), &controlv1.GetAccessRequest{})
		return err == nil && out.Index != 0
	})
	if !strings.Contains(out.Source, `"oncall": ["ann", "bob"]`) || out.Actor != "c1" {
		t.Errorf("the first document: %v", out)
	}
	status, err := admin.ClusterStatus(t.Context(), &controlv1.ClusterStatusRequest{})
	if err != nil || !status.EverybodyAdmin || status.AccessIndex != out.Index {
		t.Errorf("%v, %v", status, err)
	}
	n.stop()
	o.Raft = n.addr.Raft
	if err := refused(t, o); err == nil || !strings.Contains(err.Error(), "remove it from coordinator.yaml") {
		t.Errorf("a second start with approvers: %v", err)
	}
	o.Approvers = nil
	second := start(t, o)
	second.addr.Operator = n.addr.Operator
	_, admin = operator(t, second)
	again, err := admin.GetAccess(t.Context(), &controlv1.GetAccessRequest{})
	if err != nil || again.Source != out.Source || again.Index != out.Index {
		t.Errorf("after the key is gone: %v, %v", again, err)
	}
	o.Approvers = map[string][]string{"on call": {"a"}}
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "approvers:") {
		t.Errorf("approvers that no team can be made of: %v", err)
	}
}
