package agent

import "context"

// RenewNow renews the certificate of a running agent before it is due.
func (a *Agent) RenewNow(ctx context.Context) error { return a.renewNow(ctx) }
