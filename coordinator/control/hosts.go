package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/deploy"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Bounds of one answer of ListHosts. Clients that set no limit of their own read 4 MiB.
const (
	mostHosts     = 1000
	longestAnswer = 3 << 20
)

// place is where a host stands in the list: by name, then id. A page begins after the
// place of the last host of the one before, whoever came or went meanwhile.
type place struct{ name, id string }

func (p place) String() string { return p.name + "/" + p.id }

// listHosts sorts names outside of the state's lock, and looks at no host but those
// of the page.
func (s *Service) listHosts(ctx context.Context, r *controlv1.ListHostsRequest) (*controlv1.ListHostsResponse, error) {
	var all []place
	s.view(ctx, func(st seen) {
		for _, h := range st.Hosts {
			if p := (place{h.Name, h.ID}); selected(st, h, r) && (r.GetPage() == "" || p.String() > r.GetPage()) {
				all = append(all, p)
			}
		}
	})
	slices.SortFunc(all, func(a, b place) int { return cmp.Compare(a.String(), b.String()) })
	page, whole := all, r.GetPageSize() <= 0
	if !whole {
		page = all[:min(len(all), int(r.GetPageSize()), mostHosts)]
	}
	out := &controlv1.ListHostsResponse{}
	size, full := 0, false
	s.view(ctx, func(st seen) {
		for i, p := range page {
			h := st.Hosts[p.id]
			if h == nil || h.Name != p.name || !st.host(h) {
				continue // it went meanwhile, or has another name
			}
			v := s.hostView(st, h)
			if size += proto.Size(v) + 8; size > longestAnswer && i > 0 {
				page, full = page[:i], true
				return
			}
			out.Hosts = append(out.Hosts, v)
		}
	})
	for _, h := range out.Hosts {
		h.Revoked = s.o.Revoked(h.Id)
	}
	if whole && full {
		return nil, &deploy.Refusal{Reason: deploy.Invalid, Text: fmt.Sprintf(
			"%d hosts do not fit one answer; ask for pages (page_size), or for fewer by a filter", len(all))}
	}
	if len(page) < len(all) {
		out.NextPage = page[len(page)-1].String()
	}
	return out, nil
}
