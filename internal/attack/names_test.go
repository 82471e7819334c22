package attack

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// hostileNames lead out of a folder, split lists, move cursors, read like options,
// like ids or like what has a meaning of its own, or look like another name.
var hostileNames = []string{
	"..", ".", "../../etc/passwd", "/etc/passwd", "a/b", `a\b`, "a\x00b", "a\x1b[2Jb", "a\nb", "a\rb", "-rf", "--force",
	"a,b", "a=b", "a|b", "a:b", "a;b", "$(id)", "`id`", "a b", " ", "a\u202eb", "\uff57\uff57\uff57", "\xff\xfe",
	"@current", "@stable", strings.Repeat("x", 4096),
}

// TestHostileNames: no call makes anything of such a name, and nothing that is
// listed afterwards has one.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	c.application("www", "web")
	host := c.enrol("agent", "web-1", c.token("agent", 1))
	s, err := c.session(t.Context(), c.nodes[0].Agents, host, &agentv1.Hello{
		Name: "web-1", Zone: "a", Labels: map[string]string{"role": "web"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.CloseSend() }()
	digest := "sha256:" + strings.Repeat("a", 64)
	making := map[string]func(ctx context.Context, name string) error{
		"a revision": func(ctx context.Context, name string) error {
			_, err := c.api.RegisterRevision(ctx,
				&controlv1.RegisterRevisionRequest{App: "www", Name: name, Digest: digest})
			return err
		},
		"an application": func(ctx context.Context, name string) error {
			_, err := c.api.RegisterRevision(ctx,
				&controlv1.RegisterRevisionRequest{App: name, Name: "v9", Digest: digest})
			return err
		},
		"a deploy.yaml": func(ctx context.Context, name string) error {
			_, err := c.api.ApplyApp(ctx, &controlv1.ApplyAppRequest{Source: []byte(fmt.Sprintf(
				"app: %q\nartifacts: %s\ngroups: {prod: {select: 'true', config: all-at-once}}\n", name, c.store))})
			return err
		},
		"a group": func(ctx context.Context, name string) error {
			_, err := c.api.ApplyApp(ctx, &controlv1.ApplyAppRequest{Source: []byte(fmt.Sprintf(
				"app: other\nartifacts: %s\ngroups: {%q: {select: 'true', config: all-at-once}}\n", c.store, name))})
			return err
		},
		"a person": func(ctx context.Context, name string) error {
			_, err := c.api.CreateToken(ctx, &controlv1.CreateTokenRequest{Role: "operator", Name: name})
			return err
		},
		"a token's host": func(ctx context.Context, name string) error {
			_, err := c.api.CreateToken(ctx, &controlv1.CreateTokenRequest{Role: "agent", Host: name})
			return err
		},
		"a host's new name": func(ctx context.Context, name string) error {
			_, err := c.api.SetHostAttributes(ctx, &controlv1.SetHostAttributesRequest{
				Host: host.id, Attributes: &controlv1.Attributes{Name: name, Zone: "a"},
			})
			return err
		},
		"a deployment": func(ctx context.Context, name string) error {
			_, err := c.api.CreateDeployment(ctx, &controlv1.CreateDeploymentRequest{App: name, Revision: "v1"})
			return err
		},
		"a freeze": func(ctx context.Context, name string) error {
			_, err := c.api.SetFreeze(ctx, &controlv1.SetFreezeRequest{App: name})
			return err
		},
	}
	if err := making["a revision"](t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if err := making["a host's new name"](t.Context(), "web-2"); err != nil {
		t.Fatal(err)
	}
	for what, try := range making {
		for _, name := range hostileNames {
			if err := try(t.Context(), name); err == nil {
				t.Errorf("%s of the name %q was taken", what, name[:min(len(name), 20)])
			}
		}
	}
	token := c.token("agent", int32(len(hostileNames)))
	for _, name := range hostileNames {
		_, csr := request(t)
		_, err := agentv1.NewEnrolmentServiceClient(c.dial(c.nodes[0].Agents, stolen{})).Enrol(t.Context(),
			&agentv1.EnrolRequest{Token: token, CsrDer: csr, Name: name, Role: "agent", Zone: "a", Instance: "i"})
		if err == nil {
			t.Errorf("a host enrolled as %q", name[:min(len(name), 20)])
		}
	}
	c.nothingOfThem()
}

// nothingOfThem looks at everything that has a name.
func (c *cluster) nothingOfThem() {
	c.t.Helper()
	ctx := c.t.Context()
	apps, err1 := c.api.ListApps(ctx, &controlv1.ListAppsRequest{})
	hosts, err2 := c.api.ListHosts(ctx, &controlv1.ListHostsRequest{})
	revisions, err3 := c.api.ListRevisions(ctx, &controlv1.ListRevisionsRequest{App: "www"})
	people, err4 := c.api.ListPeople(ctx, &controlv1.ListPeopleRequest{})
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			c.t.Fatal(err)
		}
	}
	var names []string
	for _, a := range apps.Apps {
		names = append(names, a.Name)
		for _, g := range a.Groups {
			names = append(names, g.Name)
		}
	}
	for _, h := range hosts.Hosts {
		names = append(names, h.Name)
	}
	for _, r := range revisions.Revisions {
		names = append(names, r.Name)
	}
	for _, p := range people.People {
		names = append(names, p.Name)
	}
	if len(names) < 5 {
		c.t.Errorf("only %q have names: the test looks at nothing", names)
	}
	for _, n := range names {
		if strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			c.t.Errorf("there is something called %q", n)
		}
	}
}

// TestOnePlaceForMany: what there is once is given once, whoever asks at the same
// moment, through whichever replica: a token's use, a revision's name.
func TestOnePlaceForMany(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	const many = 12
	token := c.token("agent", 1)
	var mu sync.Mutex
	var wg sync.WaitGroup
	enrolled, registered := map[string]bool{}, map[string]bool{}
	operator := load(t, c.nodes[0].Operator)
	for i := range many {
		at := c.nodes[i%len(c.nodes)]
		enrol := agentv1.NewEnrolmentServiceClient(c.dial(at.Agents, stolen{}))
		api := controlv1.NewControlServiceClient(c.dial(at.API, operator))
		_, csr := request(t)
		wg.Go(func() {
			out, err := enrol.Enrol(t.Context(), &agentv1.EnrolRequest{
				Token: token, CsrDer: csr, Name: fmt.Sprint("web-", i), Role: "agent", Zone: "a", Instance: "i",
			})
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				enrolled[out.HostId] = true
			}
		})
		wg.Go(func() {
			digest := fmt.Sprintf("sha256:%064d", i+1)
			_, err := api.RegisterRevision(t.Context(), &controlv1.RegisterRevisionRequest{
				App: "www", Name: "v1", Digest: digest,
			})
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				registered[digest] = true
			}
		})
	}
	wg.Wait()
	if len(enrolled) != 1 {
		t.Errorf("a token with one use made %d hosts: %v", len(enrolled), enrolled)
	}
	all, err := c.api.ListRevisions(t.Context(), &controlv1.ListRevisionsRequest{App: "www"})
	if err != nil || len(all.Revisions) != 1 || len(registered) != 1 || !registered[all.Revisions[0].Digest] {
		t.Errorf("one name for %d of %d contents: %v, %v", len(registered), many, all, err)
	}
}
