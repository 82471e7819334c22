package attack

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Of two applications with names that are near each other, the people of this document
// have rights on the first alone. A third, as near, does not exist.
const (
	own, other, absent = "wwa", "wwb", "wwc"

	tenants = `version: 1
teams: {leads: [approver]}
rules:
  - {people: [admin], role: admin, applications: ["*"]}
  - {people: [operator], role: operator, applications: ["*"]}
  - {people: [viewer], role: viewer, applications: [wwa]}
  - {people: [deployer], role: deployer, applications: [wwa]}
  - {people: [half], role: operator, applications: [wwa]}
  - {teams: [leads], role: approver, applications: [wwa]}
  - {people: [trusted], verbs: [deploy, force-bad, preempt, lift-freeze, emergency, audit],
     applications: [wwa], groups: [prod]}
`
)

// places are what a request names: of one's own application, of another one, and of one
// that does not exist.
type place struct {
	app, deployment, host string
	text                  string // that others have in its place
}

// asked is a row: a request about a place, and who may make it about their own.
type asked struct {
	make func(p place) proto.Message
	own  string // people who may; the admin may everything
	// all is who may whatever the application, beside the admin.
	all string
	// named says that the answer hangs on the name alone: whoever may not is told
	// that, whether there is something of that name or not.
	named bool
	done  bool // it would be done: whoever may is not asked
}

const (
	everyone = "operator viewer deployer half approver trusted stranger"
	sees     = "operator viewer deployer half approver trusted"
	stops    = "operator deployer half approver"
	freezes  = "operator deployer half"
	nobody   = ""
)

