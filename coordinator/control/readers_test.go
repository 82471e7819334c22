package control

import (
	"fmt"
	"sync"
	"testing"

	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// TestReadersDoNotWrite: people ask at once, while nothing is applied; the runtime ends
// a process in which two write a map at once, and the race detector finds the rest. Groups
// without hosts, and histories that have just changed, are what nobody has counted yet.
func TestReadersDoNotWrite(t *testing.T) {
	w := newWorld(t)
	c, _ := deploy.Builtin("all-at-once")
	for i := range 200 {
		w.apply(deploy.GroupDefined{App: fmt.Sprint("app", i), Group: "prod", Selector: "true", Config: c})
	}
	w.s.Rebuild() // as after a restart
	ctx := t.Context()
	asks := []func() error{
		func() error { _, err := w.c.ListApps(ctx, nil); return err },
		func() error { _, err := w.c.GetApp(ctx, &controlv1.GetAppRequest{App: "www"}); return err },
		func() error { _, err := w.c.ListHosts(ctx, &controlv1.ListHostsRequest{}); return err },
		func() error { _, err := w.c.GetHost(ctx, &controlv1.GetHostRequest{Host: "web-h1"}); return err },
		func() error {
			_, err := w.c.ListDeployments(ctx, &controlv1.ListDeploymentsRequest{})
			return err
		},
		func() error {
			_, err := w.c.PlanDeployment(ctx, &controlv1.PlanDeploymentRequest{
				Deployment: &controlv1.CreateDeploymentRequest{App: "www", Revision: "v3"},
			})
			return err
		},
		func() error {
			deploy.Decide(w.s, deploy.Fleet{}, w.s.Now)
			return nil
		},
	}
	var all sync.WaitGroup
	for range 2 {
		for _, ask := range asks {
			all.Go(func() {
				for range 20 {
					if err := ask(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	all.Wait()
}
