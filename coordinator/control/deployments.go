package control

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/sim"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// CreateDeployment plans and freezes a deployment. A repeated request id gets
// the id of the deployment that the first one created.
func (s *Service) CreateDeployment(ctx context.Context,
	r *controlv1.CreateDeploymentRequest,
) (*controlv1.CreateDeploymentResponse, error) {
	if out := s.created(ctx, r); out != nil {
		return out, nil
	}
	p, err := s.plan(ctx, r)
	if err != nil {
		return nil, err
	}
	e := p.event
	if err := s.askPools(ctx, e.App, e.Group); err != nil {
		return nil, err
	}
	e.Request = s.request(ctx, r.Mutation)
	e.ID = deploymentID(e.Request.ID)
	if err := s.propose(ctx, e); err != nil {
		return nil, err
	}
	return &controlv1.CreateDeploymentResponse{Id: e.ID, Index: s.index(), Group: e.Group, Revision: e.RevName}, nil
}

// askPools refuses a deployment whose hosts could not be taken out of their pools:
// better now than with the first host. A way back is never refused.
func (s *Service) askPools(ctx context.Context, app, group string) error {
	if s.o.Pools == nil {
		return nil
	}
	var pools []deploy.Pool
	s.o.State.View(func(st *deploy.State) {
		g := st.Groups[deploy.GroupKey(app, group)]
		if g == nil || g.Traffic == nil {
			return
		}
		for _, host := range g.Hosts() {
			if t := st.Target(host, app); t != nil {
				pools = append(pools, st.TrafficOf(t).Pools...)
			}
		}
	})
	if len(pools) == 0 {
		return nil
	}
	if err := s.o.Pools(ctx, pools); err != nil {
		return refuse(deploy.Conflict, "hosts of group %s could not be taken out of their pools: %v", group, err)
	}
	return nil
}

// created answers a repetition of the request that made a deployment. It comes
// before the plan, because what was created meanwhile changes the plan; nil
// leaves the answer to the log, also when the id was used for something else.
func (s *Service) created(
	ctx context.Context, r *controlv1.CreateDeploymentRequest,
) (out *controlv1.CreateDeploymentResponse) {
	id := r.GetMutation().GetRequestId()
	if id == "" {
		return nil
	}
	s.view(ctx, func(st seen) {
		d := st.Deployments[deploymentID(id)]
		if d == nil || d.Inverse || d.App != r.App || r.Group != "" && d.Group != r.Group || !names(st, d, r.Revision) {
			return
		}
		out = &controlv1.CreateDeploymentResponse{Id: d.ID, Index: st.Index, Group: d.Group, Revision: d.RevName}
	})
	return out
}

// names reports whether a request for that revision may have made d. What an
// alias meant when it was made is known to d only.
func names(st seen, d *deploy.Deployment, revisionName string) bool {
	if strings.HasPrefix(revisionName, "@") {
		return true
	}
	rev, err := revision(st, &deploy.Group{App: d.App}, revisionName)
	return err == nil && rev.Digest == d.Revision
}

// deploymentID derives the id from the request's, so that a repetition, also
// at another coordinator, names the same deployment.
func deploymentID(request string) string {
	if request == "" {
		return ulid.Make().String()
	}
	if id, err := ulid.ParseStrict(request); err == nil {
		return id.String()
	}
	h := fnv.New128a()
	_, _ = h.Write([]byte(request)) // a hash never fails
	var id ulid.ULID
	copy(id[:], h.Sum(nil))
	id[0] &= 0x7f
	return id.String()
}

// planned is a deployment that could be created now.
type planned struct {
	event    deploy.DeploymentCreated
	plan     deploy.Planned
	revision deploy.Revision
	from     string
	index    uint64
	names    map[string]string // host id -> name
	hosts    []deploy.Host     // by name
}

// plan resolves names and lays out the waves.
func (s *Service) plan(ctx context.Context, r *controlv1.CreateDeploymentRequest) (out planned, err error) {
	s.view(ctx, func(st seen) { out, err = planIn(st, r) })
	return out, err
}