// rows says of every call of people who gets past the rights, by hand and not from the
// table of the coordinator.
var rows = map[string]asked{
	"CreateDeployment": {own: "deployer trusted", make: func(p place) proto.Message {
		return &controlv1.CreateDeploymentRequest{App: p.app, Revision: "nosuch"}
	}},
	"CreateDeployment force": {own: "trusted", make: func(p place) proto.Message {
		return &controlv1.CreateDeploymentRequest{App: p.app, Revision: "nosuch", ForceBad: true}
	}},
	"CreateDeployment preempt": {own: "trusted", make: func(p place) proto.Message {
		return &controlv1.CreateDeploymentRequest{App: p.app, Group: "prod", Revision: "nosuch", Preempt: true}
	}},
	"CreateDeployment config": {own: "deployer", make: func(p place) proto.Message {
		return &controlv1.CreateDeploymentRequest{App: p.app, Revision: "nosuch", Config: "all-at-once"}
	}},
	"PlanDeployment": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.PlanDeploymentRequest{Deployment: &controlv1.CreateDeploymentRequest{
			App: p.app, Revision: "nosuch",
		}}
	}},
	"SimulateDeployment": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.SimulateDeploymentRequest{Deployment: &controlv1.CreateDeploymentRequest{
			App: p.app, Revision: "nosuch",
		}}
	}},
	"Rollback": {own: stops, all: "operator", make: func(p place) proto.Message {
		return &controlv1.RollbackRequest{App: p.app, To: "nosuch"}
	}},
	"Act pause":   act("pause", stops, "operator"),
	"Act reject":  act("reject", stops, "operator"),
	"Act approve": act("approve", "approver", nobody),
	"Act retry":   act("retry", "deployer trusted", nobody),
	"Act promote": act("promote", "deployer trusted", nobody),
	"Act over":    act("take-over", "trusted", nobody),
	"Act what":    act("no-such-verb", "deployer trusted", nobody),
	"ApplyApp": {own: "deployer", named: true, make: func(p place) proto.Message {
		return &controlv1.ApplyAppRequest{DryRun: true, Source: source(p.app, "")}
	}},
	"ApplyApp floor": {own: nobody, named: true, make: func(p place) proto.Message {
		return &controlv1.ApplyAppRequest{DryRun: true, Source: source(p.app, "ignore")}
	}},
	"SetFreeze": {own: freezes, all: "operator", make: func(p place) proto.Message {
		return &controlv1.SetFreezeRequest{App: p.app, Group: "prod", ForMs: -1}
	}},
	"SetFreeze of another": {own: nobody, make: func(p place) proto.Message { // the admin's
		return &controlv1.SetFreezeRequest{App: p.app, Lift: true, ForMs: -1}
	}},
	"SetFreeze all": {all: "operator", named: true, make: func(place) proto.Message {
		return &controlv1.SetFreezeRequest{ForMs: -1}
	}},
	"DeleteGroup": {own: "deployer", make: func(p place) proto.Message { // in flight: it is refused
		return &controlv1.DeleteGroupRequest{App: p.app, Group: "prod"}
	}},
	"RegisterRevision": {own: "deployer", named: true, make: func(p place) proto.Message {
		return &controlv1.RegisterRevisionRequest{App: p.app, Name: "v", Digest: "nonsense"}
	}},
	"PruneRevisions": {own: "deployer", make: func(p place) proto.Message {
		return &controlv1.PruneRevisionsRequest{App: p.app, Keep: -1, DryRun: true}
	}},
	"GetDeployment": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.GetDeploymentRequest{Id: p.deployment}
	}},
	"GetDeployment short": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.GetDeploymentRequest{Id: p.deployment[:25]}
	}},
	"GetDeployment newest": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.GetDeploymentRequest{App: p.app}
	}},
	"ListDeployments": filtered(func(p place) proto.Message { return &controlv1.ListDeploymentsRequest{App: p.app} }),
	"WatchDeployment": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.WatchDeploymentRequest{Id: p.deployment}
	}},
	"Logs": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.LogsRequest{Deployment: p.deployment, Event: "nosuch"}
	}},
	"Logs host": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.LogsRequest{Host: p.host, App: own, Event: "nosuch"}
	}},
	"ListApps": filtered(func(place) proto.Message { return &controlv1.ListAppsRequest{} }),
	"GetApp": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.GetAppRequest{App: p.app}
	}},
	"ListRevisions": filtered(func(p place) proto.Message { return &controlv1.ListRevisionsRequest{App: p.app} }),
	"ListRevisions name": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.ListRevisionsRequest{App: p.app, Name: "v1"}
	}},
	"ListHosts": filtered(func(p place) proto.Message {
		return &controlv1.ListHostsRequest{App: p.app, Host: []string{p.host}}
	}),
	"GetHost": {own: sees, all: "operator", make: func(p place) proto.Message {
		return &controlv1.GetHostRequest{Host: p.host}
	}},
	"ForgetHost": fleetwide("operator", func(p place) proto.Message { // connected, or not there
		return &controlv1.ForgetHostRequest{Host: p.host}
	}),
	"CordonHost": fleetwide("operator", func(p place) proto.Message {
		return &controlv1.CordonHostRequest{Host: p.host, Lift: true}
	}),
	"DrainHost": fleetwide("operator", func(p place) proto.Message {
		return &controlv1.DrainHostRequest{Host: p.host, Undo: true}
	}),
	"SplitHost": fleetwide("operator", func(p place) proto.Message {
		return &controlv1.SplitHostRequest{Host: p.host, Keep: "nowhere"}
	}),
	"SetHostAttributes": fleetwide("operator", func(p place) proto.Message {
		return &controlv1.SetHostAttributesRequest{Host: p.host}
	}),
	"CreateToken agent": fleetwide("operator", func(place) proto.Message {
		return &controlv1.CreateTokenRequest{Role: "agent", Uses: -1}
	}),
	"CreateToken coordinator": fleetwide(nobody, func(place) proto.Message {
		return &controlv1.CreateTokenRequest{Role: "coordinator", Uses: -1}
	}),
	"CreateToken operator": fleetwide(nobody, func(place) proto.Message {
		return &controlv1.CreateTokenRequest{Role: "operator", Name: "x", Uses: -1}
	}),
	"CreateToken strange": fleetwide(nobody, func(place) proto.Message {
		return &controlv1.CreateTokenRequest{Role: "root", Uses: -1}
	}),
	"ListTokens": fleetwide("operator", func(place) proto.Message { return &controlv1.ListTokensRequest{} }),
	"RevokeToken": fleetwide("operator", func(place) proto.Message {
		return &controlv1.RevokeTokenRequest{Id: "nosuch"}
	}),
	"ListPeople": filtered(func(place) proto.Message { return &controlv1.ListPeopleRequest{} }),
	"ConfirmPerson": fleetwide(nobody, func(place) proto.Message {
		return &controlv1.ConfirmPersonRequest{Name: "nosuch"}
	}),
	"RevokeIdentity person": fleetwide(nobody, func(place) proto.Message {
		return &controlv1.RevokeIdentityRequest{Role: "operator", Name: "nosuch"}
	}),
	"RevokeIdentity host": fleetwide("operator", func(place) proto.Message {
		return &controlv1.RevokeIdentityRequest{Role: "agent", Name: "nosuch"}
	}),
	"ClusterStatus": filtered(func(place) proto.Message { return &controlv1.ClusterStatusRequest{} }),
	"RemoveCoordinator": fleetwide(nobody, func(place) proto.Message {
		return &controlv1.RemoveCoordinatorRequest{Name: "nosuch"}
	}),
	"Backup": fleetwide(nobody, func(place) proto.Message { return &controlv1.BackupRequest{} }),
	"Snapshot": {named: true, done: true, make: func(place) proto.Message {
		return &controlv1.SnapshotRequest{}
	}},
	"ActivateEpoch": fleetwide(nobody, func(place) proto.Message {
		return &controlv1.ActivateEpochRequest{Epoch: 99}
	}),
	"RotateCA": {named: true, done: true, make: func(place) proto.Message { return &controlv1.RotateCARequest{} }},
	"RetireCA": {named: true, done: true, make: func(place) proto.Message { return &controlv1.RetireCARequest{} }},
	"RotateRingKey": {named: true, done: true, make: func(place) proto.Message {
		return &controlv1.RotateRingKeyRequest{}
	}},
	"ApplyAccess": fleetwide(nobody, func(place) proto.Message {
		return &controlv1.ApplyAccessRequest{Source: []byte("nonsense")}
	}),
	"GetAccess": fleetwide("operator", func(place) proto.Message { return &controlv1.GetAccessRequest{} }),
	"ExplainAccess": filtered(func(p place) proto.Message {
		return &controlv1.ExplainAccessRequest{Verb: "deploy", App: p.app}
	}),
	"ExplainAccess other": fleetwide("operator", func(p place) proto.Message {
		return &controlv1.ExplainAccessRequest{Person: "admin", Verb: "deploy", App: p.app}
	}),
	"WhoAmI": filtered(func(place) proto.Message { return &controlv1.WhoAmIRequest{} }),
	"ListAudit": {own: "trusted", named: true, make: func(p place) proto.Message {
		return &controlv1.ListAuditRequest{App: p.app}
	}},
	"ListAudit all": {own: "trusted", all: "trusted", named: true, make: func(place) proto.Message {
		return &controlv1.ListAuditRequest{}
	}},
	"CreateDeployment emergency": {own: "trusted", make: func(p place) proto.Message {
		return &controlv1.CreateDeploymentRequest{App: p.app, Group: "prod", Revision: "nosuch", Emergency: true}
	}},
	"Act emergency": act("emergency", "trusted", nobody),
}

