package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/groundswell/groundswell/internal/durable"
)

// Peer is who speaks at the other end of a connection.
type Peer struct {
	Role Role
	ID   string
	// BreakGlass says that the certificate was made on a coordinator's own
	// machine, without anybody's token.
	BreakGlass bool
}

// breakGlass marks a certificate in its URI.
const breakGlass = "break-glass"

func (p Peer) uri() *url.URL {
	u := &url.URL{Scheme: "groundswell", Host: string(p.Role), Path: "/" + p.ID}
	if p.BreakGlass {
		u.RawQuery = breakGlass
	}
	return u
}

// PeerOf reads the identity of a verified certificate.
func PeerOf(cert *x509.Certificate) (Peer, error) {
	for _, u := range cert.URIs {
		if u.Scheme != "groundswell" {
			continue
		}
		role, err := ParseRole(u.Host)
		if err != nil {
			return Peer{}, err
		}
		return Peer{Role: role, ID: strings.TrimPrefix(u.Path, "/"), BreakGlass: u.RawQuery == breakGlass}, nil
	}
	return Peer{}, errors.New("the certificate names no groundswell identity")
}

// Credential is an identity in use: a key, its certificate and the CAs that it
// trusts. Each may be replaced while connections use it. All methods may be called
// concurrently.
type Credential struct {
	pair  atomic.Pointer[tls.Certificate]
	trust atomic.Pointer[trust]
	soon  chan time.Duration // see RenewSoon
	late  atomic.Bool        // see Outdated
}

// trust is a set of CAs.
type trust struct {
	pem  []byte
	pool *x509.CertPool
	ids  map[string]bool
}

// NewCredential checks that key, certificate and CA belong together. A
// certificate that has ended is no error: see Valid.
func NewCredential(certPEM, keyPEM, caPEM []byte) (*Credential, error) {
	c := &Credential{soon: make(chan time.Duration, 1)}
	if err := c.Trust(caPEM); err != nil {
		return nil, err
	}
	return c, c.Replace(certPEM, keyPEM)
}

// Trust takes the CAs into use that peers are verified by from now on.
func (c *Credential) Trust(caPEM []byte) error {
	certs, err := certificates(caPEM)
	if err != nil {
		return err
	}
	t := &trust{pem: caPEM, pool: x509.NewCertPool(), ids: map[string]bool{}}
	for _, cert := range certs {
		t.pool.AddCert(cert)
		t.ids[idOf(cert)] = true
	}
	c.trust.Store(t)
	return nil
}

// Trusts reports whether one of the CAs by which a connection was verified when it
// was made is trusted still.
func (c *Credential) Trusts(cas []string) bool {
	now := c.trust.Load().ids
	return slices.ContainsFunc(cas, func(id string) bool { return now[id] })
}

// RootsOf names the CAs by which a connection was verified: not by what its
// certificate says of its issuer, but by whose signature was checked.
func RootsOf(chains [][]*x509.Certificate) (ids []string) {
	for _, chain := range chains {
		ids = append(ids, idOf(chain[len(chain)-1]))
	}
	return ids
}

// Outdated reports whether a coordinator has shown a certificate of another CA
// since this one was issued: the cluster's CA was replaced. Where KeepRenewed runs,
// it renews then.
func (c *Credential) Outdated() bool { return c.late.Load() }

// Leaf returns the certificate that is shown.
func (c *Credential) Leaf() *x509.Certificate { return c.pair.Load().Leaf }

// IssuedAs reports whether two certificates come from one CA.
func (c *Credential) IssuedAs(leaf *x509.Certificate) bool {
	return bytes.Equal(c.pair.Load().Leaf.AuthorityKeyId, leaf.AuthorityKeyId)
}

// Replace takes a new certificate into use for connections from now on.
func (c *Credential) Replace(certPEM, keyPEM []byte) error {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("read certificate and key: %w", err)
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{
		Roots: c.trust.Load().pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		CurrentTime: pair.Leaf.NotAfter,
	})
	if err != nil {
		return fmt.Errorf("the certificate is not valid under the CA: %w", err)
	}
	c.pair.Store(&pair)
	return nil
}

