package bench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Deployments that are under way at once, and whose waves are asked for
// afterwards: one by one, as the answer names every host.
const (
	deploysAtOnce = 32
	mostMeasured  = 60
)

// deploy makes deployments, as many as were asked for and until the time has passed.
func (r *run) deploy(ctx context.Context) error {
	if r.o.Deployments == 0 && r.o.Duration == 0 {
		return nil
	}
	atOnce := min(deploysAtOnce, r.shape.Apps())
	r.o.Say("deploying to %d hosts each, %d at once", r.shape.HostsEach, atOnce)
	before, err := r.crew.tell("log")
	if err != nil {
		return err
	}
	cpu, began := r.fleet.CPU(), time.Now()
	if err := r.deployers(ctx, atOnce, began); err != nil {
		return err
	}
	wall := time.Since(began)
	after, err := r.crew.tell("log")
	if err != nil {
		return err
	}
	r.out.WallSeconds, r.out.CoordinatorCPU = seconds(wall), seconds(r.fleet.CPU()-cpu)
	events := float64(after.Reports-before.Reports) / wall.Seconds()
	r.out.EventsPerSecond = &events
	hourly := float64(r.out.Deployments) / wall.Hours()
	r.out.DeploymentsPerHour = &hourly
	for text, n := range before.Troubles {
		r.out.Troubles[text] += n
	}
	for text, n := range after.Troubles {
		r.out.Troubles[text] += n
	}
	return r.gaps(ctx, after.Done)
}

// deployers run until there were enough deployments. The first error ends them.
func (r *run) deployers(ctx context.Context, atOnce int, began time.Time) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for first := range atOnce {
		all.Go(func() {
			for app := first; ctx.Err() == nil; {
				n := int(r.submitted.Add(1))
				if n > r.o.Deployments && time.Since(began) >= r.o.Duration {
					return
				}
				if _, err := r.one(ctx, r.control, app, n); err != nil {
					cancel(err)
				}
				if app += atOnce; app >= r.shape.Apps() {
					app = first
				}
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

// one deploys a new revision to an application and waits until that has ended. It
// returns when the deployment was accepted.
func (r *run) one(ctx context.Context, control controlv1.ControlServiceClient, app, n int) (at time.Time, err error) {
	id, at, err := r.submit(ctx, control, app, n, [2]*controlv1.Mutation{mutation(), mutation()})
	if err != nil {
		return at, err
	}
	return at, r.watch(ctx, control, id)
}

// submit registers a revision and deploys it. Tried again with the same mutations, it
// is the same submit.
func (r *run) submit(
	ctx context.Context, control controlv1.ControlServiceClient, app, n int, by [2]*controlv1.Mutation,
) (id string, at time.Time, err error) {
	rev := fmt.Sprintf("r%d", n)
	sum := sha256.Sum256([]byte(rev))
	digest := "sha256:" + hex.EncodeToString(sum[:])
	_, err = control.RegisterRevision(ctx, &controlv1.RegisterRevisionRequest{
		Mutation: by[0], App: appName(app), Name: rev, Digest: digest, Bytes: 1, Files: 1,
	})
	if err != nil {
		return "", at, fmt.Errorf("register %s of %s: %s", rev, appName(app), rpc.Text(err))
	}
	began := time.Now()
	out, err := control.CreateDeployment(ctx, &controlv1.CreateDeploymentRequest{
		Mutation: by[1], App: appName(app), Revision: rev,
	})
	if err != nil {
		return "", at, fmt.Errorf("deploy %s of %s: %s", rev, appName(app), rpc.Text(err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.digests[app] = digest
	r.ended[out.Id] = ended{app: app, submit: began}
	return out.Id, time.Now(), nil
}

// watch follows a deployment until it has ended, as `dctl deploy` does.
func (r *run) watch(ctx context.Context, control controlv1.ControlServiceClient, id string) error {
	after := uint64(0)
	for tries := 0; ; tries++ {
		status, err := watchOnce(ctx, control, id, &after)
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			e := r.ended[id]
			e.status = status
			r.ended[id] = e
			r.out.Deployments++
			if status != "succeeded" {
				r.out.Failed++
			}
			return nil
		}
		if kind := rpc.Kind(err); ctx.Err() != nil || kind != rpc.KindUnavailable && kind != rpc.KindTooMany {
			return fmt.Errorf("watch %s: %s", id, rpc.Text(err))
		}
		if tries > watchTries {
			return fmt.Errorf("watch %s: %s", id, rpc.Text(err))
		}
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
		}
	}
}

// How often a watch is begun anew: an election takes about a second.
const (
	watchTries = 300
	watchPause = 100 * time.Millisecond
)

func watchOnce(
	ctx context.Context, control controlv1.ControlServiceClient, id string, after *uint64,
) (status string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := control.WatchDeployment(ctx, &controlv1.WatchDeploymentRequest{Id: id, After: *after})
	if err != nil {
		return "", err
	}
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return status, nil
		}
		if err != nil {
			return "", err
		}
		for _, rec := range m.Records {
			*after = max(*after, rec.Index)
		}
		if m.Deployment != nil {
			if status = m.Deployment.Status; m.Deployment.Terminal {
				return status, nil
			}
		}
	}
}

// gaps joins what hosts did with the waves that they were in.
func (r *run) gaps(ctx context.Context, done []Done) error {
	tasks := map[string][]Done{}
	for _, d := range done {
		tasks[d.Deployment] = append(tasks[d.Deployment], d)
	}
	var dispatch, gaps []time.Duration
	measured := 0
	for id, e := range r.ended {
		all := tasks[id]
		if len(all) == 0 {
			continue
		}
		first := all[0].Began
		for _, d := range all {
			first = min(first, d.Began)
		}
		dispatch = append(dispatch, time.UnixMicro(first).Sub(e.submit))
		if measured++; measured > mostMeasured {
			continue
		}
		waves, err := r.waves(ctx, id)
		if err != nil {
			return err
		}
		gaps = append(gaps, between(all, waves)...)
	}
	r.out.Dispatch, r.out.WaveGap = times(dispatch), times(gaps)
	return nil
}

// waves says which wave each host is in.
func (r *run) waves(ctx context.Context, id string) (map[int]int, error) {
	out, err := r.control.GetDeployment(ctx, &controlv1.GetDeploymentRequest{Id: id, AllTasks: true})
	if err != nil {
		return nil, fmt.Errorf("ask for the waves of %s: %s", id, rpc.Text(err))
	}
	waves := map[int]int{}
	for _, t := range out.Deployment.Tasks {
		var i int
		if _, err := fmt.Sscanf(t.Name, "bench-%d", &i); err == nil {
			waves[i] = int(t.Wave)
		}
	}
	return waves, nil
}

// between returns the time from the last result of each wave to the first task of the
// next one.
func between(all []Done, waves map[int]int) (gaps []time.Duration) {
	first, last := map[int]int64{}, map[int]int64{}
	for _, d := range all {
		w := waves[d.Host]
		if f, ok := first[w]; !ok || d.Began < f {
			first[w] = d.Began
		}
		last[w] = max(last[w], d.Ended)
	}
	for w, end := range last {
		if next, ok := first[w+1]; ok {
			gaps = append(gaps, time.Duration(next-end)*time.Microsecond)
		}
	}
	return gaps
}
