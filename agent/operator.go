package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// EnrolOperator makes a person's credential with a join token that names the
// person, and saves it in dir. It enrols the way a host does: the token vouches
// for the CA before anything is said, and the key is in dir before it is used,
// so that a lost answer is asked for again by the same call. What a refused
// token leaves behind is nothing. It returns the person's name.
func EnrolOperator(ctx context.Context, addresses []string, token identity.Token, dir string) (name string, err error) {
	_, err = identity.KeyOf(dir)
	made := errors.Is(err, os.ErrNotExist)
	keyPEM, csrDER, err := identity.KeptKey(dir)
	if err != nil {
		return "", err
	}
	for _, address := range addresses {
		var out *agentv1.EnrolResponse
		out, err = join(ctx, address, pass{token: token},
			&agentv1.EnrolRequest{CsrDer: csrDER, Role: string(identity.Operator)})
		if err != nil {
			err = fmt.Errorf("enrol at %s: %w", address, err)
			if !errors.Is(err, errRefused) {
				continue
			}
			if made {
				err = errors.Join(err, identity.Discard(dir))
			}
			return "", err
		}
		if _, err := identity.NewCredential(out.CertificatePem, keyPEM, out.CaPem); err != nil {
			return "", fmt.Errorf("the coordinator's answer cannot be used: %w", err)
		}
		return out.HostId, identity.Save(dir, out.CertificatePem, keyPEM, out.CaPem)
	}
	return "", err
}

// RenewOperator gives a person's credential in dir a new certificate if it is
// due, or of a CA that issues no more. It is for use in passing: the credential that is there stays good when
// nobody answers.
func RenewOperator(
	ctx context.Context, addresses []string, cred *identity.Credential, dir string, how ...grpc.DialOption,
) error {
	who, err := cred.Peer()
	if err != nil || who.BreakGlass || time.Now().Before(cred.RenewAt()) && !cred.Outdated() {
		return err
	}
	cc, err := rpc.Dial(addresses, cred.Client(), how...)
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	return renewAt(ctx, agentv1.NewAgentServiceClient(cc), cred, dir)
}