// ReplaceWith takes another credential's CAs, key and certificate into use.
func (c *Credential) ReplaceWith(other *Credential) {
	c.trust.Store(other.trust.Load())
	c.pair.Store(other.pair.Load())
	c.late.Store(false)
}

// Peer returns the credential's own identity.
func (c *Credential) Peer() (Peer, error) { return PeerOf(c.pair.Load().Leaf) }

// CA returns the CA certificates in PEM.
func (c *Credential) CA() []byte { return c.trust.Load().pem }

// Fingerprint returns the fingerprint of the credential's key.
func (c *Credential) Fingerprint() []byte { return Fingerprint(c.pair.Load().Leaf) }

// Ends returns when the certificate ends.
func (c *Credential) Ends() time.Time { return c.pair.Load().Leaf.NotAfter }

// Valid says whether the certificate can be shown at a time, and if not, why.
func (c *Credential) Valid(now time.Time) error {
	leaf := c.pair.Load().Leaf
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate of %s ended at %s", leaf.Subject.CommonName,
			leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate of %s begins at %s, later than this machine's clock: is the clock right?",
			leaf.Subject.CommonName, leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// RenewAt returns when the certificate is due: when two thirds of its life have
// passed, give or take a fifteenth of it, so that a fleet that was enrolled at
// once does not renew at once. It is the same at each call.
func (c *Credential) RenewAt() time.Time {
	leaf := c.pair.Load().Leaf
	issued := leaf.NotBefore.Add(skew)
	life := leaf.NotAfter.Sub(issued)
	spread := time.Duration(new(big.Int).Mod(leaf.SerialNumber, big.NewInt(int64(life)*2/15+1)).Int64())
	return issued.Add(life*9/15 + spread)
}

// Client returns the configuration for dialling coordinators: TLS 1.3, our
// certificate shown, theirs verified to be a coordinator's by the CAs that are
// trusted at that moment.
func (c *Credential) Client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: ServerName,
		InsecureSkipVerify:   true, //nolint:gosec // the next line verifies, by CAs that may change
		VerifyConnection:     c.verifyCoordinator,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
}

func (c *Credential) verifyCoordinator(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the coordinator shows no certificate")
	}
	between := x509.NewCertPool()
	for _, cert := range s.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: c.trust.Load().pool, Intermediates: between, DNSName: ServerName,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	// One who trusts two CAs, and is shown no word of one for the other, has not
	// heard that one is retired.
	alone := len(s.PeerCertificates) == 1 && len(c.trust.Load().ids) > 1
	// asked once: the connection by which it renews comes here too
	if (!c.IssuedAs(s.PeerCertificates[0]) || alone) && !c.late.Swap(true) {
		c.RenewSoon(0)
	}
	return nil
}

// Server returns the configuration for serving: TLS 1.3 and a client
// certificate of the CA. With anonymous, a client without a certificate is let
// through to the handlers, which must deny it all but enrolment.
func (c *Credential) Server(anonymous bool) *tls.Config {
	auth := tls.RequireAndVerifyClientCert
	if anonymous {
		auth = tls.VerifyClientCertIfGiven
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, ClientCAs: c.trust.Load().pool, ClientAuth: auth,
		SessionTicketsDisabled: true, // a resumed session would ask no CA of today
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := conf.Clone()
		now.GetConfigForClient, now.ClientCAs = nil, c.trust.Load().pool
		return now, nil
	}
	return conf
}

// Joining returns the client configuration of one who has only a token: the
// server is verified against CA certificates that the token vouches for.
func Joining(caPEM []byte, t Token) (*tls.Config, error) {
	one := Only(caPEM, t.CA)
	pool := x509.NewCertPool()
	if one == nil || !pool.AppendCertsFromPEM(one) {
		return nil, errors.New("the coordinator shows another CA than the join token names: a wrong address, " +
			"an old token, or somebody in between")
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: ServerName}, nil
}

