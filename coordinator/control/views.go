package control

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/backoff"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// notable is how many tasks a status shows unless all are asked for.
const notable = 24

// now is FSM time, also at a follower, which only knows the last entry's.
func (s *Service) now(st *deploy.State) deploy.Time { return max(st.Now, s.o.Log.Now()) }

func (s *Service) deploymentView(st *deploy.State, d *deploy.Deployment, all bool) *controlv1.Deployment {
	now := s.now(st)
	end := now
	if d.Status.Terminal() {
		end = d.EndedAt
	}
	out := &controlv1.Deployment{
		Id: d.ID, App: d.App, Group: d.Group, Revision: d.RevName, Digest: string(d.Revision), From: d.FromName,
		Status: d.Status.String(), Cause: d.Cause, Decision: d.Decision, Terminal: d.Status.Terminal(),
		Inverse: d.Inverse,
		Actor:   d.Actor, Reason: d.Reason, CreatedMs: d.Created, EndedMs: d.Ended,
		ElapsedMs: end.Sub(d.CreatedAt).Milliseconds(),
		Holds:     deploy.Holds(st, d, now), Index: st.Index, Config: d.Config.Name, Hosts: int32(len(d.Tasks)),
		Redeploy: d.Redeploy,
	}
	if d.Pruned {
		where := "are kept no longer"
		if d.Pack != "" {
			where = "are in the history's store"
		}
		out.Cause = strings.TrimPrefix(out.Cause+"; its tasks and records "+where, "; ")
	}
	for i := range d.Waves {
		out.Waves = append(out.Waves, waveView(st, d, i, now))
	}
	decided(st, d, now, out)
	out.Tasks, out.Broken = s.taskViews(st, d, all)
	return out
}

// decided adds what people decided about a deployment, or have to.
func decided(st *deploy.State, d *deploy.Deployment, now deploy.Time, out *controlv1.Deployment) {
	for _, a := range d.Approvals {
		out.Approvals = append(out.Approvals,
			&controlv1.Approval{Gate: a.Gate, Actor: a.Actor, Reason: a.Reason, AtMs: a.Wall})
	}
	if !d.Status.Terminal() {
		for _, g := range d.WaitsFor() {
			out.WaitsFor = append(out.WaitsFor, g.Name)
		}
	}
	if d.ScopeRevert != nil {
		out.Reverting = d.ScopeRevert.Scope
	}
	if d.DecideBy > 0 {
		out.DecideLeftMs = max(1, d.DecideBy.Sub(now).Milliseconds())
	}
	for _, f := range d.Fixes {
		out.Fixes = append(out.Fixes, st.RevisionName(d.App, f))
	}
	if o := st.Behind(d); o != nil {
		out.Behind = &controlv1.Behind{
			Id: o.ID, Revision: o.RevName, Status: o.Status.String(), Cause: o.Cause, Decision: o.Decision,
		}
		for _, g := range o.WaitsFor() {
			out.Behind.WaitsFor = append(out.Behind.WaitsFor, g.Name)
		}
	}
	out.TakenBy, out.Suspect, out.Preempt, out.Asked = d.TakenBy, d.Suspect, d.Preempt, d.Asked
	out.Emergency = d.Emergency
}

func waveView(st *deploy.State, d *deploy.Deployment, i int, now deploy.Time) *controlv1.Wave {
	w, p := &d.Waves[i], d.Progress(i)
	out := &controlv1.Wave{
		Name: w.Name, Zone: w.Zone, Status: w.Status.String(), Total: int32(p.Total), Settled: int32(p.Settled),
		Failed: int32(p.Failed), Granted: int32(p.Granted), Waiting: int32(p.Waiting), Reverted: int32(p.Reverted),
		Reverting: int32(p.Reverting), Gone: int32(p.Gone), Budget: int32(w.Budget), BakeMs: w.BakeMin.Milliseconds(),
		Gates: w.Gates,
	}
	if w.Status == deploy.WaveStatusBaking {
		if d.PausedAt > 0 {
			now = d.PausedAt
		}
		out.BakeLeftMs = max(0, w.BakeUntil.Sub(now).Milliseconds())
	}
	for _, h := range w.Holds {
		out.Holds = append(out.Holds, h.Text)
	}
	out.RehearsedMs, out.Skipped = w.Rehearsed.Milliseconds(), int32(p.Skipped)
	out.Answers = answerViews(st, w)
	return out
}

// answersShown bounds the answers of one wave in a view: failing ones first.
const answersShown = 20

