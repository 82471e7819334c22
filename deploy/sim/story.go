package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// Script makes a host treat a revision in a certain way: fail, break, hang,
// stage-fail, taste-fail, crash, or sick:DURATION.
func (w *World) Script(id string, rev deploy.Digest, how string) error {
	h := w.hosts[id]
	if h == nil {
		return fmt.Errorf("no host %s", id)
	}
	h.plan[rev] = how
	return nil
}

// Sight puts a host in or out of sight of gossip and streams.
func (w *World) Sight(id string, up bool) {
	h := w.hosts[id]
	if h == nil || h.up == up {
		return
	}
	h.up, h.told = up, 0
	if up {
		w.away = slices.DeleteFunc(w.away, func(a string) bool { return a == id })
		w.send(h)
	} else {
		w.away = append(w.away, id)
	}
}

// Selectors that a group may have: everybody, every second host, nobody.
const (
	SelectAll  = "true"
	SelectHalf = "half"
	SelectNone = "false"
)

// selects reports whether a group's selector, as committed, matches a host.
func selects(selector, host string) bool {
	switch selector {
	case SelectNone:
		return false
	case SelectHalf:
		return (host[len(host)-1]-'0')%2 == 0
	}
	return true
}

// membership says which hosts a group's selector matches that are no targets of
// it yet, and which targets it matches no longer.
func (w *World) membership() (joins, leaves []deploy.Membership) {
	for _, m := range w.groups {
		g := w.State.Groups[deploy.GroupKey(m.App, m.Group)]
		if g == nil || g.Selector == SelectAll && len(g.Members) == len(w.order) {
			continue
		}
		for _, id := range w.order {
			one := deploy.Membership{App: m.App, Group: m.Group, Host: id}
			is, should := w.State.Target(id, m.App) != nil, selects(g.Selector, id)
			if should && !is {
				joins = append(joins, one)
			} else if is && !should {
				leaves = append(leaves, one)
			}
		}
	}
	return joins, leaves
}

// Select changes the group's selector; its config stays.
func (w *World) Select(app, group, selector string) {
	if g := w.State.Groups[deploy.GroupKey(app, group)]; g != nil {
		w.Propose(deploy.GroupDefined{App: app, Group: group, Selector: selector, Config: g.Config})
	}
}

// Define makes a group that every host belongs to.
func (w *World) Define(app, group string, c deploy.Config) {
	if m := (deploy.Membership{App: app, Group: group}); !slices.Contains(w.groups, m) {
		w.groups = append(w.groups, m)
	}
	w.Propose(deploy.GroupDefined{App: app, Group: group, Selector: SelectAll, Config: c})
	w.decide()
}

// Deploy registers the revision if needed and creates a deployment of it, as
// changed by with.
func (w *World) Deploy(app, group, id, rev string, with ...func(*deploy.DeploymentCreated)) error {
	d := deploy.Digest(rev)
	if w.State.Revisions[app][d] == nil {
		w.Propose(deploy.RevisionRegistered{App: app, Name: rev, Digest: d})
	}
	g := w.State.Groups[deploy.GroupKey(app, group)]
	if g == nil {
		return fmt.Errorf("no group %s", group)
	}
	e := deploy.DeploymentCreated{ID: id, App: app, Group: group, Revision: d, RevName: rev, Config: g.Config}
	for _, set := range with {
		set(&e)
	}
	plan, err := deploy.Plan(w.State, deploy.PlanInput{
		App: app, Group: group, Revision: d, Config: e.Config,
		Force: e.Force, Skip: e.Skip, Emergency: e.Emergency,
	})
	if err != nil {
		return err
	}
	e.Request.ID, e.Request.Actor, e.Waves, e.Layout = "create-"+id, "sim", plan.Waves, plan.Layout
	return w.Propose(e)[0]
}

// Rollback takes the group back by an inverse deployment, as a person asks for
// it: to rev because of a name, or (undo other than "none") from the newest
// deployment, which must have brought the revision undo, to where it leads.
func (w *World) Rollback(app, group, id, rev, undo string) error {
	g := w.State.Groups[deploy.GroupKey(app, group)]
	if g == nil {
		return fmt.Errorf("no group %s", group)
	}
	w.seq++
	e := deploy.DeploymentCreated{
		Request: deploy.Request{ID: fmt.Sprint("rollback-", w.seq), Actor: "sim"}, ID: id, App: app, Group: group,
		Revision: deploy.Digest(rev), RevName: rev, Config: g.Config, Inverse: true,
	}
	if undo == "none" {
		return w.Propose(e)[0]
	}
	u, err := w.State.Undoable(g)
	if err != nil {
		return err
	}
	e.Undoes, e.Bad = u.Deployment, u.Bad
	if was := w.State.Deployments[u.Deployment].Revision; undo != "any" && was != deploy.Digest(undo) {
		return fmt.Errorf("a rollback takes back %s (%s), not %s", was, u.Deployment, undo)
	}
	if rev == "" {
		e.Revision, e.RevName = u.Revision, string(u.Revision)
	}
	return w.Propose(e)[0]
}

// Act makes a request on a deployment.
func (w *World) Act(id string, verb deploy.Verb) error {
	return w.Ask(deploy.RequestMade{Deployment: id, Verb: verb})
}

// Ask makes a request with arguments; its actor is "sim" unless it names one.
func (w *World) Ask(e deploy.RequestMade) error {
	w.seq++
	e.Request.ID, e.Request.Actor = fmt.Sprint("act-", w.seq), cmp.Or(e.Request.Actor, "sim")
	return w.Propose(e)[0]
}

// Leave takes a host away for good: gracefully, its agent says so.
func (w *World) Leave(id string) error {
	if w.hosts[id] == nil {
		return fmt.Errorf("no host %s", id)
	}
	w.hosts[id].up = false
	delete(w.hosts, id)
	w.order = slices.DeleteFunc(w.order, func(x string) bool { return x == id })
	w.away = slices.DeleteFunc(w.away, func(x string) bool { return x == id })
	return w.Propose(deploy.HostLeft{Host: id, Cause: "left", Force: true})[0]
}

// Swap lets a host come back with something else on disk: restored from a backup,
// or deployed to while nobody saw it.
func (w *World) Swap(id string, rev deploy.Digest, away time.Duration) {
	h := w.hosts[id]
	if h == nil || h.working != 0 || !h.up {
		return
	}
	w.Sight(id, false)
	w.after(away, func() {
		if w.hosts[id] == h && h.working == 0 {
			h.running, h.serves, h.byHand, h.staged, h.stageKey, h.tasted = rev, rev != "", true, nil, "", ""
			h.out, h.outKey = deploy.OutNone, 0
		}
		w.Sight(id, true)
	})
}

// Change changes what a host runs by hand, behind the coordinators' back.
func (w *World) Change(id string, rev deploy.Digest) error {
	h := w.hosts[id]
	if h == nil || h.working != 0 {
		return fmt.Errorf("host %s cannot be changed now", id)
	}
	h.running, h.serves, h.byHand = rev, rev != "", true
	w.report(h)
	return nil
}

// Install makes a host serve a revision that it has not reported yet.
func (w *World) Install(id string, rev deploy.Digest) error {
	h := w.hosts[id]
	if h == nil || h.working != 0 {
		return fmt.Errorf("host %s cannot be changed now", id)
	}
	h.running, h.serves, h.byHand = rev, true, true
	return nil
}
