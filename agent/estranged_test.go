package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundswell/groundswell/internal/identity"
)

// A host that was told of another CA, and cut off before it could ask for a
// certificate of it, looks for a token as soon as it meets coordinators that it
// does not know: it does not wait for a session first.
func TestEstrangedWhileARenewalWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looked := make(chan time.Time, 1)
		a, err := New(Options{
			Name: "web-1", Zone: "a", Root: t.TempDir(), Log: slog.New(slog.DiscardHandler),
			Token: func() (identity.Token, error) {
				looked <- time.Now()
				return identity.Token{}, errors.New("there is none")
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		a.link, a.cred = newLink(), credential(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = a.renew(ctx)
		}()
		a.cred.RenewSoon(0)
		time.Sleep(time.Second) // of the bubble: it waits for a session now
		met := time.Now()
		a.estranged(errors.New("authentication handshake failed: tls: failed to verify certificate"), time.Time{})
		if at := <-looked; at.Sub(met) > time.Second {
			t.Errorf("it looked for a token %s after it met strangers", at.Sub(met))
		}
		cancel()
		<-done
	})
}

// credential is one of a host, of a CA of the test's own.
func credential(t *testing.T) *identity.Credential {
	t.Helper()
	ca, err := identity.NewCA("c")
	if err != nil {
		t.Fatal(err)
	}
	key, csr, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(csr, identity.Agent, "h1")
	if err != nil {
		t.Fatal(err)
	}
	cred, err := identity.NewCredential(cert, key, ca.PEM)
	if err != nil {
		t.Fatal(err)
	}
	return cred
}
