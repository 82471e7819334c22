package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/backoff"
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
	switch {
	case err == nil:
		if err = cred.Valid(time.Now()); err == nil {
			return cred, nil
		}
		err = fmt.Errorf("%w; a new join token brings the host back as itself: `dctl token create --host %s`", err,
			a.o.Name)
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("this host is not enrolled")
	default:
		return nil, fmt.Errorf("%w; if it cannot be repaired, remove %s and give the agent a new join token "+
			"(`dctl token create --host %s`): the host keeps its id", err, a.o.path("identity"), a.o.Name)
	}
	pass, passErr := a.pass(ctx)
	if passErr != nil {
		return nil, fmt.Errorf("%w: %w", err, passErr)
	}
	if len(a.addresses()) == 0 {
		return nil, fmt.Errorf("%w, and no coordinator is configured; set --coordinator HOST:PORT", err)
	}
	if cred, passErr = a.enrol(ctx, pass); passErr != nil {
		return nil, fmt.Errorf("%w: %w", err, passErr)
	}
	return cred, nil
}

// pass is what lets a host in: a join token, or a document that a third party has
// signed. The token names the CA either way.
type pass struct {
	token    identity.Token
	document []byte
}

// pass gets what this host is configured to be let in by.
func (a *Agent) pass(ctx context.Context) (p pass, err error) {
	switch {
	case a.o.Token != nil:
		p.token, err = a.o.Token()
	case a.o.Document != nil:
		p.token.CA = a.o.CA
		ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
		defer cancel()
		p.document, err = a.o.Document(ctx)
	default:
		err = errors.New("no join token is configured")
	}
	return p, err
}

// addresses are the coordinators to enrol at: the configured ones, and those
// that a former enrolment told.
func (a *Agent) addresses() []string {
	m, _, err := loadMembership(a.o.path("identity"))
	if err != nil {
		return a.o.Coordinators // there was none, or it is lost
	}
	return bounded(append(slices.Clone(a.o.Coordinators), m.Coordinators...))
}