func planIn(st seen, r *controlv1.CreateDeploymentRequest) (planned, error) {
	g, err := group(st, r.App, r.Group)
	if err != nil {
		return planned{}, err
	}
	rev, err := revision(st, g, r.Revision)
	if err != nil {
		return planned{}, err
	}
	if r.IfIndex != 0 && changedAfter(st.State, g, r.IfIndex) {
		return planned{}, refuse(deploy.Conflict, "group %s of %s has changed since index %d; look at the plan again",
			g.Name, g.App, r.IfIndex)
	}
	config := g.Config
	if r.Config != "" {
		builtin, ok := deploy.Builtin(r.Config)
		if !ok {
			return planned{}, refuse(deploy.Invalid, "no config %q%s; built in are %q", r.Config,
				suggest(r.Config, deploy.BuiltinNames()), deploy.BuiltinNames())
		}
		config = builtin
		config.Gates, config.Waves = g.Config.Gates, withGates(builtin.Waves, g.Config.Gates)
		config.PreGates = g.Config.PreGates // no flag goes past what is asked before the first wave
	}
	skip, err := skips(st.State, g, r)
	if err != nil {
		return planned{}, err
	}
	fixes, err := fixed(st, g, r.Fixes)
	if err != nil {
		return planned{}, err
	}
	repair := r.Revision == "@current" && !r.Redeploy
	plan, err := deploy.Plan(st.State, deploy.PlanInput{
		App: g.App, Group: g.Name, Revision: rev.Digest, Config: config, Redeploy: r.Redeploy ||
			repair, Force: r.ForceBad,
		Skip: skip, Emergency: r.Emergency,
	})
	if err != nil {
		return planned{}, err
	}
	out := planned{plan: plan, revision: *rev, index: st.Index, names: map[string]string{}}
	for id := range g.Members {
		out.names[id] = st.Hosts[id].Name
		out.hosts = append(out.hosts, deploy.Host{
			Name: st.Hosts[id].Name, Zone: st.Hosts[id].Zone,
			Labels: st.Hosts[id].Labels,
		})
	}
	slices.SortFunc(out.hosts, func(a, b deploy.Host) int { return strings.Compare(a.Name, b.Name) })
	if c := st.Commonest(g); c != "" {
		out.from = st.RevisionName(g.App, c)
	}
	if r.Emergency {
		out.plan.Notes = append(out.plan.Notes, emergencyNote(plan.Passed))
	}
	out.plan.Notes = append(out.plan.Notes, skipNotes(st.State, skip)...)
	out.plan.Notes = append(out.plan.Notes, tasteNotes(&config.Stage)...)
	out.plan.Notes = append(out.plan.Notes, trafficNotes(g.Traffic)...)
	if repair {
		out.plan.Notes = append(out.plan.Notes,
			"every host compares its installed files with what the last deployment "+
				"left; one that runs the revision, healthy and unedited, does nothing (--redeploy does it all again)")
	}
	out.event = deploy.DeploymentCreated{
		App: g.App, Group: g.Name, Revision: rev.Digest, RevName: rev.Name, Config: config, Waves: plan.Waves,
		Layout:   plan.Layout,
		Redeploy: r.Redeploy || repair, Repair: repair, Force: r.ForceBad, Skip: skip, Fixes: fixes, Without: without(st.State, g,
			rev), Preempt: r.Preempt, Emergency: r.Emergency,
	}
	return out, nil
}

// emergencyNote says what a deployment goes past.
func emergencyNote(passed []string) string {
	text := "an EMERGENCY: it goes past every window, freeze and approval, never past a floor or a gate that failed"
	if len(passed) == 0 {
		return text + "; none of them holds it now"
	}
	return text + "; now past: " + strings.Join(passed, "; ")
}

// fixed resolves the revisions that a deployment repairs.
func fixed(st seen, g *deploy.Group, names []string) (out []deploy.Digest, err error) {
	for _, name := range names {
		rev, err := revision(st, g, name)
		if err != nil {
			return nil, err
		}
		out = append(out, rev.Digest)
	}
	return out, nil
}

// without lists the revisions in flight that a new one is known not to contain:
// by git, an ancestor of theirs is an ancestor of it, and they are not. In a
// list with children before parents they would stand before it.
func without(st *deploy.State, g *deploy.Group, rev *deploy.Revision) (out []deploy.Digest) {
	for _, d := range g.InFlight() {
		old := st.Revisions[g.App][d.Revision]
		if old == nil || slices.ContainsFunc(old.Names,
			func(n string) bool { return slices.Contains(rev.Ancestry, n) }) {
			continue
		}
		common := func(commit string) bool {
			return slices.Contains(rev.Ancestry, commit) || slices.Contains(rev.Names, commit)
		}
		if slices.ContainsFunc(old.Ancestry, common) {
			out = append(out, d.Revision)
		}
	}
	return out
}

