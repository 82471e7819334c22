package deploy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Group is a deployment group.
type Group struct {
	App       string            `json:"app"`
	Name      string            `json:"name"`
	Selector  string            `json:"selector"`
	Artifacts string            `json:"artifacts"`
	Config    Config            `json:"config"`
	Traffic   *Traffic          `json:"traffic,omitempty"` // nil: nobody sends it any that we know of
	Source    string            `json:"source,omitempty"`
	DefinedAt int64             `json:"defined_at"` // wall
	Members   map[string]bool   `json:"members,omitempty"`
	Bad       map[Digest]string `json:"bad,omitempty"`    // revision -> deployment that failed
	Grades    map[Digest]Grade  `json:"grades,omitempty"` // proven and suspect revisions; see Grade
	Last      string            `json:"last,omitempty"`   // newest deployment
	Layout    Layout            `json:"layout,omitzero"`
	History   []Seal            `json:"history,omitempty"` // what passed, oldest first; see seal
	// Since counts the deployments that there were when it was defined: they are of
	// another group that had its name; from level 3 on.
	Since uint64 `json:"since,omitempty"`
	// NextSelector takes the place of Selector once no deployment is in flight.
	NextSelector string `json:"next_selector,omitempty"`

	use        map[string]*usage   // by zone, "" the whole group, or QuorumGroup.domain; derived
	all        []*Deployment       // oldest first; derived
	open       []*Deployment       // of these, not terminal; derived
	quorums    []QuorumGroup       // that bind work now, see findQuorums; derived
	good       []Digest            // of each wave of the layout, see goodIn; derived, nil when it must be found anew
	behind     map[string]struct{} // hosts that may need a catch-up; derived
	catchingUp map[string]struct{} // hosts whose open generation is a catch-up; derived

	targets map[string]*Target // by host; derived
	list    []*Target          // the same by host id, in order; derived
	byWave  [][]*Target        // of each wave of the layout; derived
}

// Hosts returns the members in order.
func (g *Group) Hosts() []string { return slices.Sorted(maps.Keys(g.Members)) }

// Key returns the group's key in State.Groups.
func (g *Group) Key() string { return GroupKey(g.App, g.Name) }

// GroupKey is the key of a group in State.Groups.
func GroupKey(app, group string) string { return app + "/" + group }

// derive builds the group's indexes; its targets are counted by State.add.
// It is given its deployments, oldest first.
func (g *Group) derive(all []*Deployment) {
	g.use, g.all, g.open, g.good = nil, nil, nil, nil
	g.behind, g.catchingUp, g.targets = map[string]struct{}{}, map[string]struct{}{}, map[string]*Target{}
	g.list = nil
	if g.Members == nil { // empty ones are left out of a snapshot
		g.Members = map[string]bool{}
	}
	if g.Bad == nil {
		g.Bad = map[Digest]string{}
	}
	if g.Grades == nil {
		g.Grades = map[Digest]Grade{}
	}
	g.all = all
	for _, d := range all {
		if !d.Status.Terminal() {
			g.open = append(g.open, d)
		}
	}
	g.findQuorums()
}

// placeAll gives every target that the layout holds its place.
func (g *Group) placeAll(target func(host string) *Target) {
	g.byWave = make([][]*Target, len(g.Layout.Waves))
	for i := range g.Layout.Waves {
		for _, h := range g.Layout.Waves[i].Hosts {
			if t := target(h); t != nil {
				g.place(t, i)
			}
		}
	}
}

// place puts a target into a wave of the layout; -1 is none.
func (g *Group) place(t *Target, wave int) {
	if old, placed := t.wave(); placed {
		g.byWave[old] = slices.DeleteFunc(g.byWave[old], func(x *Target) bool { return x == t })
	}
	if t.place = wave + 1; wave >= 0 {
		g.byWave[wave] = append(g.byWave[wave], t)
	}
}

// detach undoes attach; the target has been removed from the counters.
func (g *Group) detach(t *Target) {
	delete(g.Members, t.Host)
	delete(g.targets, t.Host)
	if at, ok := g.find(t.Host); ok {
		g.list = slices.Delete(g.list, at, at+1)
	}
}

func (g *Group) find(host string) (int, bool) {
	return slices.BinarySearchFunc(g.list, host, func(t *Target, h string) int { return strings.Compare(t.Host, h) })
}

// target returns the group's target on the host, or nil.
func (g *Group) target(host string) *Target { return g.targets[host] }

// InFlight returns the group's deployments that have not ended, oldest first.
func (g *Group) InFlight() []*Deployment { return g.open }

// sharing returns the deployments in flight that share the layout: all but
// those that take something back, which have no waves of their own.
func (g *Group) sharing() []*Deployment {
	if len(g.open) > 0 && g.open[0].Inverse { // none is created while another is in flight
		return g.open[1:]
	}
	return g.open
}

// admits tests a new deployment against those in flight on the group.
func (g *Group) admits(e DeploymentCreated) error {
	shared := len(g.sharing()) > 0
	for _, d := range g.open {
		name := fmt.Sprintf("deployment %s of %s to %s is in flight (%s)", d.ID, d.RevName, e.Group, d.Status)
		switch {
		case d.Revision == e.Revision && d.Status != DeploymentStatusRollingBack:
			return refuse(Conflict, "%s and brings the same revision; follow it with `dctl watch %s`", name, d.ID)
		case e.Inverse:
			return refuse(Conflict, "%s; take that one back with `dctl abort %s --rollback`", name, d.ID)
		case e.Config.InFlight.Queue == QueueReject:
			return refuse(Conflict, "%s, and the config says `inFlight.queue: reject`; wait for it, or abort it", name)
		case e.Layout == 0 && shared:
			return refuse(Conflict, "%s; deployments in flight share their waves: plan again", name)
		}
	}
	if e.Layout != 0 && (e.Layout != g.Layout.Version || len(e.Waves) != len(g.Layout.Waves)) {
		return refuse(Conflict, "the waves of %s %s were laid out anew meanwhile; plan again", e.App, e.Group)
	}
	if e.Preempt && !e.Config.preGateApproval() {
		return refuse(Invalid, "a deployment that takes over others needs an approval gate in preGates: people must agree")
	}
	return nil
}

