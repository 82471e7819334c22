package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// EnrolOperator makes a person's credential with a join token that names the
// person, and saves it in dir, key first and certificate last. It enrols the way
// a host does: the token vouches for the CA before anything is said. It returns
// the person's name.
func EnrolOperator(ctx context.Context, addresses []string, token identity.Token, dir string) (name string, err error) {
	keyPEM, csrDER, err := identity.NewKey()
	if err != nil {
		return "", err
	}
	for _, address := range addresses {
		var out *agentv1.EnrolResponse
		if out, err = enrolPerson(ctx, address, token, csrDER); err != nil {
			err = fmt.Errorf("enrol at %s: %w", address, err)
			if errors.Is(err, errRefused) {
				return "", err
			}
			continue
		}
		if _, err := identity.NewCredential(out.CertificatePem, keyPEM, out.CaPem); err != nil {
			return "", fmt.Errorf("the coordinator's answer cannot be used: %w", err)
		}
		return out.HostId, identity.Save(dir, out.CertificatePem, keyPEM, out.CaPem)
	}
	return "", err
}

func enrolPerson(ctx context.Context, address string, token identity.Token, csrDER []byte) (*agentv1.EnrolResponse, error) {
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
	out, err := agentv1.NewEnrolmentServiceClient(cc).Enrol(ctx, &agentv1.EnrolRequest{Token: token.String(), CsrDer: csrDER})
	if err != nil {
		return nil, refusal(err)
	}
	return out, nil
}