func act(verb, own, all string) asked {
	return asked{own: own, all: all, make: func(p place) proto.Message {
		return &controlv1.ActRequest{Deployment: p.deployment, Verb: verb, Gate: "nosuch", Zone: "nosuch", By: "nosuch"}
	}}
}

// filtered is for everybody, and shows what they see.
func filtered(f func(place) proto.Message) asked { return asked{make: f, own: everyone, all: everyone} }

// fleetwide is no matter of an application.
func fleetwide(who string, f func(place) proto.Message) asked {
	return asked{make: f, all: who, named: true}
}

func source(app, floor string) []byte {
	config := "all-at-once"
	if floor != "" {
		config = "{capacity: {maxConcurrent: 1, minHealthy: 0%}, rollback: {floor: " + floor + "}}"
	}
	const text = "app: %s\nartifacts: file:///nowhere\ngroups:\n  prod: {select: 'role == \"x\"', config: %s}\n"
	return fmt.Appendf(nil, text, app, config)
}

// tenancy is a cluster of three with two applications, each with a host, a revision, a
// deployment in flight and a freeze by the admin.
type tenancy struct {
	*cluster
	people map[string]stolen
	places map[string]place // by application
}

func newTenancy(t *testing.T) *tenancy {
	t.Helper()
	y := &tenancy{cluster: newCluster(t, 3), people: map[string]stolen{}, places: map[string]place{}}
	y.people["admin"] = load(t, y.nodes[0].Operator)
	for _, name := range strings.Fields(everyone) {
		out := again(y.cluster, y.api.CreateToken, &controlv1.CreateTokenRequest{Role: "operator", Name: name})
		y.people[name] = y.enrol("operator", name, out.Token)
	}
	token := y.token("agent", 2)
	for _, app := range []string{own, other} {
		y.application(app, app)
		who := y.enrol("agent", app+"-1", token)
		s, err := y.session(t.Context(), y.nodes[0].Agents, who, &agentv1.Hello{
			Name: app + "-1", Zone: "a", Labels: map[string]string{"role": app},
		})
		if err != nil {
			t.Fatal(err)
		}
		go answerLogs(s) // until the cluster ends
		y.until("the host is in no group", func() bool { return len(y.hosts(app)) == 1 })
		again(y.cluster, y.api.RegisterRevision, &controlv1.RegisterRevisionRequest{
			App: app, Name: "v1", Digest: "sha256:" + strings.Repeat("ab", 32),
		})
		d := again(y.cluster, y.api.CreateDeployment, &controlv1.CreateDeploymentRequest{
			App: app, Group: "prod", Revision: "v1", Mutation: &controlv1.Mutation{Reason: "secret of " + app},
		})
		y.places[app] = place{app, d.Id, app + "-1", ""}
		again(y.cluster, y.api.SetFreeze, &controlv1.SetFreezeRequest{
			App: app, Mutation: &controlv1.Mutation{Reason: "secret of " + app},
		})
	}
	y.places[absent] = place{absent, "01ARZ3NDEKTSV4RRFFQ69G5FAV", absent + "-1", ""}
	y.everywhere(again(y.cluster, y.api.ApplyAccess, &controlv1.ApplyAccessRequest{Source: []byte(tenants)}).Index)
	return y
}

