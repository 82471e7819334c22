package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// world is state, log and fleet in one: facts are applied at once.
type world struct {
	revoked map[string]string
	token   TokenSpec // the last that was asked for
	*testing.T
	s *deploy.State
	c *Service
}

func (w *world) View(f func(*deploy.State)) { f(w.s) }
func (w *world) WatchDeployment(string) (<-chan struct{}, func()) {
	return make(chan struct{}), func() {}
}
func (w *world) Now() deploy.Time               { return w.s.Now }
func (w *world) Status(string) (string, string) { return "connected", "c1" }
func (w *world) apply(events ...deploy.Event) []error {
	return w.s.ApplyEntry(w.s.Index+1, deploy.Entry{At: w.s.Now + 1, Wall: 1, Events: events})
}

func (w *world) Propose(_ context.Context, events []deploy.Event) ([]error, error) {
	return w.apply(events...), nil
}

func digest(i int) deploy.Digest { return deploy.Digest(fmt.Sprintf("sha256:%064d", i)) }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, s: deploy.NewState()}
	w.c = New(Options{
		State: w, Log: w, Fleet: w, Actor: func(context.Context) string { return "ann" },
		Activity: func(string, string) (Activity, bool) { return Activity{}, false },
		Revoked:  func(host string) string { return w.revoked[host] },
		Token:    func(_ context.Context, t TokenSpec) (Token, error) { w.token = t; return Token{}, nil },
		Parse: func([]byte, string) ([]deploy.GroupDefined, error) {
			return nil, &deploy.Refusal{Reason: deploy.Invalid, Text: "deploy.yaml:1:1: wrong"}
		},
	})
	c, _ := deploy.Builtin("all-at-once")
	events := []deploy.Event{deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c}}
	for i := 1; i <= 3; i++ {
		id := fmt.Sprint("h", i)
		events = append(events, deploy.HostEnrolled{
			Host: id, Name: "web-" + id, Zone: "a",
			Labels: map[string]string{"role": "web", "n": fmt.Sprint(i)},
		},
			deploy.TargetsJoined{App: "www", Group: "prod", Hosts: []string{id}})
	}
	for i, name := range []string{"4f2a91c0", "4f2a91d7", "v3"} {
		events = append(events, deploy.RevisionRegistered{App: "www", Name: name, Digest: digest(i + 1)})
	}
	for _, err := range w.apply(events...) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) refused(err error, kind deploy.RefusalKind, text string) {
	w.Helper()
	var r *deploy.Refusal
	if !errors.As(err, &r) || r.Reason != kind || !strings.Contains(err.Error(), text) {
		w.Errorf("got %v, want %s with %q", err, kind, text)
	}
}

