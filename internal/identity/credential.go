package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Peer is who speaks at the other end of a connection.
type Peer struct {
	Role Role
	ID   string
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
		return Peer{Role: role, ID: strings.TrimPrefix(u.Path, "/")}, nil
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

// NewCredential checks that key, certificate and CA belong together.
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
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: c.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return fmt.Errorf("the certificate is not valid under the CA: %w", err)
	}
	c.pair.Store(&pair)
	return nil
}

// Peer returns the credential's own identity.
func (c *Credential) Peer() (Peer, error) { return PeerOf(c.pair.Load().Leaf) }

// CA returns the CA certificates in PEM.
func (c *Credential) CA() []byte { return c.ca }

// RenewAt returns when two thirds of the certificate's life have passed.
func (c *Credential) RenewAt() time.Time {
	leaf := c.pair.Load().Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
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
	if err := os.MkdirAll(dir, 0o700); err != nil {
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

// WriteSecret replaces a 0600 file atomically; it is durable on return.
func WriteSecret(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(tmp.Name()))
	}
	return nil
}

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

// KeyOf reads the private key of a credential's folder.
func KeyOf(dir string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return b, nil
}
