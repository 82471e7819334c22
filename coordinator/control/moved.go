package control

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// History reads deployments that were moved out of the state. Its errors say why
// something cannot be read.
type History interface {
	// Deployment returns one that a pack holds.
	Deployment(ctx context.Context, pack deploy.Digest, id string) (*controlv1.GetDeploymentResponse, error)
	// Find returns those whose ids begin so, at most two; none is no error.
	Find(ctx context.Context, ix deploy.PackIndex, id string) ([]*controlv1.GetDeploymentResponse, error)
	// Each gives all of them, the newest first, until yield says no.
	Each(ctx context.Context, ix deploy.PackIndex, yield func(*controlv1.GetDeploymentResponse) bool) error
}

const (
	// readBound is how long the history's store may take to answer one request.
	readBound = 15 * time.Second
	// leastPrefix is how much of an id finds a deployment that the state knows nothing of
	// any more: the time in an id takes ten characters, so few packs have such ones.
	leastPrefix = 8
)

// Whole returns a deployment as people are shown it, all of it, without what its hosts
// do now; nil if the state does not have all of it.
func (s *Service) Whole(id string) (out *controlv1.GetDeploymentResponse) {
	s.o.State.View(func(st *deploy.State) {
		d := st.Deployments[id]
		if d == nil || d.Pruned {
			return
		}
		out = &controlv1.GetDeploymentResponse{Deployment: s.deploymentView(st, d, true)}
		out.Records, _ = recordViews(st, d, 0, len(d.Records))
	})
	for _, t := range out.GetDeployment().GetTasks() {
		t.Event, t.Script, t.Permit, t.Health = "", "", "", ""
	}
	return out
}

// moved returns a deployment that the state does not have all of and the history's store
// does, as the caller may know it; nil for any other.
func (s *Service) moved(ctx context.Context, id string) (*controlv1.GetDeploymentResponse, error) {
	var pack deploy.Digest
	var ix deploy.PackIndex
	s.view(ctx, func(st seen) {
		d, err := deployment(st, id, "", "")
		switch {
		case err == nil && d.Pruned:
			pack, id = d.Pack, d.ID
		case err != nil && len(id) >= leastPrefix && st.Dropped > 0:
			ix = st.PackIndex()
		}
	})
	ctx, cancel := context.WithTimeout(ctx, readBound)
	defer cancel()
	switch {
	case pack != "" && s.o.History == nil:
		return nil, refuse(deploy.Conflict, "deployment %s was moved to the history's store, which this coordinator is "+
			"not told of: see `history` in its coordinator.yaml", id)
	case pack != "":
		return s.o.History.Deployment(ctx, pack, id)
	case len(ix.Packs) == 0 && ix.Older == "" || s.o.History == nil:
		return nil, nil
	}
	found, err := s.o.History.Find(ctx, ix, id)
	if err != nil {
		return nil, err
	}
	sight := s.o.Sight(ctx)
	found = slices.DeleteFunc(found, func(d *controlv1.GetDeploymentResponse) bool {
		return !sight.Sees(d.Deployment.App, d.Deployment.Group)
	})
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, refuse(deploy.Invalid, "%q is the beginning of several deployments; write more of it", id)
}

// notableOf keeps the tasks that a person looks for first, as taskViews does.
func notableOf(d *controlv1.Deployment) {
	d.Tasks = slices.DeleteFunc(d.Tasks, func(t *controlv1.Task) bool { return !failures[t.Status] })
	slices.SortStableFunc(d.Tasks, func(a, b *controlv1.Task) int { return cmp.Compare(a.SinceMs, b.SinceMs) })
	d.Tasks = d.Tasks[:min(len(d.Tasks), notable)]
}

// failures are the statuses of tasks that failed, in words.
var failures = map[string]bool{
	deploy.TaskFailed.String(): true, deploy.TaskBroken.String(): true, deploy.TaskStageFailed.String(): true,
	deploy.TaskLost.String(): true,
}

// listMoved appends to a list what the history's store has of it and the state knows
// nothing of any more. What cannot be read the list says.
func (s *Service) listMoved(ctx context.Context, r *controlv1.ListDeploymentsRequest,
	out *controlv1.ListDeploymentsResponse, limit int,
) {
	there := map[string]bool{}
	var ix deploy.PackIndex
	s.o.State.View(func(st *deploy.State) {
		if st.Dropped == 0 {
			return
		}
		if ix = st.PackIndex(); len(ix.Packs) == 0 && ix.Older == "" {
			out.Incomplete = "older ones may be missing, which are kept no longer: there is no store for history"
			return
		}
		for id := range st.Deployments {
			there[id] = true
		}
	})
	switch {
	case len(there) == 0:
		return
	case s.o.History == nil:
		out.Incomplete = "older ones were moved to the history's store, which this coordinator is not told of"
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readBound)
	defer cancel()
	sight := s.o.Sight(ctx)
	err := s.o.History.Each(ctx, ix, func(d *controlv1.GetDeploymentResponse) bool {
		v := d.Deployment
		if !there[v.Id] && (r.App == "" || v.App == r.App) && (r.Group == "" || v.Group == r.Group) &&
			sight.Sees(v.App, v.Group) {
			there[v.Id] = true
			notableOf(v)
			out.Deployments = append(out.Deployments, v)
		}
		return len(out.Deployments) < limit
	})
	if err != nil {
		out.Incomplete = "older ones are missing: " + err.Error()
	}
}

// movedHosts are the hosts of a moved deployment that failed, else all, at most 50.
func movedHosts(tasks []*controlv1.Task) []source {
	const most = 50
	var failed, others []source
	for _, t := range tasks {
		if one := (source{t.Host, t.Name}); failures[t.Status] || t.Failure != nil {
			failed = append(failed, one)
		} else {
			others = append(others, one)
		}
	}
	if len(failed) == 0 {
		failed = others
	}
	return failed[:min(len(failed), most)]
}
