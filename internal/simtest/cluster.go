// Package simtest runs a whole cluster in a testing/synctest bubble: real
// coordinators with raft on disk, real agents, real mutual TLS and gRPC, gossip;
// only sockets are memory, and hours pass in seconds.
package simtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/groundswell/groundswell/agent"
	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/coordinator"
	"github.com/groundswell/groundswell/internal/gossip"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Cluster is coordinators and agents in one bubble. Its methods are for the
// test's goroutine alone.
type Cluster struct {
	t    testing.TB
	net  *network
	ring *gossip.Network
	dir  string
	life time.Duration

	// Log gets what all of them say.
	Log *slog.Logger
	// DeadAfter is when a silent voter is given up; 0 is the usual time.
	DeadAfter time.Duration
	// Rules is the level that coordinators announce that start; 0 is the build's.
	Rules int

	coordinators map[string]*process
	agents       map[string]*process
	operator     string // folder of the first operator's credential
}

// process is what runs until it is stopped.
type process struct {
	cancel context.CancelFunc
	done   chan error
}

func run(f func(context.Context) error) *process {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{cancel: cancel, done: make(chan error, 1)}
	go func() { p.done <- f(ctx) }()
	return p
}

// New returns a cluster without members; certificates live for life. It ends
// with the test, in the bubble.
func New(t testing.TB, life time.Duration) *Cluster {
	c := &Cluster{
		t: t, net: newNetwork(), ring: gossip.NewNetwork(), dir: t.TempDir(), life: life, Log: slog.New(honest{t}),
		coordinators: map[string]*process{}, agents: map[string]*process{},
	}
	t.Cleanup(c.stopAll)
	return c
}

// settle is longer than any probe of gossip: one that is under way ends by its
// own timer, and time stands still once the test has ended.
const settle = 10 * time.Second

func (c *Cluster) stopAll() {
	for name := range c.agents {
		c.StopAgent(name)
	}
	for name := range c.coordinators {
		c.StopCoordinator(name)
	}
	time.Sleep(settle)
}

// pace of raft: ten times the usual one, for the sake of the machine. Each
// heartbeat costs real encryption, and hours pass.
const pace = 5 * time.Second

func (c *Cluster) options(name string) coordinator.Options {
	return coordinator.Options{
		Name: name, Dir: filepath.Join(c.dir, name), CertificateLife: c.life, DeadAfter: c.DeadAfter, Rules: c.Rules,
		API: ip(name) + ":7100", Agents: ip(name) + ":7101", Raft: ip(name) + ":7102", Gossip: ip(name) + ":7103",
		Heartbeat: pace, Listen: c.net.Listen, Dial: c.net.Dial, Ring: c.ring, Log: c.Log.With("coordinator", name),
		Store: func(context.Context, string) (artifacts.Store, error) {
			return nil, errors.New("there is no store in the bubble")
		},
	}
}

// ip gives c1 the address 10.0.0.1.
func ip(name string) string { return "10.0.0." + name[1:] }

// Bootstrap starts the first coordinator of the cluster.
func (c *Cluster) Bootstrap(name string) {
	c.t.Helper()
	o := c.options(name)
	o.Bootstrap = true
	c.operator = filepath.Join(o.Dir, "operator")
	c.startCoordinator(o)
}

// Join starts a coordinator that joins at another with a token.
func (c *Cluster) Join(name, at string) {
	c.t.Helper()
	o := c.options(name)
	o.Join = []string{ip(at) + ":7100"}
	token := c.Token(&controlv1.CreateTokenRequest{Role: string(identity.Coordinator)})
	o.Token = func() (identity.Token, error) { return identity.ParseToken(token) }
	c.startCoordinator(o)
}

// StartCoordinator starts some that have state, at once: one alone may have no
// quorum.
func (c *Cluster) StartCoordinator(names ...string) {
	c.t.Helper()
	var all []coordinator.Options
	for _, n := range names {
		all = append(all, c.options(n))
	}
	c.startCoordinator(all...)
}

