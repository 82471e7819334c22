package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/naming"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// ApplyApp defines the groups of a deploy.yaml. With dry_run it only says what
// would change.
func (s *Service) ApplyApp(ctx context.Context, r *controlv1.ApplyAppRequest) (*controlv1.ApplyAppResponse, error) {
	name := r.Filename
	if name == "" {
		name = "deploy.yaml"
	}
	defs, err := s.o.Parse(r.Source, name)
	if err != nil {
		return nil, err
	}
	out := &controlv1.ApplyAppResponse{App: defs[0].App}
	s.view(ctx, func(st seen) {
		for _, d := range defs {
			out.Groups = append(out.Groups, d.Group)
			if g := st.Groups[deploy.GroupKey(d.App, d.Group)]; g == nil || g.Source != d.Source {
				out.Changed = append(out.Changed, d.Group)
			}
			if l := s.leaving(st.State, &d); l != nil {
				out.Leaving = append(out.Leaving, l)
			}
		}
		out.Warnings = s.doubts(st, defs)
	})
	if r.DryRun {
		return out, nil
	}
	if len(out.Leaving) > 0 && !r.MayLeave {
		l := out.Leaving[0]
		return nil, refuse(deploy.Conflict, "%d of %d hosts leave group %s by its new selector (%s); say that they may",
			len(l.Hosts), l.Of, l.Group, strings.Join(l.Hosts[:min(len(l.Hosts), 3)], ", "))
	}
	req := s.request(ctx, r.Mutation)
	var events []deploy.Event
	for _, d := range defs {
		d.Request = req
		if req.ID != "" {
			d.Request.ID = req.ID + "/" + d.Group // each fact has an answer of its own
		}
		events = append(events, d)
	}
	refusals, err := s.o.Log.Propose(ctx, events)
	if err == nil {
		err = errors.Join(refusals...)
	}
	out.Index = s.index()
	return out, err
}

// leaving lists the hosts that a definition takes out of its group; nil for none.
func (s *Service) leaving(st *deploy.State, d *deploy.GroupDefined) *controlv1.Leaving {
	g := st.Groups[deploy.GroupKey(d.App, d.Group)]
	if g == nil || g.Selector == d.Selector {
		return nil
	}
	out := &controlv1.Leaving{Group: d.Group, Of: int32(len(g.Members)), Waits: len(g.InFlight()) > 0}
	for _, id := range g.Hosts() {
		if h := st.Hosts[id]; h != nil && !s.o.Match(d.App, d.Selector, h) {
			out.Hosts = append(out.Hosts, h.Name)
		}
	}
	if len(out.Hosts) == 0 {
		return nil
	}
	slices.Sort(out.Hosts)
	return out
}

// ListApps returns every application with its groups.
func (s *Service) ListApps(ctx context.Context, _ *controlv1.ListAppsRequest) (*controlv1.ListAppsResponse, error) {
	out := &controlv1.ListAppsResponse{}
	s.view(ctx, func(st seen) {
		for _, g := range groups(st) {
			if n := len(out.Apps); n == 0 || out.Apps[n-1].Name != g.App {
				out.Apps = append(out.Apps, &controlv1.App{Name: g.App})
			}
			app := out.Apps[len(out.Apps)-1]
			v := groupView(st.State, g)
			if !st.sight.Sees(g.App, "") {
				v.Source = "" // it defines the other groups too
			}
			app.Groups = append(app.Groups, v)
		}
		for _, f := range st.Freezes {
			if f.App != "" && !st.sight.SeesApp(f.App) || f.Group != "" && !st.sight.Sees(f.App, f.Group) {
				continue
			}
			out.Freezes = append(out.Freezes, &controlv1.Freeze{
				App: f.App, Group: f.Group, Actor: f.Actor, Reason: f.Reason, SinceMs: f.Wall, UntilMs: f.UntilWall,
			})
		}
	})
	return out, nil
}