func TestRevisionNames(t *testing.T) {
	w := newWorld(t)
	for name, want := range map[string]string{
		"v3": "v3", "4f2a91c0": "4f2a91c0", "4f2a91c": "4f2a91c0",
		string(digest(3)): "v3",
	} {
		out, err := w.c.ListRevisions(t.Context(), &controlv1.ListRevisionsRequest{App: "www", Name: name})
		if err != nil || len(out.Revisions) != 1 || out.Revisions[0].Name != want {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
	for name, want := range map[string]struct {
		kind deploy.RefusalKind
		text string
	}{
		"4f2a91e0": {deploy.NotFound, "near ones are 4f2a91c0"}, "4f2a91": {deploy.NotFound, "4f2a91c0"},
		"@stable": {deploy.NotFound, "no stable revision"}, "@newest": {
			deploy.Invalid,
			"@current",
		}, "zzz": {deploy.NotFound, "no revision"},
	} {
		_, err := w.c.ListRevisions(t.Context(), &controlv1.ListRevisionsRequest{App: "www", Name: name})
		w.refused(err, want.kind, want.text)
	}
}

// TestPruneRevisions: the newest stay, and what something needs; before every coordinator
// knows the fact it is refused.
func TestPruneRevisions(t *testing.T) {
	w := newWorld(t)
	prune := func(keep int32, dry bool) (*controlv1.PruneRevisionsResponse, error) {
		return w.c.PruneRevisions(t.Context(), &controlv1.PruneRevisionsRequest{
			Mutation: &controlv1.Mutation{RequestId: fmt.Sprint("p", w.s.Index)}, App: "www", Keep: keep, DryRun: dry,
		})
	}
	_, err := prune(0, false)
	w.refused(err, deploy.Conflict, "not every coordinator knows")
	w.apply(deploy.RulesRaised{Level: 2})
	w.apply(deploy.RulesRaised{Level: 3})
	if _, err := w.create("v3", "r"); err != nil { // the last one
		t.Fatal(err)
	}
	for _, x := range []struct {
		keep         int32
		dry          bool
		pruned, stay int
	}{{3, false, 0, 3}, {2, false, 0, 3}, {1, true, 1, 3}, {1, false, 1, 2}, {1, false, 0, 2}, {0, false, 1, 1}} {
		out, err := prune(x.keep, x.dry)
		if err != nil || len(out.Pruned) != x.pruned || len(w.s.Revisions["www"]) != x.stay {
			t.Errorf("keep %d, dry run %t: %v, %v, %d stay", x.keep, x.dry, out, err, len(w.s.Revisions["www"]))
		}
	}
	if w.s.Revisions["www"][digest(3)] == nil {
		t.Error("what a deployment in flight brings was pruned")
	}
	_, err = w.c.PruneRevisions(t.Context(), &controlv1.PruneRevisionsRequest{App: "www", Keep: -1})
	w.refused(err, deploy.Invalid, "0 or more")
}

func (w *world) create(rev, request string) (*controlv1.CreateDeploymentResponse, error) {
	return w.c.CreateDeployment(w.Context(), &controlv1.CreateDeploymentRequest{
		Mutation: &controlv1.Mutation{RequestId: request}, App: "www", Revision: rev,
	})
}

func TestCreateOnce(t *testing.T) {
	w := newWorld(t)
	first, err := w.create("v3", "req-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.create("v3", "req-1")
	if err != nil || again.Id != first.Id || len(w.s.Deployments) != 1 {
		t.Errorf("a repeated request: %v, %v, %d deployments", again, err, len(w.s.Deployments))
	}
	_, err = w.create("v3", "req-2")
	w.refused(err, deploy.Conflict, "in flight")
	_, err = w.c.CreateDeployment(t.Context(), &controlv1.CreateDeploymentRequest{App: "wwww", Revision: "v3"})
	w.refused(err, deploy.NotFound, "near ones are www")
	_, err = w.c.CreateDeployment(t.Context(),
		&controlv1.CreateDeploymentRequest{App: "www", Revision: "v3", Config: "stagd"})
	w.refused(err, deploy.Invalid, "near ones are staged")
}

func TestPlanChangesNothing(t *testing.T) {
	w := newWorld(t)
	before := w.s.Index
	p, err := w.c.PlanDeployment(t.Context(),
		&controlv1.PlanDeploymentRequest{Deployment: &controlv1.CreateDeploymentRequest{App: "www", Revision: "v3"}})
	if err != nil || len(p.Waves) != 1 || len(p.Waves[0].Hosts) != 3 || !p.Changes || w.s.Index != before {
		t.Fatalf("%v, %v", p, err)
	}
	w.apply(deploy.HostEnrolled{Host: "h9", Name: "new", Zone: "a"})
	_, err = w.c.CreateDeployment(t.Context(),
		&controlv1.CreateDeploymentRequest{App: "www", Revision: "v3", IfIndex: p.Index})
	w.refused(err, deploy.Conflict, "has changed")
}

func TestActAndRollbackOfWhatIsInFlight(t *testing.T) {
	w := newWorld(t)
	_, err := w.c.Rollback(t.Context(), &controlv1.RollbackRequest{App: "www"})
	w.refused(err, deploy.Conflict, "nothing that could be taken back")
	d, err := w.create("v3", "r")
	if err != nil {
		t.Fatal(err)
	}
	w.apply(deploy.DeploymentStarted{Deployment: d.Id})
	if _, err := w.c.Act(t.Context(), &controlv1.ActRequest{
		Deployment: strings.ToLower(d.Id[:12]),
		Verb:       "pause",
	}); err != nil {
		t.Errorf("by a prefix of its id: %v", err)
	}
	_, err = w.c.Act(t.Context(), &controlv1.ActRequest{Deployment: d.Id, Verb: "explode"})
	w.refused(err, deploy.Invalid, "explode")
	_, err = w.c.Act(t.Context(), &controlv1.ActRequest{Deployment: "nope", Verb: "pause"})
	w.refused(err, deploy.NotFound, "no deployment")
	out, err := w.c.Rollback(t.Context(), &controlv1.RollbackRequest{App: "www", DryRun: true})
	if err != nil || out.Id != d.Id || out.From != "v3" ||
		w.s.Deployments[d.Id].Status == deploy.DeploymentStatusRollingBack {
		t.Errorf("a rollback that only says what it would do: %v, %v", out, err)
	}
	out, err = w.c.Rollback(t.Context(), &controlv1.RollbackRequest{App: "www"})
	if err != nil || out.Id != d.Id || w.s.Deployments[d.Id].Status != deploy.DeploymentStatusRollingBack {
		t.Errorf("rollback of what is in flight: %v, %v", out, err)
	}
}

func TestHostFilters(t *testing.T) {
	w := newWorld(t)
	for want, r := range map[int]*controlv1.ListHostsRequest{
		3: {
			Role: "web", Zone: "a", App: "www",
			Group: "prod",
		}, 1: {Selector: []string{"n=2"}}, 0: {Role: "db"}, 2: {Host: []string{"web-h1", "web-h3"}},
	} {
		out, err := w.c.ListHosts(t.Context(), r)
		if err != nil || len(out.Hosts) != want {
			t.Errorf("%v: %d hosts, want %d, %v", r, len(out.GetHosts()), want, err)
		}
	}
	if out, err := w.c.ListHosts(t.Context(), &controlv1.ListHostsRequest{Host: []string{"web-*"}}); err != nil ||
		len(out.Hosts) != 3 {
		t.Errorf("by prefix: %v, %v", out, err)
	}
	_, err := w.c.GetHost(t.Context(), &controlv1.GetHostRequest{Host: "web-h7"})
	w.refused(err, deploy.NotFound, "near ones are web-h1")
}

// TestHostsComeInPages: each host once, in order, though some go and come between pages;
// and what does not fit one answer is refused, not cut.
func TestHostsComeInPages(t *testing.T) {
	w := newWorld(t)
	label := map[string]string{"long": strings.Repeat("x", 1000)}
	for i := range 3500 {
		id := fmt.Sprintf("p%04d", i)
		w.apply(deploy.HostEnrolled{Host: id, Name: "page-" + id, Labels: label})
	}
	_, err := w.c.ListHosts(t.Context(), &controlv1.ListHostsRequest{})
	w.refused(err, deploy.Invalid, "3503 hosts do not fit one answer")
	var got []string
	pages := 0
	req := &controlv1.ListHostsRequest{Host: []string{"page-*"}, PageSize: 1 << 20}
	for {
		out, err := w.c.ListHosts(t.Context(), req)
		if err != nil || len(out.Hosts) > 1000 {
			t.Fatalf("%d hosts, %v", len(out.GetHosts()), err)
		}
		for _, h := range out.Hosts {
			got = append(got, h.Id)
		}
		if pages++; pages == 1 {
			w.apply(deploy.HostLeft{Host: "p0000", Force: true}, deploy.HostLeft{Host: "p0999", Force: true},
				deploy.HostLeft{Host: "p2000", Force: true},
				deploy.HostEnrolled{Host: "p3000x", Name: "page-p3000x"})
		}
		if req.Page = out.NextPage; req.Page == "" {
			break
		}
	}
	if len(got) != 3500 || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != 3500 || pages != 4 {
		t.Errorf("%d hosts in %d pages", len(got), pages)
	}
}

func TestBadInput(t *testing.T) {
	w := newWorld(t)
	_, err := w.c.ApplyApp(t.Context(), &controlv1.ApplyAppRequest{})
	w.refused(err, deploy.Invalid, "deploy.yaml:1:1")
	for _, d := range []string{"", "sha256:", "sha256:" + strings.Repeat("g", 64), "md5:" + strings.Repeat("a", 64)} {
		_, err := w.c.RegisterRevision(t.Context(),
			&controlv1.RegisterRevisionRequest{App: "www", Name: "v9", Digest: d})
		w.refused(err, deploy.Invalid, "sha256")
	}
	_, err = w.c.RegisterRevision(t.Context(),
		&controlv1.RegisterRevisionRequest{App: "www", Name: "@v9", Digest: string(digest(9))})
	w.refused(err, deploy.Invalid, "@")
	_, err = w.c.RegisterRevision(t.Context(),
		&controlv1.RegisterRevisionRequest{App: "www", Name: "v3", Digest: string(digest(9))})
	w.refused(err, deploy.Exists, "immutable")
	_, err = w.c.CreateToken(t.Context(), &controlv1.CreateTokenRequest{TtlMs: -5})
	w.refused(err, deploy.Invalid, "7 days")
	_, err = w.c.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Uses: 1 << 20})
	w.refused(err, deploy.Invalid, "uses")
}

// A token for a host that is connected would make two of it; one whose key was
// revoked just now is about to go, and is shown as such.
func TestTokenForARevokedHost(t *testing.T) {
	w := newWorld(t)
	_, err := w.c.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Host: "web-h1"})
	w.refused(err, deploy.Conflict, "its identity is in use")
	w.revoked = map[string]string{"h1": "bob"}
	if _, err := w.c.CreateToken(t.Context(), &controlv1.CreateTokenRequest{Host: "web-h1"}); err != nil ||
		w.token.Host != "h1" {
		t.Errorf("%+v, %v", w.token, err)
	}
	all, err := w.c.ListHosts(t.Context(), &controlv1.ListHostsRequest{})
	if err != nil || all.Hosts[0].Revoked != "bob" || all.Hosts[1].Revoked != "" {
		t.Errorf("%v, %v", all, err)
	}
	one, err := w.c.GetHost(t.Context(), &controlv1.GetHostRequest{Host: "web-h1"})
	if err != nil || one.Host.Revoked != "bob" {
		t.Errorf("%v, %v", one, err)
	}
}