// everywhere waits until every replica has the document, which takes a second at most.
func (y *tenancy) everywhere(index uint64) {
	y.t.Helper()
	applied := time.Now()
	for i, n := range y.nodes {
		cc := y.dial(n.API, y.people["admin"])
		y.until(fmt.Sprintf("c%d does not know the document", i+1), func() bool {
			out, err := controlv1.NewControlServiceClient(cc).WhoAmI(y.t.Context(), &controlv1.WhoAmIRequest{})
			return err == nil && out.AccessIndex >= index
		})
	}
	if took := time.Since(applied); took > time.Second {
		y.t.Logf("every replica had the document after %s, asked by new connections", took)
	}
}

// answerLogs is a host that has nothing to show, and says so.
func answerLogs(s agentv1.AgentService_SessionClient) {
	for {
		m, err := s.Recv()
		if err != nil {
			return
		}
		if r := m.GetLog(); r != nil && !r.Cancel {
			_ = s.Send(&agentv1.Up{Message: &agentv1.Up_Log{Log: &agentv1.LogChunk{Id: r.Id, End: true}}})
		}
		if m.GetPing() != nil {
			_ = s.Send(&agentv1.Up{Message: &agentv1.Up_Pong{Pong: &agentv1.Pong{}}})
		}
	}
}

// ask makes one call, waits where a caller has had its share, and returns everything
// that is answered, as text.
func (y *tenancy) ask(cc *grpc.ClientConn, method string, m proto.Message) (code codes.Code, text string) {
	y.t.Helper()
	full := "/" + controlv1.ControlService_ServiceDesc.ServiceName + "/" + method
	_, out := messages(y.t, full)
	stream := slices.ContainsFunc(controlv1.ControlService_ServiceDesc.Streams,
		func(s grpc.StreamDesc) bool { return s.StreamName == method })
	for end := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(y.t.Context(), 20*time.Second)
		var err error
		if stream {
			err = first(ctx, cc, full, m, out)
		} else {
			err = cc.Invoke(ctx, full, m, out)
		}
		cancel()
		code = status.Code(err)
		if (code == codes.ResourceExhausted || code == codes.Unavailable &&
			!strings.Contains(err.Error(), "no session") &&
			!strings.Contains(err.Error(), "output")) && time.Now().Before(end) {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil {
			return code, status.Convert(err).Message()
		}
		return code, fmt.Sprint(out)
	}
}

