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

// Credential is an identity in use: a key, its certificate and the CA. It may
// be replaced while connections use it. All methods may be called concurrently.
type Credential struct {
	pair atomic.Pointer[tls.Certificate]
	ca   []byte
	pool *x509.CertPool
}

// NewCredential checks that key, certificate and CA belong together. A
// certificate that has ended is no error: see Valid.
func NewCredential(certPEM, keyPEM, caPEM []byte) (*Credential, error) {
	c := &Credential{ca: caPEM, pool: x509.NewCertPool()}
	if !c.pool.AppendCertsFromPEM(caPEM) {
		return nil, errors.New("read CA certificates: no certificate in PEM")
	}
	return c, c.Replace(certPEM, keyPEM)
}

// Replace takes a new certificate into use for connections from now on.
func (c *Credential) Replace(certPEM, keyPEM []byte) error {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("read certificate and key: %w", err)
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{
		Roots: c.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, CurrentTime: pair.Leaf.NotAfter,
	})
	if err != nil {
		return fmt.Errorf("the certificate is not valid under the CA: %w", err)
	}
	c.pair.Store(&pair)
	return nil
}

// ReplaceWith takes another credential's key and certificate into use.
func (c *Credential) ReplaceWith(other *Credential) error {
	if !bytes.Equal(c.ca, other.ca) {
		return errors.New("the other credential is of another CA")
	}
	c.pair.Store(other.pair.Load())
	return nil
}

// Peer returns the credential's own identity.
func (c *Credential) Peer() (Peer, error) { return PeerOf(c.pair.Load().Leaf) }

// CA returns the CA certificates in PEM.
func (c *Credential) CA() []byte { return c.ca }

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
// certificate shown, theirs verified to be a coordinator's.
func (c *Credential) Client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: c.pool, ServerName: ServerName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
}

// Server returns the configuration for serving: TLS 1.3 and a client
// certificate of the CA. With anonymous, a client without a certificate is let
// through to the handlers, which must deny it all but enrolment.
func (c *Credential) Server(anonymous bool) *tls.Config {
	auth := tls.RequireAndVerifyClientCert
	if anonymous {
		auth = tls.VerifyClientCertIfGiven
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientCAs: c.pool, ClientAuth: auth,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
}

// Joining returns the client configuration of one who has only a token: the
// server is verified against CA certificates that the token vouches for.
func Joining(caPEM []byte, t Token) (*tls.Config, error) {
	if Hash(caPEM) != t.CA {
		return nil, errors.New("the coordinator shows another CA than the join token names: a wrong address, an old token, or somebody in between")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(caPEM) {
		return nil, errors.New("read CA certificates: no certificate in PEM")
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

// SaveRenewed replaces the certificate in a folder that Save wrote. The key
// stays, so one file changes and a crash leaves the old pair or the new one.
func SaveRenewed(dir string, certPEM []byte) error {
	return WriteSecret(filepath.Join(dir, certFile), certPEM)
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
