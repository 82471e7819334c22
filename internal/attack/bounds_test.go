package attack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// TestOneDeployYamlIsNotEverywhere: whoever defines a group gets no host and no store
// beyond what admins let the application have, and what is let later or no more counts
// at once.
func TestOneDeployYamlIsNotEverywhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	out := again(c, c.api.CreateToken, &controlv1.CreateTokenRequest{Role: "operator", Name: "ann"})
	ann := c.enrol("operator", "ann", out.Token)
	token, hosts := c.token("agent", 2), map[string]stolen{}
	for _, name := range []string{"web-1", "db-1"} {
		hosts[name] = c.enrol("agent", name, token)
		s, err := c.session(t.Context(), c.nodes[0].Agents, hosts[name], &agentv1.Hello{
			Name: name, Zone: "a", Labels: map[string]string{"role": name[:len(name)-2]},
		})
		if err != nil {
			t.Fatal(err)
		}
		go answerLogs(s) // until the cluster ends
	}
	c.until("the hosts are not there", func() bool {
		return len(again(c, c.api.ListHosts, &controlv1.ListHostsRequest{}).Hosts) == 2
	})
	rights := func(selector, store string) {
		again(c, c.api.ApplyAccess, &controlv1.ApplyAccessRequest{Source: fmt.Appendf(nil, `version: 1
rules:
  - {people: [admin], role: admin, applications: ["*"]}
  - {people: [ann], role: deployer, applications: [www]}
bounds:
  www: {hosts: %q, stores: [%q], pools: [{balancers: edge, backend: www}]}
`, selector, store)})
	}
	api := make([]controlv1.ControlServiceClient, len(c.nodes))
	for i, n := range c.nodes {
		api[i] = controlv1.NewControlServiceClient(c.dial(n.API, ann))
	}
	define := func(i int, selector, store string) error {
		_, err := api[i].ApplyApp(t.Context(), &controlv1.ApplyAppRequest{MayLeave: true, Source: fmt.Appendf(nil,
			"app: www\nartifacts: %s\ngroups:\n  prod: {select: %q, config: all-at-once}\n", store, selector)})
		return err
	}
	members := func(want ...string) {
		t.Helper()
		c.until(fmt.Sprintf("the group has not just %v", want), func() bool {
			var have []string
			for _, h := range c.hosts("www") {
				have = append(have, h.Name)
			}
			return slices.Equal(have, want)
		})
	}
	sign := func() codes.Code {
		_, err := agentv1.NewAgentServiceClient(c.dial(c.nodes[1].Agents, hosts["web-1"])).SignArtifact(t.Context(),
			&agentv1.SignArtifactRequest{App: "www", Group: "prod", Key: "bundles/x"})
		return status.Code(err)
	}

	rights(`role == "web"`, c.store)
	if err := define(0, "true", c.store+"/www"); err != nil {
		t.Fatal(err)
	}
	members("web-1")
	for i, store := range []string{c.store + "2", "file:///etc", c.store + "/../etc"} {
		if err := define(i, "true", store); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a store at %s: %v", store, err)
		}
	}
	_, err := api[1].ApplyApp(t.Context(), &controlv1.ApplyAppRequest{DryRun: true, Source: fmt.Appendf(nil,
		"app: www\nartifacts: %s\ngroups:\n  prod:\n    select: 'true'\n    config: all-at-once\n    traffic:\n"+
			"      - haproxy: {balancers: edge, backend: api, server: '{{.Host}}'}\n", c.store)})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("a pool of another application: %v", err)
	}
	if err := define(1, `role == "db" || role == "web"`, c.store); err != nil {
		t.Fatal(err)
	}
	if err := define(2, `role == "db"`, c.store); err != nil {
		t.Fatal(err)
	}
	members() // web-1 has left by the new selector, and nobody came
	rights("true", c.store)
	members("db-1")
	if err := define(0, "true", c.store); err != nil {
		t.Fatal(err)
	}
	members("db-1", "web-1")
	c.until("nothing is signed", func() bool { return sign() == codes.OK })
	rights(`role == "web"`, c.store+"/elsewhere")
	members("web-1")
	c.until("what is outside of the store is signed", func() bool { return sign() == codes.PermissionDenied })
}

// TestUsersReachTheHost: what admins let scripts run as is told with every assignment, and
// told anew when only that has changed.
func TestUsersReachTheHost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	c.audited()
	c.application("www", "web")
	host := c.enrol("agent", "web-1", c.token("agent", 1))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := agentv1.NewAgentServiceClient(c.dial(c.nodes[1].Agents, host)).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := hello(s, &agentv1.Hello{Name: "web-1", Zone: "a", Labels: map[string]string{"role": "web"}}); err != nil {
		t.Fatal(err)
	}
	told := func(want string) {
		t.Helper()
		for {
			m, err := s.Recv()
			if err != nil {
				t.Fatalf("waiting for the users %q: %v", want, err)
			}
			for _, a := range m.GetAssignments().GetItems() {
				if a.App == "www" && strings.Join(a.RunAs, " ") == want {
					return
				}
			}
		}
	}
	told("")
	for _, users := range []string{"www", "www deploy", ""} {
		bounds := ""
		if users != "" {
			bounds = "bounds: {www: {runAs: [" + strings.ReplaceAll(users, " ", ", ") + "]}}\n"
		}
		again(c, c.api.ApplyAccess, &controlv1.ApplyAccessRequest{Source: []byte("version: 1\nrules: [{people: [admin], " +
			"role: admin, applications: [\"*\"]}]\n" + bounds)})
		told(users)
	}
}
