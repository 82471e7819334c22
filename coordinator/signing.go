package coordinator

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/internal/rpc"
)

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

// sign signs for an application what its bound allows now, whatever its group was
// defined with.
func (c *Coordinator) sign(ctx context.Context, app, store, key string) (string, error) {
	doc, _ := c.rules()
	if !doc.Bound(app).AllowsStore(store) {
		return "", rpc.Errorf(rpc.KindForbidden, "the store is outside of what access.yaml lets application %s have", app)
	}
	return c.stores.sign(ctx, store, key)
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
