package enrol

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/internal/identity"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// office is a service over a log that lives in a map.
type office struct {
	*Service
	t     *testing.T
	ca    *identity.CA
	spent []string // id of each use
	named string   // whom a token settles
	err   error    // of the log
	who   identity.Peer
	key   []byte
}

func newOffice(t *testing.T) *office {
	t.Helper()
	ca, err := identity.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	all, err := identity.ParseAuthorities(ca.PEM, key, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := &office{t: t, ca: ca}
	f.Service = New(Options{
		Authorities: func() *identity.Authorities { return all },
		ClusterID:   func() string { return "cluster" }, GossipKey: func() []byte { return []byte("ring") },
		Subject: func(Use) (string, error) { return f.named, nil },
		Owner:   func(_ identity.Role, id string, _ []byte) bool { return id == "mine" },
		Spend: func(_ context.Context, _ Use, id string) error {
			if f.err == nil {
				f.spent = append(f.spent, id)
			}
			return f.err
		},
		Seeds: func() []string { return []string{"seed:1"} }, Index: func() uint64 { return 7 },
		Coordinators: func() []string { return []string{"c1:7101"} },
		Caller:       func(context.Context) (identity.Peer, []byte, bool) { return f.who, f.key, f.who.ID != "" },
	})
	return f
}

// request is one that a joiner with a fresh key makes.
func (f *office) request(role identity.Role) *agentv1.EnrolRequest {
	f.t.Helper()
	_, csr, err := identity.NewKey()
	if err != nil {
		f.t.Fatal(err)
	}
	return &agentv1.EnrolRequest{
		Token: identity.NewToken(f.ca.PEM).String(), CsrDer: csr, Name: "web-1", Zone: "a", Role: string(role),
		Instance: "i1",
	}
}

// TestWhoSomebodyBecomes: a host names no identity, neither its own nor another's;
// a coordinator is what it is called; an operator does not hear the ring's key.
func TestWhoSomebodyBecomes(t *testing.T) {
	f := newOffice(t)
	enrol := func(r *agentv1.EnrolRequest) *agentv1.EnrolResponse {
		t.Helper()
		out, err := f.Enrol(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if f.spent[len(f.spent)-1] != out.HostId {
			t.Errorf("the certificate is for %s, the log has %v", out.HostId, f.spent)
		}
		return out
	}
	r := f.request(identity.Agent)
	if out := enrol(r); out.HostId == "web-1" || out.HostId == "" || string(out.GossipKey) != "ring" ||
		!slices.Equal(out.GossipSeeds, []string{"seed:1"}) || out.ClusterId != "cluster" {
		t.Errorf("a host got %+v", out)
	}
	r.HostId = "another"
	if out := enrol(r); out.HostId == "another" {
		t.Error("a host took the identity of another by its id")
	}
	r.HostId = "mine"
	if out := enrol(r); out.HostId != "mine" {
		t.Error("a host that still has its key did not get its identity back")
	}
	if out := enrol(f.request(identity.Coordinator)); out.HostId != "web-1" {
		t.Errorf("a coordinator became %s", out.HostId)
	}
	f.named = "ann"
	if out := enrol(f.request(identity.Operator)); out.HostId != "ann" || out.GossipKey != nil ||
		out.GossipSeeds != nil {
		t.Errorf("an operator got %+v", out)
	}
}

// TestNothingLeavesBeforeTheLog: a use that the log refuses gets no certificate,
// and what is no request spends nothing.
func TestNothingLeavesBeforeTheLog(t *testing.T) {
	f := newOffice(t)
	f.err = errors.New("the token is spent")
	if out, err := f.Enrol(t.Context(), f.request(identity.Agent)); out != nil || !errors.Is(err, f.err) {
		t.Errorf("%v, %v", out, err)
	}
	f.err = nil
	for what, change := range map[string]func(*agentv1.EnrolRequest){
		"token": func(r *agentv1.EnrolRequest) { r.Token = "gsjoin1.x" },
		"role":  func(r *agentv1.EnrolRequest) { r.Role = "king" },
		"csr":   func(r *agentv1.EnrolRequest) { r.CsrDer = []byte("no request") },
		"name":  func(r *agentv1.EnrolRequest) { r.Name = "../web" },
	} {
		r := f.request(identity.Agent)
		change(r)
		if _, err := f.Enrol(t.Context(), r); !isInvalid(err) {
			t.Errorf("a bad %s: %v", what, err)
		}
	}
	if len(f.spent) > 0 {
		t.Errorf("spent for nothing: %v", f.spent)
	}
}

func isInvalid(err error) bool {
	var k interface{ Kind() string }
	return errors.As(err, &k) && k.Kind() == "invalid"
}

// TestARenewalIsForTheSameKey: neither for another key, nor without a certificate,
// nor for one that was made to live a day.
func TestARenewalIsForTheSameKey(t *testing.T) {
	f := newOffice(t)
	_, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	r := &agentv1.RenewRequest{CsrDer: csr}
	refused := func(what, text string) {
		t.Helper()
		if _, err := f.Renew(t.Context(), r); !isInvalid(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("nobody", "only a client with a certificate")
	f.who, f.key = identity.Peer{Role: identity.Operator, ID: "ann"}, []byte("another")
	refused("another key", "for the key that the caller has")
	f.who.BreakGlass = true
	refused("break-glass", "is not renewed")
	f.who.BreakGlass = false
	if f.key, err = identity.RequestFingerprint(csr); err != nil {
		t.Fatal(err)
	}
	if out, err := f.Renew(t.Context(), r); err != nil || out.HostId != "ann" || len(f.spent) > 0 {
		t.Errorf("%v, %v, spent %v", out, err, f.spent)
	}
}
