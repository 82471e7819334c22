package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
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
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
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
			App: app.Name, Group: g.Name, Selector: g.Select, Artifacts: app.Artifacts, Config: g.Config, Source: string(source),
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
		CA: c.keys.ca, GossipKey: c.keys.gossip, Caller: rpc.Caller,
		ClusterID: func() (id string) {
			c.store.ViewCluster(func(s *state.Cluster) { id = s.ID })
			return id
		},
		Role: c.tokenRole,
		Spend: func(ctx context.Context, t identity.Token, role identity.Role, subject string) error {
			if role == identity.Coordinator && c.isMember(strings.TrimPrefix(subject, string(role)+"/")) {
				return rpc.Errorf(rpc.KindExists, "%s is a member of the cluster already; a new coordinator needs another --name", subject)
			}
			return c.log.cluster(ctx, state.TokenUsed{ID: t.ID, Hash: state.HashToken(t.Secret), Role: string(role), Subject: subject})
		},
		Seeds:        func() []string { return c.each(func(m state.Coordinator) string { return m.Gossip }) },
		Coordinators: func() []string { return c.each(func(m state.Coordinator) string { return m.Agent }) },
	})
}

// isMember reports whether a coordinator of that name has joined: a token must
// not hand its identity to somebody else.
func (c *Coordinator) isMember(name string) bool {
	return slices.ContainsFunc(c.peers.members(), func(m state.Coordinator) bool { return m.Name == name })
}

func (c *Coordinator) tokenRole(id string) (_ identity.Role, name string, _ error) {
	role := ""
	c.store.ViewCluster(func(s *state.Cluster) { role, name = s.Tokens[id].Role, s.Tokens[id].Name })
	if role == "" {
		return "", "", rpc.Errorf(rpc.KindInvalid, "the join token is unknown, used up or expired; make a new one with `dctl token create`")
	}
	r, err := identity.ParseRole(role)
	return r, name, err
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

// createToken opens a join token; its secret is in the answer only.
func (c *Coordinator) createToken(ctx context.Context, role string, ttl time.Duration, uses int, name string) (string, time.Time, error) {
	if role == "" {
		role = string(identity.Agent)
	}
	if _, err := identity.ParseRole(role); err != nil {
		return "", time.Time{}, rpc.Errorf(rpc.KindInvalid, "%v", err)
	}
	t, expires := identity.NewToken(c.keys.ca.PEM), time.Now().Add(ttl)
	err := c.log.cluster(ctx, state.TokenCreated{
		ID: t.ID, Role: role, Name: name, Hash: state.HashToken(t.Secret), Expires: expires.UnixMilli(), Uses: int64(uses),
	})
	return t.String(), expires, err
}

// clusterStatus describes the coordinators as the leader knows them.
func (c *Coordinator) clusterStatus(context.Context) (*controlv1.ClusterStatusResponse, error) {
	servers, err := c.node.Servers()
	if err != nil {
		return nil, err
	}
	leader, _ := c.node.Leader()
	out := &controlv1.ClusterStatusResponse{Leader: leader, Term: c.node.Term(), Version: Version()}
	known := map[string]int32{}
	c.store.ViewCluster(func(s *state.Cluster) {
		out.ClusterId = s.ID
		for name, m := range s.Coordinators {
			known[name] = int32(m.Rules)
		}
	})
	c.store.View(func(s *deploy.State) { out.Rules = int32(s.Rules) })
	alive := map[string]bool{}
	for _, m := range c.ring.Members() {
		alive[m.ID] = m.Role == string(identity.Coordinator)
	}
	members := c.peers.members()
	for _, s := range servers {
		v := &controlv1.Coordinator{
			Name: s.Name, RaftAddress: s.Address, Leader: s.Name == leader, Voter: s.Voter, Alive: alive[s.Name],
			Streams: int32(c.fleet.Count(s.Name)), Rules: known[s.Name],
		}
		if i := slices.IndexFunc(members, func(m state.Coordinator) bool { return m.Name == s.Name }); i >= 0 {
			v.Address = members[i].API
		}
		if s.Name == c.o.Name {
			v.Applied = c.node.Applied()
		}
		out.Coordinators = append(out.Coordinators, v)
	}
	return out, nil
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
		return fmt.Errorf("listen for metrics: %w", err)
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
