package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/groundswell/groundswell/internal/durable"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// How a machine whose disk is a copy becomes a host of its own, once a person has
// split the two: it makes a key, asks for an identity, and takes that into use.
//
// Crash safety: the new identity is made in a folder beside the old one, its
// certificate last; whoever asks again with the same key gets the same identity.
// A whole one is moved into place when an agent starts, the id first; each step may
// be done again, and until the last one the old folder or the new one is whole.

// splitDir holds an identity that is not in use yet.
const splitDir = "identity.split"

// errSplitOff says that a person has split this machine off its host.
var errSplitOff = errors.New("this machine was split off its host")

// errAnother says that this machine has the identity of another host now.
var errAnother = errors.New("this machine is another host from now on")

// split asks the coordinator at the address for an identity of this machine's own.
func (a *Agent) split(ctx context.Context, address string) error {
	dir := a.o.path(splitDir)
	keyPEM, csrDER, err := identity.KeptKey(dir)
	if err != nil {
		return err
	}
	id, former, err := a.instances.say()
	if err != nil {
		return err
	}
	cc, err := rpc.Dial([]string{address}, a.cred.Client(), a.o.dialer()...)
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	out, err := agentv1.NewAgentServiceClient(cc).Split(ctx, &agentv1.SplitRequest{
		CsrDer: csrDER, Instances: append(former, id), Name: a.o.Name,
	})
	if err != nil {
		return fmt.Errorf("ask for an identity of its own: %s", rpc.Text(err))
	}
	if _, err := a.o.writeIdentity(dir, out, keyPEM); err != nil {
		return err
	}
	return errAnother
}

// adoptSplit moves an identity that a split has made into its place, if there is a
// whole one.
func (o Options) adoptSplit() error {
	made, old := o.path(splitDir), o.path("identity.before")
	if _, err := identity.Load(made); err != nil {
		return nil // there is none, or it is asked for again
	}
	m, _, err := loadMembership(made)
	if err != nil {
		return fmt.Errorf("take the identity of a host of its own: %w", err)
	}
	if err := durable.WriteFile(o.path("host-id"), []byte(m.Host), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("remove what is left of a former identity: %w", err)
	}
	if err := durable.Rename(o.path("identity"), old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("put the former identity aside: %w", err)
	}
	if err := durable.Rename(made, o.path("identity")); err != nil {
		return fmt.Errorf("take the identity of a host of its own: %w", err)
	}
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("remove the former identity: %w", err)
	}
	return nil
}
