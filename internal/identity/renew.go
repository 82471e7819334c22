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
)

// KeepRenewed calls renew whenever the credential is due, until ctx ends. Renew
// replaces the certificate; what it returns goes to done, nil too. A credential
// that was not replaced is tried again, the more often the less life it has
// left; one that has ended is tried for ever.
func (c *Credential) KeepRenewed(ctx context.Context, renew func(context.Context) error, done func(error)) {
	for {
		wait := time.Until(c.RenewAt())
		if wait <= 0 {
			err := renew(ctx)
			if ctx.Err() != nil {
				return
			}
			done(err)
			if wait = time.Until(c.RenewAt()); wait <= 0 {
				wait = retry(time.Until(c.Ends()))
			}
		}
		timer := time.NewTimer(min(wait, longestSleep))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
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
