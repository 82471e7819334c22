package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/agent/pool"
	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// traffic is who sends the host traffic, in the order in which it is taken out.
type traffic struct {
	Pools        []poolSpec
	Drain, Admit time.Duration
	DrainFails   bool `json:",omitempty"`
}

// poolSpec is a pool as an assignment has it.
type poolSpec struct {
	Kind      string
	Balancers string        `json:",omitempty"`
	Backend   string        `json:",omitempty"`
	Server    string        `json:",omitempty"`
	Path      string        `json:",omitempty"`
	Settle    time.Duration `json:",omitempty"`
	Block     string        `json:",omitempty"`
	Allow     string        `json:",omitempty"`
}

const defaultDrain = time.Minute // and to be admitted, where an assignment does not say

func trafficOf(t *agentv1.Traffic) *traffic {
	if len(t.GetPools()) == 0 {
		return nil
	}
	out := &traffic{Drain: time.Duration(t.DrainNs), Admit: time.Duration(t.AdmitNs), DrainFails: t.DrainFails}
	for _, d := range []*time.Duration{&out.Drain, &out.Admit} {
		if *d <= 0 {
			*d = defaultDrain
		}
	}
	for _, p := range t.Pools {
		out.Pools = append(out.Pools, poolSpec{
			Kind: p.Kind, Balancers: p.Balancers, Backend: p.Backend, Server: p.Server, Path: p.Path,
			Settle: time.Duration(p.SettleNs), Block: p.Block, Allow: p.Allow,
		})
	}
	return out
}

func (p poolSpec) proto() *agentv1.Pool {
	return &agentv1.Pool{
		Kind: p.Kind, Balancers: p.Balancers, Backend: p.Backend, Server: p.Server, Path: p.Path,
		SettleNs: int64(p.Settle), Block: p.Block, Allow: p.Allow,
	}
}

// name is what people call the pool.
func (p poolSpec) name() string {
	switch p.Kind {
	case "file":
		return "file " + p.Path
	case "command":
		return "command " + p.Block
	}
	return p.Kind + " " + p.Balancers + "/" + p.Backend
}

// drives reports whether a step takes the host out of its pools, or puts it back.
func (t *target) drives(s task.Step) bool {
	return t.checkpoint.Traffic != nil && (s.Event == hooks.BlockTraffic.String() || s.Event == hooks.AllowTraffic.String())
}

// moveTraffic takes the host out of every pool in their order, or puts it back in the
// reverse one. Both are idempotent: after a crash the step is done again from its
// beginning.
func (t *target) moveTraffic(ctx context.Context, s task.Step) verdict {
	ctx, done := t.interruptible(ctx, retargets(s.Generation))
	defer done()
	begin := time.Now()
	tr, out := *t.checkpoint.Traffic, s.Event == hooks.BlockTraffic.String()
	pools := slices.Clone(tr.Pools)
	if !out {
		slices.Reverse(pools)
	}
	limited, cancel := t.withinLimit(ctx, s)
	defer cancel()
	for _, p := range pools {
		err := t.movePool(limited, s, tr, p, out)
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return given(ctx, s)
		case limited.Err() != nil:
			err = fmt.Errorf("the time of the whole task is over: %w", err)
		}
		f := ofStep(s, err, time.Since(begin))
		f.Code, f.Script = int(hooks.CodeFailed), "pool "+p.name()
		return failedBy(f)
	}
	return ends(task.OutcomeOK)
}

func (t *target) movePool(ctx context.Context, s task.Step, tr traffic, p poolSpec, out bool) error {
	say := func(text string) {
		t.tell(&agentv1.Progress{
			App: t.app, Generation: s.Generation, Deployment: t.checkpoint.Deployment, Event: s.Event,
			Script: clip(p.name()+": "+text, 200), SinceMs: time.Now().UnixMilli(),
		})
	}
	say("asked")
	limit := tr.Admit
	if out {
		limit = tr.Drain
	}
	switch p.Kind {
	case "file":
		return t.moveFile(ctx, p, out)
	case "command":
		return t.runPoolCommand(ctx, p, out, limit)
	}
	return t.askPool(ctx, s, tr, p, out, limit, say)
}