func TestNotFoundHints(t *testing.T) {
	for typed, want := range map[string]string{"helo": "hello", "xyzzy": ""} {
		if got := suggest(typed, []string{"hello", "world"}); (want == "") != (got == "") ||
			!strings.Contains(got, want) {
			t.Errorf("%s: %q", typed, got)
		}
	}
}

// TestCurrentIsARepair: deploying @current asks hosts to do only what is needed;
// --redeploy, and the revision by its name, do not.
func TestCurrentIsARepair(t *testing.T) {
	for _, c := range []struct {
		rev              string
		redeploy, repair bool
	}{{"@current", false, true}, {"@current", true, false}, {"v3", true, false}, {"v3", false, false}} {
		w := newWorld(t)
		for _, h := range w.s.Groups["www/prod"].Hosts() {
			w.s.Target(h, "www").Running = digest(3)
		}
		out, err := w.c.CreateDeployment(t.Context(), &controlv1.CreateDeploymentRequest{
			Mutation: &controlv1.Mutation{RequestId: "r"}, App: "www", Revision: c.rev, Redeploy: c.redeploy,
		})
		if err != nil {
			t.Fatal(err)
		}
		d := w.s.Deployments[out.Id]
		if d.Repair != c.repair || d.Redeploy != (c.repair || c.redeploy) || d.RevName != "v3" {
			t.Errorf("%+v: repair %t, redeploy %t, revision %s", c, d.Repair, d.Redeploy, d.RevName)
		}
	}
}