// first opens a stream and reads its first message.
func first(ctx context.Context, cc *grpc.ClientConn, full string, m, out proto.Message) error {
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
	if err != nil {
		return err
	}
	if err := s.SendMsg(m); err != nil {
		return s.RecvMsg(out)
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err := s.RecvMsg(out); err != nil && err.Error() != "EOF" {
		return err
	}
	return nil
}

// TestRights: every call, by every role, about one's own application, another one and
// none, at every replica.
func TestRights(t *testing.T) {
	t.Parallel()
	y := newTenancy(t)
	covered := map[string]bool{}
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		method, _, _ := strings.Cut(row, " ")
		covered["ControlService/"+method] = true
	}
	for _, x := range calls() {
		if strings.HasPrefix(x.short, "ControlService/") && !covered[x.short] {
			t.Errorf("%s has no row: say who may", x.short)
		}
	}
	asks := 0
	for who, cred := range y.people {
		for i, n := range y.nodes {
			cc := y.dial(n.API, cred)
			for _, row := range slices.Sorted(maps.Keys(rows)) {
				asks += y.check(cc, fmt.Sprintf("%s at c%d: %s", who, i+1, row), who, row)
			}
		}
	}
	t.Logf("%d calls asked", asks)
}

// check asks one row about the three places.
func (y *tenancy) check(cc *grpc.ClientConn, at, who, row string) int {
	method, _, _ := strings.Cut(row, " ")
	x := rows[row]
	codeOf, textOf := map[string]codes.Code{}, map[string]string{}
	for _, app := range []string{own, other, absent} {
		may := who == "admin" || slices.Contains(strings.Fields(x.all), who) ||
			app == own && slices.Contains(strings.Fields(x.own), who)
		if may && x.done || row == "SetFreeze of another" && app == absent && who == "operator" { // nobody's is there
			continue
		}
		p := y.places[app]
		code, text := y.ask(cc, method, x.make(p))
		codeOf[app] = code
		textOf[app] = strings.NewReplacer(p.app, "APP", p.deployment, "ID", p.deployment[:25], "ID").Replace(text)
		switch denied := code == codes.PermissionDenied || code == codes.Unauthenticated; {
		case may && denied:
			y.t.Errorf("%s of %s: denied: %s", at, app, text)
		case !may && !denied && code != codes.NotFound:
			y.t.Errorf("%s of %s: %s: %s", at, app, code, text)
		case !may && app == own && code == codes.NotFound && slices.Contains(strings.Fields(sees), who):
			y.t.Errorf("%s of %s: hidden, though they see it: %s", at, app, text)
		case !may && x.named && !denied:
			y.t.Errorf("%s of %s: %s: %s", at, app, code, text)
		}
		if !slices.Contains([]string{"admin", "operator"}, who) && app != other {
			for _, secret := range []string{"wwb", "secret of wwb", y.places[other].deployment} {
				if strings.Contains(text, secret) {
					y.t.Errorf("%s of %s tells of %s: %s", at, app, secret, text)
				}
			}
		}
	}
	moves := row == "ClusterStatus" // of itself, and it names no application
	if who != "admin" && who != "operator" && !moves &&
		(textOf[other] != textOf[absent] || codeOf[other] != codeOf[absent]) {
		y.t.Errorf("%s: what is forbidden answers otherwise than what is not there:\n%s %s\n%s %s", at,
			codeOf[other], textOf[other], codeOf[absent], textOf[absent])
	}
	return len(codeOf)
}

