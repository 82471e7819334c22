package state

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/groundswell/groundswell/deploy"
)

// everyClusterFact returns one filled value of each kind.
func everyClusterFact() []ClusterEvent {
	kinds := []ClusterEvent{
		ClusterCreated{},
		CoordinatorJoined{},
		CoordinatorRemoved{},
		TokenCreated{},
		TokenUsed{},
		OriginEnrolled{},
		TokenRevoked{},
		PersonConfirmed{},
		IdentityRevoked{},
		AttributesApproved{},
		InstanceBegan{},
		InstanceCleared{},
		HostCloned{},
		HostSplit{},
		SplitEnrolled{},
		BreakGlassUsed{},
		EpochBegun{},
		EpochActivated{},
		CAAdded{},
		CAIssues{},
		CARetired{},
		RingKeyAdded{},
		RingKeyUsed{},
		RingKeyRetired{},
		AccessChanged{},
		RequestsRefused{},
		AuditExported{},
	}
	for i, k := range kinds {
		v := reflect.New(reflect.TypeOf(k)).Elem()
		for f := range v.NumField() {
			if b := v.Field(f); b.Type() == reflect.TypeOf([]byte(nil)) {
				b.SetBytes([]byte{byte(f + 1)})
				continue
			} else if b.Type() == reflect.TypeOf([]Founder(nil)) {
				b.Set(reflect.ValueOf([]Founder{{"a/b", []byte{1}}, {"c/d", []byte{2}}}))
				continue
			}
			n := f
			fill(v.Field(f), &n)
		}
		kinds[i] = v.Interface().(ClusterEvent)
	}
	return kinds
}

func TestClusterFactsSurviveTheLog(t *testing.T) {
	kinds := map[string]bool{}
	for _, e := range everyClusterFact() {
		kinds[reflect.TypeOf(e).Name()] = true
		b, err := Encode(Entry{Cluster: []ClusterEvent{e}})
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(b)
		if err != nil || len(back.Cluster) != 1 {
			t.Fatalf("%T came back as %+v, %v", e, back.Cluster, err)
		}
		if diff := cmp.Diff(e, back.Cluster[0]); diff != "" {
			t.Errorf("%T lost in the log:\n%s", e, diff)
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "cluster" && fn.Recv != nil {
				if name := fn.Recv.List[0].Type.(*ast.Ident).Name; !kinds[name] {
					t.Errorf("fact %s is not tested", name)
				}
			}
		}
	}
}

// cluster is a Cluster to which facts are applied through the log's form.
type cluster struct {
	*testing.T
	s     *Store
	index uint64
	now   deploy.Time
	wall  int64
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{T: t, s: New(deploy.RulesKnown), now: 1}
	c.must(ClusterCreated{ID: "c", Founders: []Founder{
		{"operator/admin", []byte("ka")},
		{"coordinator/c1", []byte("k1")},
	}})
	return c
}

// do applies a fact. An image of what was before stays, whatever comes after it.
func (c *cluster) do(e ClusterEvent) error {
	c.Helper()
	image, want := c.s.image(), full(c.T, c.s)
	c.Cleanup(func() {
		var got bytes.Buffer
		if err := image.write(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
			c.Errorf("the image before %T is not what there was: %v\n%s\n%s", e, err, want, got.Bytes())
		}
	})
	c.index++
	return apply(c.T, c.s, c.index, Entry{
		Entry: deploy.Entry{At: c.now, Wall: c.wall}, Cluster: []ClusterEvent{e},
	}).Err()
}

func (c *cluster) must(e ClusterEvent) {
	c.Helper()
	if err := c.do(e); err != nil {
		c.Fatalf("%T: %v", e, err)
	}
}

// refused wants a refusal with this text.
func (c *cluster) refused(text string, e ClusterEvent) {
	c.Helper()
	before, _ := c.s.Encode()
	err := c.do(e)
	if err == nil || !strings.Contains(err.Error(), text) {
		c.Errorf("%T: %v, want %q", e, err, text)
	}
	after, _ := c.s.Encode()
	if diff := cmp.Diff(clusterPart(before), clusterPart(after)); diff != "" {
		c.Errorf("a refused %T changed the state:\n%s", e, diff)
	}
}

