package coordinator

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/groundswell/groundswell/internal/durable"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// Where keys lie, below Options.Dir. All are 0600 in 0700 folders.
//
//	identity/   tls.key tls.crt ca.crt of this coordinator
//	ca.key      of the cluster's CA, while it is replaced of both: on every coordinator, handed over mTLS
//	gossip.key  of the ring
//	operator/   tls.key tls.crt ca.crt of the first operator, at bootstrap only
const (
	identityDir = "identity"
	operatorDir = "operator"
	caKeyFile   = "ca.key"
	gossipFile  = "gossip.key"
)

// firstOperator is the person whose credential bootstrap makes.
const firstOperator = "admin"

// keys is what a coordinator must hold to serve. Its methods may be called
// concurrently.
type keys struct {
	root  string // the coordinator's folder
	name  string
	life  time.Duration // of certificates
	cred  *identity.Credential
	fresh bool // made just now: by bootstrap or by joining

	mu  sync.Mutex // held while CAs change, on disk and here
	cas atomic.Pointer[identity.Authorities]
	// ring are the keys of the gossip ring, see ringKeys: every session looks at them,
	// and waits for no disk.
	ring atomic.Pointer[[]byte]
}

// dir is the folder of the coordinator's own identity.
func (k *keys) dir() string { return filepath.Join(k.root, identityDir) }

// authorities are the cluster's CAs as this coordinator has them.
func (k *keys) authorities() *identity.Authorities { return k.cas.Load() }

// loadKeys reads the keys, or makes them by bootstrap, or gets them by joining.
// The certificate is written last: a folder that was left half way is made anew.
func (o *Options) loadKeys(ctx context.Context) (*keys, error) {
	k, err := o.readKeys()
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	switch {
	case o.Bootstrap:
		return o.bootstrapKeys()
	case len(o.Join) > 0:
		return o.joinKeys(ctx)
	}
	return nil, fmt.Errorf("%s holds no coordinator: start the first one of a cluster with --bootstrap, "+
		"others with --join ADDRESS and a token (`dctl token create --role coordinator`)", o.Dir)
}

// readKeys reads the keys and gives the coordinator a new certificate if its
// own is due or has ended: the CA's key lies beside it.
func (o *Options) readKeys() (*keys, error) {
	dir := filepath.Join(o.Dir, identityDir)
	cred, err := identity.Load(dir)
	if err != nil {
		return nil, err
	}
	cas, err := readCAs(o.Dir, cred.CA(), o.CertificateLife)
	if err != nil {
		return nil, err
	}
	gossip, err := os.ReadFile(filepath.Join(o.Dir, gossipFile))
	if err != nil {
		return nil, fmt.Errorf("read gossip key: %w", err)
	}
	k := &keys{root: o.Dir, name: o.Name, life: o.CertificateLife, cred: cred}
	k.cas.Store(cas)
	k.ring.Store(&gossip)
	if now := time.Now(); cred.Valid(now) != nil || now.After(cred.RenewAt()) {
		return k, k.renew()
	}
	return k, nil
}

// readCAs reads the CAs of a coordinator's folder.
func readCAs(dir string, certsPEM []byte, life time.Duration) (*identity.Authorities, error) {
	key, err := os.ReadFile(filepath.Join(dir, caKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read CA key: %w", err)
	}
	return identity.ParseAuthorities(certsPEM, key, life)
}

// renew replaces the coordinator's own certificate by one of the CA that issues;
// its key stays.
func (k *keys) renew() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reissue()
}

// reissue is renew for who holds mu.
func (k *keys) reissue() error {
	keyPEM, err := identity.KeyOf(k.dir())
	if err != nil {
		return err
	}
	csr, err := identity.Request(keyPEM)
	if err != nil {
		return err
	}
	cas := k.authorities()
	cert, err := cas.Issue(csr, identity.Coordinator, k.name)
	if err != nil {
		return err
	}
	return k.cred.Renewed(k.dir(), cert, cas.PEM())
}

// keepRenewed renews the coordinator's own certificate while it runs; listeners
// and connections take the new one at their next handshake.
func (c *Coordinator) keepRenewed(ctx context.Context) error {
	c.keys.cred.KeepRenewed(ctx, func(context.Context) error { return c.keys.renew() }, func(err error) {
		if err != nil {
			c.o.Log.Error("own certificate not renewed", "ends", c.keys.cred.Ends(), "error", err)
			return
		}
		c.o.Log.Info("own certificate renewed", "ends", c.keys.cred.Ends())
	})
	return nil
}

func (o *Options) bootstrapKeys() (*keys, error) {
	ca, err := identity.NewCA(o.Name)
	if err != nil {
		return nil, err
	}
	caKey, err := ca.KeyPEM()
	if err != nil {
		return nil, err
	}
	gossip := make([]byte, 32)
	_, _ = rand.Read(gossip) // crypto/rand never fails
	cas, err := identity.ParseAuthorities(ca.PEM, caKey, o.CertificateLife)
	if err != nil {
		return nil, err
	}
	err = makeCredential(filepath.Join(o.Dir, operatorDir), cas, func(csr []byte) ([]byte, error) {
		return cas.Issue(csr, identity.Operator, firstOperator)
	})
	if err != nil {
		return nil, err
	}
	if err := o.writeShared(caKey, gossip); err != nil {
		return nil, err
	}
	err = makeCredential(filepath.Join(o.Dir, identityDir), cas, func(csr []byte) ([]byte, error) {
		return cas.Issue(csr, identity.Coordinator, o.Name)
	})
	if err != nil {
		return nil, err
	}
	k, err := o.readKeys()
	if err == nil {
		k.fresh = true
	}
	return k, err
}