func (c *Cluster) startCoordinator(all ...coordinator.Options) {
	c.t.Helper()
	ready := map[string]chan coordinator.Addresses{}
	for _, o := range all {
		up := make(chan coordinator.Addresses, 1)
		ready[o.Name] = up
		o.Ready = func(a coordinator.Addresses) { up <- a }
		c.coordinators[o.Name] = run(func(ctx context.Context) error { return coordinator.Run(ctx, o) })
	}
	for _, o := range all {
		p := c.coordinators[o.Name]
		select {
		case <-ready[o.Name]:
		case err := <-p.done:
			delete(c.coordinators, o.Name)
			c.t.Fatalf("coordinator %s did not start: %v", o.Name, err)
		case <-time.After(time.Minute):
			c.t.Fatalf("coordinator %s is not ready after a minute", o.Name)
		}
	}
}

// StopCoordinator stops one in order.
func (c *Cluster) StopCoordinator(name string) { c.stop(c.coordinators, name) }

// StopAgent stops one in order.
func (c *Cluster) StopAgent(name string) { c.stop(c.agents, name) }

func (c *Cluster) stop(all map[string]*process, name string) {
	p := all[name]
	if p == nil {
		return
	}
	delete(all, name)
	p.cancel()
	if err := <-p.done; err != nil {
		c.t.Errorf("%s ended with %v", name, err)
	}
}

// StartAgent starts an agent; token is "" for one that is enrolled. It returns
// when the agent has its identity, or the reason why it has not.
func (c *Cluster) StartAgent(name, token string) error {
	c.t.Helper()
	ready := make(chan agent.Status, 1)
	o := agent.Options{
		Name: name, Zone: "a", Labels: map[string]string{"role": "web"}, Root: filepath.Join(c.dir, "agents", name),
		InstallRoot: filepath.Join(c.dir, "fs",
			name), GossipBind: "10.0.1.1:0", Cgroup: "off", Log: c.Log.With("agent", name),
		Dial: c.net.Dial, Ring: c.ring, Ready: func(s agent.Status) { ready <- s },
		Token: func() (identity.Token, error) {
			if token == "" {
				return identity.Token{}, errors.New("there is none")
			}
			return identity.ParseToken(token)
		},
	}
	for n := range c.coordinators {
		o.Coordinators = append(o.Coordinators, ip(n)+":7101")
	}
	a, err := agent.New(o)
	if err != nil {
		return err
	}
	p := run(a.Run)
	select {
	case <-ready:
		c.agents[name] = p
		return nil
	case err := <-p.done:
		return err
	}
}

// API calls f with a connection to the API as the first operator, renewing that
// credential in passing as dctl does.
func (c *Cluster) API(f func(context.Context, controlv1.ControlServiceClient) error) error {
	var names []string
	for n := range c.coordinators {
		names = append(names, n)
	}
	return c.at(names, f)
}

// at is API at some of the coordinators.
func (c *Cluster) at(names []string, f func(context.Context, controlv1.ControlServiceClient) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cred, err := identity.Load(c.operator)
	if err != nil {
		return err
	}
	if err := cred.Valid(time.Now()); err != nil {
		return err
	}
	var addresses []string
	for _, n := range names {
		addresses = append(addresses, ip(n)+":7100")
	}
	how := grpc.WithContextDialer(c.net.Dial)
	if err := agent.RenewOperator(ctx, addresses, cred, c.operator, how); err != nil {
		return fmt.Errorf("renew in passing: %w", err)
	}
	cc, err := rpc.Dial(addresses, cred.Client(), how)
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	err = f(ctx, controlv1.NewControlServiceClient(cc))
	if cred.Outdated() {
		err = errors.Join(err, agent.RenewOperator(ctx, addresses, cred, c.operator, how))
	}
	return err
}

// Token makes a join token.
func (c *Cluster) Token(r *controlv1.CreateTokenRequest) (token string) {
	c.t.Helper()
	if err := c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
		out, err := api.CreateToken(ctx, r)
		token = out.GetToken()
		return err
	}); err != nil {
		c.t.Fatalf("make a token: %v", err)
	}
	return token
}

// Hosts returns the hosts by name.
func (c *Cluster) Hosts() (hosts map[string]*controlv1.Host, err error) {
	hosts = map[string]*controlv1.Host{}
	err = c.API(func(ctx context.Context, api controlv1.ControlServiceClient) error {
		out, err := api.ListHosts(ctx, &controlv1.ListHostsRequest{})
		for _, h := range out.GetHosts() {
			hosts[h.Name] = h
		}
		return err
	})
	return hosts, err
}
