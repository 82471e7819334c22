package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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
	Port      int           `json:",omitempty"`
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
			Settle: time.Duration(p.SettleNs), Block: p.Block, Allow: p.Allow, Port: int(p.Port),
		})
	}
	return out
}

func (p poolSpec) proto() *agentv1.Pool {
	return &agentv1.Pool{
		Kind: p.Kind, Balancers: p.Balancers, Backend: p.Backend, Server: p.Server, Path: p.Path,
		SettleNs: int64(p.Settle), Block: p.Block, Allow: p.Allow, Port: int32(p.Port),
	}
}

// name is what people call the pool.
func (p poolSpec) name() string {
	switch p.Kind {
	case "file":
		return "file " + p.Path
	case "command":
		return "command " + p.Block
	case "nftables":
		return fmt.Sprintf("nftables %d", p.Port)
	}
	return p.Kind + " " + p.Balancers + "/" + p.Backend
}

// word tells pools from others, for the journal; it is empty for none.
func (t *traffic) word() string {
	if t == nil {
		return ""
	}
	b, err := json.Marshal(t.Pools)
	if err != nil {
		panic(err) // texts and numbers
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// drives reports whether a step takes the host out of its pools, or puts it back.
func (t *target) drives(s task.Step) bool {
	switch s.Event {
	case hooks.BlockTraffic.String():
		return t.checkpoint.Traffic != nil || t.journal.Target(t.app).State().Assignment.Pools != ""
	case hooks.AllowTraffic.String():
		return t.checkpoint.Traffic != nil || len(t.checkpoint.Outages) > 0
	}
	return false
}

// pools are those that a step is about: the group's, and on the way back those too
// that the host was taken out of when the group still had them.
func (t *target) pools(out bool) (traffic, error) {
	tr := traffic{Drain: defaultDrain, Admit: defaultDrain}
	if t.checkpoint.Traffic != nil {
		tr = *t.checkpoint.Traffic
		tr.Pools = slices.Clone(tr.Pools)
	}
	if out {
		if want := t.journal.Target(t.app).State().Assignment.Pools; want != "" && want != t.checkpoint.Traffic.word() {
			return tr, errors.New("which pools send this host traffic is not known any more (its checkpoint is lost), so " +
				"nothing is stopped; deploy again")
		}
		return tr, nil
	}
	for _, o := range t.checkpoint.Outages {
		if !slices.Contains(tr.Pools, o.Spec) {
			tr.Pools = append(tr.Pools, o.Spec)
		}
	}
	slices.Reverse(tr.Pools)
	return tr, nil
}

// moveTraffic takes the host out of every pool in their order, or puts it back in the
// reverse one. Both are idempotent: after a crash the step is done again from its
// beginning.
func (t *target) moveTraffic(ctx context.Context, s task.Step) verdict {
	ctx, done := t.interruptible(ctx, retargets(s.Generation))
	defer done()
	begin, out := time.Now(), s.Event == hooks.BlockTraffic.String()
	if !out && t.staysOut() {
		return ends(task.OutcomeOK)
	}
	tr, err := t.pools(out)
	if err != nil {
		return failedBy(ofStep(s, err, 0))
	}
	limited, cancel := t.withinLimit(ctx, s)
	defer cancel()
	for _, p := range tr.Pools {
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
	byHost := p.Kind == "file" || p.Kind == "command" || p.Kind == "nftables"
	switch {
	case !byHost && out:
		if err := t.noteOutage(outage{Spec: p}); err != nil {
			return err
		}
		return t.askPool(ctx, s, tr, p, out, limit, say)
	case !byHost:
		if err := t.askPool(ctx, s, tr, p, out, limit, say); err != nil {
			return err
		}
		return t.endOutage(p)
	case out:
		return t.leavePool(ctx, p, tr, say)
	case s.Rollback && t.outage(p) == nil:
		return nil // it was not taken out
	}
	return t.enterPool(ctx, s, p, limit)
}

// outage is a pool that the host was taken out of, or was about to be.
type outage struct {
	Spec   poolSpec
	Absent bool `json:",omitempty"` // of a file: it was not there before, which is how it is left
}

func (t *target) outage(p poolSpec) *outage {
	if i := slices.IndexFunc(t.checkpoint.Outages, func(o outage) bool { return o.Spec == p }); i >= 0 {
		return &t.checkpoint.Outages[i]
	}
	return nil
}

// noteOutage has an outage on disk on return; the first note of a pool counts.
func (t *target) noteOutage(o outage) error {
	if t.outage(o.Spec) != nil {
		return nil
	}
	return t.change(func(b *checkpoint) { b.Outages = append(slices.Clone(b.Outages), o) })
}

func (t *target) endOutage(p poolSpec) error {
	if t.outage(p) == nil {
		return nil
	}
	return t.change(func(b *checkpoint) {
		b.Outages = slices.DeleteFunc(slices.Clone(b.Outages), func(o outage) bool { return o.Spec == p })
	})
}

// leavePool takes the host out of a pool that it drives itself. That it does is on
// disk before, with how the pool was found, once it is sure that it may.
func (t *target) leavePool(ctx context.Context, p poolSpec, tr traffic, say func(string)) error {
	note := outage{Spec: p}
	var act func() error
	switch p.Kind {
	case "file":
		f, err := pool.Within(t.o.TrafficFiles, p.Path)
		if err != nil {
			return err
		}
		f.Settle = p.Settle
		found, err := f.Found()
		if err != nil {
			return err
		}
		note.Absent = !found && t.base.Running != ""
		act = func() error { return f.Block(ctx) }
	case "nftables":
		port, err := t.poolPort(p)
		if err != nil {
			return err
		}
		act = func() error { return t.closePort(ctx, port, tr, say) }
	default:
		argv, err := t.poolCommand(p.Block)
		if err != nil {
			return err
		}
		act = func() error { return t.runPoolCommand(ctx, p.Block, argv, tr.Drain) }
	}
	if err := t.noteOutage(note); err != nil {
		return err
	}
	return act()
}

// enterPool puts the host back.
func (t *target) enterPool(ctx context.Context, s task.Step, p poolSpec, limit time.Duration) error {
	switch p.Kind {
	case "file":
		f, err := pool.Within(t.o.TrafficFiles, p.Path)
		if err != nil {
			return err
		}
		if t.base.Running == "" && s.Revision == "" { // put back by hand, and nothing is there yet that serves
			return nil
		}
		if o := t.outage(p); o != nil && o.Absent {
			t.o.Log.Info("a file was not there before the deployment, and is left so", "app", t.app, "path", p.Path)
		} else if err := f.Allow(); err != nil {
			return err
		}
	case "nftables":
		port, err := t.poolPort(p)
		if err != nil {
			return err
		}
		if err := port.Open(ctx); err != nil {
			return err
		}
	default:
		argv, err := t.poolCommand(p.Allow)
		if err != nil {
			return err
		}
		if err := t.runPoolCommand(ctx, p.Allow, argv, limit); err != nil {
			return err
		}
	}
	return t.endOutage(p)
}

// poolPort is the port of a pool, if the machine's owner lets groups close it.
func (t *target) poolPort(p poolSpec) (pool.Port, error) {
	if !slices.Contains(t.o.TrafficPorts, p.Port) {
		return pool.Port{}, fmt.Errorf("port %d is not among trafficPorts of this host's agent.yaml", p.Port)
	}
	return pool.Port{Number: p.Port}, nil
}

// closePort keeps new connections out and waits for the others to end.
func (t *target) closePort(ctx context.Context, port pool.Port, tr traffic, say func(string)) error {
	if err := port.Close(ctx); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, tr.Drain)
	defer cancel()
	left, err := port.Drained(limited, say)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case left > 0 && tr.DrainFails:
		return fmt.Errorf("%d connections are left after the time for draining, %s", left, tr.Drain)
	case left > 0:
		t.o.Log.Warn("connections are left after the time for draining; it goes on without them", "app", t.app,
			"port", port.Number, "connections", left)
	}
	return nil
}

func (t *target) poolCommand(name string) (pool.Command, error) {
	argv, known := t.o.TrafficCommands[name]
	if !known {
		return nil, fmt.Errorf("no command is called %s in trafficCommands of this host's agent.yaml", name)
	}
	return argv, nil
}

func (t *target) runPoolCommand(ctx context.Context, name string, argv pool.Command, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := argv.Run(ctx, []string{
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
			App: t.app, Generation: s.Generation, Pool: p.proto(), Allow: !out,
			Restore: s.Rollback || t.checkpoint.Traffic == nil || !slices.Contains(t.checkpoint.Traffic.Pools, p),
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
			return fmt.Errorf("%s within %s: %s", map[bool]string{true: "not out", false: "not back"}[out], limit,
				rpc.Text(err))
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
			if m.Text != "" {
				t.o.Log.Info("the pool's last word", "app", t.app, "pool", p.name(), "text", m.Text)
			}
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
