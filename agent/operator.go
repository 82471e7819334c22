package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/groundswell/groundswell/internal/identity"
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
		if out, err = join(ctx, address, token, &agentv1.EnrolRequest{CsrDer: csrDER}); err != nil {
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
