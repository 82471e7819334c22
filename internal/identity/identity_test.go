package identity

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func issue(t *testing.T, ca *CA, role Role, id string) *Credential {
	t.Helper()
	key, csr, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(csr, role, id)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCredential(cert, key, ca.PEM)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newCA(t *testing.T) *CA {
	t.Helper()
	ca, err := NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// handshake connects client and server and returns the errors of both.
func handshake(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		s := tls.Server(c, server)
		err = s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
		_ = c.Close()
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		_, err = c.Read(make([]byte, 1)) // TLS 1.3 tells a refused client only now
		_ = c.Close()
	}
	return err, <-done
}

func TestMutualTLS(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	server := issue(t, ca, Coordinator, "c1")
	agent := issue(t, ca, Agent, "h1")
	if c, s := handshake(t, agent.Client(), server.Server(false)); c != nil || s != nil {
		t.Errorf("agent and coordinator of one CA: %v, %v", c, s)
	}
	if c, _ := handshake(t, server.Client(), agent.Server(false)); c == nil {
		t.Error("an agent's certificate served as a coordinator's")
	}
	foreign := issue(t, other, Agent, "h1").Client()
	foreign.VerifyConnection = agent.Client().VerifyConnection
	if _, s := handshake(t, foreign, server.Server(false)); s == nil {
		t.Error("a client of another CA was let in")
	}
	if c, _ := handshake(t, agent.Client(), issue(t, other, Coordinator, "c1").Server(true)); c == nil {
		t.Error("a coordinator of another CA was believed")
	}
	none := agent.Client()
	none.GetClientCertificate = nil
	if _, s := handshake(t, none, server.Server(false)); s == nil {
		t.Error("a client without certificate was let in")
	}
	if _, s := handshake(t, none, server.Server(true)); s != nil {
		t.Errorf("enrolment needs no certificate: %v", s)
	}
	old := agent.Client()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if c, _ := handshake(t, old, server.Server(false)); c == nil {
		t.Error("TLS 1.2 was accepted")
	}
}

func TestPeerIsWhatTheCASays(t *testing.T) {
	p, err := issue(t, newCA(t), Agent, "01ABC").Peer()
	if err != nil || p != (Peer{Role: Agent, ID: "01ABC"}) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestIssueRefuses(t *testing.T) {
	ca := newCA(t)
	_, csr, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "a/b", "a b", "a,b", "-a", ".", "a\nb", "a?b", "a:b", strings.Repeat("a", 129)} {
		if _, err := ca.Issue(csr, Agent, id); err == nil {
			t.Errorf("identity %q was issued", id)
		}
	}
	broken := append([]byte{}, csr...)
	broken[len(broken)-1] ^= 1
	if _, err := ca.Issue(broken, Agent, "h"); err == nil {
		t.Error("a request that its key did not sign was accepted")
	}
	if _, err := ca.Issue([]byte("nonsense"), Agent, "h"); err == nil {
		t.Error("nonsense was accepted")
	}
}

// An ended certificate is a credential still: a coordinator renews its own with
// the CA's key, a host comes back as itself.
func TestEndedCertificateLoads(t *testing.T) {
	ca := newCA(t)
	ca.Life = -time.Minute
	c := issue(t, ca, Agent, "h1")
	if err := c.Valid(time.Now()); err == nil || !strings.Contains(err.Error(), "h1 ended at") {
		t.Errorf("an ended certificate: %v", err)
	}
	if err := c.Valid(time.Now().Add(-time.Hour)); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("a clock that is late: %v", err)
	}
	ca.Life = 0
	server := issue(t, ca, Coordinator, "c1")
	if _, s := handshake(t, c.Client(), server.Server(false)); s == nil {
		t.Error("an ended certificate was accepted")
	}
	if _, s := handshake(t, issue(t, ca, Agent, "h1").Client(), server.Server(false)); s != nil {
		t.Error("its successor was not: ", s)
	}
}

func TestBreakGlassIsMarked(t *testing.T) {
	ca := newCA(t)
	key, csr, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.IssueBreakGlass(csr, "ann")
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCredential(cert, key, ca.PEM)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := c.Peer(); err != nil || p != (Peer{Role: Operator, ID: "ann", BreakGlass: true}) {
		t.Errorf("%+v, %v", p, err)
	}
	if left := time.Until(c.Ends()); left > breakGlassLife {
		t.Errorf("it lives for %s", left)
	}
}

func TestTokens(t *testing.T) {
	ca := newCA(t)
	tok := NewToken(ca.PEM)
	back, err := ParseToken(" " + tok.String() + "\n")
	if err != nil || back != tok {
		t.Errorf("%+v, %v", back, err)
	}
	if _, err := Joining(ca.PEM, tok); err != nil {
		t.Error(err)
	}
	if _, err := Joining(newCA(t).PEM, tok); err == nil || !strings.Contains(err.Error(), "another CA") {
		t.Errorf("a token for another CA: %v", err)
	}
	whole := tok.String()
	for _, bad := range []string{
		"", "x", whole[:len(whole)-4], strings.Replace(whole, "gsjoin1", "gsjoin9", 1),
		"gsjoin1..x.", whole + ".x",
	} {
		_, err := ParseToken(bad)
		if err == nil || strings.Contains(err.Error(), tok.Secret) {
			t.Errorf("token %q: %v", bad, err)
		}
	}
}

