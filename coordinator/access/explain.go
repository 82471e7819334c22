package access

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Explanation says why somebody may do something, or why not.
type Explanation struct {
	Allowed bool
	By      []string // the rules that allow it, in words
	Missing string   // what no rule says
	Ask     []string // who can change that
}

// Explain answers for one person and one right.
func (d *Document) Explain(person string, r Right) Explanation {
	if d == nil {
		return Explanation{Allowed: true, By: []string{"no access.yaml is in force: every operator is admin"}}
	}
	var out Explanation
	for _, g := range d.Of(person).grants {
		if (Rights{grants: []*grant{g}}).Has(r) {
			out.By = append(out.By, d.Rules[g.at].words(g.at))
		}
	}
	slices.Sort(out.By)
	out.By = slices.Compact(out.By)
	if out.Allowed = len(out.By) > 0; out.Allowed {
		return out
	}
	out.Missing = fmt.Sprintf("no rule gives %s the verb %s on %s (%s)", person, r.Verb, r.Where(), given(r.Verb))
	out.Ask = d.Admins()
	return out
}

// Refusal is the explanation as one sentence, for who was refused.
func (e Explanation) Refusal() string {
	return fmt.Sprintf("%s; ask %s", e.Missing, strings.Join(e.Ask, " or "))
}

// Where says in words what a right is about.
func (r Right) Where() string {
	switch {
	case OfFleet(r.Verb):
		return "the cluster"
	case r.AnyGroup:
		return r.App
	case r.App == "" && r.Group == "":
		return "every application"
	case r.Group == "":
		return "every group of " + r.App
	}
	return cmp.Or(r.App, "any application") + "/" + r.Group
}

// given says how a rule gives a verb.
func given(v Verb) string {
	var in []string
	for _, role := range Roles() {
		if slices.Contains(roles[role], v) {
			in = append(in, role)
		}
	}
	if len(in) == 1 {
		return "role " + in[0] + ", or verbs: [" + string(v) + "]"
	}
	return "roles " + strings.Join(in, ", ") + ", or verbs: [" + string(v) + "]"
}

func (r *Rule) words(at int) string {
	what := strings.Join(r.Verbs, ", ")
	if r.Role != "" {
		what = strings.TrimSuffix("role "+r.Role+", "+what, ", ")
	}
	groups := ""
	if len(r.Groups) > 0 {
		groups = " in groups " + strings.Join(r.Groups, ", ")
	}
	return fmt.Sprintf("rules[%d]: %s on %s%s", at, what, strings.Join(r.Applications, ", "), groups)
}

// About lists the rules that are for a person, in words.
func (d *Document) About(person string) (out []string) {
	if d == nil {
		return []string{"no access.yaml is in force: every operator is admin"}
	}
	for _, g := range d.Of(person).grants {
		out = append(out, d.Rules[g.at].words(g.at))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
