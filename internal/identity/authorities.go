package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Authorities are the CAs that a cluster trusts, the issuing one first: their
// certificates, and the keys of those that are held here. It is immutable.
type Authorities struct {
	cas []*CA // with a nil key where it is not held
}

// ParseAuthorities reads certificates, and the keys that belong to them; others
// are ignored. The key of the first must be there.
//
// What they issue lives so long; 0 is DefaultLife.
func ParseAuthorities(certsPEM, keysPEM []byte, life time.Duration) (*Authorities, error) {
	certs, err := certificates(certsPEM)
	if err != nil {
		return nil, err
	}
	a := &Authorities{}
	for _, cert := range certs {
		if !cert.IsCA {
			return nil, fmt.Errorf("read CAs: the certificate of %s is not a CA's", cert.Subject.CommonName)
		}
		a.cas = append(a.cas, &CA{cert: cert, PEM: encode("CERTIFICATE", cert.Raw), Life: life})
	}
	for rest := keysPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read CA key: %w", err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, errors.New("read CA key: it cannot sign")
		}
		for _, ca := range a.cas {
			if public, ok := ca.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok &&
				public.Equal(signer.Public()) {
				ca.key = signer
			}
		}
	}
	if a.cas[0].key == nil {
		return nil, errors.New("read CA key: no key belongs to the certificate of the CA that issues")
	}
	return a, nil
}

// Issuer returns the CA that issues.
func (a *Authorities) Issuer() *CA { return a.cas[0] }

// Holds reports whether the key of the CA is held here.
func (a *Authorities) Holds(id string) bool {
	for _, ca := range a.cas {
		if ca.ID() == id {
			return ca.key != nil
		}
	}
	return false
}

// PEM returns the certificates, the issuing one first.
func (a *Authorities) PEM() []byte {
	var out []byte
	for _, ca := range a.cas {
		out = append(out, ca.PEM...)
	}
	return out
}

// KeysPEM returns the keys that are held; keep them in a 0600 file.
func (a *Authorities) KeysPEM() ([]byte, error) {
	var out []byte
	for _, ca := range a.cas {
		if ca.key == nil {
			continue
		}
		key, err := ca.KeyPEM()
		if err != nil {
			return nil, err
		}
		out = append(out, key...)
	}
	return out, nil
}

// Issue signs a request for an identity by the CA that issues. What a
// coordinator is given ends with a way from each other CA that is trusted to the
// issuing one: who has not heard of the new CA yet knows it by the old one's word.
func (a *Authorities) Issue(csrDER []byte, role Role, id string) ([]byte, error) {
	out, err := a.Issuer().Issue(csrDER, role, id)
	if err != nil || role != Coordinator {
		return out, err
	}
	for _, by := range a.cas[1:] {
		if by.key == nil {
			continue
		}
		cross, err := a.Issuer().vouchedBy(by)
		if err != nil {
			return nil, err
		}
		out = append(out, cross...)
	}
	return out, nil
}

// idOf names a CA by its certificate, in the one form that PEM of ours has.
func idOf(cert *x509.Certificate) string { return Hash(encode("CERTIFICATE", cert.Raw)) }

// ID names the CA: the hash of its certificate, which join tokens carry too.
func (c *CA) ID() string { return Hash(c.PEM) }

// vouchedBy returns a certificate of the CA's key that another CA signs. It is
// good for leaves only, and as long as both.
func (c *CA) vouchedBy(by *CA) ([]byte, error) {
	ends := c.cert.NotAfter
	if by.cert.NotAfter.Before(ends) {
		ends = by.cert.NotAfter
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: c.cert.Subject.CommonName},
		SubjectKeyId: c.cert.SubjectKeyId,
		NotBefore:    time.Now().Add(-skew), NotAfter: ends,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by.cert, c.key.Public(), by.key)
	if err != nil {
		return nil, fmt.Errorf("vouch for the new CA: %w", err)
	}
	return encode("CERTIFICATE", der), nil
}

// certificates reads PEM certificates, at least one.
func certificates(certsPEM []byte) (out []*x509.Certificate, err error) {
	for rest := certsPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read CA certificates: %w", err)
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, errors.New("read CA certificates: no certificate in PEM")
	}
	return out, nil
}

// IDs returns the names of the CAs in PEM, in order.
func IDs(certsPEM []byte) ([]string, error) {
	certs, err := certificates(certsPEM)
	var out []string
	for _, cert := range certs {
		out = append(out, idOf(cert))
	}
	return out, err
}

// Only returns the one certificate in PEM that has the name, or nil.
func Only(certsPEM []byte, id string) []byte {
	certs, _ := certificates(certsPEM)
	for _, cert := range certs {
		if idOf(cert) == id {
			return encode("CERTIFICATE", cert.Raw)
		}
	}
	return nil
}

// Without returns the certificates but the one of that name.
func Without(certsPEM []byte, id string) []byte {
	certs, _ := certificates(certsPEM)
	var out []byte
	for _, cert := range certs {
		if idOf(cert) != id {
			out = append(out, encode("CERTIFICATE", cert.Raw)...)
		}
	}
	return out
}