func TestReadToken(t *testing.T) {
	tok := NewToken(newCA(t).PEM)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(tok.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadToken(file); err != nil || got != tok {
		t.Errorf("from a file: %v", err)
	}
	t.Setenv("GROUNDSWELL_JOIN_TOKEN", tok.String())
	if got, err := ReadToken(""); err != nil || got != tok {
		t.Errorf("from the environment: %v", err)
	}
	t.Setenv("GROUNDSWELL_JOIN_TOKEN", "")
	if _, err := ReadToken(""); err == nil || !strings.Contains(err.Error(), "--join-token-file") {
		t.Errorf("from nowhere: %v", err)
	}
	if _, err := ReadToken(file + "x"); err == nil {
		t.Error("a missing file was read")
	}
}

func TestSaveAndLoad(t *testing.T) {
	ca := newCA(t)
	key, csr, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(csr, Operator, "me")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "id")
	if _, err := Load(dir); !os.IsNotExist(unwrap(err)) {
		t.Errorf("a missing credential: %v", err)
	}
	if err := Save(dir, cert, key, ca.PEM); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err != nil {
		t.Error(err)
	}
	if err := Save(dir, cert, key, newCA(t).PEM); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "not valid under the CA") {
		t.Errorf("a certificate of another CA: %v", err)
	}
}

func unwrap(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		if _, isPath := err.(*os.PathError); isPath {
			return err
		}
		err = u.Unwrap()
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("gsjoin1.a.b.c")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = ParseToken(s) })
}

// TestTrustEndsWithWhoSigned: a certificate that names the new CA as its issuer and
// was signed by the old one ends with the old one.
func TestTrustEndsWithWhoSigned(t *testing.T) {
	old, next := newCA(t), newCA(t)
	server := issue(t, old, Coordinator, "c1")
	if err := server.Trust(append(append([]byte{}, next.PEM...), old.PEM...)); err != nil {
		t.Fatal(err)
	}
	key, csr, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	parent := *old.cert
	parent.SubjectKeyId = next.cert.SubjectKeyId // as who has the old key can write it
	certPEM, err := (&CA{cert: &parent, key: old.key}).Issue(csr, Operator, "mallory")
	if err != nil {
		t.Fatal(err)
	}
	mallory, err := NewCredential(certPEM, key, old.PEM)
	if err != nil {
		t.Fatal(err)
	}
	chains, err := mallory.Leaf().Verify(x509.VerifyOptions{
		Roots: server.trust.Load().pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !server.Trusts(RootsOf(chains)) {
		t.Error("refused while both are trusted")
	}
	if err := server.Trust(next.PEM); err != nil {
		t.Fatal(err)
	}
	if server.Trusts(RootsOf(chains)) {
		t.Error("trusted by what it says of its issuer")
	}
}

// TestWhoTrustsTooMuchRenews: one who trusts two CAs and is shown no word of one for
// the other has not heard that one was retired.
func TestWhoTrustsTooMuchRenews(t *testing.T) {
	old, next := newCA(t), newCA(t)
	oldKey, err := old.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	nextKey, err := next.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	both, err := ParseAuthorities(append(append([]byte{}, next.PEM...), old.PEM...), append(oldKey, nextKey...), 0)
	if err != nil {
		t.Fatal(err)
	}
	client := issue(t, next, Operator, "ann")
	if err := client.Trust(both.PEM()); err != nil {
		t.Fatal(err)
	}
	shown := func(cas *Authorities) *Credential {
		key, csr, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := cas.Issue(csr, Coordinator, "c1")
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewCredential(cert, key, cas.PEM())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	alone, err := ParseAuthorities(next.PEM, nextKey, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c, s := handshake(t, client.Client(), shown(both).Server(false)); c != nil || s != nil || client.Outdated() {
		t.Errorf("while both are trusted: %v, %v, outdated %v", c, s, client.Outdated())
	}
	if c, s := handshake(t, client.Client(), shown(alone).Server(false)); c != nil || s != nil || !client.Outdated() {
		t.Errorf("once one is retired: %v, %v, outdated %v", c, s, client.Outdated())
	}
	// A renewal is asked for once, not by each connection until it succeeds: that by
	// which it is tried is one of them.
	select {
	case <-client.soon:
	default:
		t.Error("no renewal was asked for")
	}
	handshake(t, client.Client(), shown(alone).Server(false))
	select {
	case <-client.soon:
		t.Error("the next connection asked for it again")
	default:
	}
	if client.ReplaceWith(client); client.Outdated() {
		t.Error("a credential that was replaced is outdated still")
	}
}