// SetFreeze holds every grant in a scope but those of rollbacks, or lifts that.
func (s *Service) SetFreeze(ctx context.Context, r *controlv1.SetFreezeRequest) (*controlv1.SetFreezeResponse, error) {
	var err error
	if r.App != "" && !r.Lift {
		s.view(ctx, func(st seen) {
			if len(namesOf(st, r.App)) == 0 || r.Group != "" {
				_, err = group(st, r.App, r.Group)
			}
		})
	} else if r.App == "" && r.Group != "" {
		err = refuse(deploy.Invalid, "say of which application group %s is frozen", r.Group)
	}
	if most := deploy.FreezeMax; err == nil && (r.ForMs < 0 || r.ForMs > most.Milliseconds()) {
		err = refuse(deploy.Invalid, "a freeze ends within %d days from now, or when it is lifted", most/(24*time.Hour))
	}
	if err != nil {
		return nil, err
	}
	if r.Lift {
		err = s.propose(ctx, deploy.FreezeLifted{
			Request: s.request(ctx, r.Mutation), App: r.App, Group: r.Group, Own: s.o.OwnFreeze(ctx, r.App, r.Group),
		})
	} else {
		err = s.propose(ctx, deploy.FreezeSet{
			Request: s.request(ctx, r.Mutation), App: r.App, Group: r.Group, For: time.Duration(r.ForMs) * time.Millisecond,
			Own: s.o.OwnFreeze(ctx, r.App, r.Group),
		})
	}
	return &controlv1.SetFreezeResponse{Index: s.index()}, err
}

// DeleteGroup ends a group without deployments; applications are not touched.
func (s *Service) DeleteGroup(ctx context.Context,
	r *controlv1.DeleteGroupRequest,
) (*controlv1.DeleteGroupResponse, error) {
	var name string
	var err error
	s.view(ctx, func(st seen) {
		var g *deploy.Group
		if g, err = group(st, r.App, r.Group); err == nil {
			name = g.Name
		}
	})
	if err != nil && !s.done(r.GetMutation().GetRequestId()) {
		return nil, err
	}
	if err == nil {
		err = s.propose(ctx, deploy.GroupDeleted{Request: s.request(ctx, r.Mutation), App: r.App, Group: name})
	} else {
		err = nil // a repetition: the group is gone by it
	}
	return &controlv1.DeleteGroupResponse{Index: s.index()}, err
}