func answerViews(st *deploy.State, w *deploy.Wave) []*controlv1.GateAnswer {
	var out []*controlv1.GateAnswer
	for _, key := range slices.Sorted(maps.Keys(w.Watch)) {
		x := w.Watch[key]
		o := x.Last
		v := &controlv1.GateAnswer{
			Gate: x.Gate, Key: o.Key, Answer: string(o.Answer), Question: o.Question, Value: o.Value,
			Threshold: o.Threshold,
			Samples:   int32(o.Samples), Detail: o.Detail, FromMs: o.From, ToMs: o.To, Fails: int32(x.Fails),
			Final: o.Final,
		}
		if h := st.Hosts[o.Key]; h != nil {
			v.Key = h.Name
		}
		out = append(out, v)
	}
	slices.SortStableFunc(out, func(a, b *controlv1.GateAnswer) int { return cmp.Compare(b.Fails, a.Fails) })
	return out[:min(len(out), answersShown)]
}

// unreached reports whether a wave waits for a host that nobody reaches.
func unreached(st *deploy.State, host string, t *deploy.Task) bool {
	h := st.Hosts[host]
	return t.Status == deploy.TaskWaiting && h != nil && h.Unreachable
}

// taskViews returns the tasks a person looks for first: failed, then at work
// for longest, then reverting, then those whose host is unreachable; or all in
// plan order.
func (s *Service) taskViews(st *deploy.State, d *deploy.Deployment, all bool) (out []*controlv1.Task, broken int32) {
	type row struct {
		host string
		task *deploy.Task
	}
	var rows []row
	for i := range d.Waves {
		for _, h := range d.Waves[i].Hosts {
			t := d.Tasks[h]
			if t == nil {
				continue
			}
			if t.Status == deploy.TaskBroken || t.Status == deploy.TaskLost && t.Goal != "" {
				broken++
			}
			if all || rank(t.Status) < 3 || d.Waves[i].Status == deploy.WaveStatusDeploying && unreached(st, h, t) {
				rows = append(rows, row{h, t})
			}
		}
	}
	if !all {
		sort.SliceStable(rows, func(i, j int) bool {
			a, b := rows[i].task, rows[j].task
			return cmp.Or(cmp.Compare(rank(a.Status), rank(b.Status)), cmp.Compare(a.Since, b.Since)) < 0
		})
		rows = rows[:min(len(rows), notable)]
	}
	for _, r := range rows {
		out = append(out, s.taskView(st, d, r.host, r.task))
	}
	return out, broken
}

func rank(s deploy.TaskStatus) int {
	switch {
	case s.Failure():
		return 0
	case s == deploy.TaskGranted:
		return 1
	case s == deploy.TaskReverting:
		return 2
	}
	return 3
}

func (s *Service) taskView(st *deploy.State, d *deploy.Deployment, hostID string, task *deploy.Task) *controlv1.Task {
	out := &controlv1.Task{
		Host: hostID, Name: hostName(st, hostID), Wave: int32(task.Wave), Status: task.Status.String(),
		SinceMs: task.Wall, Cause: task.Cause, Failure: failureView(task.Failure),
	}
	if h := st.Hosts[hostID]; h != nil {
		out.Zone = h.Zone
	}
	if out.Cause == "" && unreached(st, hostID, task) {
		out.Cause = "unreachable"
	}
	if t := st.Target(hostID, d.App); t != nil {
		out.Permit, out.Health = t.Permit.String(), t.Health.String()
		if a, ok := s.o.Activity(hostID, d.App); ok && t.Open && a.Generation == t.Gen || ok && stages(a.Event) &&
			task.Status == deploy.TaskWaiting {
			out.Event, out.Script, out.SinceMs = a.Event, a.Script, a.SinceMs
		}
	}
	return out
}

// stages reports whether a host is at work for a permit that it does not have yet.
func stages(event string) bool { return event == "Stage" || event == "Warmup" || event == "Taste" }

func hostName(st *deploy.State, id string) string {
	if h := st.Hosts[id]; h != nil {
		return h.Name
	}
	return id
}

func failureView(f *deploy.Failure) *controlv1.Failure {
	if f == nil {
		return nil
	}
	return &controlv1.Failure{
		Event: f.Event, Script: f.Script, Code: int32(f.Code), Exit: f.Exit, Message: f.Message, Tail: f.Tail,
		DurationMs: f.Duration,
	}
}

