package main

import (
	"bytes"
	"cmp"
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/coordinator/audit"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// cluster is a CA with an operator's credential and a contexts file.
type cluster struct {
	t    *testing.T
	ca   *identity.CA
	dir  string
	path string // of the contexts file
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	ca, err := identity.NewCA("test")
	must(t, err)
	c := &cluster{t: t, ca: ca, dir: t.TempDir()}
	c.path = filepath.Join(c.dir, "contexts.yaml")
	cert, key := c.issue(identity.Operator, "marco")
	must(t, identity.Save(c.credentials(), cert, key, ca.PEM))
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) credentials() string { return filepath.Join(c.dir, "operator") }

func (c *cluster) issue(role identity.Role, id string) (cert, key []byte) {
	c.t.Helper()
	key, csr, err := identity.NewKey()
	must(c.t, err)
	cert, err = c.ca.Issue(csr, role, id)
	must(c.t, err)
	return cert, key
}

// serve starts a coordinator and returns its address.
func (c *cluster) serve(f *fake) string {
	c.t.Helper()
	cert, key := c.issue(identity.Coordinator, "c1")
	cred, err := identity.NewCredential(cert, key, c.ca.PEM)
	must(c.t, err)
	role := f.role
	if role == "" {
		role = identity.Operator
	}
	table := rpc.Table{}
	for _, m := range controlv1.ControlService_ServiceDesc.Methods {
		table["/groundswell.control.v1.ControlService/"+m.MethodName] = rpc.Rule{Roles: []identity.Role{role}}
	}
	for _, m := range controlv1.ControlService_ServiceDesc.Streams {
		table["/groundswell.control.v1.ControlService/"+m.StreamName] = rpc.Rule{Roles: []identity.Role{role}}
	}
	s := rpc.NewServer(rpc.ServerOptions{Credential: cred, Table: table})
	controlv1.RegisterControlServiceServer(s, f)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(c.t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // ends by Stop
	}()
	c.t.Cleanup(func() { s.Stop(); <-served })
	return l.Addr().String()
}

// context makes the given coordinators the current context.
func (c *cluster) context(addresses ...string) {
	c.t.Helper()
	must(c.t, WriteContext(c.path, "test", Context{Coordinators: addresses, Credentials: c.credentials()}, true))
}

// called is the outcome of one call of dctl.
type called struct {
	code     int
	out, err string
}

// call runs dctl with the cluster's contexts and without waiting anywhere.
func (c *cluster) call(args ...string) called { return c.callWith(c.t.Context(), nil, args...) }

func (c *cluster) callWith(ctx context.Context, change func(*cli), args ...string) called {
	c.t.Helper()
	var out, errs bytes.Buffer
	cli := newCLI(strings.NewReader(""), &out, &errs)
	cli.getenv = func(name string) (string, bool) {
		if name == "DCTL_CONFIG" {
			return c.path, true
		}
		return "", false
	}
	cli.patience = func(ctx context.Context, _ time.Duration) error { <-ctx.Done(); return ctx.Err() }
	cli.wait = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	if change != nil {
		change(cli)
	}
	code := run(ctx, cli, args)
	return called{code, out.String(), errs.String()}
}

// fake is a coordinator that answers as a test says.
type fake struct {
	audit  audit.Log                       // as it is when ListAudit is called
	access []*controlv1.ApplyAccessRequest // that were applied or compared
	controlv1.UnimplementedControlServiceServer
	role identity.Role // that may call; operators by default

	create    func(*controlv1.CreateDeploymentRequest) (*controlv1.CreateDeploymentResponse, error)
	plan      *controlv1.PlanDeploymentResponse
	watch     func(n int, r *controlv1.WatchDeploymentRequest, send func(...*controlv1.WatchDeploymentResponse)) error
	get       *controlv1.GetDeploymentResponse
	past      []*controlv1.Deployment
	fail      error // of every unary call that has no answer of its own
	apps      []*controlv1.App
	hosts     []*controlv1.Host
	logged    []*controlv1.LogsResponse
	revisions []*controlv1.Revision

	mu         sync.Mutex
	watches    []uint64 // the index that each watch began after
	requests   []string // ids
	acts       []string
	rollbacks  []*controlv1.RollbackRequest
	would      *controlv1.RollbackResponse // of a dry run
	applied    *controlv1.ApplyAppRequest
	leaderless int      // statuses of the cluster without a leader, first
	missing    []string // of these
}

func (f *fake) seen(m *controlv1.Mutation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, m.GetRequestId())
}

