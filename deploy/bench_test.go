package deploy_test

import (
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// driver is the leader's loop and a fleet that answers at once, with as little
// of its own as can be: what it costs is Decide and Apply.
type driver struct {
	s       *deploy.State
	now     deploy.Time
	counter map[string]uint64
	facts   int
	fails   int // one grant in so many fails
	grants  int
}

// newDriver returns a fleet of n healthy hosts that serve v0.
func newDriver(n, fails int) *driver {
	d := &driver{s: deploy.NewState(), counter: map[string]uint64{}, fails: fails}
	c, _ := deploy.Builtin("hands-off")
	c.Capacity.MaxZones = 0
	c.Waves = nil
	spec := func(name, kind string, p int) deploy.WaveSpec {
		return deploy.WaveSpec{
			Name: name, Kind: kind, Size: deploy.Percent(p), Balance: true,
			BakeSpec: deploy.BakeSpec{BakeMin: time.Hour}, FailureBudget: deploy.Percent(5),
		}
	}
	for _, p := range []int{1, 2, 5, 10, 25} {
		c.Waves = append(c.Waves, spec(fmt.Sprint("w", p), "percent", p))
	}
	c.Waves = append(c.Waves, spec("rest", "remainder", 0))
	d.apply(deploy.GroupDefined{App: "www", Group: "prod", Selector: "true", Config: c})
	var hosts []string
	var reports []deploy.Report
	for i := range n {
		id := fmt.Sprintf("h%05d", i)
		d.apply(deploy.HostEnrolled{Host: id, Name: id, Zone: fmt.Sprintf("z%d", i%3)})
		hosts = append(hosts, id)
		reports = append(reports, d.report(id, "v0", deploy.ResultNone, 0))
	}
	d.apply(deploy.TargetsJoined{App: "www", Group: "prod", Hosts: hosts})
	d.apply(deploy.TargetsReported{Items: reports})
	for _, v := range []string{"v0", "v1"} {
		d.apply(deploy.RevisionRegistered{App: "www", Name: v, Digest: deploy.Digest(v)})
	}
	return d
}

func (d *driver) apply(events ...deploy.Event) {
	d.s.ApplyEntry(d.s.Index+1, deploy.Entry{At: d.now, Events: events})
	d.facts += len(events)
}

var stagedBoth = []deploy.Digest{"v0", "v1"}

func (d *driver) report(host string, runs deploy.Digest, result deploy.Result, gen uint64) deploy.Report {
	d.counter[host]++
	return deploy.Report{
		Host: host, App: "www", Counter: d.counter[host], Gen: gen, Result: result, Running: runs,
		Health: deploy.HealthHealthy, Staged: stagedBoth,
	}
}

// deploy brings v1 to the whole fleet and returns how it ended.
func (d *driver) deploy(id string) deploy.DeploymentStatus {
	g := d.s.Groups["www/prod"]
	plan, err := deploy.Plan(d.s, deploy.PlanInput{App: "www", Group: "prod", Revision: "v1", Config: g.Config})
	if err != nil {
		panic(err)
	}
	d.apply(deploy.DeploymentCreated{
		ID: id, App: "www", Group: "prod", Revision: "v1", RevName: "v1", Config: g.Config,
		Waves: plan.Waves,
	})
	for range 1_000_000 {
		events := deploy.Decide(d.s, deploy.Fleet{}, d.now)
		if len(events) == 0 {
			next, _, ok := deploy.NextWake(d.s, d.now)
			if !ok {
				break
			}
			d.now = next
			continue
		}
		d.apply(events...)
		var reports []deploy.Report
		for _, e := range events {
			p, ok := e.(deploy.PermitsGranted)
			if !ok {
				continue
			}
			for _, item := range p.Items {
				r := d.report(item.Host, item.Goal, deploy.ResultDone, item.Gen)
				if d.grants++; d.fails > 0 && d.grants%d.fails == 0 {
					r.Result, r.Running = deploy.ResultFailed, "v0"
				}
				reports = append(reports, r)
			}
		}
		if len(reports) > 0 {
			d.facts += len(reports)
			d.apply(deploy.TargetsReported{Items: reports})
		}
	}
	return d.s.Deployments[id].Status
}

// BenchmarkFleet brings a revision to n hosts in six waves with 1 % failures,
// whole, and reports the cost of one fact, reports counted one by one. The
// growth from 300 to 30,000 hosts shows that it does not depend on the fleet.
func BenchmarkFleet(b *testing.B) {
	for _, n := range []int{300, 3000, 30000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			facts, cpu := 0, time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				d := newDriver(n, 100)
				facts = d.facts
				runtime.GC() // of the fleet that was built
				start := cpuTime(b)
				b.StartTimer()
				if got := d.deploy("d"); got != deploy.DeploymentStatusSucceeded {
					b.Fatalf("the deployment %s", got)
				}
				facts, cpu = d.facts-facts, cpu+cpuTime(b)-start
			}
			b.ReportMetric(float64(facts), "facts")
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N*facts), "cpu-ns/fact")
			b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// cpuTime is what the process has used so far, its garbage collector included:
// a wall clock would measure whoever shares the machine.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDeployments counts whole deployments to 100 hosts in a second of CPU.
func BenchmarkDeployments(b *testing.B) {
	cpu := time.Duration(0)
	for b.Loop() {
		b.StopTimer()
		d := newDriver(100, 0)
		start := cpuTime(b)
		b.StartTimer()
		d.deploy("d")
		cpu += cpuTime(b) - start
	}
	b.ReportMetric(float64(b.N)/cpu.Seconds(), "deployments/cpu-s")
}