// TestNewRightsAreEverywhere: an applied document decides at every replica within a
// second, streams that are open included, and what it takes is not finished.
func TestNewRightsAreEverywhere(t *testing.T) {
	t.Parallel()
	y := newTenancy(t)
	const watches = 50
	ended := make(chan time.Time, watches)
	for i := range watches {
		who := []string{"viewer", "deployer"}[i%2]
		cc := y.dial(y.nodes[i%3].API, y.people[who])
		s, err := controlv1.NewControlServiceClient(cc).WatchDeployment(t.Context(),
			&controlv1.WatchDeploymentRequest{Id: y.places[own].deployment})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatalf("watch %d by %s: %v", i, who, err)
		}
		go func() {
			for err = nil; err == nil; _, err = s.Recv() {
			}
			if who == "viewer" && status.Code(err) != codes.PermissionDenied && status.Code(err) != codes.NotFound {
				t.Errorf("the watch of the viewer ended with %v", err)
			}
			if who == "viewer" {
				ended <- time.Now()
			}
		}()
	}
	before := time.Now()
	index := again(y.cluster, y.api.ApplyAccess, &controlv1.ApplyAccessRequest{
		Source: []byte(strings.Replace(tenants, "people: [viewer]", "people: [nobody]", 1)),
	}).Index
	applied := time.Now()
	for range watches / 2 {
		select {
		case at := <-ended:
			if late := at.Sub(applied); late > time.Second {
				t.Errorf("a watch ended %s after the right to it", late)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("a watch goes on %s after the right to it ended", time.Since(before))
		}
	}
	y.everywhere(index)
	for i, n := range y.nodes {
		code, text := y.ask(y.dial(n.API, y.people["viewer"]), "GetApp", &controlv1.GetAppRequest{App: own})
		if code != codes.NotFound {
			t.Errorf("c%d: %s %s", i+1, code, text)
		}
		code, text = y.ask(y.dial(n.API, y.people["deployer"]), "GetApp", &controlv1.GetAppRequest{App: own})
		if code != codes.OK {
			t.Errorf("c%d: %s %s", i+1, code, text)
		}
	}
}

// TestAccessIsARace: of changes that were all decided on the same document one wins, at
// whichever replica they arrive (K21).
func TestAccessIsARace(t *testing.T) {
	t.Parallel()
	y := newTenancy(t)
	const rounds, racers = 25, 8
	api := make([]controlv1.ControlServiceClient, len(y.nodes))
	for i, n := range y.nodes {
		api[i] = controlv1.NewControlServiceClient(y.dial(n.API, y.people["admin"]))
	}
	index := again(y.cluster, y.api.GetAccess, &controlv1.GetAccessRequest{}).Index
	for round := range rounds {
		type result struct {
			index  uint64
			racer  int
			denied bool
		}
		results := make(chan result, racers)
		for racer := range racers {
			go func() {
				r := &controlv1.ApplyAccessRequest{
					Source: fmt.Appendf(nil, "%s# %d %d\n", tenants, round, racer), IfIndex: &index,
					Mutation: &controlv1.Mutation{RequestId: rand.Text()},
				}
				for end := time.Now().Add(time.Minute); ; {
					out, err := api[racer%len(api)].ApplyAccess(t.Context(), r)
					code := status.Code(err)
					if (code == codes.Unavailable || code == codes.ResourceExhausted) && time.Now().Before(end) {
						time.Sleep(10 * time.Millisecond)
						continue
					}
					if err != nil && code != codes.FailedPrecondition {
						t.Errorf("round %d, racer %d: %v", round, racer, err)
					}
					results <- result{out.GetIndex(), racer, err != nil}
					return
				}
			}()
		}
		var winners []result
		for range racers {
			if r := <-results; !r.denied {
				winners = append(winners, r)
			}
		}
		if len(winners) != 1 {
			t.Fatalf("round %d has %d winners: %+v", round, len(winners), winners)
		}
		index = winners[0].index
		is := again(y.cluster, y.api.GetAccess, &controlv1.GetAccessRequest{})
		if want := fmt.Sprintf("# %d %d\n", round, winners[0].racer); is.Index != index ||
			!strings.HasSuffix(is.Source, want) {
			t.Fatalf("round %d: the document has index %d, not %d, and ends %.20q", round, is.Index, index,
				is.Source[len(is.Source)-20:])
		}
	}
}