// recordViews returns the records after an index, at most limit but whole entries.
func recordViews(st *deploy.State, d *deploy.Deployment, after uint64,
	limit int,
) (out []*controlv1.Record, last uint64) {
	from := sort.Search(len(d.Records), func(i int) bool { return d.Records[i].Index > after })
	last = after
	for _, r := range d.Records[from:] {
		if len(out) >= limit && r.Index != last {
			break
		}
		last = r.Index
		v := &controlv1.Record{
			Index: r.Index, WallMs: r.Wall, ElapsedMs: r.At.Sub(d.CreatedAt).Milliseconds(), Subject: r.Subject,
			To: r.To, Text: r.Text, Failure: failureView(r.Failure),
		}
		if r.Wave >= 0 && r.Wave < len(d.Waves) {
			v.Wave = d.Waves[r.Wave].Name
		}
		if r.Host != "" {
			v.Host = hostName(st, r.Host)
			if h := st.Hosts[r.Host]; h != nil {
				v.Zone = h.Zone
			}
		}
		out = append(out, v)
	}
	return out, last
}

// GetDeployment returns one deployment with its whole history.
func (s *Service) GetDeployment(ctx context.Context,
	r *controlv1.GetDeploymentRequest,
) (out *controlv1.GetDeploymentResponse, err error) {
	if r.Id != "" {
		if out, err = s.moved(ctx, r.Id); err != nil || out != nil {
			if out != nil && !r.AllTasks {
				notableOf(out.Deployment)
			}
			return out, err
		}
	}
	s.view(ctx, func(st seen) {
		var d *deploy.Deployment
		if d, err = deployment(st, r.Id, r.App, r.Group); err != nil {
			return
		}
		out = &controlv1.GetDeploymentResponse{Deployment: s.deploymentView(st.State, d, r.AllTasks)}
		out.Records, _ = recordViews(st.State, d, 0, len(d.Records))
	})
	return out, err
}

// ListDeployments returns deployments, newest first, 50 unless told otherwise.
func (s *Service) ListDeployments(ctx context.Context,
	r *controlv1.ListDeploymentsRequest,
) (*controlv1.ListDeploymentsResponse, error) {
	limit := int(r.Limit)
	if limit <= 0 {
		limit = 50
	}
	out := &controlv1.ListDeploymentsResponse{}
	s.view(ctx, func(st seen) {
		for _, d := range newest(st) {
			if len(out.Deployments) == limit {
				return
			}
			if (r.App == "" || d.App == r.App) && (r.Group == "" || d.Group == r.Group) &&
				(!r.Live || !d.Status.Terminal()) {
				out.Deployments = append(out.Deployments, s.deploymentView(st.State, d, false))
			}
		}
	})
	if len(out.Deployments) < limit && !r.Live {
		s.listMoved(ctx, r, out, limit)
	}
	return out, nil
}

// watchBatch bounds the records of one message.
const watchBatch = 500

// refresh is how often a watcher gets a new status although nothing was
// committed: bake clocks and what hooks are doing move without facts.
const refresh = time.Second

// WatchDeployment sends records after an index as they are applied here, each
// with the status that goes with it, until the deployment has ended.
func (s *Service) WatchDeployment(r *controlv1.WatchDeploymentRequest,
	out controlv1.ControlService_WatchDeploymentServer,
) error {
	if done, err := s.watchMoved(r, out); done || err != nil {
		return err
	}
	id, err := s.resolve(out.Context(), r.Id)
	if err != nil {
		return err
	}
	after, first := r.After, true
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	changed, unwatch := s.o.State.WatchDeployment(id)
	defer unwatch()
	timed := false
	for {
		m, last, ended, err := s.watchStep(out.Context(), id, after, first || timed)
		if err != nil {
			return err
		}
		if m != nil {
			if err := out.Send(m); err != nil {
				return err
			}
		}
		more := last != after
		after, first, timed = last, false, false
		if more {
			if len(m.GetRecords()) < watchBatch && !ended {
				backoff.Pause(out.Context(), pace(m.GetDeployment()))
			}
			continue
		}
		if ended {
			return nil
		}
		select {
		case <-changed:
		case <-tick.C:
			timed = true
		case <-out.Context().Done():
			return out.Context().Err()
		}
	}
}

// A message to a watcher looks at every task, and a deployment to thousands of hosts has
// a hundred entries a second. So who watches one looks again after a time that grows
// with it: 1 ms for 50 hosts, 200 ms from 10,000 on.
const (
	paceOfTask  = 20 * time.Microsecond
	slowestPace = 200 * time.Millisecond
)

func pace(d *controlv1.Deployment) time.Duration {
	return min(slowestPace, time.Duration(d.GetHosts())*paceOfTask)
}