func (f *fake) CreateDeployment(_ context.Context,
	r *controlv1.CreateDeploymentRequest,
) (*controlv1.CreateDeploymentResponse, error) {
	f.seen(r.Mutation)
	if f.create != nil {
		return f.create(r)
	}
	return &controlv1.CreateDeploymentResponse{Id: "01D", Index: 5, Group: "prod", Revision: r.Revision}, f.fail
}

func (f *fake) PlanDeployment(context.Context,
	*controlv1.PlanDeploymentRequest,
) (*controlv1.PlanDeploymentResponse, error) {
	return f.plan, f.fail
}

func (f *fake) Rollback(_ context.Context, r *controlv1.RollbackRequest) (*controlv1.RollbackResponse, error) {
	f.mu.Lock()
	f.rollbacks = append(f.rollbacks, r)
	f.mu.Unlock()
	f.seen(r.Mutation)
	if r.DryRun {
		return f.would, f.fail
	}
	return &controlv1.RollbackResponse{Id: "01D", Index: 5}, f.fail
}

func (f *fake) Act(_ context.Context, r *controlv1.ActRequest) (*controlv1.ActResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acts = append(f.acts, r.Deployment+" "+r.Verb+" "+r.Mutation.GetReason())
	return &controlv1.ActResponse{Index: 9}, f.fail
}

func (f *fake) GetDeployment(context.Context,
	*controlv1.GetDeploymentRequest,
) (*controlv1.GetDeploymentResponse, error) {
	return f.get, f.fail
}

func (f *fake) ListDeployments(context.Context,
	*controlv1.ListDeploymentsRequest,
) (*controlv1.ListDeploymentsResponse, error) {
	out := &controlv1.ListDeploymentsResponse{}
	if f.get != nil {
		out.Deployments = append(out.Deployments, f.get.Deployment)
	}
	out.Deployments = append(out.Deployments, f.past...)
	return out, f.fail
}

func (f *fake) WatchDeployment(r *controlv1.WatchDeploymentRequest,
	s grpc.ServerStreamingServer[controlv1.WatchDeploymentResponse],
) error {
	f.mu.Lock()
	f.watches = append(f.watches, r.After)
	n := len(f.watches)
	f.mu.Unlock()
	return f.watch(n, r, func(all ...*controlv1.WatchDeploymentResponse) {
		for _, m := range all {
			_ = s.Send(m) // the client may be gone
		}
	})
}