// enrol asks one coordinator after the other until one answers, or refuses.
func (a *Agent) enrol(ctx context.Context, pass pass) (*identity.Credential, error) {
	var b backoff.Backoff
	addresses := a.addresses()
	for n := 0; ; n++ {
		address := addresses[n%len(addresses)]
		cred, err := a.enrolAt(ctx, address, pass)
		if err == nil {
			return cred, nil
		}
		err = fmt.Errorf("enrol at %s: %w", address, err)
		if errors.Is(err, errRefused) && n >= len(addresses)-1 {
			return nil, err
		}
		a.o.Log.Warn("enrolment not done yet", "error", err)
		if !b.Wait(ctx) {
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

func (a *Agent) enrolAt(ctx context.Context, address string, pass pass) (*identity.Credential, error) {
	keyPEM, csrDER, err := identity.KeptKey(a.o.path("identity"))
	if err != nil {
		return nil, err
	}
	id, err := a.o.hostID()
	if err != nil {
		return nil, err
	}
	instance, _, err := a.instances.say()
	if err != nil {
		return nil, err
	}
	out, err := join(ctx, address, pass, &agentv1.EnrolRequest{
		CsrDer: csrDER, Name: a.o.Name, HostId: id, Role: string(identity.Agent),
		Zone: a.o.Zone, Region: a.o.Region, Labels: a.o.Labels, Instance: instance,
	}, a.o.dialer()...)
	if err != nil {
		return nil, err
	}
	return a.enrolled(out, keyPEM)
}

// join spends the token, or shows the document, at one coordinator, whose CA the
// token vouches for before anything of the request is said.
func join(
	ctx context.Context, address string, pass pass, r *agentv1.EnrolRequest, how ...grpc.DialOption,
) (*agentv1.EnrolResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	roots, err := roots(ctx, address, how...)
	if err != nil {
		return nil, err
	}
	conf, err := identity.Joining(roots, pass.token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	cc, err := rpc.Dial([]string{address}, conf, how...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = cc.Close() }()
	if r.Document = pass.document; r.Document == nil {
		r.Token = pass.token.String()
	}
	out, err := agentv1.NewEnrolmentServiceClient(cc).Enrol(ctx, r)
	if err != nil {
		return nil, refusal(err)
	}
	return out, nil
}

// roots asks for the CA certificates without verifying who answers: only what
// the token vouches for is used.
func roots(ctx context.Context, address string, how ...grpc.DialOption) ([]byte, error) {
	cc, err := rpc.Dial([]string{address}, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: identity.ServerName,
		InsecureSkipVerify: true, //nolint:gosec // nothing is said but a question, and the answer's hash is compared
	}, how...)
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
	case rpc.KindUnavailable, rpc.KindTimeout, rpc.KindInternal, rpc.KindTooMany:
		return err
	}
	return fmt.Errorf("%w: %s", errRefused, rpc.Text(err))
}

// enrolled makes the identity durable under which the host is known.
func (a *Agent) enrolled(r *agentv1.EnrolResponse, keyPEM []byte) (*identity.Credential, error) {
	if err := durable.WriteFile(a.o.path("host-id"), []byte(r.HostId), 0o644); err != nil {
		return nil, err
	}
	cred, err := a.o.writeIdentity(a.o.path("identity"), r, keyPEM)
	if err != nil {
		return nil, err
	}
	a.enrolledAt.Store(r.Index)
	a.o.Log.Info("enrolled", "host_id", r.HostId, "cluster", r.ClusterId)
	return cred, nil
}

// writeIdentity makes an identity durable in a folder, the certificate last.
func (o Options) writeIdentity(
	dir string, r *agentv1.EnrolResponse, keyPEM []byte,
) (*identity.Credential, error) {
	cred, err := identity.NewCredential(r.CertificatePem, keyPEM, r.CaPem)
	if err != nil {
		return nil, fmt.Errorf("%w: the coordinator's answer cannot be used: %w", errRefused, err)
	}
	m := membership{Host: r.HostId, Cluster: r.ClusterId, Seeds: r.GossipSeeds, Coordinators: r.Coordinators}
	if old, _, err := loadMembership(o.path("identity")); err == nil && old.Cluster == m.Cluster {
		m.Epoch = old.Epoch
	}
	err = errors.Join(identity.WriteSecret(filepath.Join(dir, "gossip.key"), r.GossipKey), saveMembership(dir, m))
	if err != nil {
		return nil, err
	}
	return cred, identity.Save(dir, r.CertificatePem, keyPEM, r.CaPem)
}

// renew keeps the host's certificate renewed. One that has ended all the same,
// because no coordinator was within reach for a third of its life, is made anew
// with a join token, if there is one by then.
func (a *Agent) renew(ctx context.Context) error {
	now := func(ctx context.Context) error {
		if err := a.cred.Valid(time.Now()); err != nil {
			return errors.Join(err, a.enrolAgain(ctx))
		}
		select {
		case <-a.link.connected():
			select {
			case <-a.strange: // who talks to this host knows it
			default:
			}
			return a.renewNow(ctx)
		case <-a.strange:
			if err := a.enrolAgain(ctx); err != nil {
				return fmt.Errorf("%w: %w", errEstranged, err)
			}
			return nil
		case <-time.After(linkPatience):
			return errors.New("no session with a coordinator")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a.cred.KeepRenewed(ctx, now, func(err error) {
		switch {
		case a.cred.Valid(time.Now()) != nil:
			a.o.Log.Error(
				"the certificate has ended and no coordinator talks to this host; give the agent a new join token, "+
					"from `dctl token create --host "+a.o.Name+"`", "ended", a.cred.Ends(), "error", err)
		case errors.Is(err, errEstranged):
			a.o.Log.Error("give the agent a new join token, from `dctl token create --host "+a.o.Name+"`", "error", err)
		case err != nil:
			a.o.Log.Warn("certificate not renewed yet", "ends", a.cred.Ends(), "error", err)
		default:
			a.o.Log.Info("certificate renewed", "ends", a.cred.Ends())
		}
	})
	return nil
}

// errEstranged says that no coordinator and this host know each other's CA.
var errEstranged = errors.New("the coordinators' CA is none that this host knows, or the other way round: " +
	"it was replaced while the host was away, or these addresses are another cluster's")

// strangePause is how often a host whose CA no coordinator knows looks for a token,
// and says so.
const strangePause = 30 * time.Second

// estranged asks for an enrolment by token when a coordinator and this host do not
// know each other's CA any more; asked is when it was last.
func (a *Agent) estranged(err error, asked time.Time) time.Time {
	if !rpc.Stranger(err) || time.Since(asked) < strangePause {
		return asked
	}
	select {
	case a.strange <- struct{}{}:
	default: // asked, not answered yet
	}
	a.cred.RenewSoon(0)
	return time.Now()
}

// enrolAgain spends a token for a certificate of the same key, in a running
// agent.
func (a *Agent) enrolAgain(ctx context.Context) error {
	pass, err := a.pass(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	cred, err := a.enrol(ctx, pass)
	if err != nil {
		return err
	}
	a.cred.ReplaceWith(cred)
	return nil
}

func (a *Agent) renewNow(ctx context.Context) error {
	client, err := a.link.client(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	before := a.cred.Leaf()
	if err := renewAt(ctx, client, a.cred, a.o.path("identity")); err != nil {
		return err
	}
	if !a.cred.IssuedAs(before) {
		select {
		case a.reissued <- struct{}{}:
		default:
		}
	}
	return nil
}

// renewAt asks for a new certificate of the same identity and key, takes it
// into use and saves it.
func renewAt(ctx context.Context, client agentv1.AgentServiceClient, cred *identity.Credential, dir string) error {
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
	return cred.Renewed(dir, out.CertificatePem, out.CaPem)
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
