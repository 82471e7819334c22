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
	last map[[2]string]control.Activity // host, application
}

func (a *activity) set(host string, p *agentv1.Progress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last[[2]string{host, p.App}] = control.Activity{
		Event: p.Event, Script: p.Script, SinceMs: p.SinceMs, Generation: p.Generation,
	}
}

func (a *activity) get(host, app string) (control.Activity, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x, ok := a.last[[2]string{host, app}]
	return x, ok
}