// intend marks what a deployment leaves half done as meant to be so: nothing
// but the next deployment changes it.
func (g *Group) intend(d *Deployment) {
	for _, t := range g.list {
		if d.Tasks[t.Host] != nil && t.Drift == "" && t.Running == d.Revision && t.Running != g.want(t) {
			t.Drift, t.Declared, t.LeftBy = "left as it is by "+d.ID, true, d.ID
		}
	}
}

// addGroup files a group, removeGroup forgets it: in the map, and in order.
func (s *State) addGroup(g *Group) {
	s.Groups[g.Key()] = g
	at, _ := s.findGroup(g.App, g.Name)
	s.groups = slices.Insert(s.groups, at, g)
}

func (s *State) removeGroup(g *Group) {
	delete(s.Groups, g.Key())
	if at, found := s.findGroup(g.App, g.Name); found {
		s.groups = slices.Delete(s.groups, at, at+1)
	}
}

func (s *State) findGroup(app, name string) (int, bool) {
	return slices.BinarySearchFunc(s.groups, name, func(g *Group, name string) int {
		return cmp.Or(strings.Compare(g.App, app), strings.Compare(g.Name, name))
	})
}

// groupsOf returns the groups of an application, in order.
func (s *State) groupsOf(app string) []*Group {
	from, _ := s.findGroup(app, "")
	to := from
	for to < len(s.groups) && s.groups[to].App == app {
		to++
	}
	return s.groups[from:to]
}

// Newest returns the group's newest deployment that has not ended, or nil.
func (s *State) Newest(app, group string) *Deployment {
	if g := s.Groups[GroupKey(app, group)]; g != nil && len(g.open) > 0 {
		return g.open[len(g.open)-1]
	}
	return nil
}

// group returns the deployment's group; a deployment that has not ended keeps it.
func (s *State) group(dep *Deployment) *Group { return s.Groups[GroupKey(dep.App, dep.Group)] }

// Commonest returns the revision that most targets of the group run, "" when
// none runs anything.
func (s *State) Commonest(g *Group) Digest {
	n := map[string]int{}
	for _, t := range g.list {
		if t.Running != "" {
			n[string(t.Running)]++
		}
	}
	return commonest(n)
}

// commonest returns the key with the highest count; of equal ones the first.
func commonest(n map[string]int) Digest {
	best, most := "", 0
	for d, c := range sorted(n) {
		if c > most {
			best, most = d, c
		}
	}
	return Digest(best)
}

// reassignGroup marks every member of a group as to be assigned anew.
func (s *State) reassignGroup(app, group string) {
	if g := s.Groups[GroupKey(app, group)]; g != nil {
		for _, t := range g.list {
			s.touch(t.host)
		}
	}
}

// stagesNext reports whether a deployment in flight has hosts stage only when they are
// next, of which there are more the more hosts there are.
func (g *Group) stagesNext() bool {
	return slices.ContainsFunc(g.open, func(d *Deployment) bool { return d.Config.Stage.Prefetch == "none" })
}

// Zones returns the zones that have targets of the group, in order.
func (g *Group) Zones() []string {
	var out []string
	for z, u := range sorted(g.use) {
		if z != "" && z[0] != 0 && u.members > 0 { // see QuorumGroup.domain
			out = append(out, z)
		}
	}
	return out
}

// usage counts one domain of a group: the group itself, one of its zones, or who has one
// value of the label of a quorum group.
type usage struct {
	members    int // targets
	registered int // N: targets that have ever been healthy
	serving    int // S: healthy, no permit, closed generation
	permits    int // P
	unhealthy  int // targets whose application says that it is not well
}

// usage is what is counted of a domain. It may be asked by several at once: who reads
// must not write.
func (g *Group) usage(zone string) usage {
	if u := g.use[zone]; u != nil {
		return *u
	}
	return usage{}
}

// counts is usage to be changed.
func (g *Group) counts(zone string) *usage {
	if g.use == nil {
		g.use = map[string]*usage{}
	}
	u := g.use[zone]
	if u == nil {
		u = &usage{}
		g.use[zone] = u
	}
	return u
}

// Usage is the capacity of one domain of a group, for status and plans.
type Usage struct {
	Members    int // targets in the domain
	Registered int // N: targets that have ever been healthy
	Serving    int // S: healthy, no permit, closed generation
	Permits    int // P
}

// Usage returns the committed capacity of the group ("") or of one zone.
func (g *Group) Usage(zone string) Usage {
	u := g.usage(zone)
	return Usage{Members: u.members, Registered: u.registered, Serving: u.serving, Permits: u.permits}
}

// floors returns the strictest floors of the group and of everything that is
// live on it.
func floors(g *Group) []Floor {
	zones := g.Zones()
	out := g.Config.Capacity.floors(g, zones)
	live := false
	for _, o := range g.open {
		if !o.Status.Live() {
			continue
		}
		f := o.Config.Capacity.floors(g, zones)
		if !live {
			out, live = f, true // the group's own config rules only while nothing is live
			continue
		}
		for _, x := range f {
			if i := slices.IndexFunc(out, func(y Floor) bool { return y.Zone == x.Zone }); i < 0 {
				out = append(out, x)
			} else {
				out[i].Min = max(out[i].Min, x.Min)
			}
		}
	}
	return out
}
