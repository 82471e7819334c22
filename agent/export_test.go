package agent

import (
	"context"
	"time"

	"github.com/groundswell/groundswell/internal/backoff"
)

// RenewNow renews the certificate of a running agent before it is due.
func (a *Agent) RenewNow(ctx context.Context) error { return a.renewNow(ctx) }

// Delays are the first n waits of a backoff with its default bound.
func Delays(n int) []time.Duration {
	var b backoff.Backoff
	var all []time.Duration
	for range n {
		all = append(all, b.NextBackOff())
	}
	return all
}
