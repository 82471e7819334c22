package coordinator

import (
	"cmp"
	"context"
	"fmt"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// accessRules is the level of the rules of the log from which it holds who may what.
const accessRules = 2

// ApplyAccess replaces the document of who may do what, or says what that would change.
// What it answers of changes is true of the document that it replaced: the log takes it
// only if that is in force still.
func (s *membersService) ApplyAccess(
	ctx context.Context, r *controlv1.ApplyAccessRequest,
) (*controlv1.ApplyAccessResponse, error) {
	doc, err := access.Parse(r.Source, cmp.Or(r.Filename, accessFile))
	if err != nil {
		return nil, err
	}
	before, index := s.c.rules()
	out := &controlv1.ApplyAccessResponse{Index: index, Changes: access.Diff(before, doc)}
	if r.DryRun {
		return out, nil
	}
	if !s.c.knowsAccess() {
		return nil, rpc.Errorf(rpc.KindUnavailable, "the rules of the log are not at level %d yet: a coordinator "+
			"of an older build votes; upgrade it first", accessRules)
	}
	if doc.BoundsUsers() && !s.c.audits() {
		return nil, rpc.Errorf(rpc.KindUnavailable, "bounds: runAs is known from level %d of the rules of the log on: a "+
			"coordinator of an older build votes, and could not read it; upgrade it first", state.AuditRules)
	}
	err = s.c.log.cluster(ctx, state.AccessChanged{
		Request: s.c.request(ctx, r.Mutation), Source: string(r.Source), Admins: doc.Admins(),
		Guarded: r.IfIndex != nil, Index: r.GetIfIndex(),
	})
	_, out.Index = s.c.rules()
	return out, err
}

func (c *Coordinator) knowsAccess() (yes bool) {
	c.store.View(func(st *deploy.State) { yes = st.Rules >= accessRules })
	return yes
}

// GetAccess returns the document in force.
func (s *membersService) GetAccess(
	context.Context, *controlv1.GetAccessRequest,
) (*controlv1.GetAccessResponse, error) {
	out := &controlv1.GetAccessResponse{}
	s.c.store.ViewCluster(func(cl *state.Cluster) {
		if a := cl.Access; a != nil {
			out.Source, out.Index, out.Actor, out.Reason, out.AtMs = a.Source, a.Index, a.Actor, a.Reason, a.Wall
		}
	})
	return out, nil
}

// ExplainAccess says whether somebody may do something, and why or why not.
func (s *membersService) ExplainAccess(
	ctx context.Context, r *controlv1.ExplainAccessRequest,
) (*controlv1.ExplainAccessResponse, error) {
	p, _ := rpc.Caller(ctx)
	what := access.Right{Verb: access.Verb(r.Verb), App: r.App, Group: r.Group}
	switch {
	case !access.IsVerb(what.Verb):
		return nil, rpc.Errorf(rpc.KindInvalid, "no verb %q; there are %v", r.Verb, access.Verbs())
	case access.OfFleet(what.Verb) && r.App != "":
		return nil, rpc.Errorf(rpc.KindInvalid, "%s concerns the cluster, no application: name none", r.Verb)
	}
	out := &controlv1.ExplainAccessResponse{Person: cmp.Or(r.Person, p.ID)}
	if p.BreakGlass && r.Person == "" {
		out.Allowed, out.By = true, []string{"a break-glass credential may everything"}
		return out, nil
	}
	doc, _ := s.c.rules()
	e := doc.Explain(out.Person, what)
	out.Allowed, out.By, out.Missing, out.Ask = e.Allowed, e.By, e.Missing, e.Ask
	return out, nil
}

// WhoAmI says who the caller is to the cluster, and what they may.
func (s *membersService) WhoAmI(
	ctx context.Context, _ *controlv1.WhoAmIRequest,
) (*controlv1.WhoAmIResponse, error) {
	p, _ := rpc.Caller(ctx)
	doc, index := s.c.rules()
	out := &controlv1.WhoAmIResponse{
		Name: p.ID, BreakGlass: p.BreakGlass, AccessIndex: index, Teams: doc.In(p.ID), Rules: doc.About(p.ID),
	}
	out.CountsAs, _ = s.c.person(ctx)
	if p.BreakGlass {
		out.Teams, out.Rules = nil, []string{"a break-glass credential may everything"}
	}
	return out, nil
}

// teams lists the teams of a person, which approval gates name: by the document, or
// where there is none yet by this coordinator's own configuration.
func (c *Coordinator) teams(person string) []string {
	doc, index := c.rules()
	if index == 0 {
		doc = c.former
	}
	return doc.In(person)
}

// approvers counts the people of a team.
func (c *Coordinator) approvers(team string) int {
	doc, index := c.rules()
	if index == 0 {
		doc = c.former
	}
	if doc == nil {
		return 0
	}
	return len(doc.Teams[team])
}

// importApprovers makes the approvers of coordinator.yaml the first document, once,
// while this coordinator leads.
func (c *Coordinator) importApprovers(ctx context.Context) error {
	if c.former == nil {
		return nil
	}
	for {
		changed := c.store.Changed()
		if _, index := c.rules(); index != 0 {
			return nil
		}
		if c.knowsAccess() {
			err := c.log.cluster(ctx, state.AccessChanged{
				Request: deploy.Request{Actor: c.o.Name, Reason: "the approvers of its coordinator.yaml"},
				Source:  string(access.OfApprovers(c.o.Approvers)), Admins: c.former.Admins(), Guarded: true,
			})
			if err == nil || ctx.Err() != nil {
				return nil
			}
			if rpc.Kind(err) == rpc.KindConflict { // somebody was quicker, or nobody is there yet to be admin
				c.o.Log.Warn("the approvers of coordinator.yaml are not imported", "error", err)
			} else {
				return fmt.Errorf("import the approvers of coordinator.yaml: %w", err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// refuseApprovers ends a coordinator that lists approvers though the document was there
// before it started: it would look as if they counted.
func (c *Coordinator) refuseApprovers(ctx context.Context) error {
	if c.former == nil {
		return nil
	}
	for {
		changed := c.store.Changed()
		_, index := c.rules()
		switch {
		case index != 0 && index <= c.store.Replayed:
			return rpc.Errorf(rpc.KindInvalid, "approvers: the key counts no more since access.yaml is in force (index %d), "+
				"which has them as teams; remove it from coordinator.yaml and see `dctl access show`", index)
		case index != 0:
			c.o.Log.Warn("approvers in coordinator.yaml count no more: access.yaml is in force, which has them as teams; " +
				"remove the key, with it this coordinator will not start again")
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
