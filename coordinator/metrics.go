package coordinator

import (
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/groundswell/groundswell/deploy"
)

// Version returns the version that this program was built as.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// metrics answers a scrape with figures read from the state at that moment:
// nothing is counted on the hot path. No host, deployment or revision is a label.
func (c *Coordinator) metrics(w http.ResponseWriter, r *http.Request) {
	reg := prometheus.NewRegistry()
	gauge := func(name, help string, v float64, labels prometheus.Labels) {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "groundswell_" + name, Help: help, ConstLabels: labels})
		if err := reg.Register(g); err == nil {
			g.Set(v)
		}
	}
	gauge("build_info", "Version of this coordinator.", 1, prometheus.Labels{"version": Version()})
	gauge("raft_applied_index", "Index of the last applied entry.", float64(c.node.Applied()), nil)
	gauge("raft_leader", "1 when this coordinator leads.", b2f(c.log.leading()), nil)
	gauge("disk_full", "1 while the disk of this coordinator is full, and it takes nothing new.",
		b2f(c.full.Load()), nil)
	gauge("agents_connected", "Agent streams at this coordinator.", float64(len(c.sessions.Connected())), nil)
	gauge("invariant_violations", "Invariants that entries of the log have broken; any is a bug.",
		float64(c.store.Violations()), nil)
	gauge("certificate_expires_seconds", "Seconds until a certificate ends.", time.Until(c.keys.cred.Ends()).Seconds(),
		prometheus.Labels{"certificate": "coordinator"})
	gauge("certificate_expires_seconds", "Seconds until a certificate ends.",
		time.Until(c.keys.authorities().Issuer().Ends()).Seconds(),
		prometheus.Labels{"certificate": "ca"})
	for _, x := range c.refusals.counts() {
		gauge("refused_total", "What callers were refused, or slowed down in, because they had their share.", x.n,
			prometheus.Labels{"method": x.method, "why": x.why})
	}
	type key struct{ app, group, result string }
	ended := map[key]float64{}
	c.store.View(func(s *deploy.State) {
		for _, d := range s.Deployments {
			if d.Status.Terminal() {
				ended[key{d.App, d.Group, d.Status.String()}]++
			}
		}
		gauge("deployments_in_progress", "Deployments that have not ended.", float64(len(s.Open())), nil)
		zones := map[[2]string]float64{}
		for _, h := range s.Hosts {
			state, _ := c.fleet.Status(h.ID)
			zones[[2]string{h.Zone, state}]++
		}
		for z, n := range zones {
			gauge("fleet_hosts", "Hosts by zone and state.", n, prometheus.Labels{"zone": z[0], "state": z[1]})
		}
	})
	for k, n := range ended {
		gauge("deployments_total", "Deployments that ended, by result.", n,
			prometheus.Labels{"app": k.app, "group": k.group, "result": k.result})
	}
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