func (f *fake) Logs(_ *controlv1.LogsRequest, s grpc.ServerStreamingServer[controlv1.LogsResponse]) error {
	for _, m := range f.logged {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return f.fail
}

func (f *fake) ApplyApp(_ context.Context, r *controlv1.ApplyAppRequest) (*controlv1.ApplyAppResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = r
	return &controlv1.ApplyAppResponse{App: "www", Groups: []string{"prod"}, Changed: []string{"prod"}}, f.fail
}

func (f *fake) ListApps(context.Context, *controlv1.ListAppsRequest) (*controlv1.ListAppsResponse, error) {
	return &controlv1.ListAppsResponse{Apps: f.apps}, f.fail
}

func (f *fake) GetApp(context.Context, *controlv1.GetAppRequest) (*controlv1.GetAppResponse, error) {
	if len(f.apps) == 0 {
		return nil, rpc.Errorf(rpc.KindNotFound, "no application")
	}
	return &controlv1.GetAppResponse{App: f.apps[0]}, f.fail
}

func (f *fake) RegisterRevision(_ context.Context,
	r *controlv1.RegisterRevisionRequest,
) (*controlv1.RegisterRevisionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revisions = append([]*controlv1.Revision{{
		App: r.App, Name: r.Name, Digest: r.Digest, Bytes: r.Bytes,
		Files: r.Files, Message: r.Message,
	}}, f.revisions...)
	return &controlv1.RegisterRevisionResponse{}, f.fail
}

func (f *fake) ListRevisions(_ context.Context,
	r *controlv1.ListRevisionsRequest,
) (*controlv1.ListRevisionsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &controlv1.ListRevisionsResponse{}
	for _, v := range f.revisions {
		if r.Name == "" || v.Name == r.Name {
			out.Revisions = append(out.Revisions, v)
		}
	}
	return out, f.fail
}

// PruneRevisions forgets all but the newest, which are the first.
func (f *fake) PruneRevisions(_ context.Context,
	r *controlv1.PruneRevisionsRequest,
) (*controlv1.PruneRevisionsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keep := min(int(r.Keep), len(f.revisions))
	out := &controlv1.PruneRevisionsResponse{Pruned: f.revisions[keep:], Kept: int32(keep)}
	if !r.DryRun {
		f.revisions = f.revisions[:keep]
	}
	return out, f.fail
}

func (f *fake) ListHosts(context.Context, *controlv1.ListHostsRequest) (*controlv1.ListHostsResponse, error) {
	return &controlv1.ListHostsResponse{Hosts: f.hosts}, f.fail
}

func (f *fake) ClusterStatus(context.Context,
	*controlv1.ClusterStatusRequest,
) (*controlv1.ClusterStatusResponse, error) {
	if f.leaderless > 0 {
		f.leaderless--
		return &controlv1.ClusterStatusResponse{
			Missing: f.missing, Coordinators: []*controlv1.Coordinator{{Name: "c1", Voter: true, Alive: true}},
		}, f.fail
	}
	return &controlv1.ClusterStatusResponse{
		ClusterId: "01C", Leader: "c1",
		Coordinators: []*controlv1.Coordinator{{
			Name: "c1", Leader: true, Voter: true, Alive: true,
			Address: "c1:7100",
		}},
	}, f.fail
}

func (f *fake) CreateToken(context.Context, *controlv1.CreateTokenRequest) (*controlv1.CreateTokenResponse, error) {
	return &controlv1.CreateTokenResponse{Token: "gsjoin1.a.b.c", ExpiresMs: 1}, f.fail
}

// state is a deployment as of an index.
func state(index uint64, status string, change ...func(*controlv1.Deployment)) *controlv1.Deployment {
	d := &controlv1.Deployment{
		Id: "01D", App: "www", Group: "prod", Revision: "9be01d7", From: "4f2a91c", Status: status, Actor: "marco",
		Index: index, Hosts: 2,
		ElapsedMs: int64(index) * 1000,
		Waves:     []*controlv1.Wave{{Name: "all", Status: "deploying", Total: 2, Settled: 1, Granted: 1}},
		Terminal:  status == "succeeded" || status == "rolled_back" || status == "stopped" || status == "cancelled",
	}
	for _, f := range change {
		f(d)
	}
	return d
}

func rec(index uint64, subject, to string, change ...func(*controlv1.Record)) *controlv1.Record {
	r := &controlv1.Record{Index: index, ElapsedMs: int64(index) * 1000, Subject: subject, To: to}
	for _, f := range change {
		f(r)
	}
	return r
}

func onHost(name, zone, wave string) func(*controlv1.Record) {
	return func(r *controlv1.Record) { r.Host, r.Zone, r.Wave = name, zone, wave }
}

func news(d *controlv1.Deployment, records ...*controlv1.Record) *controlv1.WatchDeploymentResponse {
	return &controlv1.WatchDeploymentResponse{Deployment: d, Records: records}
}

// ends is a watch that shows a deployment's end at once.
func ends(d *controlv1.Deployment, records ...*controlv1.Record) func(int, *controlv1.WatchDeploymentRequest,
	func(...*controlv1.WatchDeploymentResponse)) error {
	return func(_ int, _ *controlv1.WatchDeploymentRequest, send func(...*controlv1.WatchDeploymentResponse)) error {
		send(news(d, append(records, rec(d.Index, "deployment", d.Status))...))
		return nil
	}
}

func (f *fake) ApplyAccess(_ context.Context, r *controlv1.ApplyAccessRequest) (*controlv1.ApplyAccessResponse, error) {
	f.seen(r.Mutation)
	f.access = append(f.access, r)
	return &controlv1.ApplyAccessResponse{Index: 7, Changes: []string{"ann on www/prod: +deploy"}}, f.fail
}

func (f *fake) GetAccess(context.Context, *controlv1.GetAccessRequest) (*controlv1.GetAccessResponse, error) {
	return &controlv1.GetAccessResponse{Source: "version: 1\n", Index: 7, Actor: "root", Reason: "two teams"}, f.fail
}

func (f *fake) ExplainAccess(
	_ context.Context, r *controlv1.ExplainAccessRequest,
) (*controlv1.ExplainAccessResponse, error) {
	out := &controlv1.ExplainAccessResponse{Person: cmp.Or(r.Person, "me"), Allowed: r.Verb == "view"}
	if out.Allowed {
		out.By = []string{"rules[1]: role viewer on " + r.App + " in groups " + r.Group}
	} else {
		out.Missing, out.Ask = "no rule gives "+out.Person+" the verb "+r.Verb, []string{"root", "bob"}
	}
	return out, f.fail
}

func (f *fake) WhoAmI(context.Context, *controlv1.WhoAmIRequest) (*controlv1.WhoAmIResponse, error) {
	return &controlv1.WhoAmIResponse{
		Name: "ann", CountsAs: "root", Teams: []string{"oncall"}, Rules: []string{"rules[1]: role viewer on www"},
	}, f.fail
}