// skips resolves --only, --exclude and --skip-offline. Who is left out by name
// is meant to stay as it is; who cannot be reached is caught up with.
func skips(st *deploy.State, g *deploy.Group, r *controlv1.CreateDeploymentRequest) (out []deploy.Skip, err error) {
	used := map[string]bool{}
	matches := func(h *deploy.Host, patterns []string) bool {
		found := false
		for _, p := range patterns {
			if matchesHost(h, p) {
				found, used[p] = true, true
			}
		}
		return found
	}
	for _, id := range g.Hosts() {
		h := st.Hosts[id]
		excluded, only := matches(h, r.Exclude), matches(h, r.Only)
		switch {
		case excluded:
			out = append(out, deploy.Skip{Host: id, Cause: "left out by --exclude", Intend: true})
		case len(r.Only) > 0 && !only:
			out = append(out, deploy.Skip{Host: id, Cause: "left out by --only", Intend: true})
		case r.SkipOffline && h.Unreachable:
			out = append(out, deploy.Skip{Host: id, Cause: "offline when the deployment was made"})
		}
	}
	for _, p := range slices.Concat(r.Only, r.Exclude) {
		if !used[p] {
			return nil, refuse(deploy.Invalid,
				"%q matches no host of group %s; write a name, name*, zone=NAME or label=value", p, g.Name)
		}
	}
	if len(out) == len(g.Members) && len(out) > 0 {
		return nil, refuse(deploy.Invalid, "every host of group %s is left out", g.Name)
	}
	return out, nil
}

func tasteNotes(s *deploy.Stage) (out []string) {
	for _, one := range []struct {
		what string
		is   *deploy.StageScript
	}{{"warmup", s.Warmup}, {"taste", s.Taste}} {
		if one.is != nil {
			out = append(out, fmt.Sprintf("%s: each host runs %s beside what serves there, at most %s, before it may be "+
				"taken out of service", one.what, one.is.Script, cmp.Or(one.is.Timeout, deploy.StageScriptTimeout)))
		}
	}
	return out
}

func trafficNotes(t *deploy.Traffic) []string {
	if t == nil {
		return nil
	}
	var names []string
	for _, p := range t.Pools {
		names = append(names, p.Name())
	}
	left := "goes on without those that are left"
	if t.DrainFails {
		left = "goes back if some are left"
	}
	return []string{fmt.Sprintf("each host leaves %s before it stops, waits %s for its sessions and %s",
		strings.Join(names, ", "), cmp.Or(t.Drain, deploy.DrainTimeout), left)}
}

func skipNotes(st *deploy.State, skip []deploy.Skip) (out []string) {
	for _, x := range skip {
		out = append(out, hostName(st, x.Host)+" is "+x.Cause)
	}
	return out
}

// matchesHost tests a host against a name, name*, zone=NAME or label=value.
func matchesHost(h *deploy.Host, pattern string) bool {
	if key, value, ok := strings.Cut(pattern, "="); ok {
		return key == "zone" && h.Zone == value || h.Labels[key] == value
	}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(h.Name, prefix)
	}
	return pattern == h.Name || pattern == h.ID
}

// withGates lets every wave of a built-in config ask the group's own gates.
func withGates(waves []deploy.WaveSpec, gates []deploy.Gate) []deploy.WaveSpec {
	var names []string
	for _, g := range gates {
		names = append(names, g.Name)
	}
	for i := range waves {
		waves[i].Gates = names
	}
	return waves
}

func changedAfter(st *deploy.State, g *deploy.Group, index uint64) bool {
	d := st.Deployments[g.Last]
	return st.MembershipIndex > index || d != nil && d.LastIndex() > index
}