// GetApp returns one application.
func (s *Service) GetApp(ctx context.Context, r *controlv1.GetAppRequest) (*controlv1.GetAppResponse, error) {
	all, err := s.ListApps(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, a := range all.Apps {
		if a.Name == r.App {
			s.o.State.View(func(st *deploy.State) { // of groups that the list shows
				for _, v := range a.Groups {
					v.Drift = driftViews(st, st.Groups[deploy.GroupKey(a.Name, v.Name)])
				}
			})
			return &controlv1.GetAppResponse{App: a}, nil
		}
	}
	s.view(ctx, func(st seen) { _, err = group(st, r.App, "") })
	return nil, err
}

// driftShown bounds the list of drifted hosts in one answer.
const driftShown = 200

func driftViews(st *deploy.State, g *deploy.Group) (out []*controlv1.Drift) {
	if g == nil {
		return nil
	}
	for _, x := range st.Drift(g) {
		if len(out) == driftShown {
			break
		}
		runs := "nothing"
		if x.Runs != "" {
			runs = st.RevisionName(g.App, x.Runs)
		}
		out = append(out, &controlv1.Drift{
			Host: hostName(st, x.Host), Runs: runs,
			Wants: st.RevisionName(g.App, x.Wants), Why: x.Why,
		})
	}
	for _, h := range g.Hosts() {
		if t := st.Target(h, g.App); t != nil && t.Edits != nil && len(out) < driftShown {
			name := st.RevisionName(g.App, t.Running)
			out = append(out, &controlv1.Drift{
				Host: hostName(st, h), Runs: name, Wants: st.RevisionName(g.App, st.Wants(t).Revision),
				Why: editsText(t.Edits),
			})
		}
	}
	return out
}

// editsText says which installed files were edited.
func editsText(e *deploy.Edits) string {
	text := fmt.Sprintf("%d edited: %s", e.Files, strings.Join(e.Paths, ", "))
	if e.Files > len(e.Paths) {
		text += ", …"
	}
	return text
}

func groupView(st *deploy.State, g *deploy.Group) *controlv1.Group {
	u := g.Usage("")
	out := &controlv1.Group{
		Name: g.Name, Selector: g.Selector, Artifacts: g.Artifacts, Config: g.Config.Name, Hosts: int32(len(g.Members)),
		Serving: int32(u.Serving), Source: g.Source, LastDeployment: g.Last, NextSelector: g.NextSelector,
	}
	if d := st.Deployments[g.Last]; d != nil {
		out.LastStatus = d.Status.String()
	}
	if d := st.Newest(g.App, g.Name); d != nil {
		out.Deployment = d.ID
	}
	for _, d := range g.InFlight() {
		out.InFlight = append(out.InFlight, d.ID)
	}
	if f := st.Frozen(g); f != nil {
		out.Frozen = f.By()
	}
	running := map[deploy.Digest]int32{}
	for _, h := range g.Hosts() {
		if t := st.Target(h, g.App); t != nil && t.Running != "" {
			running[t.Running]++
			if t.Edits != nil {
				out.EditedHosts++
			}
		}
	}
	for _, d := range slices.Sorted(maps.Keys(running)) {
		out.Running = append(out.Running, &controlv1.RevisionCount{
			Name: st.RevisionName(g.App, d), Digest: string(d), Hosts: running[d], Grade: string(g.Grade(d)),
		})
	}
	return out
}

// maxAncestry bounds the ancestors that the log keeps of a revision.
const maxAncestry = 200

// RegisterRevision pins a revision's digest.
func (s *Service) RegisterRevision(ctx context.Context,
	r *controlv1.RegisterRevisionRequest,
) (*controlv1.RegisterRevisionResponse, error) {
	if hex, ok := strings.CutPrefix(r.Digest, "sha256:"); !ok || len(hex) != 64 ||
		strings.Trim(hex, "0123456789abcdef") != "" {
		return nil, refuse(deploy.Invalid, "digest %q is not sha256: and 64 hex digits", r.Digest)
	}
	if r.Bytes < 0 || r.Files < 0 {
		return nil, refuse(deploy.Invalid, "a revision has no negative size")
	}
	if err := errors.Join(naming.Check("application", r.App), naming.Check("revision", r.Name)); err != nil {
		return nil, refuse(deploy.Invalid, "%v", err)
	}
	err := s.propose(ctx, deploy.RevisionRegistered{
		Request: s.request(ctx, r.Mutation), App: r.App, Name: r.Name, Digest: deploy.Digest(r.Digest),
		Size: r.Bytes, Files: r.Files, Message: r.Message, Ancestry: r.Ancestry[:min(len(r.Ancestry),
			maxAncestry)], Unsafe: r.Unsafe,
	})
	return &controlv1.RegisterRevisionResponse{Index: s.index()}, err
}

// ListRevisions returns an application's revisions, newest first; with a name,
// the one that it resolves to.
func (s *Service) ListRevisions(ctx context.Context,
	r *controlv1.ListRevisionsRequest,
) (out *controlv1.ListRevisionsResponse, err error) {
	out = &controlv1.ListRevisionsResponse{}
	s.view(ctx, func(st seen) {
		all := revisions(st, r.App)
		if r.Name != "" {
			g := anyGroup(st, r.App)
			var one *deploy.Revision
			if one, err = revision(st, g, r.Name); err != nil {
				return
			}
			all = []*deploy.Revision{one}
		}
		for _, rev := range all {
			out.Revisions = append(out.Revisions, revisionView(st, rev))
		}
	})
	return out, err
}

// PruneRevisions forgets what nothing needs, beyond the newest.
func (s *Service) PruneRevisions(ctx context.Context,
	r *controlv1.PruneRevisionsRequest,
) (*controlv1.PruneRevisionsResponse, error) {
	if r.App == "" || r.Keep < 0 {
		return nil, refuse(deploy.Invalid, "name the application, and how many of its newest revisions stay, 0 or more")
	}
	out := &controlv1.PruneRevisionsResponse{}
	var digests []deploy.Digest
	s.view(ctx, func(st seen) {
		all, needed := revisions(st, r.App), st.Needed(r.App)
		for i, rev := range all {
			if i >= int(r.Keep) && needed[rev.Digest] == "" {
				digests = append(digests, rev.Digest)
				out.Pruned = append(out.Pruned, revisionView(st, rev))
			}
		}
		out.Kept = int32(len(all) - len(digests))
	})
	var err error
	if len(digests) > 0 && !r.DryRun {
		err = s.propose(ctx, deploy.RevisionsPruned{Request: s.request(ctx, r.Mutation), App: r.App, Digests: digests})
	}
	out.Index = s.index()
	return out, err
}

// anyGroup returns a group of the application; without one, an empty group, so
// that names still resolve.
func anyGroup(st seen, app string) *deploy.Group {
	for _, g := range groups(st) {
		if g.App == app {
			return g
		}
	}
	return &deploy.Group{App: app}
}

func revisionView(st seen, r *deploy.Revision) *controlv1.Revision {
	out := &controlv1.Revision{
		App: r.App, Name: r.Name, Digest: string(r.Digest), Bytes: r.Size, Files: r.Files, Message: r.Message,
		Actor: r.Actor, AtMs: r.At, Names: r.Names,
	}
	for _, g := range groups(st) {
		if g.App != r.App {
			continue
		}
		if by := g.Bad[r.Digest]; by != "" {
			out.Bad = by
		}
		for _, h := range g.Hosts() {
			if t := st.Target(h, r.App); t != nil && t.Running == r.Digest {
				out.Hosts++
			}
		}
	}
	return out
}

// ListHosts returns the hosts that every given filter matches, by name.
func (s *Service) ListHosts(ctx context.Context, r *controlv1.ListHostsRequest) (*controlv1.ListHostsResponse, error) {
	return s.listHosts(ctx, r)
}

func selected(st seen, h *deploy.Host, r *controlv1.ListHostsRequest) bool {
	if !st.host(h) {
		return false
	}
	for _, sel := range r.Selector {
		if k, v, _ := strings.Cut(sel, "="); h.Labels[k] != v {
			return false
		}
	}
	if r.Role != "" && h.Labels["role"] != r.Role || r.Zone != "" && h.Zone != r.Zone {
		return false
	}
	if r.App != "" && !st.runs(h, r.App, r.Group) {
		return false
	}
	if len(r.Host) == 0 {
		return true
	}
	return slices.ContainsFunc(r.Host, func(pattern string) bool {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			return strings.HasPrefix(h.Name, prefix)
		}
		return pattern == h.Name || pattern == h.ID
	})
}

