// Package ec2 asks AWS who an instance is: by the document that the instance shows,
// which AWS has signed, and by the tags that AWS says it has.
package ec2

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/pkcs7"
)

// Options say which instances may join. The zero value lets none in.
type Options struct {
	Accounts     []string // numbers, of twelve digits
	Regions      []string // none is every one
	Instances    []string // ids; none is every one
	Certificates string   // PEM file of the certificates that AWS signs with, RSA of 2048 bits, one a region
	// Within is how long after its start an instance may join; 0 is DefaultWithin.
	// A document is shown to every process of its machine, so an old one may be in
	// other hands.
	Within time.Duration
	// Tags are read from AWS, and are the labels of the host, whatever it says.
	Tags bool

	// Endpoint replaces the URL of EC2's API, for tests; "" is the region's.
	Endpoint string
}

// On reports whether any instance may join.
func (o Options) On() bool { return len(o.Accounts) > 0 }

// DefaultWithin leaves time for a slow boot with its cloud-init.
const DefaultWithin = 30 * time.Minute

// skew is how far a clock may lie before that of AWS.
const skew = time.Minute

// MaxDocument bounds what is parsed, in bytes; the real thing has 2 kB.
const MaxDocument = 8 << 10

var (
	account  = regexp.MustCompile(`^\d{12}$`)
	instance = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)
	region   = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-\d{1,2}$`)
)

// Validate says what is wrong with the options, naming the key of the file.
func (o Options) Validate() error {
	_, err := New(o)
	return err
}

// Instance is what AWS says of one.
type Instance struct {
	ID      string
	Account string
	Region  string
	Zone    string
	Started time.Time
}

// Origin names the instance among everything that hosts come from.
func (i Instance) Origin() string { return "aws/" + i.Account + "/" + i.Region + "/" + i.ID }

// Verifier tells true documents. It may be used concurrently.
type Verifier struct {
	o     Options
	certs []*x509.Certificate
}

// New reads the certificates. Without an account it verifies nothing and needs
// no file.
func New(o Options) (*Verifier, error) {
	v := &Verifier{o: o}
	if !o.On() {
		if len(o.Regions)+len(o.Instances) > 0 || o.Certificates != "" || o.Within != 0 || o.Tags {
			return nil, errors.New("ec2.accounts: whose instances may join must be said")
		}
		return v, nil
	}
	var errs []error
	check := func(key string, all []string, form *regexp.Regexp, example string) {
		for _, s := range all {
			if !form.MatchString(s) {
				errs = append(errs, fmt.Errorf("ec2.%s: %q is none; write it as %s", key, s, example))
			}
		}
	}
	check("accounts", o.Accounts, account, `"123456789012"`)
	check("regions", o.Regions, region, "eu-west-1")
	check("instances", o.Instances, instance, "i-0123456789abcdef0")
	if o.Within < 0 {
		errs = append(errs, fmt.Errorf("ec2.within: %s is no time; write it as 30m", o.Within))
	}
	if v.o.Within == 0 {
		v.o.Within = DefaultWithin
	}
	var err error
	if v.certs, err = certificates(o.Certificates); err != nil {
		errs = append(errs, fmt.Errorf("ec2.certificates: %w", err))
	}
	return v, errors.Join(errs...)
}

func certificates(file string) (out []*x509.Certificate, err error) {
	if file == "" {
		return nil, errors.New("a file with the certificates that AWS signs documents with is needed, " +
			"the RSA-2048 one of each region")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", file, len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: there is no certificate in it", file)
	}
	return out, nil
}

// invalid marks an error of the request: the document lets nobody in.
type invalid struct{ error }

func (invalid) Kind() string    { return "invalid" }
func (i invalid) Unwrap() error { return i.error }

func refused(format string, args ...any) error { return invalid{fmt.Errorf(format, args...)} }

// Verify returns whose document it is: what the metadata service has at
// dynamic/instance-identity/rsa2048. The document must be signed by AWS, be of an
// account, region and instance that may join, and be of an instance that was started
// not long before now, the verifier's own time.
func (v *Verifier) Verify(document []byte, now time.Time) (Instance, error) {
	if !v.o.On() {
		return Instance{}, refused("no instance of EC2 joins this cluster by its identity document; " +
			"ec2.accounts in the coordinators' file lets them in, or use a join token")
	}
	content, err := v.signed(document, now)
	if err != nil {
		return Instance{}, err
	}
	var d struct {
		AccountID        string `json:"accountId"`
		InstanceID       string `json:"instanceId"`
		Region           string `json:"region"`
		AvailabilityZone string `json:"availabilityZone"`
		PendingTime      string `json:"pendingTime"`
	}
	if err := json.Unmarshal(content, &d); err != nil {
		return Instance{}, refused("read the identity document: %w", err)
	}
	started, err := time.Parse(time.RFC3339, d.PendingTime)
	if err != nil {
		return Instance{}, refused("read the identity document: pendingTime: %w", err)
	}
	i := Instance{
		ID: d.InstanceID, Account: d.AccountID, Region: d.Region, Zone: d.AvailabilityZone, Started: started,
	}
	return i, v.allows(i, now)
}

// signed returns what AWS has signed. Certificates that lie in the document count
// for nothing.
func (v *Verifier) signed(document []byte, now time.Time) ([]byte, error) {
	if len(document) > MaxDocument {
		return nil, refused("an identity document of %d bytes is longer than %d", len(document), MaxDocument)
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(document)), ""))
	if err != nil {
		return nil, refused("read the identity document, base64: %w", err)
	}
	if err := wellFormed(der); err != nil {
		return nil, refused("read the identity document, PKCS #7: %w", err)
	}
	p, err := pkcs7.Parse(der)
	if err != nil {
		return nil, refused("read the identity document, PKCS #7: %w", err)
	}
	if len(p.Signers) != 1 {
		return nil, refused("the identity document has %d signatures, AWS gives it one", len(p.Signers))
	}
	if alg := p.Signers[0].DigestAlgorithm.Algorithm; !alg.Equal(pkcs7.OIDDigestAlgorithmSHA256) {
		return nil, refused("the identity document is signed over the digest %v, and AWS takes SHA-256 for rsa2048", alg)
	}
	p.Certificates = nil
	for _, c := range v.certs {
		if now.Before(c.NotAfter) && now.After(c.NotBefore) {
			p.Certificates = append(p.Certificates, c)
		}
	}
	if err := p.Verify(); err != nil {
		return nil, refused("the identity document is not signed by a certificate of ec2.certificates that is valid now "+
			"(the instance may be of a region whose certificate is missing there): %w", err)
	}
	return p.Content, nil
}

func (v *Verifier) allows(i Instance, now time.Time) error {
	switch age := now.Sub(i.Started); {
	case !account.MatchString(i.Account) || !instance.MatchString(i.ID) || !region.MatchString(i.Region) ||
		!strings.HasPrefix(i.Zone, i.Region):
		return refused("the identity document says account %q, instance %q, region %q, zone %q, and that is no instance",
			i.Account, i.ID, i.Region, i.Zone)
	case !slices.Contains(v.o.Accounts, i.Account):
		return refused("instances of account %s may not join; ec2.accounts in the coordinators' file lists who may",
			i.Account)
	case len(v.o.Regions) > 0 && !slices.Contains(v.o.Regions, i.Region):
		return refused("instances of region %s may not join; ec2.regions in the coordinators' file lists who may",
			i.Region)
	case len(v.o.Instances) > 0 && !slices.Contains(v.o.Instances, i.ID):
		return refused("instance %s may not join; ec2.instances in the coordinators' file lists who may", i.ID)
	case age > v.o.Within:
		return refused("instance %s was started %s ago, and joins by its identity document within %s (ec2.within) alone; "+
			"stop and start it, or give it a token: `dctl token create --role agent`",
			i.ID, age.Round(time.Second), v.o.Within)
	case age < -skew:
		return refused("instance %s was started in the future, by the clock of this coordinator; set that right", i.ID)
	}
	return nil
}