// PlanDeployment says what CreateDeployment would do now, and changes nothing.
func (s *Service) PlanDeployment(ctx context.Context,
	r *controlv1.PlanDeploymentRequest,
) (*controlv1.PlanDeploymentResponse, error) {
	if r.GetDeployment() == nil {
		return nil, refuse(deploy.Invalid, "say which deployment to plan")
	}
	p, err := s.plan(ctx, r.GetDeployment())
	if err != nil {
		return nil, err
	}
	if err := s.askPools(ctx, p.event.App, p.event.Group); err != nil {
		p.plan.Notes = append(p.plan.Notes, "now it would be refused: "+err.Error())
	}
	out := &controlv1.PlanDeploymentResponse{
		App: p.event.App, Group: p.event.Group, Revision: p.event.RevName, Digest: string(p.event.Revision),
		From:     p.from,
		Capacity: p.plan.Capacity, Notes: p.plan.Notes, Holds: p.plan.Holds, EstimateMs: p.plan.Estimate.Milliseconds(),
		Index: p.index, Changes: p.plan.Changes, Concurrent: int32(p.plan.Concurrent), Exposure: p.plan.Exposure,
	}
	for i, w := range p.plan.Waves {
		pw := &controlv1.PlannedWave{
			Name: w.Name, Zone: w.Zone, BakeMs: w.BakeMin.Milliseconds(), Budget: int32(w.Budget), Gates: w.Gates,
			Batch: int32(w.Batch), OneBox: w.OneBox, Exposed: int32(p.plan.Exposed[i]), Rehearse: w.Rehearse,
			PreGates: w.PreGates, StartsMs: p.plan.Starts[i].Milliseconds(),
		}
		if i == 0 {
			pw.PreGates = append(slices.Clone(p.event.Config.PreGates), w.PreGates...)
		}
		for _, h := range w.Hosts {
			pw.Hosts = append(pw.Hosts, p.names[h])
		}
		out.Waves = append(out.Waves, pw)
	}
	return out, nil
}

// Act makes a person's request on a deployment.
func (s *Service) Act(ctx context.Context, r *controlv1.ActRequest) (*controlv1.ActResponse, error) {
	id, err := s.resolve(ctx, r.Deployment)
	if err != nil {
		return nil, err
	}
	e := deploy.RequestMade{
		Request: s.request(ctx, r.Mutation), Deployment: id, Verb: deploy.Verb(r.Verb), Gate: r.Gate, Zone: r.Zone,
		Wave:   r.Wave,
		Groups: s.o.Groups(s.o.Actor(ctx)),
	}
	if _, counts := s.o.Person(ctx); !counts && e.Verb == deploy.VerbApprove {
		return nil, refuse(deploy.Conflict,
			"a break-glass credential is nobody's second pair of eyes and cannot approve")
	}
	if e, err = s.arguments(ctx, e, r); err != nil {
		return nil, err
	}
	if err := s.propose(ctx, e); err != nil {
		return nil, err
	}
	return &controlv1.ActResponse{Index: s.index()}, nil
}

// arguments resolves the names that a request carries.
func (s *Service) arguments(
	ctx context.Context, e deploy.RequestMade, r *controlv1.ActRequest,
) (out deploy.RequestMade, err error) {
	s.view(ctx, func(st seen) {
		d := st.Deployments[e.Deployment]
		for _, name := range r.Hosts {
			var h *deploy.Host
			if h, err = host(st, name); err != nil {
				return
			}
			e.Hosts = append(e.Hosts, h.ID)
		}
		if r.Fixes != "" {
			var rev *deploy.Revision
			if rev, err = revision(st, &deploy.Group{App: d.App}, r.Fixes); err != nil {
				return
			}
			e.Fixes = rev.Digest
		}
		if r.By != "" {
			var by *deploy.Deployment
			if by, err = deployment(st, r.By, "", ""); err != nil {
				return
			}
			e.By = by.ID
		}
	})
	return e, err
}

// SimulateDeployment plays the deployment from the fleet as it is now.
func (s *Service) SimulateDeployment(ctx context.Context,
	r *controlv1.SimulateDeploymentRequest,
) (*controlv1.SimulateDeploymentResponse, error) {
	if r.GetDeployment() == nil {
		return nil, refuse(deploy.Invalid, "say which deployment to simulate")
	}
	p, err := s.plan(ctx, r.GetDeployment())
	if err != nil {
		return nil, err
	}
	in := sim.Prediction{Hosts: p.hosts, Config: p.event.Config, Revision: p.event.RevName, From: p.from, Seed: r.Seed}
	if in.From == in.Revision {
		in.From = "the revision before"
	}
	for _, what := range r.Fail {
		key, name, ok := strings.Cut(what, "=")
		switch {
		case ok && key == "host" && slices.ContainsFunc(p.hosts, func(h deploy.Host) bool { return h.Name == name }):
			in.FailHost = append(in.FailHost, name)
		case ok && key == "zone" && slices.ContainsFunc(p.hosts, func(h deploy.Host) bool { return h.Zone == name }):
			in.FailZone = append(in.FailZone, name)
		case ok && key == "gate" && slices.ContainsFunc(in.Config.Gates,
			func(g deploy.Gate) bool { return g.Name == name }):
			in.FailGate = append(in.FailGate, name)
		default:
			return nil, refuse(deploy.Invalid,
				"%q names nothing of the group that could fail; write host=NAME, zone=NAME or gate=NAME", what)
		}
	}
	o, err := sim.Predict(in)
	if err != nil {
		return nil, err
	}
	return &controlv1.SimulateDeploymentResponse{
		Events: o.Events, Status: o.Status.String(), Cause: o.Cause, TookMs: o.Took.Milliseconds(), Holds: o.Holds,
		LowestServing: int32(o.Serving), MostExposed: int32(o.Exposed), Hosts: int32(len(p.hosts)),
	}, nil
}

