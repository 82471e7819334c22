package sessions

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/naming"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// check refuses a Hello that no honest agent sends.
func check(h *agentv1.Hello) error {
	err := errors.Join(naming.CheckHostWord(h.Name, h.Zone, h.Region, h.Labels),
		naming.CheckText("version", h.Version, naming.LongestHost), checkInstances(h))
	if err != nil {
		return &deploy.Refusal{
			Reason: deploy.Invalid,
			Text:   fmt.Sprintf("what the host says of itself is refused: %v", err),
		}
	}
	return nil
}

// knownPatience is how long a host waits for this replica to know it.
const knownPatience = 5 * time.Second

// enrolled records what the host is when it is new or has changed, and that it is
// reachable again. A host is what is written down of it; what it says otherwise is
// recorded beside that, for a person. It returns what waits for one, in words.
func (s *Service) enrolled(ctx context.Context, host string, h *agentv1.Hello) (waits string, err error) {
	short, cancel := context.WithTimeout(ctx, knownPatience)
	defer cancel()
	if err := s.o.Applied(short, h.Index); err != nil {
		return "", &deploy.Refusal{Reason: deploy.Conflict, Text: fmt.Sprintf(
			"this coordinator has not read of the host's enrolment yet: %v", err)}
	}
	e := s.describe(host, h)
	if e.Says != nil {
		is := deploy.Attributes{Name: e.Name, Zone: e.Zone, Region: e.Region, Labels: e.Labels}
		waits = fmt.Sprintf(
			"this host says of itself: %s; it counts when a person approves it: `dctl hosts approve %s`",
			strings.Join(is.Differences(*e.Says), ", "), e.Name)
	}
	var events []deploy.Event
	var changed bool
	var bad error
	s.o.State.View(func(st *deploy.State) {
		old := st.Hosts[host]
		if old != nil {
			bad = wild("counter of reports", h.Counter, old.Counter)
		}
		if changed = differs(old, e); changed {
			events = append(events, e)
		}
		if old != nil && old.Unreachable {
			events = append(events, deploy.TargetsReported{Items: []deploy.Report{{
				Host:    host,
				Counter: max(old.Counter, h.Counter) + 1,
			}}})
		}
	})
	switch {
	case bad != nil:
		s.o.Limited(host, "counters that cannot be")
		return "", bad
	case changed && !s.limits.changes.Allow(host, 1):
		return "", s.refuse(host, "changes of name, zone, labels or version")
	case len(events) == 0:
		return s.namesake(host, e.Name, waits), nil
	}
	refusals, err := s.o.Joins.Propose(ctx, events)
	if err == nil {
		err = errors.Join(refusals...)
	}
	if err != nil {
		return "", fmt.Errorf("enrol host %s: %w", h.Name, err)
	}
	return s.namesake(host, e.Name, waits), nil
}

// namesake adds to what a host is told that another has its name.
func (s *Service) namesake(host, name, waits string) string {
	s.o.State.View(func(st *deploy.State) {
		if other := st.Names[name]; other != host && other != "" {
			waits = strings.TrimPrefix(fmt.Sprintf("%s; host %s is called %s too, so people need ids for both; give this "+
				"one another name (`dctl hosts label %s --name OTHER`)", waits, other, name, host), "; ")
		}
	})
	return waits
}

// describe is what is to be recorded of a host that says hello.
func (s *Service) describe(host string, h *agentv1.Hello) deploy.HostEnrolled {
	says := deploy.Attributes{Name: h.Name, Zone: h.Zone, Region: h.Region, Labels: h.Labels}
	is, approved := s.o.Attributes(host)
	if is == nil { // of an identity that is older than what is written down of them
		s.o.State.View(func(st *deploy.State) {
			if old := st.Hosts[host]; old != nil {
				was := old.Attributes()
				is, approved = &was, old.Approved
			}
		})
	}
	if is == nil {
		is = &deploy.Attributes{Name: h.Name}
	}
	e := deploy.HostEnrolled{
		Host: host, Name: is.Name, Zone: is.Zone, Region: is.Region, Labels: is.Labels, Version: h.Version,
		Approved: approved,
	}
	if says.Region == "" { // who says nothing contradicts nothing
		says.Region = is.Region
	}
	if len(says.Labels) == 0 {
		says.Labels = is.Labels
	}
	if !is.Equal(says) {
		e.Says = &says
	}
	return e
}

// differs reports whether a record of a host says anything new.
func differs(old *deploy.Host, e deploy.HostEnrolled) bool {
	return old == nil || old.Version != e.Version || old.Approved != e.Approved ||
		(old.Says == nil) != (e.Says == nil) || e.Says != nil && !old.Says.Equal(*e.Says) ||
		!old.Attributes().Equal(deploy.Attributes{Name: e.Name, Zone: e.Zone, Region: e.Region, Labels: e.Labels})
}
