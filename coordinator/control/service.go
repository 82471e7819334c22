// Package control is the operator API: it validates requests, reads state and
// fleet, and appends facts.
package control

import (
	"context"
	"fmt"
	"time"

	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// State is the replica's own copy of the state.
type State interface {
	View(func(*deploy.State))
	// WatchDeployment wakes when a record of the deployment was written; stop ends that.
	WatchDeployment(id string) (changed <-chan struct{}, stop func())
}

// Log stamps and commits facts; followers' calls are forwarded before they
// reach this package.
type Log interface {
	Propose(ctx context.Context, events []deploy.Event) ([]error, error)
	Now() deploy.Time
}

// Fleet is what is known of hosts beside the log.
type Fleet interface {
	Status(host string) (state, coordinator string)
}

// Activity is what a task is doing just now; soft, never replicated.
type Activity struct {
	Event, Script string
	SinceMs       int64
	Generation    uint64
}

// HookOutput is one piece of a hook's output.
type HookOutput struct {
	Event, Script string
	Data          []byte
}

// LogQuery says which output to read.
type LogQuery struct {
	App, Deployment, Event string
	Failed, Follow         bool
}

// TokenSpec says what a join token is for.
type TokenSpec struct {
	Request deploy.Request
	Role    string
	Life    time.Duration
	Uses    int
	Name    string             // of the person that it makes
	Host    string             // id of the known host that comes back with it
	Binds   *deploy.Attributes // what a host is that joins with it
}

// Token is an open join token.
type Token struct {
	ID, Secret string
	Expires    time.Time // by this machine's clock, for people
}

// Options of New. All functions may be called concurrently.
type Options struct {
	State State
	Log   Log
	Fleet Fleet
	// Actor names who calls, for history and audit.
	Actor func(context.Context) string
	// Sight is what the caller may know of, as of now; nil shows everything.
	Sight func(context.Context) Sight
	// OwnFreeze reports whether the caller may replace and lift no freeze of somebody
	// else in this scope; nil: anybody's.
	OwnFreeze func(ctx context.Context, app, group string) bool
	// Groups lists the groups of people that the actor is in, for approvals.
	Groups func(actor string) []string
	// Approvers counts the people of such a group.
	Approvers func(group string) int
	// Parse reads a deploy.yaml into group definitions.
	Parse func(source []byte, filename string) ([]deploy.GroupDefined, error)
	// Match says whether a selector, which Parse has read, takes a host into a group of
	// the application. It is called while the state is viewed.
	Match func(app, selector string, h *deploy.Host) bool
	// Activity says what a host is doing for an application.
	Activity func(host, app string) (Activity, bool)
	// Pools says why hosts could not be taken out of pools; nil asks nobody.
	Pools func(context.Context, []deploy.Pool) error
	// Output reads hook output through the session of the host.
	Output func(ctx context.Context, host string, q LogQuery, each func(HookOutput) error) error
	// Person says who the caller counts as where two people are asked for, and
	// whether the caller counts there at all.
	Person func(context.Context) (person string, counts bool)
	// Revoked says who revoked the key of a host, "" nobody.
	Revoked func(host string) string
	// Token opens a join token and returns it.
	Token func(ctx context.Context, t TokenSpec) (Token, error)
	// History reads what was moved out of the state; nil is nothing.
	History History
	// Cluster describes the coordinators.
	Cluster func(context.Context) (*controlv1.ClusterStatusResponse, error)
}

// Service implements control.v1.
type Service struct {
	controlv1.UnimplementedControlServiceServer
	o Options
}

// New returns the service.
func New(o Options) *Service {
	if o.Sight == nil {
		o.Sight = func(context.Context) Sight { return everything{} }
	}
	if o.OwnFreeze == nil {
		o.OwnFreeze = func(context.Context, string, string) bool { return false }
	}
	if o.Groups == nil {
		o.Groups = func(string) []string { return nil }
	}
	if o.Approvers == nil {
		o.Approvers = func(string) int { return 0 }
	}
	if o.Revoked == nil {
		o.Revoked = func(string) string { return "" }
	}
	if o.Person == nil {
		o.Person = func(ctx context.Context) (string, bool) { return o.Actor(ctx), true }
	}
	return &Service{o: o}
}

func refuse(k deploy.RefusalKind, format string, args ...any) error {
	return &deploy.Refusal{Reason: k, Text: fmt.Sprintf(format, args...)}
}

// request turns a mutation into the log's form.
func (s *Service) request(ctx context.Context, m *controlv1.Mutation) deploy.Request {
	person, _ := s.o.Person(ctx)
	return deploy.Request{ID: m.GetRequestId(), Actor: s.o.Actor(ctx), Reason: m.GetReason(), Person: person}
}

// propose appends one fact and returns its refusal.
func (s *Service) propose(ctx context.Context, e deploy.Event) error {
	refusals, err := s.o.Log.Propose(ctx, []deploy.Event{e})
	if err != nil {
		return err
	}
	return refusals[0]
}

// index returns the index of the last entry applied here.
func (s *Service) index() (i uint64) {
	s.o.State.View(func(st *deploy.State) { i = st.Index })
	return i
}

// group resolves an application and an optional group name.
func group(st seen, app, name string) (*deploy.Group, error) {
	var found []*deploy.Group
	for _, g := range groups(st) {
		if g.App == app && (name == "" || g.Name == name) {
			found = append(found, g)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		var names []string
		for _, g := range found {
			names = append(names, g.Name)
		}
		return nil, refuse(deploy.Invalid, "application %s has several groups %v; say --group", app, names)
	}
	var apps []string
	for _, g := range groups(st) {
		if g.App == app {
			return nil, refuse(deploy.NotFound, "application %s has no group %q, it has %q", app, name,
				namesOf(st, app))
		}
		apps = append(apps, g.App)
	}
	return nil, refuse(deploy.NotFound, "no application %q%s; define it with `dctl apps apply`%s", app,
		suggest(app, apps), st.perhaps())
}

func namesOf(st seen, app string) []string {
	var out []string
	for _, g := range groups(st) {
		if g.App == app {
			out = append(out, g.Name)
		}
	}
	return out
}
