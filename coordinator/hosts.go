package coordinator

import (
	"context"

	"github.com/groundswell/groundswell/coordinator/state"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/naming"
	"github.com/groundswell/groundswell/internal/rpc"
	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// hostAttributes returns what is written down of a host, and how often a person
// has set that.
func (c *Coordinator) hostAttributes(host string) (is *deploy.Attributes, approved uint64) {
	c.store.ViewCluster(func(s *state.Cluster) { is, approved = s.HostAttributes(host) })
	return is, approved
}

// SetHostAttributes says what a host is, whatever it says itself. What it is and
// what is written down of it are in one entry.
func (s *membersService) SetHostAttributes(
	ctx context.Context, r *controlv1.SetHostAttributesRequest,
) (*controlv1.SetHostAttributesResponse, error) {
	a := r.GetAttributes()
	if err := naming.CheckHostWord(a.GetName(), a.GetZone(), a.GetRegion(), a.GetLabels()); err != nil {
		return nil, rpc.Errorf(rpc.KindInvalid, "%v", err)
	}
	id, err := s.c.hostID(r.Host)
	if err != nil {
		return nil, err
	}
	is := deploy.Attributes{Name: a.Name, Zone: a.Zone, Region: a.Region, Labels: a.Labels}
	e := deploy.HostEnrolled{
		Host: id, Name: is.Name, Zone: is.Zone, Region: is.Region, Labels: is.Labels, Approved: r.Approved + 1,
	}
	var other []string
	s.c.store.View(func(st *deploy.State) {
		if h := st.Hosts[id]; h != nil && h.Name != is.Name {
			other = st.Named(is.Name)
		}
		if h := st.Hosts[id]; h != nil {
			e.Version = h.Version
			if said := h.Said(); !said.Equal(is) {
				e.Says = &said
			}
		}
	})
	if len(other) > 0 {
		return nil, rpc.Errorf(rpc.KindConflict, "host %s is called %s; give this one another name", other[0], is.Name)
	}
	was, approved := s.c.hostAttributes(id)
	if was != nil && approved == r.Approved+1 && was.Equal(is) { // asked twice
		return &controlv1.SetHostAttributesResponse{Index: s.c.index()}, nil
	}
	if approved != r.Approved {
		return nil, rpc.Errorf(rpc.KindConflict, "somebody else has changed what host %s is; look at it again", r.Host)
	}
	err = s.c.log.both(ctx, e, state.AttributesApproved{
		Request: s.c.request(ctx, r.Mutation), Host: id, Attributes: is, Approved: r.Approved + 1,
	})
	return &controlv1.SetHostAttributesResponse{Index: s.c.index()}, err
}
