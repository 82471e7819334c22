package identity

import (
	"context"
	"math/rand/v2"
	"time"
)

// Bounds of waiting for a renewal. Timers stand still while a machine is
// suspended and know nothing of a clock that is set, so no sleep is longer than
// an hour; a failed renewal is tried again after an eighth of what is left.
const (
	longestSleep = time.Hour
	shortestTry  = time.Second
	longestTry   = 10 * time.Minute
	endedTry     = time.Minute
	askedTry     = 5 * time.Second // the cluster's CAs are others now
)

// KeepRenewed calls renew whenever the credential is due, until ctx ends. Renew
// replaces the certificate; what it returns goes to done, nil too. A credential
// that was not replaced is tried again, the more often the less life it has
// left; one that has ended is tried for ever.
func (c *Credential) KeepRenewed(ctx context.Context, renew func(context.Context) error, done func(error)) {
	for asked := false; ; {
		wait := time.Until(c.RenewAt())
		if wait <= 0 || asked {
			err := renew(ctx)
			if ctx.Err() != nil {
				return
			}
			done(err)
			asked = asked && err != nil
			if wait = time.Until(c.RenewAt()); wait <= 0 || asked {
				wait = retry(time.Until(c.Ends()))
			}
			if asked {
				wait = min(wait, askedTry/2+rand.N(askedTry))
			}
		}
		timer := time.NewTimer(min(wait, longestSleep))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case within := <-c.soon:
			timer.Reset(rand.N(max(within, 1)))
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
				asked = true
			}
		}
	}
}

// RenewSoon asks KeepRenewed for a renewal at some moment within a time, though
// the certificate is not due: the cluster's CAs are others now.
func (c *Credential) RenewSoon(within time.Duration) {
	select {
	case c.soon <- within:
	default: // it was asked already
	}
}

// retry is the wait after a failed renewal with so much life left, give or take
// half.
func retry(left time.Duration) time.Duration {
	d := min(max(left/8, shortestTry), longestTry)
	if left <= 0 {
		d = endedTry
	}
	return d/2 + rand.N(d)
}