// TestFreezesHaveAnEnd: it is within a year, shown as it was set, and lifted in
// exactly that scope; edited files are counted and named.
func TestFreezesHaveAnEnd(t *testing.T) {
	w := newWorld(t)
	set := func(r *controlv1.SetFreezeRequest) error {
		_, err := w.c.SetFreeze(t.Context(), r)
		return err
	}
	day := (24 * time.Hour).Milliseconds()
	w.refused(set(&controlv1.SetFreezeRequest{App: "www", ForMs: -1}), deploy.Invalid, "366 days")
	w.refused(set(&controlv1.SetFreezeRequest{App: "www", ForMs: 367 * day}), deploy.Invalid, "366 days")
	w.refused(set(&controlv1.SetFreezeRequest{Group: "prod"}), deploy.Invalid, "of which application")
	w.refused(set(&controlv1.SetFreezeRequest{App: "ww"}), deploy.NotFound, "www")
	if err := set(&controlv1.SetFreezeRequest{App: "www", ForMs: day}); err != nil {
		t.Fatal(err)
	}
	host := w.s.Groups["www/prod"].Hosts()[0]
	target := w.s.Target(host, "www")
	target.Running, target.Edits = digest(3), &deploy.Edits{Files: 7, Paths: []string{"/srv/a", "/srv/b"}}
	out, err := w.c.GetApp(t.Context(), &controlv1.GetAppRequest{App: "www"})
	if err != nil {
		t.Fatal(err)
	}
	g := out.App.Groups[0]
	if !strings.Contains(g.Frozen, " until ") || g.EditedHosts != 1 {
		t.Errorf("frozen %q, %d hosts edited", g.Frozen, g.EditedHosts)
	}
	if !slices.ContainsFunc(g.Drift, func(x *controlv1.Drift) bool { return x.Why == "7 edited: /srv/a, /srv/b, …" }) {
		t.Errorf("drift is %v", g.Drift)
	}
	all, err := w.c.ListApps(t.Context(), &controlv1.ListAppsRequest{})
	if err != nil || len(all.Freezes) != 1 || all.Freezes[0].UntilMs-all.Freezes[0].SinceMs != day {
		t.Errorf("freezes are %v, %v", all.GetFreezes(), err)
	}
	w.refused(set(&controlv1.SetFreezeRequest{Lift: true}), deploy.NotFound, "exactly that scope")
	if err := set(&controlv1.SetFreezeRequest{App: "www", Lift: true}); err != nil || len(w.s.Freezes) != 0 {
		t.Errorf("lifted: %v, %v", err, w.s.Freezes)
	}
}