// clusterPart is the end of an encoded state.
func clusterPart(b []byte) string {
	_, part, _ := strings.Cut(string(b), `"cluster":`)
	return part
}

func (c *cluster) view() (out *Cluster) {
	c.s.ViewCluster(func(v *Cluster) { out = v })
	return out
}

func by(actor string) deploy.Request { return deploy.Request{Actor: actor} }

func (c *cluster) token(id, role string, change func(*TokenCreated)) {
	c.Helper()
	e := TokenCreated{Request: by("admin"), ID: id, Role: role, Hash: HashToken(id), Life: 1000, Uses: 1}
	if change != nil {
		change(&e)
	}
	c.must(e)
}

func used(id, subject, key string) TokenUsed {
	role, _, _ := strings.Cut(subject, "/")
	return TokenUsed{ID: id, Hash: HashToken(id), Role: role, Subject: subject, Key: []byte(key)}
}

// person makes an operator by a token of another.
func (c *cluster) person(name, maker string) {
	c.Helper()
	c.token("t-"+name, "operator", func(e *TokenCreated) { e.Name, e.Request = name, by(maker) })
	c.must(used("t-"+name, "operator/"+name, "k-"+name))
}

func TestTokenIsSpentOnce(t *testing.T) {
	c := newCluster(t)
	c.token("t", "agent", nil)
	wrong := used("t", "agent/h1", "k")
	wrong.Hash = HashToken("other")
	c.refused("secret does not match", wrong)
	c.refused("for the role agent, not coordinator", used("t", "coordinator/c2", "k"))
	c.refused("unknown", used("t9", "agent/h1", "k"))
	c.must(used("t", "agent/h1", "k"))
	c.refused("used up", used("t", "agent/h2", "k2"))
	c.refused("used up", used("t", "agent/h2", "k")) // the same key as another host
	c.must(used("t", "agent/h1", "k"))               // the answer was lost
	if got, err := c.view().Subject(used("t", "agent/", "k"), c.now); got != "agent/h1" || err != nil {
		t.Errorf("who asks again is told %q, %v", got, err)
	}
	c.token("two", "agent", func(e *TokenCreated) { e.Uses = 2 })
	c.must(used("two", "agent/h3", "k3"))
	c.must(used("two", "agent/h3", "k3"))
	c.must(used("two", "agent/h4", "k4"))
	c.refused("used up", used("two", "agent/h5", "k5"))
}

// One wrong wall clock, of whoever led for a moment, ends no token and keeps
// none alive: expiry is counted in FSM time.
func TestTokenEndsByTheLogsTime(t *testing.T) {
	c := newCluster(t)
	c.token("t", "agent", func(e *TokenCreated) { e.Uses = 9 })
	c.wall = 1 << 60
	c.must(used("t", "agent/h1", "k1"))
	c.now += 1000
	c.must(used("t", "agent/h2", "k2"))
	c.now++
	c.refused("expired", used("t", "agent/h3", "k3"))
	c.refused("expired", used("t", "agent/h2", "k2")) // for who asks again, too
	c.token("u", "agent", nil)
	if _, kept := c.view().Tokens["t"]; kept {
		t.Error("an expired token is kept for ever")
	}
}

func TestTokenIsRevoked(t *testing.T) {
	c := newCluster(t)
	c.token("t", "agent", func(e *TokenCreated) { e.Uses = 9 })
	c.must(TokenRevoked{Request: by("admin"), ID: "t"})
	c.must(TokenRevoked{Request: by("admin"), ID: "t"}) // the answer was lost
	c.refused("revoked", used("t", "agent/h1", "k1"))
	c.refused("no token", TokenRevoked{ID: "x"})
}

