package state

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// fleet is a state of real size, made by facts: half of the hosts serve applications of
// ten hosts each, of which deployments have ended, and half one of all of them, of which
// one is half done.
type fleet struct {
	*Store
	counter map[string]uint64 // by host
	now     deploy.Time
}

func newFleet(tb testing.TB, hosts, ended int) *fleet {
	tb.Helper()
	f := &fleet{Store: New(deploy.RulesKnown), counter: map[string]uint64{}}
	for level := 2; level <= deploy.RulesKnown; level++ {
		f.facts(tb, deploy.RulesRaised{Level: level})
	}
	c, _ := deploy.Builtin("all-at-once")
	var all []string
	f.cluster.Identities = map[string]Identity{}
	for i := range hosts {
		id := fmt.Sprintf("01K%023d", i)
		all = append(all, id)
		a := deploy.Attributes{
			Name: fmt.Sprintf("web%05d.example", i), Zone: fmt.Sprintf("z%d", i%3),
			Labels: map[string]string{"env": "prod", "role": "web"},
		}
		f.facts(tb, deploy.HostEnrolled{Host: id, Name: a.Name, Zone: a.Zone, Labels: a.Labels, Version: "1.0.0"})
		f.cluster.Identities["agent/"+id] = Identity{Key: make([]byte, 32), Maker: "operator/ann", Wall: 1, Attributes: &a}
	}
	f.group(tb, "all", c, all[hosts/2:])
	for i := 0; i < hosts/2; i += 10 {
		f.group(tb, fmt.Sprintf("svc%04d", i/10), c, all[i:i+10])
	}
	for n := 0; n < ended; {
		for i := 0; i < hosts/2 && n < ended; i += 10 {
			f.deploy(tb, n, fmt.Sprintf("svc%04d", i/10))
			n++
		}
		f.settle(tb, 0)
	}
	f.deploy(tb, ended, "all")
	f.settle(tb, hosts/4)
	for i := len(f.state.Requests); i < 100_000; i++ {
		id := fmt.Sprintf("01KREQUEST%016d", i)
		f.state.Requests[id] = &deploy.Answer{At: 1, Content: uint64(i) << 40, Index: uint64(i), Wall: 1}
		f.state.RequestLog = append(f.state.RequestLog, id)
	}
	f.state.Rebuild()
	return f
}

func (f *fleet) facts(tb testing.TB, events ...deploy.Event) {
	tb.Helper()
	f.now++
	e := deploy.Entry{Rules: f.state.Rules, At: f.now, Wall: 1, Events: events}
	for i, err := range f.state.ApplyEntry(f.state.Index+1, e) {
		if err != nil {
			tb.Fatalf("%s: %v", deploy.Describe(events[i]), err)
		}
	}
}

// group defines a group of the hosts, on which the first revision serves.
func (f *fleet) group(tb testing.TB, app string, c deploy.Config, hosts []string) {
	tb.Helper()
	f.facts(tb, deploy.GroupDefined{App: app, Group: "prod", Selector: "true", Config: c, Source: "apps/" + app})
	f.facts(tb, deploy.TargetsJoined{App: app, Group: "prod", Hosts: hosts})
	var reports []deploy.Report
	for _, h := range hosts {
		reports = append(reports, f.report(app, h, revision(app, 0), deploy.ResultNone, 0))
	}
	f.facts(tb, deploy.TargetsReported{Items: reports})
}

func revision(app string, n int) deploy.Digest {
	return deploy.Digest(fmt.Sprintf("sha256:%064x", len(app)<<32+n))
}

func (f *fleet) report(app, host string, runs deploy.Digest, result deploy.Result, gen uint64) deploy.Report {
	f.counter[host]++
	return deploy.Report{
		Host: host, App: app, Counter: f.counter[host], Gen: gen, Result: result, Running: runs,
		Health: deploy.HealthHealthy,
	}
}

// deploy begins the nth deployment, of a revision that its hosts have staged.
func (f *fleet) deploy(tb testing.TB, n int, app string) {
	tb.Helper()
	g, rev := f.state.Groups[app+"/prod"], revision(app, n+1)
	f.facts(tb, deploy.RevisionRegistered{App: app, Name: fmt.Sprint("v", n), Digest: rev})
	var reports []deploy.Report
	for _, h := range g.Hosts() {
		t := f.state.Target(h, app)
		r := f.report(app, h, t.Running, deploy.ResultNone, t.Gen)
		r.Staged = []deploy.Digest{rev}
		reports = append(reports, r)
	}
	f.facts(tb, deploy.TargetsReported{Items: reports})
	half := len(reports) / 2
	waves := []deploy.Wave{{Name: "first", Hosts: g.Hosts()[:half]}, {Name: "rest", Hosts: g.Hosts()[half:]}}
	f.facts(tb, deploy.DeploymentCreated{
		Request: deploy.Request{ID: fmt.Sprintf("01KDEPLOY%017d", n), Actor: "ann", Reason: "release"},
		ID:      fmt.Sprintf("01KD%022d", n), App: app, Group: "prod", Revision: rev, RevName: fmt.Sprint("v", n),
		Config: g.Config, Waves: waves, Seed: uint64(n),
	})
}