func (s *Service) hostView(st seen, h *deploy.Host) *controlv1.Host {
	state, at := s.o.Fleet.Status(h.ID)
	out := &controlv1.Host{
		Id: h.ID, Name: h.Name, Zone: h.Zone, Region: h.Region, Labels: h.Labels, Version: h.Version, State: state,
		Coordinator: at,
		Quarantine:  h.Quarantine, Approved: h.Approved, Drain: s.drainView(st, h),
	}
	for _, id := range st.named(h.Name) {
		if id != h.ID {
			out.Namesakes = append(out.Namesakes, id)
		}
	}
	for _, o := range st.Outages {
		if o.Host == h.ID && st.sight.SeesApp(o.App) {
			out.OutOf = append(out.OutOf, o.App+": "+o.Pool.Name())
		}
	}
	if h.Says != nil {
		out.Says = &controlv1.Attributes{
			Name: h.Says.Name, Zone: h.Says.Zone, Region: h.Says.Region, Labels: h.Says.Labels,
		}
		out.Differences = h.Attributes().Differences(*h.Says)
	}
	for _, app := range slices.Sorted(maps.Keys(h.Targets)) {
		t := h.Targets[app]
		if !st.sight.Sees(app, t.Group) {
			continue
		}
		v := &controlv1.Target{
			App: app, Group: t.Group, RunningDigest: string(t.Running), Health: t.Health.String(), Evidence: t.Evidence,
			Generation: t.Gen, Permit: t.Permit.String(),
		}
		wants := st.Wants(t)
		v.Why = wants.Why
		if t.Edits != nil {
			v.EditedFiles, v.Edited = int64(t.Edits.Files), t.Edits.Paths
		}
		for to, d := range map[*string]deploy.Digest{
			&v.Running: t.Running, &v.Desired: wants.Revision,
			&v.LastGood: st.LastGood(t),
		} {
			if d != "" {
				*to = st.RevisionName(app, d)
			}
		}
		out.Targets = append(out.Targets, v)
	}
	return out
}

// GetHost returns one host by name or id.
func (s *Service) GetHost(
	ctx context.Context, r *controlv1.GetHostRequest,
) (out *controlv1.GetHostResponse, err error) {
	s.view(ctx, func(st seen) {
		var h *deploy.Host
		if h, err = host(st, r.Host); err == nil {
			out = &controlv1.GetHostResponse{Host: s.hostView(st, h)}
		}
	})
	if err == nil {
		out.Host.Revoked = s.o.Revoked(out.Host.Id)
	}
	return out, err
}

// ForgetHost ends an unreachable host: its targets leave their groups.
func (s *Service) ForgetHost(ctx context.Context,
	r *controlv1.ForgetHostRequest,
) (*controlv1.ForgetHostResponse, error) {
	found, err := s.GetHost(ctx, &controlv1.GetHostRequest{Host: r.Host})
	if err != nil {
		if s.done(r.GetMutation().GetRequestId()) { // a repetition: the host is gone by it
			return &controlv1.ForgetHostResponse{Index: s.index()}, nil
		}
		return nil, err
	}
	e := deploy.HostLeft{
		Request: s.request(ctx, r.Mutation), Host: found.Host.Id,
		Cause: "forgotten by " + s.o.Actor(ctx),
	}
	if found.Host.State == "unreachable" {
		e.Force = true // also when no deployment has made the log notice yet
	}
	err = s.propose(ctx, e)
	return &controlv1.ForgetHostResponse{Index: s.index()}, err
}