// moveFile leaves the file as it was found: one that a person had removed before the
// host was taken out stays removed.
func (t *target) moveFile(ctx context.Context, p poolSpec, out bool) error {
	f := pool.File{Path: p.Path, Settle: p.Settle}
	noted := slices.IndexFunc(t.checkpoint.Outages, func(o fileOutage) bool { return o.Path == p.Path })
	if out {
		if noted < 0 {
			found, err := f.Found()
			if err != nil {
				return err
			}
			note := fileOutage{Path: p.Path, Absent: !found && t.base.Running != ""}
			if err := t.change(func(b *checkpoint) { b.Outages = append(slices.Clone(b.Outages), note) }); err != nil {
				return err
			}
		}
		return f.Block(ctx)
	}
	if noted >= 0 && t.checkpoint.Outages[noted].Absent {
		t.o.Log.Info("a file was not there before the deployment, and is left so", "app", t.app, "path", p.Path)
	} else if err := f.Allow(); err != nil {
		return err
	}
	return t.change(func(b *checkpoint) {
		b.Outages = slices.DeleteFunc(slices.Clone(b.Outages), func(o fileOutage) bool { return o.Path == p.Path })
	})
}

// fileOutage is a file that was removed to take the host out.
type fileOutage struct {
	Path   string
	Absent bool `json:",omitempty"` // it was not there
}

func (t *target) runPoolCommand(ctx context.Context, p poolSpec, out bool, limit time.Duration) error {
	name := p.Allow
	if out {
		name = p.Block
	}
	argv, known := t.o.TrafficCommands[name]
	if !known {
		return fmt.Errorf("no command is called %s in trafficCommands of this host's agent.yaml", name)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := pool.Command(argv).Run(ctx, []string{
		"GROUNDSWELL_APP=" + t.app, "GROUNDSWELL_GROUP=" + t.checkpoint.Group, "GROUNDSWELL_HOST=" + t.o.Name,
		"GROUNDSWELL_ZONE=" + t.o.Zone, "GROUNDSWELL_DEPLOYMENT=" + t.checkpoint.Deployment,
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("command %s did not end within %s", name, limit)
	}
	return err
}

// askGrace is how much longer than a coordinator waits for a pool we wait for it: it
// answers within that, or it is gone.
const askGrace = 30 * time.Second

// askPool has a coordinator move the host, another one if that dies.
func (t *target) askPool(
	ctx context.Context, s task.Step, tr traffic, p poolSpec, out bool, limit time.Duration, say func(string),
) error {
	ends := time.Now().Add(limit)
	ctx, cancel := context.WithDeadline(ctx, ends.Add(askGrace))
	defer cancel()
	var b backoff.Backoff
	for {
		err := t.askOnce(ctx, &agentv1.TrafficRequest{
			App: t.app, Generation: s.Generation, Pool: p.proto(), Allow: !out, Restore: s.Rollback,
			LimitNs: int64(max(time.Until(ends), time.Second)), DrainFails: tr.DrainFails,
		}, p, say)
		if err == nil {
			return nil
		}
		switch rpc.Kind(err) {
		case rpc.KindUnavailable, rpc.KindTimeout, rpc.KindInternal, rpc.KindTooMany:
		default:
			if ctx.Err() == nil {
				return errors.New(rpc.Text(err))
			}
		}
		say(rpc.Text(err))
		if time.Now().After(ends) || !b.Wait(ctx) {
			return fmt.Errorf("%s within %s: %s", map[bool]string{true: "not out", false: "not back"}[out], limit, rpc.Text(err))
		}
	}
}

func (t *target) askOnce(ctx context.Context, r *agentv1.TrafficRequest, p poolSpec, say func(string)) error {
	client, err := t.link.client(ctx)
	if err != nil {
		return err
	}
	stream, err := client.Traffic(ctx, r)
	if err != nil {
		return err
	}
	last := ""
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the coordinator ended without a word")
		case err != nil:
			return err
		case m.Done:
			if m.Sessions > 0 {
				t.o.Log.Warn("sessions are left after the time for draining; it goes on without them", "app", t.app,
					"pool", p.name(), "sessions", m.Sessions)
			}
			return nil
		}
		if text := strings.TrimSpace(m.Text); text != last {
			last = text
			say(text)
		}
	}
}
