package coordinator

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	peerv1 "github.com/groundswell/groundswell/proto/peer/v1"
)

// Requests that are refused before they make an entry are counted here, and recorded once
// a minute for each actor and verb, see audit.Refusals. What is counted and not recorded
// yet is lost with the process: a record for each would let whoever is refused write the
// log. Those of nobody, without a certificate, never reach the log; they are told in this
// coordinator's own.
type refusedRequests struct {
	mu        sync.Mutex
	people    *audit.Refusals
	strangers *audit.Refusals
}

// DefaultRefusedEvery is how often what was refused of one actor and verb is recorded.
const DefaultRefusedEvery = time.Minute

func newRefusedRequests(every time.Duration) *refusedRequests {
	every = cmp.Or(every, DefaultRefusedEvery)
	return &refusedRequests{people: audit.NewRefusals(every), strangers: audit.NewRefusals(every)}
}

func (f *refusedRequests) note(a audit.Asked, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.Actor == "" {
		a.Actor = a.Address
		f.strangers.Note(a, now)
		return
	}
	f.people.Note(a, now)
}

func (f *refusedRequests) due(now time.Time) (people, strangers []audit.Asked) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.people.Due(now), f.strangers.Due(now)
}

// refusals that say something of who asked; others are of the moment.
var refusalKinds = []string{
	rpc.KindForbidden, rpc.KindUnauthorised, rpc.KindInvalid, rpc.KindNotFound, rpc.KindConflict, rpc.KindExists,
}

// requestFailed counts a request that was refused, unless its refusal is recorded by the entry
// that it made.
func (c *Coordinator) requestFailed(ctx context.Context, method string, req any, err error) {
	kind := rpc.Kind(err)
	a := askingOf(ctx)
	if !slices.Contains(refusalKinds, kind) || a != nil && a.recorded.Load() {
		return
	}
	p, known := rpc.Caller(ctx)
	service := strings.Split(strings.TrimPrefix(method, "/"), "/")[0]
	switch {
	case known && p.Role == identity.Agent && service == agentv1.AgentService_ServiceDesc.ServiceName,
		known && p.Role == identity.Coordinator && service == peerv1.PeerService_ServiceDesc.ServiceName:
		return // their own work, of which their logs tell
	}
	if a == nil {
		redact(req)
		a = newAsking(ctx, method, req, nil)
	}
	if service == agentv1.EnrolmentService_ServiceDesc.ServiceName {
		a.Actor = "" // whatever it shows beside
	}
	if known && !a.mutates && !c.hides(ctx, kind) {
		return
	}
	asked := a.Asked
	if asked.Outcome = kind; !a.file {
		asked.Said = identity.Redact(rpc.Text(err))
	}
	c.refusing.note(asked, time.Now())
}

// hides reports whether a refusal to show something may be one because of rights: a
// hidden name answers as an absent one.
func (c *Coordinator) hides(ctx context.Context, kind string) bool {
	switch kind {
	case rpc.KindForbidden, rpc.KindUnauthorised:
		return true
	case rpc.KindNotFound:
		return !c.sight(ctx).SeesAll()
	}
	return false
}

// mostRefused bounds the records of one entry: 320 KB at worst.
const mostRefused = 64

// recordRefusals records what was refused when it is time, until ctx ends.
func (c *Coordinator) recordRefusals(ctx context.Context) error {
	for {
		backoff.Pause(ctx, cmp.Or(c.o.RefusedEvery, DefaultRefusedEvery)/6)
		if ctx.Err() != nil {
			return nil
		}
		people, strangers := c.refusing.due(time.Now())
		for _, a := range strangers {
			c.o.Log.Warn("requests without a certificate were refused", "address", a.Actor, "verb", a.Verb,
				"times", a.Times, "outcome", a.Outcome, "said", a.Said)
		}
		if !c.audits() {
			people = nil // a coordinator of an older build votes still
		}
		for some := range slices.Chunk(people, mostRefused) {
			short, cancel := context.WithTimeout(ctx, readBound)
			err := c.log.cluster(short, state.RequestsRefused{Items: some})
			cancel()
			if err == nil {
				continue
			}
			for _, a := range some {
				c.refusing.note(a, time.Now())
			}
		}
	}
}

// audits reports whether requests are recorded yet.
func (c *Coordinator) audits() (yes bool) {
	c.store.View(func(st *deploy.State) { yes = st.Rules >= state.AuditRules })
	return yes
}
