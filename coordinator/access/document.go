package access

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/internal/config"
	"github.com/groundswell/groundswell/internal/naming"
	"github.com/groundswell/groundswell/internal/near"
)

// All stands for every person, application or group, alone in its list. It is no
// name that anything can have.
const All = "*"

// MaxBytes bounds the document: it lies in the replicated state whole.
const MaxBytes = 256 << 10

// Document is an access.yaml that was read and found legal. It is not changed
// afterwards, and may be asked concurrently. A nil one is that of a cluster without
// rights: everybody may everything.
type Document struct {
	Teams  map[string][]string
	Rules  []Rule
	Bounds map[string]Bound // by application, and All

	grants map[string][]*grant // by person, and All
}

// Rule gives people the verbs of a role, and those it names, on groups of
// applications.
type Rule struct {
	People       []string `yaml:"people"`
	Teams        []string `yaml:"teams"`
	Role         string   `yaml:"role" enum:"viewer deployer approver operator admin"`
	Verbs        []string `yaml:"verbs"`
	Applications []string `yaml:"applications,required"`
	Groups       []string `yaml:"groups"`
}

// file is the document as it is written.
type file struct {
	Version int                 `yaml:"version,required" min:"1" max:"1"`
	Teams   map[string][]string `yaml:"teams"`
	Rules   []Rule              `yaml:"rules,required"`
	Bounds  map[string]Bound    `yaml:"bounds"`
}

// grant is a rule as it is asked.
type grant struct {
	at           int // of the rule
	verbs        map[Verb]bool
	applications map[string]bool // nil is every one
	groups       map[string]bool // nil is every one
}

// Parse reads an access.yaml. The error names the file, line and field of
// everything that is wrong.
func Parse(source []byte, filename string) (*Document, error) {
	d := config.Parse(source, filename)
	if len(source) > MaxBytes {
		d.Errorf("", "the document has %d bytes; at most %d are kept", len(source), MaxBytes)
		return nil, d.Err()
	}
	var f file
	d.Decode(&f)
	check := checker{d, f.Teams}
	for _, name := range slices.Sorted(maps.Keys(f.Teams)) {
		at := "teams." + name
		check.name(at, "team", name)
		check.names(at, "person", f.Teams[name])
		if len(f.Teams[name]) == 0 {
			d.Errorf(at, "names nobody; list people, or remove the team")
		}
		if slices.Contains(f.Teams[name], All) {
			d.Errorf(at, "a team lists people by name, not %q", All)
		}
	}
	for i := range f.Rules {
		check.rule(fmt.Sprintf("rules[%d]", i), &f.Rules[i])
	}
	for _, app := range slices.Sorted(maps.Keys(f.Bounds)) {
		check.bound("bounds."+app, app, f.Bounds[app])
	}
	if err := d.Err(); err != nil {
		return nil, err
	}
	out := &Document{Teams: f.Teams, Rules: f.Rules, Bounds: f.Bounds}
	out.compile()
	if len(out.Admins()) == 0 {
		d.Errorf("rules", "nobody could change this document any more; give somebody the role admin "+
			"on applications [%q]", All)
	}
	return out, d.Err()
}

type checker struct {
	d     *config.Document
	teams map[string][]string
}

func (c checker) name(at, what, name string) {
	if err := naming.Check(what, name); err != nil {
		c.d.Errorf(at, "%v", err)
	}
}

// names checks a list of names, or the one word for all of them.
func (c checker) names(at, what string, names []string) {
	seen := map[string]bool{}
	for i, n := range names {
		where := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case seen[n]:
			c.d.Errorf(where, "%q is listed twice", n)
		case n == All && len(names) > 1:
			c.d.Errorf(where, "%q is every %s; it stands alone", All, what)
		case n != All:
			c.name(where, what, n)
		}
		seen[n] = true
	}
}

func (c checker) rule(at string, r *Rule) {
	c.names(at+".people", "person", r.People)
	c.names(at+".applications", "application", r.Applications)
	c.names(at+".groups", "group", r.Groups)
	if len(r.People)+len(r.Teams) == 0 {
		c.d.Errorf(at, "is for nobody; name people or teams")
	}
	if r.Role == "" && len(r.Verbs) == 0 {
		c.d.Errorf(at, "gives nothing; name a role (%s) or verbs", strings.Join(Roles(), ", "))
	}
	if c.d.Has(at+".applications") && len(r.Applications) == 0 {
		c.d.Errorf(at+".applications", "names none; write %q for every one", All)
	}
	if c.d.Has(at+".groups") && len(r.Groups) == 0 {
		c.d.Errorf(at+".groups", "names none; remove the key for every one")
	}
	for i, team := range r.Teams {
		if _, known := c.teams[team]; !known {
			c.d.Errorf(fmt.Sprintf("%s.teams[%d]", at, i), "no team %q%s", team,
				meant(team, slices.Sorted(maps.Keys(c.teams))))
		}
	}
	c.verbs(at+".verbs", r)
}

func (c checker) verbs(at string, r *Rule) {
	for i, word := range r.Verbs {
		where := fmt.Sprintf("%s[%d]", at, i)
		v, known := find(Verb(word))
		switch {
		case !known:
			var all []string
			for _, v := range Verbs() {
				all = append(all, string(v))
			}
			c.d.Errorf(where, "no verb %q%s; there are %s", word, meant(word, all), strings.Join(all, ", "))
		case v.fleet && !r.everywhere():
			c.d.Errorf(where, "%s concerns every application; a rule that gives it has applications [%q] and no groups",
				word, All)
		}
	}
}

// everywhere reports whether a rule is for every application and group.
func (r *Rule) everywhere() bool {
	return slices.Equal(r.Applications, []string{All}) && (len(r.Groups) == 0 || slices.Equal(r.Groups, []string{All}))
}

func meant(word string, known []string) string {
	if m := near.Name(word, known); m != "" {
		return fmt.Sprintf("; did you mean %q?", m)
	}
	return ""
}

// compile makes the answers quick: by person, then by set.
func (d *Document) compile() {
	d.grants = map[string][]*grant{}
	for i := range d.Rules {
		r := &d.Rules[i]
		g := &grant{at: i, verbs: map[Verb]bool{}, applications: set(r.Applications), groups: set(r.Groups)}
		for _, v := range roles[r.Role] {
			g.verbs[v] = !OfFleet(v) || r.everywhere()
		}
		for _, v := range r.Verbs {
			g.verbs[Verb(v)] = true
		}
		for v, given := range g.verbs { // who may do something to it sees it
			if given && !OfFleet(v) {
				g.verbs[View] = true
			}
		}
		people := slices.Clone(r.People)
		for _, team := range r.Teams {
			people = append(people, d.Teams[team]...)
		}
		slices.Sort(people)
		for _, p := range slices.Compact(people) {
			d.grants[p] = append(d.grants[p], g)
		}
	}
}

// set returns nil for every name.
func set(names []string) map[string]bool {
	if len(names) == 0 || slices.Equal(names, []string{All}) {
		return nil
	}
	out := map[string]bool{}
	for _, n := range names {
		out[n] = true
	}
	return out
}
