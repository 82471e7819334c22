package deploy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Traffic says which pools send traffic to the hosts of a group, in the order in
// which a host is taken out of them; it is put back in the reverse order.
type Traffic struct {
	Pools []Pool        `json:"pools"`
	Drain time.Duration `json:"drain,omitempty"` // for a host that is blocked to have no session left; 0 is DrainTimeout
	Admit time.Duration `json:"admit,omitempty"` // for a pool to say that it serves; 0 is AdmitTimeout
	// DrainFails fails the task when sessions are left after Drain; else it goes on.
	DrainFails bool `json:"drain_fails,omitempty"`
}

// Defaults of Traffic.
const (
	DrainTimeout = time.Minute
	AdmitTimeout = time.Minute
)

// Kinds of pools.
const (
	PoolHAProxy  = "haproxy"
	PoolFile     = "file"
	PoolCommand  = "command"
	PoolNftables = "nftables"
)

// Pool is a place that sends traffic to hosts. Texts of one that was not rendered for
// a host may hold {{.Host}}, {{.Zone}}, {{.App}} and {{.Group}}.
type Pool struct {
	Kind string `json:"kind"`

	Balancers string `json:"balancers,omitempty"` // haproxy: named in the coordinators' file
	Backend   string `json:"backend,omitempty"`
	Server    string `json:"server,omitempty"`

	Path string `json:"path,omitempty"` // file: it is there while the host serves
	// Settle is how long whoever looks at a file takes to notice.
	Settle time.Duration `json:"settle,omitempty"`

	Port int `json:"port,omitempty"` // nftables: of the host, TCP

	Block string `json:"block,omitempty"` // command: named in the agent's file
	Allow string `json:"allow,omitempty"`
}

// render fills in what is known of a host.
func (p Pool) render(h *Host, app, group string) Pool {
	for _, text := range []*string{&p.Backend, &p.Server, &p.Path} {
		for _, v := range [][2]string{
			{"{{.Host}}", h.Name}, {"{{.Zone}}", h.Zone}, {"{{.App}}", app}, {"{{.Group}}", group},
		} {
			*text = strings.ReplaceAll(*text, v[0], v[1])
		}
	}
	return p
}

// TrafficOf returns the traffic of a target, its pools rendered for the host; nil is
// none.
func (s *State) TrafficOf(t *Target) *Traffic {
	g, h := s.Groups[GroupKey(t.App, t.Group)], s.Hosts[t.Host]
	if g == nil || g.Traffic == nil || h == nil {
		return nil
	}
	out := *g.Traffic
	out.Pools = make([]Pool, len(g.Traffic.Pools))
	for i, p := range g.Traffic.Pools {
		out.Pools[i] = p.render(h, t.App, t.Group)
	}
	return &out
}

// Name is what people call the pool; no two of a group have the same.
func (p Pool) Name() string {
	switch p.Kind {
	case PoolHAProxy:
		return p.Kind + " " + p.Balancers + "/" + p.Backend
	case PoolFile:
		return p.Kind + " " + p.Path
	case PoolNftables:
		return fmt.Sprintf("%s %d", p.Kind, p.Port)
	}
	return p.Kind + " " + p.Block
}

// AtCoordinator reports whether a coordinator drives the pool, and not the host.
func (p Pool) AtCoordinator() bool { return p.Kind == PoolHAProxy }

// TrafficStage is how far a host is out of a pool.
type TrafficStage int

// Stages of a host and a pool, in order.
const (
	TrafficBlocked TrafficStage = iota + 1
	TrafficAllowed
	TrafficRestored
)

// Outage is a pool that a host was taken out of, and not quite put back into yet. It
// stays when the host leaves its group or the cluster, until the pool has back, as it
// was found, whoever goes by that name there.
type Outage struct {
	Host    string   `json:"host"`
	App     string   `json:"app"`
	Pool    Pool     `json:"pool"` // rendered
	Found   []string `json:"found,omitempty"`
	Allowed bool     `json:"allowed,omitempty"` // it is being put back
}

// TrafficSet says that a host is being taken out of a pool, is being put back, or is
// back. It is in the log before the pool is asked, but for the last; Found is what
// the pool said before it was asked first, and counts then alone.
type TrafficSet struct {
	Host, App string
	Pool      Pool // rendered
	Stage     TrafficStage
	Found     []string
}

// Outage returns the host's outage of the pool, nil if it is in it.
func (s *State) Outage(host, app string, p Pool) *Outage {
	i := slices.IndexFunc(s.Outages, func(o Outage) bool { return o.Host == host && o.App == app && o.Pool == p })
	if i < 0 {
		return nil
	}
	return &s.Outages[i]
}

func (s *State) trafficSet(e TrafficSet) error {
	old := s.Outage(e.Host, e.App, e.Pool)
	switch e.Stage {
	case TrafficBlocked:
		if s.Target(e.Host, e.App) == nil {
			return refuse(NotFound, "host %s is no target of %s", e.Host, e.App)
		}
		if old == nil {
			s.Outages = append(s.Outages, Outage{Host: e.Host, App: e.App, Pool: e.Pool, Found: s.foundFirst(e)})
		} else {
			old.Allowed = false
		}
	case TrafficAllowed:
		if old != nil {
			old.Allowed = true
		}
	case TrafficRestored:
		s.Outages = slices.DeleteFunc(s.Outages, func(o Outage) bool {
			return o.Host == e.Host && o.App == e.App && o.Pool == e.Pool
		})
	default:
		return refuse(Invalid, "traffic of host %s: no stage %d", e.Host, e.Stage)
	}
	return nil
}

// foundFirst is what the pool said before anybody was taken out of it: another
// application of the host may be out of the same place, and a host of the same name
// may have left the cluster while it was. That one's outage is inherited.
func (s *State) foundFirst(e TrafficSet) []string {
	found := e.Found
	s.Outages = slices.DeleteFunc(s.Outages, func(o Outage) bool {
		if !o.Pool.Same(e.Pool) {
			return false
		}
		found = o.Found
		return s.Hosts[o.Host] == nil
	})
	return found
}

// Same reports whether both are one member of one place.
func (p Pool) Same(q Pool) bool {
	return p.Kind == q.Kind && p.Balancers == q.Balancers && p.Backend == q.Backend && p.Server == q.Server &&
		p.Path == q.Path && p.Block == q.Block && p.Port == q.Port
}