// makeCredential makes a key and a certificate and saves them.
func makeCredential(dir string, cas *identity.Authorities, issue func(csr []byte) ([]byte, error)) error {
	keyPEM, csr, err := identity.NewKey()
	if err != nil {
		return err
	}
	cert, err := issue(csr)
	if err != nil {
		return err
	}
	return identity.Save(dir, cert, keyPEM, cas.PEM())
}

// BreakGlass makes an operator's credential from the CA's key in the folder of
// a coordinator, whether that runs or not, and saves it in out. The certificate
// says how it was made, lives for a day, is never renewed, and cannot approve;
// the cluster records its first use.
func BreakGlass(dir, name, out string) (ends time.Time, err error) {
	caPEM, err := os.ReadFile(filepath.Join(dir, identityDir, "ca.crt"))
	if err != nil {
		return ends, fmt.Errorf("%s is no coordinator's folder: %w", dir, err)
	}
	cas, err := readCAs(dir, caPEM, 0)
	if err != nil {
		return ends, err
	}
	err = makeCredential(out, cas, func(csr []byte) ([]byte, error) { return cas.Issuer().IssueBreakGlass(csr, name) })
	if err != nil {
		return ends, err
	}
	cred, err := identity.Load(out)
	if err != nil {
		return ends, err
	}
	return cred.Ends(), nil
}

func (o *Options) writeShared(caKey, gossip []byte) error {
	if err := durable.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("create %s: %w", o.Dir, err)
	}
	if err := identity.WriteSecret(filepath.Join(o.Dir, caKeyFile), caKey); err != nil {
		return err
	}
	return identity.WriteSecret(filepath.Join(o.Dir, gossipFile), gossip)
}

// joinKeys enrols with a token, then asks a coordinator over mutual TLS for
// the CA's key and the ring's key. The key is on disk before it is used: after
// a lost answer the same key, with the same token, is the same coordinator.
func (o *Options) joinKeys(ctx context.Context) (*keys, error) {
	token, err := o.Token()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir := filepath.Join(o.Dir, identityDir)
	keyPEM, csr, err := identity.KeptKey(dir)
	if err != nil {
		return nil, err
	}
	answer, err := o.enrolWith(ctx, token, &agentv1.EnrolRequest{
		Token: token.String(), CsrDer: csr, Name: o.Name, Role: string(identity.Coordinator),
	})
	if err != nil {
		return nil, fmt.Errorf("enrol at %v: %w", o.Join, err)
	}
	cred, err := identity.NewCredential(answer.CertificatePem, keyPEM, answer.CaPem)
	if err != nil {
		return nil, err
	}
	cc, err := rpc.Dial(o.Join, cred.Client(), o.dialer()...)
	if err != nil {
		return nil, err
	}
	defer cc.Close()
	shared, err := peerv1.NewPeerServiceClient(cc).Keys(ctx, &peerv1.KeysRequest{})
	if err != nil {
		return nil, fmt.Errorf("get the cluster's keys from %v: %s", o.Join, rpc.Text(err))
	}
	if err := o.writeShared(shared.CaKeyPem, shared.GossipKey); err != nil {
		return nil, err
	}
	if err := identity.Save(dir, answer.CertificatePem, keyPEM, answer.CaPem); err != nil {
		return nil, err
	}
	k, err := o.readKeys()
	if err == nil {
		k.fresh = true
	}
	return k, err
}

// enrolWith verifies the CA by the token before the token is shown to anyone.
func (o *Options) enrolWith(
	ctx context.Context, t identity.Token, r *agentv1.EnrolRequest,
) (*agentv1.EnrolResponse, error) {
	open, err := rpc.Dial(o.Join, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: identity.ServerName,
		InsecureSkipVerify: true, //nolint:gosec // only to read public certificates, which the token's hash verifies
	},
		o.dialer()...)
	if err != nil {
		return nil, err
	}
	roots, err := agentv1.NewEnrolmentServiceClient(open).Roots(ctx, &agentv1.RootsRequest{})
	if err = errors.Join(err, open.Close()); err != nil {
		return nil, errors.New(rpc.Text(err))
	}
	conf, err := identity.Joining(roots.CaPem, t)
	if err != nil {
		return nil, err
	}
	cc, err := rpc.Dial(o.Join, conf, o.dialer()...)
	if err != nil {
		return nil, err
	}
	defer cc.Close()
	out, err := agentv1.NewEnrolmentServiceClient(cc).Enrol(ctx, r)
	if err != nil {
		return nil, errors.New(rpc.Text(err))
	}
	return out, nil
}
