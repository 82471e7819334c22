package deploy

import (
	"maps"
	"slices"
)

// Image is what a state was at one entry, for somebody who goes on while others are
// applied. To take one costs a visit of every host, target and group, and of every task
// in flight: it copies what facts change in place, side by side, and shares the rest:
// what they replace whole, what they only append to, and deployments that have ended (see
// rewrite). TestAnImageStays holds them to it.
type Image struct {
	rest      State
	hosts     []Host
	targets   []Target
	names     []called
	groups    []Group
	revisions []Revision
	ended     []*Deployment
	flights   []flight
	answers   []*Answer
}

type called struct{ name, host string }

// flight is a deployment that has not ended.
type flight struct {
	deployment Deployment
	hosts      []string
	tasks      []Task // by hosts
}

// Image returns what the state is now.
func (s *State) Image() *Image {
	i := &Image{
		rest: State{
			Rules: s.Rules, Index: s.Index, Now: s.Now, Wall: s.Wall, Seq: s.Seq, MembershipIndex: s.MembershipIndex,
			RequestLog: s.RequestLog, Freezes: slices.Clone(s.Freezes), RequestFloor: s.RequestFloor,
			Outages: slices.Clone(s.Outages), Packs: s.Packs, OlderPacks: s.OlderPacks, Dropped: s.Dropped,
		},
		answers: s.answers, hosts: make([]Host, 0, len(s.Hosts)), names: make([]called, 0, len(s.Names)),
		groups: make([]Group, 0, len(s.Groups)), ended: make([]*Deployment, 0, len(s.Deployments)),
	}
	visit(s.Hosts, func(_ string, h *Host) { i.hosts = append(i.hosts, *h) })
	visit(s.Names, func(name, host string) { i.names = append(i.names, called{name, host}) })
	i.addGroups(s)
	revisions := 0
	visit(s.Revisions, func(_ string, all map[Digest]*Revision) { revisions += len(all) })
	i.revisions = make([]Revision, 0, revisions)
	visit(s.Revisions, func(_ string, all map[Digest]*Revision) {
		visit(all, func(_ Digest, r *Revision) { i.revisions = append(i.revisions, *r) })
	})
	visit(s.Deployments, func(_ string, d *Deployment) {
		if !d.Status.Terminal() {
			i.flights = append(i.flights, fly(d))
			return
		}
		if !s.Settled(d) {
			c := *d
			c.copyWaves()
			d = &c
		}
		i.ended = append(i.ended, d)
	})
	return i
}

// Settled reports whether nothing of the deployment is changed in place any more: what
// changes of it is written into a copy that takes its place. It has ended, and no gate
// can be asked about it.
func (s *State) Settled(d *Deployment) bool {
	if !d.Status.Terminal() || d.Config.WatchAfter == 0 {
		return d.Status.Terminal()
	}
	g := s.group(d)
	return g == nil || g.Last != d.ID
}

// addGroups copies groups without their members, who are their targets, and these:
// every target has a group.
func (i *Image) addGroups(s *State) {
	targets := 0
	visit(s.Groups, func(_ string, g *Group) { targets += len(g.list) })
	i.targets = make([]Target, 0, targets)
	visit(s.Groups, func(_ string, g *Group) {
		i.groups = append(i.groups, *g)
		c := &i.groups[len(i.groups)-1]
		c.Members, c.Bad, c.Grades, c.History = nil, some(g.Bad), some(g.Grades), slices.Clone(g.History)
		c.Layout.Waves = slices.Clone(g.Layout.Waves)
		for j := range c.Layout.Waves {
			c.Layout.Waves[j].Hosts = slices.Clone(c.Layout.Waves[j].Hosts)
		}
		for _, t := range g.list {
			i.targets = append(i.targets, *t)
		}
	})
}

// some is a copy of a map that is rarely other than empty.
func some[K comparable, V any](m map[K]V) map[K]V {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}

// fly copies a deployment that has not ended.
func fly(d *Deployment) flight {
	f := flight{*d, make([]string, 0, len(d.Tasks)), make([]Task, 0, len(d.Tasks))}
	f.deployment.Promoted = slices.Clone(d.Promoted)
	f.deployment.copyWaves()
	visit(d.Tasks, func(host string, t *Task) { f.hosts, f.tasks = append(f.hosts, host), append(f.tasks, *t) })
	return f
}

// copyWaves makes waves of the deployment's own, of those that it shares with another.
func (d *Deployment) copyWaves() {
	d.Waves = slices.Clone(d.Waves)
	for i := range d.Waves {
		w := &d.Waves[i]
		w.Hosts, w.Watch = slices.Clone(w.Hosts), maps.Clone(w.Watch)
		visit(w.Watch, func(key string, x *Watched) {
			c := *x
			w.Watch[key] = &c
		})
	}
}

// State returns the image as a state: to be read, not to be applied to or asked, for
// what is derived is missing. It may be called once; its cost is nobody else's.
func (i *Image) State() *State {
	s := &i.rest
	s.Groups, s.Revisions = map[string]*Group{}, map[string]map[Digest]*Revision{}
	s.Hosts, s.Names = make(map[string]*Host, len(i.hosts)), make(map[string]string, len(i.names))
	s.Deployments, s.Requests = map[string]*Deployment{}, make(map[string]*Answer, len(i.answers))
	for j := range i.groups {
		g := &i.groups[j]
		g.Members = map[string]bool{}
		s.Groups[g.Key()] = g
	}
	for j := range i.hosts {
		h := &i.hosts[j]
		h.Targets = map[string]*Target{}
		s.Hosts[h.ID] = h
	}
	for j := range i.targets {
		t := &i.targets[j]
		s.Hosts[t.Host].Targets[t.App] = t
		if g := s.Groups[GroupKey(t.App, t.Group)]; g != nil {
			g.Members[t.Host] = true
		}
	}
	for _, n := range i.names {
		s.Names[n.name] = n.host
	}
	for j := range i.revisions {
		r := &i.revisions[j]
		if s.Revisions[r.App] == nil {
			s.Revisions[r.App] = map[Digest]*Revision{}
		}
		s.Revisions[r.App][r.Digest] = r
	}
	for j, id := range s.RequestLog {
		s.Requests[id] = i.answers[j]
	}
	for _, d := range i.ended {
		s.Deployments[d.ID] = d
	}
	for j := range i.flights {
		f := &i.flights[j]
		d := &f.deployment
		d.Tasks = make(map[string]*Task, len(f.tasks))
		for k, host := range f.hosts {
			d.Tasks[host] = &f.tasks[k]
		}
		s.Deployments[d.ID] = d
	}
	return s
}
