package coordinator

import (
	"context"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// need says which rights a request asks for, all of them. Names resolve as the caller
// may know them, so its error is that of a name that does not exist. What it resolves it
// writes into the request: what was decided about is what is done, whatever else comes
// to be called so meanwhile.
type need func(question) ([]access.Right, error)

// question is one request and who makes it.
type question struct {
	c      *Coordinator
	ctx    context.Context //nolint:containedctx // of the request, for as long as it is decided
	rights access.Rights
	person string
	req    any
}

// needs is the table of what every request of the operators' API asks for, beside the
// table of roles. A method without a row is nobody's, and a test fails for it.
func needs() map[string]need {
	return map[string]need{
		controlv1.ControlService_CreateDeployment_FullMethodName:   creates,
		controlv1.ControlService_PlanDeployment_FullMethodName:     plans,
		controlv1.ControlService_SimulateDeployment_FullMethodName: plans,
		controlv1.ControlService_Rollback_FullMethodName:           ofGroup(access.Stop),
		controlv1.ControlService_Act_FullMethodName:                acts,
		controlv1.ControlService_SetFreeze_FullMethodName:          freezes,
		controlv1.ControlService_ApplyApp_FullMethodName:           defines,
		controlv1.ControlService_DeleteGroup_FullMethodName:        ofGroup(access.Define),
		controlv1.ControlService_RegisterRevision_FullMethodName:   ofApp(access.Push),

		controlv1.ControlService_PruneRevisions_FullMethodName: prunes,

		controlv1.ControlService_GetDeployment_FullMethodName:   ofDeployment(access.View),
		controlv1.ControlService_WatchDeployment_FullMethodName: ofDeployment(access.View),
		controlv1.ControlService_Logs_FullMethodName:            reads,

		// these answer by what the caller sees, row by row
		controlv1.ControlService_ListDeployments_FullMethodName: anybody,
		controlv1.ControlService_ListApps_FullMethodName:        anybody,
		controlv1.ControlService_GetApp_FullMethodName:          anybody,
		controlv1.ControlService_ListRevisions_FullMethodName:   anybody,
		controlv1.ControlService_ListHosts_FullMethodName:       anybody,
		controlv1.ControlService_GetHost_FullMethodName:         anybody,
		controlv1.ControlService_ListPeople_FullMethodName:      anybody,
		controlv1.ControlService_ClusterStatus_FullMethodName:   anybody,
		controlv1.ControlService_WhoAmI_FullMethodName:          anybody,
		controlv1.ControlService_ExplainAccess_FullMethodName:   explains,

		controlv1.ControlService_CordonHost_FullMethodName:        ofFleet(access.Cordon),
		controlv1.ControlService_DrainHost_FullMethodName:         ofFleet(access.Drain),
		controlv1.ControlService_ForgetHost_FullMethodName:        ofFleet(access.Forget),
		controlv1.ControlService_SplitHost_FullMethodName:         ofFleet(access.Split),
		controlv1.ControlService_SetHostAttributes_FullMethodName: ofFleet(access.Label),
		controlv1.ControlService_CreateToken_FullMethodName:       makesToken,
		controlv1.ControlService_ListTokens_FullMethodName:        ofFleet(access.AgentToken),
		controlv1.ControlService_RevokeToken_FullMethodName:       closesToken,
		controlv1.ControlService_ConfirmPerson_FullMethodName:     ofFleet(access.Confirm),
		controlv1.ControlService_RevokeIdentity_FullMethodName:    revokes,
		controlv1.ControlService_RemoveCoordinator_FullMethodName: ofFleet(access.Cluster),
		controlv1.ControlService_ActivateEpoch_FullMethodName:     ofFleet(access.Cluster),
		controlv1.ControlService_RotateCA_FullMethodName:          ofFleet(access.Cluster),
		controlv1.ControlService_RetireCA_FullMethodName:          ofFleet(access.Cluster),
		controlv1.ControlService_RotateRingKey_FullMethodName:     ofFleet(access.Cluster),
		controlv1.ControlService_Snapshot_FullMethodName:          ofFleet(access.Cluster),
		controlv1.ControlService_Backup_FullMethodName:            ofFleet(access.Backup),
		controlv1.ControlService_ApplyAccess_FullMethodName:       ofFleet(access.Access),
		controlv1.ControlService_GetAccess_FullMethodName:         readsAccess,
		controlv1.ControlService_ListAudit_FullMethodName:         readsAudit,
	}
}

func ofControl(method string) bool {
	return strings.HasPrefix(method, "/"+controlv1.ControlService_ServiceDesc.ServiceName+"/")
}

// anybody is for every operator.
func anybody(question) ([]access.Right, error) { return nil, nil }

// ofFleet is for who has a verb of the fleet or the cluster.
func ofFleet(v access.Verb) need {
	return func(question) ([]access.Right, error) { return []access.Right{{Verb: v}}, nil }
}

// ofApp is for who has the verb in any group of the application, whether there is one
// of that name or not.
func ofApp(v access.Verb) need {
	return func(q question) ([]access.Right, error) {
		app := q.req.(interface{ GetApp() string }).GetApp()
		return []access.Right{{Verb: v, App: app, AnyGroup: true}}, nil
	}
}

// ofGroup is for who has the verbs on the group that the request names.
func ofGroup(verbs ...access.Verb) need {
	return func(q question) ([]access.Right, error) {
		switch r := q.req.(type) {
		case *controlv1.RollbackRequest:
			return q.on(r.App, &r.Group, verbs...)
		case *controlv1.DeleteGroupRequest:
			return q.on(r.App, &r.Group, verbs...)
		}
		return nil, rpc.Errorf(rpc.KindForbidden, "%T names no group", q.req)
	}
}

// on returns the verbs on a group. Where the names resolve to nothing that the caller
// sees, that is the answer, unless they have the verbs on whatever is called so: the
// handler knows of what is gone.
func (q question) on(app string, group *string, verbs ...access.Verb) (out []access.Right, err error) {
	is, err := q.c.operators.Group(q.ctx, app, *group)
	if err == nil {
		*group = is
	}
	for _, v := range verbs {
		r := access.Right{Verb: v, App: app, Group: *group}
		if err != nil && (app == "" || !q.rights.Has(r)) {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// ofDeployment is for who has the verbs on the group of the deployment.
func ofDeployment(verbs ...access.Verb) need {
	return func(q question) ([]access.Right, error) {
		switch r := q.req.(type) {
		case *controlv1.GetDeploymentRequest:
			return q.ofDeployment(&r.Id, r.App, r.Group, verbs...)
		case *controlv1.WatchDeploymentRequest:
			return q.ofDeployment(&r.Id, "", "", verbs...)
		}
		return nil, rpc.Errorf(rpc.KindForbidden, "%T names no deployment", q.req)
	}
}

func (q question) ofDeployment(id *string, app, group string, verbs ...access.Verb) (out []access.Right, err error) {
	is, err := q.c.operators.Deployment(q.ctx, *id, app, group)
	if err != nil {
		return nil, err
	}
	*id = is.ID
	for _, v := range verbs {
		out = append(out, access.Right{Verb: v, App: is.App, Group: is.Group})
	}
	return out, nil
}

// creates: flags that go past a rule are rights of their own, and another config than
// the group's own is a change of how the group is deployed.
func creates(q question) ([]access.Right, error) {
	r := q.req.(*controlv1.CreateDeploymentRequest)
	verbs := []access.Verb{access.Deploy}
	if r.ForceBad {
		verbs = append(verbs, access.ForceBad)
	}
	if r.Preempt {
		verbs = append(verbs, access.Preempt)
	}
	if r.Emergency {
		verbs = append(verbs, access.Emergency)
	}
	if r.Config != "" {
		verbs = append(verbs, access.Define)
	}
	return q.on(r.App, &r.Group, verbs...)
}

func plans(q question) ([]access.Right, error) {
	d := q.req.(interface {
		GetDeployment() *controlv1.CreateDeploymentRequest
	}).GetDeployment()
	if d == nil {
		return nil, nil // the handler says so
	}
	return q.on(d.App, &d.Group, access.View)
}

func acts(q question) ([]access.Right, error) {
	r := q.req.(*controlv1.ActRequest)
	verbs := access.Actions(r.Verb)
	if len(verbs) == 0 {
		verbs = []access.Verb{access.Deploy} // the log refuses the word
	}
	return q.ofDeployment(&r.Deployment, "", "", verbs...)
}

// freezes: somebody else's freeze is lifted, or replaced, by a right of its own.
func freezes(q question) ([]access.Right, error) {
	r := q.req.(*controlv1.SetFreezeRequest)
	out := []access.Right{{Verb: access.Freeze, App: r.App, Group: r.Group}}
	if r.App == "" {
		out[0].Group = ""
	} else if err := q.c.operators.App(q.ctx, r.App); err != nil && !q.rights.Has(out[0]) {
		return nil, err
	}
	others := false
	q.c.store.View(func(st *deploy.State) { others = st.FrozenByOther(r.App, r.Group, q.person) })
	if others {
		out = append(out, access.Right{Verb: access.LiftFreeze, App: r.App, Group: out[0].Group})
	}
	return out, nil
}

// defines: every group of the file. That a rollback may ignore the floor is a right of
// its own, unless it may already.
func defines(q question) (out []access.Right, err error) {
	r := q.req.(*controlv1.ApplyAppRequest)
	name := r.Filename
	if name == "" {
		name = "deploy.yaml"
	}
	defs, err := parseApp(r.Source, name)
	if err != nil {
		return nil, err
	}
	for i := range defs {
		if !q.rights.Has(access.Right{Verb: access.Define, App: defs[i].App, Group: defs[i].Group}) {
			break // that is the answer
		}
		if err := q.c.bounded(&defs[i]); err != nil {
			return nil, err
		}
	}
	q.c.store.View(func(st *deploy.State) {
		for _, d := range defs {
			out = append(out, access.Right{Verb: access.Define, App: d.App, Group: d.Group})
			g := st.Groups[deploy.GroupKey(d.App, d.Group)]
			if d.Config.Rollback.IgnoreFloor && (g == nil || !g.Config.Rollback.IgnoreFloor) {
				out = append(out, access.Right{Verb: access.IgnoreFloor, App: d.App, Group: d.Group})
			}
		}
	})
	return out, nil
}

// prunes: what no group needs is forgotten for all of them.
func prunes(q question) ([]access.Right, error) {
	r := access.Right{Verb: access.Define, App: q.req.(*controlv1.PruneRevisionsRequest).App}
	if err := q.c.operators.App(q.ctx, r.App); err != nil && !q.rights.Has(r) {
		return nil, err
	}
	return []access.Right{r}, nil
}

// bounded says what a group asks for that its application may not have.
func (c *Coordinator) bounded(d *deploy.GroupDefined) error {
	doc, _ := c.rules()
	b, ask := doc.Bound(d.App), "; ask "
	if doc != nil {
		ask += strings.Join(doc.Admins(), " or ")
	}
	if !b.AllowsStore(d.Artifacts) {
		return rpc.Errorf(rpc.KindForbidden, "artifacts: %s is outside of what application %s may have (%s)%s",
			d.Artifacts, d.App, strings.Join(b.Stores, ", "), ask)
	}
	if d.Traffic == nil {
		return nil
	}
	for _, p := range d.Traffic.Pools {
		if p.Kind == deploy.PoolHAProxy && !b.AllowsPool(p.Balancers, p.Backend) {
			return rpc.Errorf(rpc.KindForbidden,
				"groups.%s.traffic: backend %s of %s is none that application %s may have "+
					"(bounds in access.yaml)%s", d.Group, p.Backend, p.Balancers, d.App, ask)
		}
	}
	return nil
}

// reads: output of hooks, of a deployment, or of an application on one host, which the
// handler looks for among what the caller sees there.
func reads(q question) ([]access.Right, error) {
	r := q.req.(*controlv1.LogsRequest)
	if r.Deployment == "" && r.Host != "" {
		if r.App == "" {
			return nil, nil
		}
		return []access.Right{{Verb: access.View, App: r.App, AnyGroup: true}}, nil
	}
	return q.ofDeployment(&r.Deployment, r.App, "", access.View)
}

// tokenVerbs are the rights by the role of who joins with a token.
var tokenVerbs = map[string]access.Verb{
	"": access.AgentToken, string(identity.Agent): access.AgentToken,
	string(identity.Coordinator): access.CoordinatorToken, string(identity.Operator): access.OperatorToken,
}

// makesToken: who makes a token of a person could use it, so nobody makes one of
// somebody who may more.
func makesToken(q question) ([]access.Right, error) {
	r := q.req.(*controlv1.CreateTokenRequest)
	v, known := tokenVerbs[r.Role]
	if !known {
		v = access.CoordinatorToken // the handler refuses the role
	}
	out := []access.Right{{Verb: v}}
	if r.Role != string(identity.Operator) || !q.rights.Has(out[0]) {
		return out, nil
	}
	doc, _ := q.c.rules()
	for _, team := range doc.In(r.Name) {
		if !q.rights.Has(access.Right{Verb: access.Access}) && !slices.Contains(doc.In(q.person), team) {
			return nil, rpc.Errorf(rpc.KindForbidden,
				"a token of %s could be used by who makes it, and %s is in team %s, "+
					"%s is not; ask %s", r.Name, r.Name, team, q.person, strings.Join(doc.Admins(), " or "))
		}
	}
	if more, exceeds := access.Exceeds(doc.Of(r.Name), q.rights); doc != nil && exceeds {
		return nil, rpc.Errorf(rpc.KindForbidden,
			"a token of %s could be used by who makes it, and %s may more than %s "+
				"(%s on %s); ask %s", r.Name, r.Name, q.person, more.Verb, more.Where(), strings.Join(doc.Admins(), " or "))
	}
	return out, nil
}

func closesToken(q question) ([]access.Right, error) {
	r := q.req.(*controlv1.RevokeTokenRequest)
	out := []access.Right{}
	q.c.store.ViewCluster(func(s *state.Cluster) {
		found := s.TokensFrom(r.Id)
		for _, id := range found {
			out = append(out, access.Right{Verb: tokenVerbs[s.Tokens[id].Role]})
		}
		if len(found) == 1 {
			r.Id = found[0]
		}
	})
	if len(out) != 1 { // the handler says how many begin so, to who may close any
		out = append(out, access.Right{Verb: access.AgentToken})
	}
	return out, nil
}

func revokes(q question) ([]access.Right, error) {
	if q.req.(*controlv1.RevokeIdentityRequest).Role == string(identity.Operator) {
		return []access.Right{{Verb: access.RevokePerson}}, nil
	}
	return []access.Right{{Verb: access.RevokeHost}}, nil
}

// explains: what one may oneself, everybody is told; of others, who may read the
// document.
func explains(q question) ([]access.Right, error) {
	if p := q.req.(*controlv1.ExplainAccessRequest).Person; p == "" || p == q.person {
		return nil, nil
	}
	return readsAccess(q)
}

// readsAccess: who may change the document, or sees every application.
func readsAccess(q question) ([]access.Right, error) {
	if q.rights.Has(access.Right{Verb: access.Access}) {
		return nil, nil
	}
	return []access.Right{{Verb: access.View}}, nil
}
