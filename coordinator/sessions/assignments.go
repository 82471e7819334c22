package sessions

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/deploy"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// Bounds are what admins let applications have on hosts at most.
type Bounds struct {
	Index uint64                    // of the document that says it
	RunAs func(app string) []string // users of scripts; nil is any
}

// assigned remembers what a stream was sent, to send only what changed.
type assigned struct {
	complete bool // the next message is the whole set
	sequence uint64
	touched  uint64                         // deploy.State.AssignedAt of the host then
	bounds   uint64                         // Bounds.Index then
	items    map[string]*agentv1.Assignment // by application
	// unheard answers, once, whether a report about the application was dropped
	// while the host was no target of it; nil is never.
	unheard func(app string) bool
}

// next returns the message that brings the host up to date, or nil.
func (a *assigned) next(state State, host string, bounds Bounds) *agentv1.Assignments {
	now, same := map[string]*agentv1.Assignment{}, false
	state.View(func(s *deploy.State) {
		at := s.AssignedAt(host)
		if same = !a.complete && at == a.touched && bounds.Index == a.bounds; same {
			return // most entries concern other hosts
		}
		a.touched, a.bounds = at, bounds.Index
		for _, x := range deploy.Assign(s, host) {
			if now[x.App] = encode(x); bounds.RunAs != nil {
				now[x.App].RunAs = bounds.RunAs(x.App)
			}
		}
	})
	if same {
		return nil
	}
	m := &agentv1.Assignments{Complete: a.complete, Sequence: a.sequence + 1}
	for _, app := range slices.Sorted(maps.Keys(now)) {
		switch {
		case a.unheard != nil && a.unheard(app):
			x := proto.CloneOf(now[app])
			x.Report = true
			m.Items = append(m.Items, x)
		case a.complete || !proto.Equal(a.items[app], now[app]):
			m.Items = append(m.Items, now[app])
		}
	}
	for _, app := range slices.Sorted(maps.Keys(a.items)) {
		if now[app] == nil {
			m.Removed = append(m.Removed, app)
		}
	}
	if !a.complete && len(m.Items) == 0 && len(m.Removed) == 0 {
		return nil
	}
	a.complete, a.sequence, a.items = false, m.Sequence, now
	return m
}

func encode(x deploy.Assignment) *agentv1.Assignment {
	out := &agentv1.Assignment{
		App: x.App, Group: x.Group, Deployment: x.Deployment, Generation: x.Gen, Permit: agentv1.Permit(x.Permit),
		Rollback: x.Rollback, StageKey: x.StageKey, Artifacts: x.Artifacts, StopFailureFails: x.StopFail,
		TaskLimitNs: x.TaskLimit, StageBandwidth: x.Bandwidth, Repair: x.Repair, Out: x.Out,
		OutKey: x.OutKey,
	}
	if x.Goal != "" {
		out.Goal = &agentv1.Revision{Digest: string(x.Goal), Name: x.GoalName}
	}
	if x.Stage != "" {
		out.Stage = &agentv1.Revision{Digest: string(x.Stage), Name: x.StageName}
	}
	if t := x.Tastes; t.Deployment != "" {
		out.Tastes = &agentv1.Tastes{Deployment: t.Deployment}
		for _, s := range []struct {
			event string
			deploy.StageScript
		}{{"Warmup", t.Warmup}, {"Taste", t.Taste}} {
			if s.Script != "" {
				out.Tastes.Scripts = append(out.Tastes.Scripts, &agentv1.StageScript{
					Event: s.event, Script: s.Script, TimeoutNs: int64(cmp.Or(s.Timeout, deploy.StageScriptTimeout)),
					RunAs: s.RunAs,
				})
			}
		}
	}
	if t := x.Traffic; t != nil {
		out.Traffic = &agentv1.Traffic{DrainNs: int64(t.Drain), AdmitNs: int64(t.Admit), DrainFails: t.DrainFails}
		for _, p := range t.Pools {
			out.Traffic.Pools = append(out.Traffic.Pools, &agentv1.Pool{
				Kind: p.Kind, Balancers: p.Balancers, Backend: p.Backend, Server: p.Server, Path: p.Path, Block: p.Block,
				Allow: p.Allow, SettleNs: int64(p.Settle), Port: int32(p.Port),
			})
		}
	}
	for _, d := range x.Keep {
		out.Keep = append(out.Keep, string(d))
	}
	for _, g := range x.Gates {
		p := g.Probe
		out.Probes = append(out.Probes, &agentv1.Probe{
			Name: g.Name, Http: p.HTTP, Expect: int32(p.Expect), Tcp: p.TCP, Command: p.Command,
			Consecutive: int32(p.Consecutive), Failures: int32(p.Failures), IntervalNs: int64(p.Interval),
			TimeoutNs: int64(p.Timeout),
		})
	}
	return out
}

func decode(host string, r *agentv1.Report) deploy.Report {
	out := deploy.Report{
		Host: host, App: clip(r.App, 128), Counter: r.Counter, Gen: r.Generation, Result: deploy.Result(r.Result),
		Running: digest(r.Running), Health: deploy.Health(r.Health), Evidence: clip(r.Evidence, 512),
		StageFailed: digest(r.StageFailed), StageKey: clip(r.StageKey, 128), Out: deploy.Out(r.Out),
		OutKey: r.OutKey,
	}
	for _, d := range r.Staged[:min(len(r.Staged), 64)] {
		out.Staged = append(out.Staged, digest(d))
	}
	if e := r.Edits; e.GetFiles() > 0 {
		out.Edits = &deploy.Edits{Files: int(e.Files)}
		for _, p := range e.Paths[:min(len(e.Paths), 5)] {
			out.Edits.Paths = append(out.Edits.Paths, clip(p, 256))
		}
	}
	if f := r.Failure; f != nil {
		out.Failure = &deploy.Failure{
			Event: clip(f.Event, 64), Script: clip(f.Script, 512), Code: int(f.Code), Exit: clip(f.Exit, 64),
			Message: clip(f.Message, 1024), Tail: tail(f.Tail, 2048), Duration: f.DurationMs,
		}
	}
	return out
}

func digest(s string) deploy.Digest { return deploy.Digest(clip(s, 128)) }

// clip keeps the head: what an agent sends goes into the log, so it is bounded.
// No character is cut in two, which the log's encoding would refuse.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}

// tail keeps the end, where the reason stands.
func tail(s string, n int) string {
	if len(s) > n {
		s = s[len(s)-n:]
	}
	return strings.ToValidUTF8(s, "")
}
