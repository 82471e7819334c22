package control

import (
	"context"
	"errors"

	"github.com/groundswell/groundswell/deploy"
)

// Sight is what a caller may know of. What it hides answers as what is not there:
// names resolve among what it shows, lists leave the rest out.
type Sight interface {
	// Sees reports whether a group of an application may be known.
	Sees(app, group string) bool
	// SeesApp reports whether at least one group of that name could be.
	SeesApp(app string) bool
	// SeesFleet reports whether every host may be known, whatever it runs.
	SeesFleet() bool
	// SeesAll reports whether nothing is hidden.
	SeesAll() bool
}

// everything is the sight of who may see all.
type everything struct{}

func (everything) Sees(string, string) bool { return true }
func (everything) SeesApp(string) bool      { return true }
func (everything) SeesFleet() bool          { return true }
func (everything) SeesAll() bool            { return true }

// seen is the state as a caller may know it. Whatever a caller names is looked up by
// the functions of this package that take one; the state itself is for what was found
// by them.
type seen struct {
	*deploy.State
	sight Sight
}

// view runs f on the state as the caller may know it, by rights as they are now.
func (s *Service) view(ctx context.Context, f func(st seen)) {
	sight := s.o.Sight(ctx)
	s.o.State.View(func(st *deploy.State) { f(seen{st, sight}) })
}

// host reports whether a host may be known: by what it runs, or with the fleet.
func (st seen) host(h *deploy.Host) bool {
	if st.sight.SeesFleet() {
		return true
	}
	for app, t := range h.Targets {
		if st.sight.Sees(app, t.Group) {
			return true
		}
	}
	return false
}

// runs reports whether a host is in a group of an application that may be known; an
// empty name is any.
func (st seen) runs(h *deploy.Host, app, group string) bool {
	t := h.Targets[app]
	return t != nil && (group == "" || t.Group == group) && st.sight.Sees(app, t.Group)
}

// named lists the ids of hosts that may be known and are called so; see State.Named.
func (st seen) named(name string) (ids []string) {
	for _, id := range st.Named(name) {
		if st.host(st.Hosts[id]) {
			ids = append(ids, id)
		}
	}
	return ids
}

// mayRead says why the output of hooks cannot be read on a host: of an application that
// may not be known there, or of none that is named.
func (st seen) mayRead(h *deploy.Host, app string) error {
	switch {
	case st.sight.SeesAll():
		return nil
	case app == "":
		return refuse(deploy.Invalid, "say of which application the output on host %s is (--app), "+
			"or of which deployment", h.Name)
	case !st.runs(h, app, ""):
		return refuse(deploy.NotFound, "host %s runs no application %q%s", h.Name, app, st.perhaps())
	}
	return nil
}

// perhaps says, of whatever is not found, that it may be hidden.
func (st seen) perhaps() string {
	if st.sight.SeesAll() {
		return ""
	}
	return ", or you may not see it (`dctl access explain --help`)"
}

// Group resolves an application and a group, which may be empty where there is one,
// as the caller may know them.
func (s *Service) Group(ctx context.Context, app, name string) (is string, err error) {
	s.view(ctx, func(st seen) {
		var g *deploy.Group
		if g, err = group(st, app, name); err == nil {
			is = g.Name
		}
	})
	return is, err
}

// App says that the caller knows an application of that name, or why not.
func (s *Service) App(ctx context.Context, app string) (err error) {
	s.view(ctx, func(st seen) {
		if len(namesOf(st, app)) == 0 {
			_, err = group(st, app, "")
		}
	})
	return err
}

// Deployment resolves a deployment, by id or the beginning of one, or the newest of an
// application, as the caller may know it.
func (s *Service) Deployment(ctx context.Context, id, app, grp string) (is Found, err error) {
	s.view(ctx, func(st seen) {
		var d *deploy.Deployment
		if d, err = deployment(st, id, app, grp); err == nil {
			is = Found{d.ID, d.App, d.Group}
		}
	})
	if refusal := (*deploy.Refusal)(nil); errors.As(err, &refusal) && refusal.Reason == deploy.NotFound && id != "" {
		d, moved := s.moved(ctx, id)
		if moved != nil {
			return is, moved
		}
		if d != nil {
			return Found{d.Deployment.Id, d.Deployment.App, d.Deployment.Group}, nil
		}
	}
	return is, err
}

// Found is a deployment that a caller has named.
type Found struct{ ID, App, Group string }
