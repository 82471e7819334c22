package coordinator

import (
	"sync"

	"github.com/groundswell/groundswell/coordinator/control"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// activity is what tasks are doing just now, for people. It is soft: the
// newest word of each target, gone with the process.
type activity struct {
	mu   sync.Mutex
	last map[string]map[string]control.Activity // host, application
}

// ended forgets what hosts were doing whose session ended: they say it anew.
func (a *activity) ended(hosts []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range hosts {
		delete(a.last, h)
	}
}

func (a *activity) set(host string, p *agentv1.Progress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last[host] == nil {
		a.last[host] = map[string]control.Activity{}
	}
	a.last[host][p.App] = control.Activity{
		Event: p.Event, Script: p.Script, SinceMs: p.SinceMs, Generation: p.Generation,
	}
}

func (a *activity) get(host, app string) (control.Activity, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x, ok := a.last[host][app]
	return x, ok
}