func TestNobodyMintsAnExistingIdentity(t *testing.T) {
	c := newCluster(t)
	c.person("ann", "admin")
	c.token("p", "operator", func(e *TokenCreated) { e.Name = "ann" })
	c.refused("nobody else's key gets its name", used("p", "operator/ann", "mallory"))
	c.refused("not for operator/bob", used("p", "operator/bob", "k"))
	c.must(used("p", "operator/ann", "k-ann")) // her own key: her certificate had ended
	c.token("a", "operator", func(e *TokenCreated) { e.Name = "admin" })
	c.refused("nobody else's key", used("a", "operator/admin", "mallory"))

	c.token("c", "coordinator", func(e *TokenCreated) { e.Uses = 9 })
	c.refused("member of the cluster already", used("c", "coordinator/c1", "mallory"))
	c.must(CoordinatorJoined{Name: "c1"})
	c.must(CoordinatorRemoved{Request: by("admin"), Name: "c1"})
	c.refused("the key of coordinator/c1 was revoked", used("c", "coordinator/c1", "k1"))
	c.must(used("c", "coordinator/c1", "k1b")) // its successor under its name
	c.refused("no coordinator of this cluster", CoordinatorRemoved{Name: "c9"})

	c.token("h", "agent", func(e *TokenCreated) { e.Uses = 9 })
	c.must(used("h", "agent/h1", "kh"))
	c.refused("nobody else's key", used("h", "agent/h1", "mallory"))
	c.token("back", "agent", func(e *TokenCreated) { e.Host = "h1" })
	c.refused("not for agent/h2", used("back", "agent/h2", "k"))
	c.must(used("back", "agent/h1", "new")) // an operator said that h1 comes back
	if err := c.view().Admits("agent/h1", []byte("kh"), false); err == nil {
		t.Error("the former key of h1 still counts")
	}
}

func TestRevokedIsRefused(t *testing.T) {
	c := newCluster(t)
	c.person("ann", "admin")
	admits := func(key string) error { return c.view().Admits("operator/ann", []byte(key), false) }
	if err := admits("k-ann"); err != nil {
		t.Fatal(err)
	}
	if err := admits("other"); err == nil {
		t.Error("another key was let in as ann")
	}
	c.must(BreakGlassUsed{Name: "ann", Key: []byte("glass"), Coordinator: "c1"})
	c.must(IdentityRevoked{Request: by("admin"), Identity: "operator/ann"})
	c.must(IdentityRevoked{Request: by("admin"), Identity: "operator/ann"})
	if err := admits("k-ann"); err == nil || !strings.Contains(err.Error(), "revoked by admin") {
		t.Errorf("revoked: %v", err)
	}
	if err := c.view().Admits("operator/ann", []byte("glass"), true); err == nil {
		t.Error("her break-glass credential still counts")
	}
	c.token("p", "operator", func(e *TokenCreated) { e.Name = "ann" })
	c.refused("was revoked; make another one", used("p", "operator/ann", "k-ann"))
	c.must(used("p", "operator/ann", "k-ann-2"))
	if admits("k-ann") == nil || admits("k-ann-2") != nil {
		t.Error("after a new start the old key counts, or the new one does not")
	}
	c.refused("rotate the CA", IdentityRevoked{Identity: "coordinator/c1"})
	if err := c.view().Admits("agent/unknown", []byte("k"), false); err != nil {
		t.Errorf("a host that this replica does not know yet: %v", err)
	}
	c.must(IdentityRevoked{Request: by("admin"), Identity: "agent/unknown"})
	if err := c.view().Admits("agent/unknown", []byte("k"), false); err == nil {
		t.Error("an unknown host cannot be revoked")
	}
}

func TestFourEyesAreTwoPeople(t *testing.T) {
	c := newCluster(t)
	c.person("ann", "admin")
	c.person("bob", "ann")
	c.person("carl", "bob")
	for _, name := range []string{"admin", "ann", "bob", "carl"} {
		if p := c.view().Person(name); p != "admin" {
			t.Errorf("%s counts as %s: admin made all of them, also through others", name, p)
		}
	}
	c.refused("counts as admin", PersonConfirmed{Request: by("admin"), Name: "bob"})
	c.refused("counts as admin", PersonConfirmed{Request: by("carl"), Name: "bob"})
	c.refused("no operator", PersonConfirmed{Request: by("ann"), Name: "nobody"})
	c.refused("counts as a person already", PersonConfirmed{Request: by("ann"), Name: "admin"})
	glass := deploy.Request{Actor: "root", Person: BreakGlassPerson}
	c.must(PersonConfirmed{Request: glass, Name: "ann"})
	c.must(PersonConfirmed{Request: glass, Name: "ann"})
	for name, want := range map[string]string{"admin": "admin", "ann": "ann", "bob": "ann", "carl": "ann"} {
		if p := c.view().Person(name); p != want {
			t.Errorf("%s counts as %s, want %s", name, p, want)
		}
	}
	c.refused("counts as ann", PersonConfirmed{Request: by("ann"), Name: "carl"})
	c.must(PersonConfirmed{Request: by("admin"), Name: "carl"})
	if p := c.view().Person("carl"); p != "carl" {
		t.Errorf("carl counts as %s after another has confirmed him", p)
	}
	// Two that made each other, by way of a revocation, are one.
	c.person("dora", "ann")
	c.person("emil", "dora")
	c.must(IdentityRevoked{Request: by("ann"), Identity: "operator/dora"})
	c.token("again", "operator", func(e *TokenCreated) { e.Name, e.Request = "dora", by("emil") })
	c.must(used("again", "operator/dora", "k-dora-2"))
	if a, b := c.view().Person("dora"), c.view().Person("emil"); a != b {
		t.Errorf("dora counts as %s, emil as %s, and they made each other", a, b)
	}
}