// Files of a credential in its folder.
const (
	certFile = "tls.crt"
	keyFile  = "tls.key"
	caFile   = "ca.crt"
)

// Save writes a credential: the key first and 0600, the certificate last, so
// that a folder with a certificate is whole.
func Save(dir string, certPEM, keyPEM, caPEM []byte) error {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create identity folder: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{keyFile, keyPEM}, {caFile, caPEM}, {certFile, certPEM}} {
		if err := WriteSecret(filepath.Join(dir, f.name), f.data); err != nil {
			return err
		}
	}
	return nil
}

// SaveRenewed replaces the certificate in a folder that Save wrote, and the CAs
// where they are others. The key stays. A crash leaves a certificate that a CA
// beside it vouches for: the new CAs come before it, and the old ones go after it.
func SaveRenewed(dir string, certPEM, caPEM []byte) error {
	path := filepath.Join(dir, caFile)
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	if bytes.Equal(old, caPEM) {
		return WriteSecret(filepath.Join(dir, certFile), certPEM)
	}
	if err := WriteSecret(path, union(caPEM, old)); err != nil {
		return err
	}
	if err := WriteSecret(filepath.Join(dir, certFile), certPEM); err != nil {
		return err
	}
	return WriteSecret(path, caPEM)
}

// union returns the certificates of both, each once.
func union(a, b []byte) []byte {
	ids, _ := IDs(a)
	for _, id := range ids {
		b = Without(b, id)
	}
	return append(bytes.Clone(a), b...)
}

// Renewed takes a new certificate of the same key into use, and the CAs that came
// with it, and saves both in the folder.
func (c *Credential) Renewed(dir string, certPEM, caPEM []byte) error {
	keyPEM, err := KeyOf(dir)
	if err != nil {
		return err
	}
	if _, err := NewCredential(certPEM, keyPEM, caPEM); err != nil {
		return err
	}
	if err := c.Trust(union(caPEM, c.CA())); err != nil {
		return err
	}
	if err := c.Replace(certPEM, keyPEM); err != nil {
		return err
	}
	if err := SaveRenewed(dir, certPEM, caPEM); err != nil {
		return err
	}
	c.late.Store(false)
	return c.Trust(caPEM)
}

// WriteSecret replaces a 0600 file atomically; it and its name are on disk on
// return.
func WriteSecret(path string, data []byte) error { return durable.WriteFile(path, data, 0o600) }

// Load reads a credential that Save wrote. A missing one answers os.IsNotExist.
func Load(dir string) (*Credential, error) {
	var data [3][]byte
	for i, name := range []string{certFile, keyFile, caFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("read identity: %w", err)
		}
		data[i] = b
	}
	c, err := NewCredential(data[0], data[1], data[2])
	if err != nil {
		return nil, fmt.Errorf("identity in %s: %w", dir, err)
	}
	return c, nil
}

// KeptKey returns the private key of a folder and a signing request for it. A
// key that is not there is made and on disk before it is returned: an answer to
// its request that is lost can be asked for again.
func KeptKey(dir string) (keyPEM, csrDER []byte, err error) {
	keyPEM, err = KeyOf(dir)
	if err == nil {
		csrDER, err = Request(keyPEM)
		return keyPEM, csrDER, err
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("create identity folder: %w", err)
	}
	if keyPEM, csrDER, err = NewKey(); err != nil {
		return nil, nil, err
	}
	return keyPEM, csrDER, WriteSecret(filepath.Join(dir, keyFile), keyPEM)
}

// Discard removes a key that no certificate was made for, and its folder if
// nothing else is in it.
func Discard(dir string) error {
	if err := durable.Remove(filepath.Join(dir, keyFile)); err != nil {
		return err
	}
	_ = os.Remove(dir) // others may have files there
	return nil
}

// KeyOf reads the private key of a credential's folder.
func KeyOf(dir string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return b, nil
}