// A plan says what hosts leave, and that nobody would let them now.
func TestPlanNamesPools(t *testing.T) {
	w := newWorld(t)
	w.s.Groups["www/prod"].Traffic = &deploy.Traffic{Pools: []deploy.Pool{
		{Kind: deploy.PoolHAProxy, Balancers: "edge", Backend: "www", Server: "{{.Host}}"},
	}}
	var asked []deploy.Pool
	w.c.o.Pools = func(_ context.Context, pools []deploy.Pool) error {
		asked = pools
		return errors.New("edge does not answer")
	}
	r := &controlv1.CreateDeploymentRequest{App: "www", Revision: "v3"}
	p, err := w.c.PlanDeployment(t.Context(), &controlv1.PlanDeploymentRequest{Deployment: r})
	if err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(p.Notes, "\n")
	if !strings.Contains(notes, "leaves haproxy edge/www before it stops") ||
		!strings.Contains(notes, "edge does not answer") {
		t.Errorf("notes %s", notes)
	}
	if len(asked) != 3 || !strings.HasPrefix(asked[0].Server, "web-") {
		t.Errorf("asked about %v", asked)
	}
	_, err = w.c.CreateDeployment(t.Context(), r)
	w.refused(err, deploy.Conflict, "edge does not answer")
}
