package control

import (
	"context"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// only shows one group of one application.
type only struct{ app, group string }

func (o only) Sees(app, group string) bool { return app == o.app && group == o.group }
func (o only) SeesApp(app string) bool     { return app == o.app }
func (only) SeesFleet() bool               { return false }
func (only) SeesAll() bool                 { return false }

// shared is a world with applications www (prod, staging) and api on shared hosts, seen
// by who may know www/prod alone.
func shared(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	c, _ := deploy.Builtin("all-at-once")
	for _, err := range w.apply(
		deploy.GroupDefined{App: "www", Group: "staging", Selector: "true", Config: c, Source: "everything"},
		deploy.GroupDefined{App: "api", Group: "prod", Selector: "true", Config: c, Source: "everything"},
		deploy.HostEnrolled{Host: "s1", Name: "stage-1", Zone: "a"},
		deploy.HostEnrolled{Host: "h9", Name: "web-h9", Zone: "b"},
		deploy.TargetsJoined{App: "www", Group: "staging", Hosts: []string{"s1"}},
		deploy.TargetsJoined{App: "api", Group: "prod", Hosts: []string{"h1", "h9", "s1"}},
		deploy.RevisionRegistered{App: "api", Name: "v3", Digest: digest(3)},
		deploy.FreezeSet{App: "api", Request: deploy.Request{Actor: "bob"}},
		deploy.FreezeSet{App: "www", Group: "staging", Request: deploy.Request{Actor: "bob"}},
		deploy.FreezeSet{App: "www", Group: "prod", Request: deploy.Request{Actor: "ann"}},
		deploy.FreezeSet{Request: deploy.Request{Actor: "all"}},
	) {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.c.o.Sight = func(context.Context) Sight { return only{"www", "prod"} }
	return w
}

func TestWhatIsSeen(t *testing.T) {
	w := shared(t)
	ctx := t.Context()
	apps, err := w.c.ListApps(ctx, nil)
	if err != nil || len(apps.Apps) != 1 || len(apps.Apps[0].Groups) != 1 || apps.Apps[0].Groups[0].Source != "" {
		t.Errorf("applications: %v, %v", apps, err)
	}
	if len(apps.Freezes) != 2 || apps.Freezes[0].Actor != "ann" || apps.Freezes[1].Actor != "all" {
		t.Errorf("freezes: %v", apps.Freezes)
	}
	hosts, err := w.c.ListHosts(ctx, &controlv1.ListHostsRequest{})
	if err != nil || len(hosts.Hosts) != 3 {
		t.Errorf("hosts: %v, %v", hosts, err)
	}
	for _, h := range hosts.Hosts {
		if len(h.Targets) != 1 || h.Targets[0].App != "www" || len(h.Namesakes) > 0 {
			t.Errorf("host %s: %v, namesakes %v", h.Name, h.Targets, h.Namesakes)
		}
	}
	for _, filter := range []*controlv1.ListHostsRequest{
		{App: "api"}, {App: "www", Group: "staging"}, {Host: []string{"stage-1"}}, {Host: []string{"s1"}}, {Zone: "b"},
	} {
		if out, err := w.c.ListHosts(ctx, filter); err != nil || len(out.Hosts) > 0 {
			t.Errorf("%v shows %v, %v", filter, out.Hosts, err)
		}
	}
	_, hidden := w.c.GetHost(ctx, &controlv1.GetHostRequest{Host: "stage-1"})
	_, missing := w.c.GetHost(ctx, &controlv1.GetHostRequest{Host: "stage-2"})
	if hidden == nil || missing == nil || strings.Replace(hidden.Error(), "stage-1", "stage-2", 1) != missing.Error() {
		t.Errorf("%v\n%v", hidden, missing)
	}
	_, err = w.c.GetApp(ctx, &controlv1.GetAppRequest{App: "wwww"})
	w.refused(err, deploy.NotFound, "near ones are www; define it with `dctl apps apply`, or you may not see it")
	_, err = w.c.GetApp(ctx, &controlv1.GetAppRequest{App: "apj"})
	if err == nil || strings.Contains(err.Error(), "api") {
		t.Errorf("a near name: %v", err)
	}
	_, err = w.c.PlanDeployment(ctx, &controlv1.PlanDeploymentRequest{
		Deployment: &controlv1.CreateDeploymentRequest{App: "www", Group: "staging", Revision: "v3"},
	})
	w.refused(err, deploy.NotFound, `application www has no group "staging", it has ["prod"]`)
	for app, want := range map[string]int{"www": 3, "api": 0} {
		out, err := w.c.ListRevisions(ctx, &controlv1.ListRevisionsRequest{App: app})
		if err != nil || len(out.Revisions) != want {
			t.Errorf("revisions of %s: %v, %v", app, out, err)
		}
	}
}

// TestDeploymentsThatAreHidden: neither by id, nor by its beginning, nor by their number.
func TestDeploymentsThatAreHidden(t *testing.T) {
	w := shared(t)
	w.c.o.Sight = func(context.Context) Sight { return everything{} }
	ctx := t.Context()
	create := func(id, app, group string) {
		w.apply(deploy.FreezeLifted{}, deploy.FreezeLifted{App: app}, deploy.FreezeLifted{App: app, Group: group})
		if _, err := w.c.CreateDeployment(ctx, &controlv1.CreateDeploymentRequest{
			Mutation: &controlv1.Mutation{RequestId: id}, App: app, Group: group, Revision: "v3",
		}); err != nil {
			t.Fatal(err)
		}
	}
	create("01ARZ3NDEKTSV4RRFFQ69G5FA1", "www", "prod")
	create("01ARZ3NDEKTSV4RRFFQ69G5FA2", "www", "staging")
	create("01ARZ3NDEKTSV4RRFFQ69G5FA3", "api", "prod")
	_, err := w.c.GetDeployment(ctx, &controlv1.GetDeploymentRequest{Id: "01ARZ3"})
	w.refused(err, deploy.Invalid, "the beginning of 3 deployments")
	w.c.o.Sight = func(context.Context) Sight { return only{"www", "prod"} }
	if out, err := w.c.GetDeployment(ctx, &controlv1.GetDeploymentRequest{Id: "01ARZ3"}); err != nil ||
		out.Deployment.Group != "prod" {
		t.Errorf("the beginning of one that is seen: %v, %v", out, err)
	}
	for _, id := range []string{"01ARZ3NDEKTSV4RRFFQ69G5FA2", "01ARZ3NDEKTSV4RRFFQ69G5FA3"} {
		_, err := w.c.GetDeployment(ctx, &controlv1.GetDeploymentRequest{Id: id})
		w.refused(err, deploy.NotFound, "no deployment \""+id+"\"")
		_, err = w.c.Act(ctx, &controlv1.ActRequest{Deployment: id, Verb: "pause"})
		w.refused(err, deploy.NotFound, "no deployment")
		_, err = w.c.Act(ctx, &controlv1.ActRequest{Deployment: "01ARZ3NDEKTSV4RRFFQ69G5FA1", Verb: "take-over", By: id})
		w.refused(err, deploy.NotFound, "no deployment")
	}
	out, err := w.c.ListDeployments(ctx, &controlv1.ListDeploymentsRequest{})
	if err != nil || len(out.Deployments) != 1 {
		t.Errorf("%v, %v", out, err)
	}
	_, err = w.c.GetDeployment(ctx, &controlv1.GetDeploymentRequest{App: "api"})
	w.refused(err, deploy.NotFound, "no deployment of \"api\" yet")
	st := seen{w.s, only{"www", "prod"}}
	for app, want := range map[string]string{"": "say of which application", "api": "runs no application", "www": ""} {
		err := st.mayRead(w.s.Hosts["h1"], app)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("output of %q on h1: %v", app, err)
		}
	}
}

// TestAnotherConfigKeepsTheFirstGates: no flag goes past what is asked before a wave.
func TestAnotherConfigKeepsTheFirstGates(t *testing.T) {
	w := newWorld(t)
	c, _ := deploy.Builtin("staged")
	c.Gates = []deploy.Gate{{Name: "go", Approval: &deploy.ApprovalGate{Count: 1}}}
	c.PreGates = []string{"go"}
	if err := w.apply(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c})[0]; err != nil {
		t.Fatal(err)
	}
	if _, err := w.c.CreateDeployment(t.Context(), &controlv1.CreateDeploymentRequest{
		App: "www", Revision: "v3", Config: "all-at-once",
	}); err != nil {
		t.Fatal(err)
	}
	for _, d := range w.s.Deployments {
		if len(d.Config.PreGates) != 1 {
			t.Errorf("a deployment by another config asks %v before its first wave", d.Config.PreGates)
		}
	}
}