// A new epoch leaves one coordinator, holds the cluster, and begins once.
func TestEpoch(t *testing.T) {
	c := newCluster(t)
	c.token("t", "coordinator", nil)
	c.must(used("t", "coordinator/c2", "k2"))
	c.must(CoordinatorJoined{Name: "c1"})
	c.must(CoordinatorJoined{Name: "c2"})
	begun := EpochBegun{Epoch: 2, Coordinator: "c2", Key: []byte("k2b"), Reason: "fire"}
	c.must(begun)
	v := c.view()
	if v.Epoch != 2 || v.Held != "fire" || len(v.Coordinators) != 1 || v.Coordinators["c2"].Name != "c2" {
		t.Errorf("%+v", v)
	}
	if v.Owner("coordinator/c1", []byte("k1")) || v.Owner("coordinator/c2", []byte("k2")) ||
		!v.Owner("coordinator/c2", []byte("k2b")) {
		t.Error("who was lost still counts, or who goes on does not")
	}
	c.refused("in epoch 2, not 1", EpochActivated{Epoch: 1})
	c.must(EpochActivated{Request: by("admin"), Epoch: 2})
	c.must(EpochActivated{Request: by("admin"), Epoch: 2})
	c.must(begun) // written twice by a start that was interrupted
	if c.view().Held != "" {
		t.Error("an epoch that was activated is held again")
	}
	c.token("back", "coordinator", nil)
	c.must(used("back", "coordinator/c1", "k1b"))
}

// TestARevokedKeyDoesNotComeBackByItsToken: an answer is given again to who asks
// again, but not to a key that was revoked since.
func TestARevokedKeyDoesNotComeBackByItsToken(t *testing.T) {
	c := newCluster(t)
	c.token("t", "coordinator", func(e *TokenCreated) { e.Uses = 2 })
	c.must(used("t", "coordinator/c9", "k9"))
	c.must(used("t", "coordinator/c9", "k9")) // the answer was lost
	c.must(CoordinatorRemoved{Request: by("admin"), Name: "c9"})
	c.refused("was revoked", used("t", "coordinator/c9", "k9"))
	c.s.ViewCluster(func(s *Cluster) {
		if s.Revoked("coordinator/c9", []byte("k9")) == "" || s.Revoked("coordinator/c9", []byte("other")) != "" ||
			s.Revoked("coordinator/c1", []byte("k1")) != "" {
			t.Error("who is let in to raft")
		}
	})
}

// TestTokensEndWithTheirCA: those of before the new CA issued, and no others.
func TestTokensEndWithTheirCA(t *testing.T) {
	c := newCluster(t)
	c.token("old", "agent", nil)
	c.must(CAAdded{ID: "b", CA: []byte("a b")})
	c.must(CAIssues{ID: "b", CA: []byte("b a")})
	c.token("new", "agent", nil)
	c.refused("decided meanwhile", CARetired{ID: "b", CA: []byte("a")})
	c.must(CARetired{Request: by("admin"), ID: "a", CA: []byte("b")})
	c.refused("revoked", used("old", "agent/h1", "kh"))
	c.must(used("new", "agent/h1", "kh"))
	c.token("kept", "agent", nil)
	c.must(CAAdded{ID: "c", CA: []byte("b c")})
	c.must(CARetired{ID: "c", CA: []byte("b")}) // given up
	c.must(used("kept", "agent/h2", "kh2"))
}