// CordonHost takes a host out of evidence, capacity and new work, or back.
func (s *Service) CordonHost(ctx context.Context,
	r *controlv1.CordonHostRequest,
) (*controlv1.CordonHostResponse, error) {
	found, err := s.GetHost(ctx, &controlv1.GetHostRequest{Host: r.Host})
	if err != nil {
		return nil, err
	}
	ids, req := []string{found.Host.Id}, s.request(ctx, r.Mutation)
	if r.Lift {
		err = s.propose(ctx, deploy.HostsReleased{Request: req, Hosts: ids, Cause: "uncordoned"})
	} else {
		err = s.propose(ctx, deploy.HostsQuarantined{Request: req, Hosts: ids, Cause: "cordoned"})
	}
	return &controlv1.CordonHostResponse{Index: s.index()}, err
}

// DrainHost takes a host out of every pool, or back.
func (s *Service) DrainHost(ctx context.Context,
	r *controlv1.DrainHostRequest,
) (*controlv1.DrainHostResponse, error) {
	found, err := s.GetHost(ctx, &controlv1.GetHostRequest{Host: r.Host})
	if err != nil {
		return nil, err
	}
	err = s.propose(ctx, deploy.HostDrainSet{
		Request: s.request(ctx, r.Mutation), Host: found.Host.Id, Undo: r.Undo,
	})
	return &controlv1.DrainHostResponse{Index: s.index()}, err
}

// drainView says how far a host is; nil for one that nobody drained.
func (s *Service) drainView(st seen, h *deploy.Host) *controlv1.Drain {
	out := &controlv1.Drain{State: "drained"}
	granted := h.Drain != nil && h.Drain.Granted
	for app, t := range h.Targets {
		if granted && t.Out == deploy.OutDone && !in(st, t) || !granted && t.Out == deploy.OutNone {
			continue
		}
		out.State = "leaving"
		if a, ok := s.o.Activity(h.ID, app); ok && (a.Event == "BlockTraffic" || a.Event == "AllowTraffic") &&
			st.sight.SeesApp(app) {
			out.Doing = append(out.Doing, app+": "+a.Script)
		}
	}
	slices.Sort(out.Doing)
	if state, _ := s.o.Fleet.Status(h.ID); state == "unreachable" && out.State == "leaving" {
		out.Doing = append(out.Doing, "its agent does not answer")
	}
	d := h.Drain
	switch {
	case d == nil && out.State == "drained":
		return nil
	case d == nil:
		out.State = "returning"
		return out
	case !d.Granted:
		out.State, out.Hold = "waiting", st.DrainHold(h)
	}
	out.Actor, out.Reason, out.SinceMs = d.Actor, d.Reason, d.Since
	return out
}

// in reports whether a target is still in a pool that coordinators drive, whatever its
// agent says.
func in(st seen, t *deploy.Target) bool {
	traffic := st.TrafficOf(t)
	return traffic != nil && slices.ContainsFunc(traffic.Pools, func(p deploy.Pool) bool {
		o := st.Outage(t.Host, t.App, p)
		return p.AtCoordinator() && (o == nil || o.Allowed)
	})
}

// done reports whether the request was accepted before.
func (s *Service) done(request string) (yes bool) {
	s.o.State.View(func(st *deploy.State) {
		a, seen := st.Requests[request]
		yes = seen && a.Refusal == ""
	})
	return yes
}

// ClusterStatus describes the coordinators.
func (s *Service) ClusterStatus(ctx context.Context,
	_ *controlv1.ClusterStatusRequest,
) (*controlv1.ClusterStatusResponse, error) {
	out, err := s.o.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	s.view(ctx, func(st seen) {
		out.Index = st.Index
		for _, d := range st.Open() {
			if st.sight.Sees(d.App, d.Group) {
				out.Deployments++
			}
		}
		for id, h := range st.Hosts {
			if !st.host(h) {
				continue
			}
			out.Hosts++
			if state, _ := s.o.Fleet.Status(id); state != "unreachable" {
				out.Connected++
			}
		}
		if !st.sight.SeesFleet() { // these name hosts
			out.CaBehind, out.CaAway = nil, 0
		}
	})
	return out, nil
}
