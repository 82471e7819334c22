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
	"time"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// Where keys lie, below Options.Dir. All are 0600 in 0700 folders.
//
//	identity/   tls.key tls.crt ca.crt of this coordinator
//	ca.key      of the cluster's CA: on every coordinator, handed over mTLS
//	gossip.key  of the ring
//	operator/   tls.key tls.crt ca.crt of the first operator, at bootstrap only
const (
	identityDir = "identity"
	operatorDir = "operator"
	caKeyFile   = "ca.key"
	gossipFile  = "gossip.key"
)

// keys is what a coordinator must hold to serve.
type keys struct {
	cred   *identity.Credential
	ca     *identity.CA
	gossip []byte
	fresh  bool // made just now: by bootstrap or by joining
}

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
	return nil, fmt.Errorf("%s holds no coordinator: start the first one of a cluster with --bootstrap, others with --join ADDRESS and a token (`dctl token create --role coordinator`)", o.Dir)
}

func (o *Options) readKeys() (*keys, error) {
	dir := filepath.Join(o.Dir, identityDir)
	cred, err := identity.Load(dir)
	if err != nil {
		return nil, err
	}
	caKey, err := os.ReadFile(filepath.Join(o.Dir, caKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read CA key: %w", err)
	}
	ca, err := identity.ParseCA(cred.CA(), caKey)
	if err != nil {
		return nil, err
	}
	gossip, err := os.ReadFile(filepath.Join(o.Dir, gossipFile))
	if err != nil {
		return nil, fmt.Errorf("read gossip key: %w", err)
	}
	k := &keys{cred: cred, ca: ca, gossip: gossip}
	return k, k.renew(dir, o.Name)
}

// renew replaces the coordinator's own certificate when it is due.
func (k *keys) renew(dir, name string) error {
	if time.Now().Before(k.cred.RenewAt()) {
		return nil
	}
	keyPEM, csr, err := identity.NewKey()
	if err != nil {
		return err
	}
	cert, err := k.ca.Issue(csr, identity.Coordinator, name)
	if err != nil {
		return err
	}
	if err := identity.Save(dir, cert, keyPEM, k.ca.PEM); err != nil {
		return err
	}
	return k.cred.Replace(cert, keyPEM)
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
	if err := o.issue(ca, identity.Operator, "admin", operatorDir); err != nil {
		return nil, err
	}
	if err := o.writeShared(caKey, gossip); err != nil {
		return nil, err
	}
	if err := o.issue(ca, identity.Coordinator, o.Name, identityDir); err != nil {
		return nil, err
	}
	k, err := o.readKeys()
	if err == nil {
		k.fresh = true
	}
	return k, err
}

// issue makes a key and certificate and saves them below Dir.
func (o *Options) issue(ca *identity.CA, role identity.Role, id, folder string) error {
	keyPEM, csr, err := identity.NewKey()
	if err != nil {
		return err
	}
	cert, err := ca.Issue(csr, role, id)
	if err != nil {
		return err
	}
	return identity.Save(filepath.Join(o.Dir, folder), cert, keyPEM, ca.PEM)
}

func (o *Options) writeShared(caKey, gossip []byte) error {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("create %s: %w", o.Dir, err)
	}
	if err := identity.WriteSecret(filepath.Join(o.Dir, caKeyFile), caKey); err != nil {
		return err
	}
	return identity.WriteSecret(filepath.Join(o.Dir, gossipFile), gossip)
}

// joinKeys enrols with a token, then asks a coordinator over mutual TLS for
// the CA's key and the ring's key.
func (o *Options) joinKeys(ctx context.Context) (*keys, error) {
	token, err := o.Token()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	keyPEM, csr, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	answer, err := enrolWith(ctx, o.Join, token, &agentv1.EnrolRequest{Token: token.String(), CsrDer: csr, Name: o.Name})
	if err != nil {
		return nil, fmt.Errorf("enrol at %v: %w", o.Join, err)
	}
	cred, err := identity.NewCredential(answer.CertificatePem, keyPEM, answer.CaPem)
	if err != nil {
		return nil, err
	}
	cc, err := rpc.Dial(o.Join, cred.Client())
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
	if err := identity.Save(filepath.Join(o.Dir, identityDir), answer.CertificatePem, keyPEM, answer.CaPem); err != nil {
		return nil, err
	}
	k, err := o.readKeys()
	if err == nil {
		k.fresh = true
	}
	return k, err
}

// enrolWith verifies the CA by the token before the token is shown to anyone.
func enrolWith(ctx context.Context, addrs []string, t identity.Token, r *agentv1.EnrolRequest) (*agentv1.EnrolResponse, error) {
	open, err := rpc.Dial(addrs, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, ServerName: identity.ServerName}) //nolint:gosec // only to read public certificates, which the token's hash verifies
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
	cc, err := rpc.Dial(addrs, conf)
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
