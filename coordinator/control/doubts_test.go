package control

import (
	"slices"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// What a file asks for and this cluster cannot give is said when it is applied,
// also on a dry run, and is no reason to refuse it.
func TestApplySaysWhatCannotBe(t *testing.T) {
	w := newWorld(t)
	var defs []deploy.GroupDefined
	w.c.o.Parse = func([]byte, string) ([]deploy.GroupDefined, error) { return defs, nil }
	w.c.o.Match = func(_, selector string, h *deploy.Host) bool { return selector == h.Labels["role"] }
	w.c.o.Approvers = func(group string) int { return map[string]int{"oncall": 1}[group] }
	approval := func(group string, count int) deploy.Config {
		c, _ := deploy.Builtin("all-at-once")
		c.Gates = []deploy.Gate{{Name: "go", Approval: &deploy.ApprovalGate{Group: group, Count: count}}}
		return c
	}
	group := func(name, selector string, c deploy.Config) deploy.GroupDefined {
		return deploy.GroupDefined{App: "api", Group: name, Selector: selector, Config: c}
	}
	plain, _ := deploy.Builtin("all-at-once")
	for _, c := range []struct {
		defs []deploy.GroupDefined
		want []string
	}{
		{[]deploy.GroupDefined{group("prod", "web", plain)}, nil},
		{[]deploy.GroupDefined{group("prod", "db", plain)}, []string{"group prod has no host: no enrolled host " +
			"matches db"}},
		{
			[]deploy.GroupDefined{group("blue", "web", plain), group("green", "web", plain)},
			[]string{"groups blue and green both select web-h1, web-h2, web-h3;"},
		},
		{[]deploy.GroupDefined{group("prod", "web", approval("", 2))}, nil},
		{[]deploy.GroupDefined{group("prod", "web", approval("oncall", 0))}, nil},
		{[]deploy.GroupDefined{group("prod", "web", approval("oncall", 2))}, []string{"asks for 2 of the approvers " +
			"oncall, of whom there are 1"}},
		{[]deploy.GroupDefined{group("prod", "web", approval("nobody", 1))}, []string{"approvers nobody, of whom " +
			"there are 0: it can never pass"}},
	} {
		defs = c.defs
		for _, dry := range []bool{true, false} {
			out, err := w.c.ApplyApp(t.Context(), &controlv1.ApplyAppRequest{DryRun: dry, MayLeave: true})
			if err != nil || len(out.Warnings) != len(c.want) ||
				slices.ContainsFunc(c.want, func(text string) bool {
					return !strings.Contains(out.Warnings[0],
						text)
				}) {
				t.Errorf("dry run %t: %v, %v; want %q", dry, out.GetWarnings(), err, c.want)
			}
		}
	}
}

// A plan says that the floor lets nobody go, and because of whom.
func TestPlanSaysThatTheFloorIsOutOfReach(t *testing.T) {
	w := newWorld(t)
	c, _ := deploy.Builtin("all-at-once")
	c.Capacity.MinHealthy = deploy.Count(2)
	must := func(errs []error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	must(w.apply(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c}))
	notes := func() string {
		t.Helper()
		p, err := w.c.PlanDeployment(t.Context(), &controlv1.PlanDeploymentRequest{
			Deployment: &controlv1.CreateDeploymentRequest{App: "www", Revision: "v3"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(p.Notes, "\n")
	}
	if got := notes(); strings.Contains(got, "must stay in service") {
		t.Errorf("with everybody there: %s", got)
	}
	must(w.apply(deploy.HostsQuarantined{Hosts: []string{"h2"}, Cause: "cordoned by ann"}))
	if got, want := notes(), "of 3 hosts in the group at most 2 serve while web-h2 are cordoned, quarantined or "+
		"unreachable, and at least 2 must stay in service"; !strings.Contains(got, want) {
		t.Errorf("with one cordoned: %s", got)
	}
}
