// Package identity makes and reads keys, signing requests and certificates, and
// says who a peer is.
package identity

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/groundswell/groundswell/internal/naming"
)

// Role is what a certificate allows its holder to be.
type Role string

// Roles.
const (
	Agent       Role = "agent"
	Coordinator Role = "coordinator"
	Operator    Role = "operator"
)

// ParseRole reads a role.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case Agent, Coordinator, Operator:
		return r, nil
	}
	return "", fmt.Errorf("unknown role %q; use agent, coordinator or operator", s)
}

// ServerName is the DNS name in every coordinator's certificate. Clients ask
// for it whatever address they dial, so only a coordinator can answer.
const ServerName = "coordinator.groundswell.internal"

// Lifetimes of what is issued.
const (
	caLife         = 10 * 365 * 24 * time.Hour
	skew           = 5 * time.Minute // clocks of hosts differ
	breakGlassLife = 24 * time.Hour
)

// DefaultLife is how long a certificate lives where nothing else is said;
// ShortestLife leaves room for clocks that differ and for coordinators that
// are away while a certificate is due.
const (
	DefaultLife  = 30 * 24 * time.Hour
	ShortestLife = 10 * time.Minute
)

// CA issues certificates. Its key never leaves the coordinators.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	PEM  []byte        // the certificate
	Life time.Duration // of certificates; 0 is DefaultLife. Set before use.
}

// NewCA makes a new certificate authority for a cluster.
func NewCA(cluster string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "groundswell " + cluster},
		NotBefore: time.Now().Add(-skew), NotAfter: time.Now().Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, // its successor lies between, see Authorities.Issue
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read own CA certificate: %w", err)
	}
	return &CA{cert: cert, key: key, PEM: encode("CERTIFICATE", der)}, nil
}

// KeyPEM returns the CA's private key; keep it in a 0600 file.
func (c *CA) KeyPEM() ([]byte, error) { return marshalKey(c.key) }

// Ends returns when the CA's own certificate ends.
func (c *CA) Ends() time.Time { return c.cert.NotAfter }

// Issue signs a request for an identity. The request proves possession of the
// key; nothing else in it is used.
func (c *CA) Issue(csrDER []byte, role Role, id string) ([]byte, error) {
	return c.issue(csrDER, Peer{Role: role, ID: id}, cmp.Or(c.Life, DefaultLife))
}

// IssueBreakGlass signs a request for an operator's certificate that says that
// it was made on a coordinator's own machine. It lives for a day and nobody
// renews it.
func (c *CA) IssueBreakGlass(csrDER []byte, id string) ([]byte, error) {
	return c.issue(csrDER, Peer{Role: Operator, ID: id, BreakGlass: true}, breakGlassLife)
}

func (c *CA) issue(csrDER []byte, p Peer, life time.Duration) ([]byte, error) {
	csr, err := request(csrDER)
	if err != nil {
		return nil, err
	}
	if err := CheckID(p.ID); err != nil {
		return nil, err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: p.ID, OrganizationalUnit: []string{string(p.Role)}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{p.uri()},
	}
	if p.Role == Coordinator {
		tmpl.ExtKeyUsage = append(tmpl.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		tmpl.DNSNames = []string{ServerName}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, csr.PublicKey, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s %s: %w", p.Role, p.ID, err)
	}
	return encode("CERTIFICATE", der), nil
}

// CheckID refuses what cannot be an identity.
func CheckID(id string) error { return naming.Check("identity", id) }

func request(csrDER []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request is not signed by its key: %w", err)
	}
	return csr, nil
}

// RequestFingerprint returns the fingerprint of the key that signed a request.
func RequestFingerprint(csrDER []byte) ([]byte, error) {
	csr, err := request(csrDER)
	if err != nil {
		return nil, err
	}
	return fingerprint(csr.RawSubjectPublicKeyInfo), nil
}

// Fingerprint returns the fingerprint of a certificate's key: what the cluster
// remembers of whom it gave an identity. Certificates come and go, the key stays.
func Fingerprint(cert *x509.Certificate) []byte { return fingerprint(cert.RawSubjectPublicKeyInfo) }

func fingerprint(publicKey []byte) []byte {
	h := sha256.Sum256(publicKey)
	return h[:]
}

// Hash returns the hash of CA certificates that a join token carries.
func Hash(caPEM []byte) string {
	h := sha256.Sum256(caPEM)
	return hex.EncodeToString(h[:16])
}

// NewKey makes a private key and a signing request for it.
func NewKey() (keyPEM, csrDER []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	if keyPEM, err = marshalKey(key); err != nil {
		return nil, nil, err
	}
	csrDER, err = Request(keyPEM)
	return keyPEM, csrDER, err
}

// Request makes a signing request for an existing key.
func Request(keyPEM []byte) ([]byte, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("read key: no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

func marshalKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return encode("PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand never fails
	return new(big.Int).SetBytes(b[:])
}