// Rollback undoes the deployment in flight, or takes the group back by an
// inverse deployment of its own.
func (s *Service) Rollback(ctx context.Context, r *controlv1.RollbackRequest) (*controlv1.RollbackResponse, error) {
	var e deploy.Event
	var id string
	var err error
	req := s.request(ctx, r.Mutation)
	s.view(ctx, func(st seen) { e, id, err = rollbackIn(st, r, req) })
	if err != nil {
		return nil, err
	}
	out := &controlv1.RollbackResponse{Id: id}
	s.o.State.View(func(st *deploy.State) { out.From, out.To = between(st, e) })
	if r.DryRun {
		if _, made := e.(deploy.DeploymentCreated); made {
			out.Id = ""
		}
		return out, nil
	}
	if e != nil {
		if err := s.propose(ctx, e); err != nil {
			return nil, err
		}
	}
	out.Index = s.index()
	return out, nil
}

// between names the revisions that a rollback goes from and to, as far as there is
// one for all.
func between(st *deploy.State, e deploy.Event) (from, to string) {
	switch e := e.(type) {
	case deploy.RequestMade:
		if d := st.Deployments[e.Deployment]; d != nil {
			return d.RevName, ""
		}
	case deploy.DeploymentCreated:
		if d := st.Deployments[e.Undoes]; d != nil {
			from = d.RevName
		}
		return from, e.RevName
	}
	return "", ""
}

// rollbackIn returns the fact that a request for a rollback is, nil when it is
// the repetition of one, and the deployment that rolls back.
func rollbackIn(st seen, r *controlv1.RollbackRequest, req deploy.Request) (deploy.Event, string, error) {
	g, err := group(st, r.App, r.Group)
	if err != nil {
		return nil, "", err
	}
	id := deploymentID(req.ID)
	if d := st.Deployments[id]; req.ID != "" && d != nil && d.Inverse && d.App == g.App && d.Group == g.Name {
		return nil, id, nil // a repetition
	}
	if _, seen := st.Requests[req.ID]; seen && st.Deployments[g.Last] != nil { // the log compares it with the first
		return deploy.RequestMade{Request: req, Deployment: g.Last, Verb: deploy.VerbAbortRollback}, g.Last, nil
	}
	if d := st.Newest(g.App, g.Name); d != nil {
		if r.To != "" {
			return nil, "", refuse(deploy.Conflict,
				"deployment %s of %s is in flight; roll that back first (`dctl abort %s "+
					"--rollback`)", d.ID, d.RevName, d.ID)
		}
		return deploy.RequestMade{Request: req, Deployment: d.ID, Verb: deploy.VerbAbortRollback}, d.ID, nil
	}
	e, err := inverse(st, g, r.To)
	if err != nil {
		return nil, "", err
	}
	e.Request, e.ID = req, id
	return e, id, nil
}

// inverse is the deployment that takes the group back: from the newest one that
// changed it, which deploy chooses, or to a revision that passed before.
func inverse(st seen, g *deploy.Group, to string) (deploy.DeploymentCreated, error) {
	e := deploy.DeploymentCreated{App: g.App, Group: g.Name, Config: g.Config, Inverse: true}
	if to == "" {
		u, err := st.Undoable(g)
		if err != nil {
			return e, err
		}
		e.Revision, e.RevName, e.Undoes, e.Bad = u.Revision, st.RevisionName(g.App, u.Revision), u.Deployment, u.Bad
		return e, nil
	}
	goal, err := revision(st, g, to)
	if err != nil {
		return e, err
	}
	if !slices.Contains(st.Sealed(g), goal.Digest) {
		return e, refuse(deploy.Conflict, "revision %s was never sealed on group %s, or is bad; deploy it instead",
			goal.Name, g.Name)
	}
	e.Revision, e.RevName = goal.Digest, goal.Name
	return e, nil
}
