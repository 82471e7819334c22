package attack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// until polls with a deadline.
func (c *cluster) until(what string, f func() bool) {
	c.t.Helper()
	for end := time.Now().Add(40 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatal(what)
		}
	}
}

// application defines a group of all hosts of a role.
func (c *cluster) application(app, role string) {
	c.t.Helper()
	_, err := c.api.ApplyApp(c.t.Context(), &controlv1.ApplyAppRequest{
		Source: fmt.Appendf(nil,
			"app: %s\nartifacts: %s\ngroups:\n  prod: {select: 'role == %q', config: all-at-once}\n", app, c.store, role),
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// fleet is honest hosts. They keep the protocol as the agent does, and time each
// acknowledgement.
type fleet struct {
	t *testing.T

	mu   sync.Mutex
	acks []time.Duration
}

// p99 returns it of the acknowledgements since it was asked last.
func (f *fleet) p99() (time.Duration, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.acks
	f.acks = nil
	if slices.Sort(all); len(all) == 0 {
		return 0, 0
	}
	return all[len(all)*99/100], len(all)
}

// host keeps one session until ctx ends.
func (f *fleet) host(ctx context.Context, s agentv1.AgentService_SessionClient) {
	counter, sent := uint64(0), map[uint64]time.Time{}
	running := map[string]*agentv1.Report{}
	for {
		m, err := s.Recv()
		if err != nil {
			if ctx.Err() == nil {
				f.t.Errorf("an honest host's session ended: %v", err)
			}
			return
		}
		if a := m.GetAcknowledged(); a != nil {
			f.mu.Lock()
			for n, at := range sent {
				if n <= a.Counter {
					f.acks = append(f.acks, time.Since(at))
					delete(sent, n)
				}
			}
			f.mu.Unlock()
		}
		var out []*agentv1.Report
		for _, x := range m.GetAssignments().GetItems() {
			r := running[x.App]
			if r == nil {
				r = &agentv1.Report{App: x.App, Health: agentv1.Health_HEALTH_HEALTHY}
				running[x.App] = r
			}
			if d := x.GetStage().GetDigest(); d != "" && !slices.Contains(r.Staged, d) {
				r.Staged = append(r.Staged[max(0, len(r.Staged)-4):], d) // an agent keeps five
			}
			if x.Permit != agentv1.Permit_PERMIT_UNSPECIFIED && x.Generation > r.Generation {
				r.Generation, r.Result, r.Running = x.Generation, agentv1.Result_RESULT_DONE, x.GetGoal().GetDigest()
			}
			counter++
			out = append(out, &agentv1.Report{
				App: r.App, Counter: counter, Generation: r.Generation, Result: r.Result, Running: r.Running, Health: r.Health,
				Staged: slices.Clone(r.Staged),
			})
			sent[counter] = time.Now()
		}
		if len(out) > 0 {
			if err := s.Send(&agentv1.Up{Message: &agentv1.Up_Reports{Reports: &agentv1.Reports{Items: out}}}); err != nil &&
				ctx.Err() == nil {
				f.t.Errorf("an honest host cannot report: %v", err)
				return
			}
		}
	}
}

// deploy rolls out a revision and waits until it has succeeded.
func (c *cluster) deploy(app string, n int) {
	c.t.Helper()
	name := fmt.Sprint("v", n)
	again(c, c.api.RegisterRevision, &controlv1.RegisterRevisionRequest{
		App: app, Name: name, Digest: "sha256:" + strings.Repeat(fmt.Sprintf("%02x", n), 32),
	})
	d := again(c, c.api.CreateDeployment, &controlv1.CreateDeploymentRequest{
		Mutation: &controlv1.Mutation{RequestId: app + name}, App: app, Group: "prod", Revision: name,
	})
	var last *controlv1.Deployment
	defer func() {
		if !last.GetTerminal() {
			c.t.Logf("the deployment of %s: %v", name, last)
		}
	}()
	c.until("the deployment of "+name+" has not ended", func() bool {
		out, err := c.api.GetDeployment(c.t.Context(), &controlv1.GetDeploymentRequest{Id: d.Id})
		last = out.GetDeployment()
		return err == nil && last.Terminal
	})
	if last.Status != "succeeded" {
		c.t.Fatalf("the deployment of %s ended %s: %s", name, last.Status, last.Cause)
	}
}

// hosts lists the hosts of an application.
func (c *cluster) hosts(app string) []*controlv1.Host {
	c.t.Helper()
	return again(c, c.api.ListHosts, &controlv1.ListHostsRequest{App: app, Group: "prod"}).Hosts
}

// again asks, and asks again while the cluster has no leader, as dctl does.
func again[Q, A any](c *cluster, ask func(context.Context, Q, ...grpc.CallOption) (A, error), q Q) (out A) {
	c.t.Helper()
	c.until("the cluster has no leader", func() (done bool) {
		var err error
		if out, err = ask(c.t.Context(), q); err != nil && status.Code(err) != codes.Unavailable {
			c.t.Fatal(err)
		}
		return err == nil
	})
	return out
}