// settle decides and answers grants until nothing is left to do, or so many were answered.
func (f *fleet) settle(tb testing.TB, most int) {
	tb.Helper()
	for answered := 0; ; {
		events := deploy.Decide(f.state, deploy.Fleet{}, f.now)
		if len(events) == 0 {
			return
		}
		f.facts(tb, events...)
		for _, e := range events {
			p, ok := e.(deploy.PermitsGranted)
			if !ok {
				continue
			}
			d := f.state.Deployments[p.Deployment]
			var reports []deploy.Report
			for _, item := range p.Items {
				if answered++; most > 0 && answered > most {
					break
				}
				reports = append(reports, f.report(d.App, item.Host, item.Goal, deploy.ResultDone, item.Gen))
			}
			f.facts(tb, deploy.TargetsReported{Items: reports})
			if most > 0 && answered >= most {
				return
			}
		}
	}
}

// TestWhatHasEndedIsEncodedOnce: a snapshot encodes anew the frames alone of which a
// deployment has ended or was changed since, and says what is.
func TestWhatHasEndedIsEncodedOnce(t *testing.T) {
	f := newFleet(t, 400, 300)
	var before map[uint64]frame
	anew := func() (out []uint64) {
		t.Helper()
		got := encode(t, f.Store)
		if !bytes.Equal(got, full(t, f.Store)) {
			t.Error("the snapshot is not the state")
		}
		for n, x := range f.frames.kept {
			if old := before[n]; len(old.text) == 0 || &old.text[0] != &x.text[0] {
				out = append(out, n)
			}
		}
		before = f.frames.kept
		slices.Sort(out)
		return out
	}
	if got := anew(); len(got) != 300/frameSpan+1 {
		t.Errorf("the first snapshot encodes frames %v", got)
	}
	f.deploy(t, 1000, "svc0003")
	if got := anew(); len(got) != 0 {
		t.Errorf("frames %v are encoded anew though nothing has ended", got)
	}
	f.settle(t, 0) // also the one of half of all hosts
	if got := anew(); !slices.Equal(got, []uint64{302 / frameSpan}) {
		t.Errorf("frames %v are encoded anew after the newest deployments have ended", got)
	}
	d := f.state.Groups["svc0003/prod"].Last
	f.facts(t, deploy.RevisionSuspected{Deployment: d, Text: "it is ill"})
	if got := anew(); !slices.Equal(got, []uint64{f.state.Deployments[d].Seq / frameSpan}) {
		t.Errorf("frames %v are encoded anew after deployment %d was suspected", got, f.state.Deployments[d].Seq)
	}
	back := New(deploy.RulesKnown)
	text := encode(t, f.Store)
	if err := back.Restore(io.NopCloser(bytes.NewReader(text))); err != nil || !bytes.Equal(encode(t, back), text) {
		t.Errorf("what was read is not what was written: %v", err)
	}
}

// TestAnImageAllocatesForGroupsAlone: neither hosts nor deployments that have ended cost
// entries, which wait for the image, an allocation each.
func TestAnImageAllocatesForGroupsAlone(t *testing.T) {
	allocs := func(f *fleet) float64 { return testing.AllocsPerRun(5, func() { f.image() }) }
	few, many := newFleet(t, 400, 20), newFleet(t, 400, 300)
	groups := float64(len(many.state.Groups))
	a, b := allocs(few), allocs(many)
	if b > a+3*groups || b > 10*groups || len(many.state.Hosts) < 400 { // maps of grades grow
		t.Errorf("an image makes %v allocations after 20 deployments, %v after 300, of %v groups", a, b, groups)
	}
}

// BenchmarkSnapshot takes and reads snapshots of 30,000 hosts and 5,000 deployments.
// Entries wait for the image alone. CPU time is of the process, its garbage collector
// included: a wall clock would measure whoever shares the machine.
func BenchmarkSnapshot(b *testing.B) {
	f := newFleet(b, 30_000, 5000)
	var text bytes.Buffer
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"image", func() error { f.image(); return nil }},
		{"first", func() error { text.Reset(); f.frames.kept = nil; return f.image().write(&text) }},
		{"next", func() error { text.Reset(); return f.image().write(&text) }},
		{"restore", func() error {
			return New(deploy.RulesKnown).Restore(io.NopCloser(bytes.NewReader(text.Bytes())))
		}},
	} {
		b.Run(step.name, func(b *testing.B) {
			runtime.GC()
			start, best := cpuTime(b), time.Hour
			for b.Loop() {
				from := time.Now()
				if err := step.do(); err != nil {
					b.Fatal(err)
				}
				best = min(best, time.Since(from))
			}
			b.ReportMetric(float64(best.Microseconds())/1000, "best-ms")
			b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(text.Len())/1e6, "MB")
		})
	}
}

func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