// watchMoved sends what the history's store has of a deployment that was moved there.
func (s *Service) watchMoved(r *controlv1.WatchDeploymentRequest,
	out controlv1.ControlService_WatchDeploymentServer,
) (done bool, err error) {
	if r.Id == "" {
		return false, nil
	}
	d, err := s.moved(out.Context(), r.Id)
	if err != nil || d == nil {
		return false, err
	}
	notableOf(d.Deployment)
	d.Records = slices.DeleteFunc(d.Records, func(one *controlv1.Record) bool { return one.Index <= r.After })
	for first := true; first || len(d.Records) > 0; first = false {
		n := min(len(d.Records), watchBatch)
		for n > 0 && n < len(d.Records) && d.Records[n].Index == d.Records[n-1].Index {
			n++ // those of one entry appear together
		}
		if err := out.Send(&controlv1.WatchDeploymentResponse{Deployment: d.Deployment, Records: d.Records[:n]}); err != nil {
			return true, err
		}
		d.Records = d.Records[n:]
	}
	return true, nil
}

// resolve finds the deployment's id once: what a prefix names may be ambiguous
// later.
func (s *Service) resolve(ctx context.Context, prefix string) (id string, err error) {
	s.view(ctx, func(st seen) {
		var d *deploy.Deployment
		if d, err = deployment(st, prefix, "", ""); err == nil {
			id = d.ID
		}
	})
	return id, err
}

// watchStep returns the next message, nil when there is nothing to tell.
func (s *Service) watchStep(ctx context.Context, id string, after uint64,
	force bool,
) (m *controlv1.WatchDeploymentResponse, last uint64, ended bool, err error) {
	s.view(ctx, func(st seen) {
		var d *deploy.Deployment
		if d, err = deployment(st, id, "", ""); err != nil {
			return
		}
		var records []*controlv1.Record
		records, last = recordViews(st.State, d, after, watchBatch)
		ended = d.Status.Terminal() && last >= d.LastIndex()
		if len(records) > 0 || force {
			m = &controlv1.WatchDeploymentResponse{Deployment: s.deploymentView(st.State, d, false), Records: records}
		}
	})
	return m, last, ended, err
}

// Logs streams hook output of one host, or of the hosts that failed.
func (s *Service) Logs(r *controlv1.LogsRequest, out controlv1.ControlService_LogsServer) error {
	q := LogQuery{App: r.App, Deployment: r.Deployment, Event: r.Event, Failed: r.Failed, Follow: r.Follow}
	var hosts []source
	var err error
	if r.Deployment != "" || r.Host == "" {
		if hosts, err = s.logsOf(out.Context(), &q); err != nil {
			return err
		}
	}
	if r.Host != "" {
		s.view(out.Context(), func(st seen) {
			var h *deploy.Host
			if h, err = host(st, r.Host); err == nil {
				err = st.mayRead(h, q.App)
				hosts = []source{{h.ID, h.Name}}
			}
		})
	}
	if err != nil {
		return err
	}
	for _, h := range hosts {
		err := s.o.Output(out.Context(), h.id, q, func(c HookOutput) error {
			return out.Send(&controlv1.LogsResponse{Host: h.name, Event: c.Event, Script: c.Script, Data: c.Data})
		})
		if err != nil && out.Context().Err() != nil {
			return out.Context().Err()
		}
		if err != nil {
			if len(hosts) == 1 {
				return err
			}
			if err := out.Send(&controlv1.LogsResponse{Host: h.name, Error: err.Error()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// source is a host whose hooks printed something.
type source struct{ id, name string }

// logsOf resolves the deployment of a query, and says which hosts' output is of interest.
func (s *Service) logsOf(ctx context.Context, q *LogQuery) (hosts []source, err error) {
	if q.Deployment != "" {
		m, err := s.moved(ctx, q.Deployment)
		if err != nil {
			return nil, err
		}
		if m != nil {
			q.App, q.Deployment = m.Deployment.App, m.Deployment.Id
			return movedHosts(m.Deployment.Tasks), nil
		}
	}
	s.view(ctx, func(st seen) {
		var d *deploy.Deployment
		if d, err = deployment(st, q.Deployment, q.App, ""); err != nil {
			return
		}
		q.App, q.Deployment = d.App, d.ID
		for _, id := range logHosts(d) {
			hosts = append(hosts, source{id, hostName(st.State, id)})
		}
	})
	return hosts, err
}

// logHosts returns the hosts that failed, else all that were touched, at most 50.
func logHosts(d *deploy.Deployment) []string {
	var failed, touched []string
	for i := range d.Waves {
		for _, h := range d.Waves[i].Hosts {
			t := d.Tasks[h]
			if t == nil {
				continue
			}
			if t.Status.Failure() || t.Failure != nil {
				failed = append(failed, h)
			}
			if t.Gen > 0 {
				touched = append(touched, h)
			}
		}
	}
	if len(failed) == 0 {
		failed = touched
	}
	return slices.Clip(failed[:min(len(failed), 50)])
}
