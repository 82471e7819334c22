package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/groundswell/groundswell/internal/durable"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// enrolTimeout bounds one attempt at one coordinator.
const enrolTimeout = 10 * time.Second

// errRefused marks an enrolment that no other attempt will cure.
var errRefused = errors.New("enrolment refused")

// identify returns the host's credential: the one on disk, else a new one for
// the join token.
func (a *Agent) identify(ctx context.Context) (*identity.Credential, error) {
	cred, err := identity.Load(a.o.path("identity"))
	if err == nil {
		return cred, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; if the certificate has expired, remove %s and start with a new join token: the host keeps its id",
			err, a.o.path("identity"))
	}
	if a.o.Token == nil {
		return nil, errors.New("this host is not enrolled and no join token is configured")
	}
	token, err := a.o.Token()
	if err != nil {
		return nil, fmt.Errorf("this host is not enrolled: %w", err)
	}
	if len(a.o.Coordinators) == 0 {
		return nil, errors.New("this host is not enrolled and no coordinator is configured; set --coordinator HOST:PORT")
	}
	return a.enrol(ctx, token)
}

// enrol asks one coordinator after the other until one answers, or refuses.
func (a *Agent) enrol(ctx context.Context, token identity.Token) (*identity.Credential, error) {
	var b backoff
	for n := 0; ; n++ {
		address := a.o.Coordinators[n%len(a.o.Coordinators)]
		cred, err := a.enrolAt(ctx, address, token)
		if err == nil {
			return cred, nil
		}
		err = fmt.Errorf("enrol at %s: %w", address, err)
		if errors.Is(err, errRefused) && n >= len(a.o.Coordinators)-1 {
			return nil, err
		}
		a.o.Log.Warn("enrolment not done yet", "error", err)
		if !b.wait(ctx) {
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

func (a *Agent) enrolAt(ctx context.Context, address string, token identity.Token) (*identity.Credential, error) {
	keyPEM, csrDER, err := a.o.joinKey()
	if err != nil {
		return nil, err
	}
	id, err := a.o.hostID()
	if err != nil {
		return nil, err
	}
	out, err := join(ctx, address, token, &agentv1.EnrolRequest{CsrDer: csrDER, Name: a.o.Name, HostId: id})
	if err != nil {
		return nil, err
	}
	return a.enrolled(out, keyPEM)
}

// join spends the token at one coordinator, whose CA the token vouches for
// before anything of the request is said.
func join(ctx context.Context, address string, token identity.Token, r *agentv1.EnrolRequest) (*agentv1.EnrolResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	roots, err := roots(ctx, address)
	if err != nil {
		return nil, err
	}
	conf, err := identity.Joining(roots, token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	cc, err := rpc.Dial([]string{address}, conf)
	if err != nil {
		return nil, err
	}
	defer func() { _ = cc.Close() }()
	r.Token = token.String()
	out, err := agentv1.NewEnrolmentServiceClient(cc).Enrol(ctx, r)
	if err != nil {
		return nil, refusal(err)
	}
	return out, nil
}

// roots asks for the CA certificates without verifying who answers: only what
// the token vouches for is used.
func roots(ctx context.Context, address string) ([]byte, error) {
	cc, err := rpc.Dial([]string{address}, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: identity.ServerName,
		InsecureSkipVerify: true, //nolint:gosec // nothing is said but a question, and the answer's hash is compared
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = cc.Close() }()
	out, err := agentv1.NewEnrolmentServiceClient(cc).Roots(ctx, &agentv1.RootsRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask for the CA: %w", err)
	}
	return out.CaPem, nil
}

// refusal tells an answer that stays the same from a passing trouble.
func refusal(err error) error {
	switch rpc.Kind(err) {
	case rpc.KindUnavailable, rpc.KindTimeout, rpc.KindInternal:
		return err
	}
	return fmt.Errorf("%w: %s", errRefused, rpc.Text(err))
}

// enrolled makes an identity durable, the certificate last.
func (a *Agent) enrolled(r *agentv1.EnrolResponse, keyPEM []byte) (*identity.Credential, error) {
	cred, err := identity.NewCredential(r.CertificatePem, keyPEM, r.CaPem)
	if err != nil {
		return nil, fmt.Errorf("%w: the coordinator's answer cannot be used: %w", errRefused, err)
	}
	m := membership{Host: r.HostId, Cluster: r.ClusterId, Seeds: r.GossipSeeds, Coordinators: r.Coordinators}
	err = errors.Join(
		durable.WriteFile(a.o.path("host-id"), []byte(r.HostId), 0o644),
		identity.WriteSecret(a.o.path("identity", "gossip.key"), r.GossipKey),
		a.o.saveMembership(m),
	)
	if err != nil {
		return nil, err
	}
	if err := identity.Save(a.o.path("identity"), r.CertificatePem, keyPEM, r.CaPem); err != nil {
		return nil, err
	}
	a.o.Log.Info("enrolled", "host_id", r.HostId, "cluster", r.ClusterId)
	return cred, nil
}

// renewCheck bounds how long a renewal is slept towards: timers stand still
// while a machine is suspended.
const renewCheck = time.Hour

// renew replaces the certificate whenever two thirds of its life have passed.
func (a *Agent) renew(ctx context.Context) error {
	b := backoff{longest: 10 * time.Minute}
	for {
		if wait := time.Until(a.cred.RenewAt()); wait > 0 {
			if !pause(ctx, min(wait, renewCheck)) {
				return nil
			}
			continue
		}
		if err := a.renewNow(ctx); err == nil {
			b.reset()
			a.o.Log.Info("certificate renewed", "next", a.cred.RenewAt())
			continue
		} else if ctx.Err() == nil {
			a.o.Log.Warn("certificate not renewed yet", "error", err)
		}
		if !b.wait(ctx) {
			return nil
		}
	}
}

func (a *Agent) renewNow(ctx context.Context) error {
	client, err := a.link.client(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	dir := a.o.path("identity")
	keyPEM, err := identity.KeyOf(dir)
	if err != nil {
		return err
	}
	csrDER, err := identity.Request(keyPEM)
	if err != nil {
		return err
	}
	out, err := client.Renew(ctx, &agentv1.RenewRequest{CsrDer: csrDER})
	if err != nil {
		return fmt.Errorf("renew certificate: %s", rpc.Text(err))
	}
	if err := a.cred.Replace(out.CertificatePem, keyPEM); err != nil {
		return err
	}
	return identity.Save(dir, out.CertificatePem, keyPEM, a.cred.CA())
}

// makeRoot makes the state folder; hooks of other users run below it.
func (o Options) makeRoot() error {
	if err := durable.MkdirAll(o.Root, 0o755); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	if err := os.MkdirAll(o.path("state", "targets"), 0o700); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	return nil
}
