// Package identity makes and reads keys, signing requests and certificates, and
// says who a peer is.
package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"
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
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 30 * 24 * time.Hour
	skew     = 5 * time.Minute // clocks of hosts differ
)

// CA issues certificates. Its key never leaves the coordinators.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	PEM  []byte // the certificate
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
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
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

// ParseCA reads a CA's certificate and key.
func ParseCA(certPEM, keyPEM []byte) (*CA, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("read CA: the certificate is not a CA's")
	}
	return &CA{cert: pair.Leaf, key: key, PEM: certPEM}, nil
}

// KeyPEM returns the CA's private key; keep it in a 0600 file.
func (c *CA) KeyPEM() ([]byte, error) { return marshalKey(c.key) }

// Issue signs a request for an identity. The request proves possession of the
// key; nothing else in it is used.
func (c *CA) Issue(csrDER []byte, role Role, id string) ([]byte, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request is not signed by its key: %w", err)
	}
	if id == "" || strings.ContainsAny(id, "/ \x00") {
		return nil, fmt.Errorf("identity %q is empty or has a slash or blank", id)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: id, OrganizationalUnit: []string{string(role)}},
		NotBefore: time.Now().Add(-skew), NotAfter: time.Now().Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{{Scheme: "groundswell", Host: string(role), Path: "/" + id}},
	}
	if role == Coordinator {
		tmpl.ExtKeyUsage = append(tmpl.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		tmpl.DNSNames = []string{ServerName}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, csr.PublicKey, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s %s: %w", role, id, err)
	}
	return encode("CERTIFICATE", der), nil
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
