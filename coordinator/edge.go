package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/coordinator/enrol"
	"github.com/groundswell/groundswell/coordinator/fleet"
	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/spec"
	"github.com/groundswell/groundswell/internal/identity"
	"github.com/groundswell/groundswell/internal/rpc"
)

func newClusterID() string { return ulid.Make().String() }

// parseApp reads a deploy.yaml into the facts that define its groups.
func parseApp(source []byte, filename string) ([]deploy.GroupDefined, error) {
	app, err := spec.Parse(source, filename)
	if err != nil {
		return nil, err
	}
	var out []deploy.GroupDefined
	for _, g := range app.Groups {
		out = append(out, deploy.GroupDefined{
			App: app.Name, Group: g.Name, Selector: g.Select, Artifacts: app.Artifacts, Config: g.Config,
			Source: string(source),
		})
	}
	return out, nil
}

// matcher compiles each selector once. A selector was checked when its group
// was defined; one that does not compile matches nobody.
func (c *Coordinator) matcher() fleet.Matcher {
	var mu sync.Mutex
	known := map[string]*spec.Selector{}
	return func(text string, h *deploy.Host) bool {
		mu.Lock()
		sel, seen := known[text]
		if !seen {
			var err error
			if sel, err = spec.Compile(text); err != nil {
				c.o.Log.Error("selector does not compile", "selector", text, "error", err)
			}
			known[text] = sel
		}
		mu.Unlock()
		return sel != nil && sel.Match(h)
	}
}

func (c *Coordinator) newEnrol() *enrol.Service {
	return enrol.New(enrol.Options{
		Authorities: c.keys.authorities, GossipKey: c.keys.gossip,
		Caller: func(ctx context.Context) (identity.Peer, []byte, bool) {
			p, ok := rpc.Caller(ctx)
			return p, rpc.CallerKey(ctx), ok
		},
		ClusterID: func() (id string) {
			c.store.ViewCluster(func(s *state.Cluster) { id = s.ID })
			return id
		},
		Subject: c.subject, Spend: c.spend,
		Owner: func(role identity.Role, id string, key []byte) (owns bool) {
			c.store.ViewCluster(func(s *state.Cluster) { owns = s.Owner(string(role)+"/"+id, key) })
			return owns
		},
		Index:        c.index,
		SplitOff:     c.splitOff,
		Seeds:        func() []string { return c.each(func(m state.Coordinator) string { return m.Gossip }) },
		Coordinators: func() []string { return c.each(func(m state.Coordinator) string { return m.Agent }) },
	})
}

// each collects one address of every coordinator.
func (c *Coordinator) each(f func(state.Coordinator) string) []string {
	var out []string
	for _, m := range c.peers.members() {
		if a := f(m); a != "" {
			out = append(out, a)
		}
	}
	return out
}

// stores opens each artifact store once and signs URLs of its objects.
type stores struct {
	open func(context.Context, string) (artifacts.Store, error)

	mu  sync.Mutex
	all map[string]artifacts.Presigner
}

func newStores(open func(context.Context, string) (artifacts.Store, error)) *stores {
	return &stores{open: open, all: map[string]artifacts.Presigner{}}
}

// signLife is how long a signed URL is good; agents ask again.
const signLife = 15 * time.Minute

func (s *stores) sign(ctx context.Context, store, key string) (string, error) {
	p, err := s.get(ctx, store)
	if err != nil {
		return "", err
	}
	return p.Presign(ctx, key, signLife)
}

func (s *stores) get(ctx context.Context, url string) (artifacts.Presigner, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.all[url]; p != nil {
		return p, nil
	}
	store, err := s.open(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("open artifact store %s: %w", url, err)
	}
	p, ok := store.(artifacts.Presigner)
	if !ok {
		return nil, fmt.Errorf("artifact store %s cannot sign URLs", url)
	}
	s.all[url] = p
	return p, nil
}

// debug serves metrics and profiles on a loopback address until ctx ends.
func (c *Coordinator) debug(ctx context.Context) error {
	if c.o.Debug == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/metrics", c.metrics)
	l, err := net.Listen("tcp", c.o.Debug)
	if err != nil {
		return fmt.Errorf("listen for metrics and profiles on %s: %w; another coordinator may run on this machine: "+
			"give another address, or none, by --debug", c.o.Debug, err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		_ = server.Close() // nothing waits for an answer any more
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped
	return nil
}
