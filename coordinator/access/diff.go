package access

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Diff says what a document changes, in effect and not in words: one line for each
// person, application and group with the verbs that come (+) and go (-), then one
// for each team and each application's bounds. A star is all that has no line of its own; whom a document does not
// name stands as "anybody else".
func Diff(before, after *Document) (out []string) {
	for _, person := range union(before.people(), after.people()) {
		was, is := before.Of(person), after.Of(person)
		apps, groups := named(was, is)
		for _, app := range apps {
			for _, group := range groups {
				line := changed(was, is, app, group)
				if app == "" && group == "" {
					line = inShort(line + changedFleet(was, is))
				} else if line == told(was, is, app, group) {
					continue
				}
				out = append(out, fmt.Sprintf("%s on %s/%s:%s", someone(person), starred(app), starred(group),
					cmp.Or(line, " as before")))
			}
		}
	}
	out = slices.DeleteFunc(out, func(l string) bool { return strings.HasSuffix(l, "*/*: as before") })
	return slices.Concat(out, teamChanges(before, after), boundChanges(before, after))
}

// inShort says of every verb at once that it comes, or goes.
func inShort(line string) string {
	all, none := Everything(), Rights{}
	switch line {
	case changed(none, all, "", "") + changedFleet(none, all):
		return " +everything"
	case changed(all, none, "", "") + changedFleet(all, none):
		return " -everything"
	}
	return line
}

// told is what a reader takes for the change of a scope that has no line: that of the
// nearest one around it.
func told(was, is Rights, app, group string) string {
	if app != "" && group != "" {
		return changed(was, is, app, "")
	}
	return changed(was, is, "", "")
}

func changed(was, is Rights, app, group string) string {
	return change(was, is, Right{App: app, Group: group}, false)
}

func changedFleet(was, is Rights) string { return change(was, is, Right{}, true) }

func change(was, is Rights, where Right, fleet bool) string {
	var gained, lost []string
	for _, v := range Verbs() {
		before, after := was.May(v, where.App, where.Group), is.May(v, where.App, where.Group)
		switch {
		case OfFleet(v) != fleet || before == after:
		case after:
			gained = append(gained, string(v))
		default:
			lost = append(lost, string(v))
		}
	}
	return marked(" +", gained) + marked(" -", lost)
}

func starred(name string) string { return cmp.Or(name, All) }

func teamChanges(before, after *Document) (out []string) {
	teams := func(d *Document) map[string][]string {
		if d == nil {
			return nil
		}
		return d.Teams
	}
	was, is := teams(before), teams(after)
	for _, name := range union(slices.Collect(maps.Keys(was)), slices.Collect(maps.Keys(is))) {
		var gained, lost []string
		for _, p := range union(was[name], is[name]) {
			switch {
			case !slices.Contains(was[name], p):
				gained = append(gained, p)
			case !slices.Contains(is[name], p):
				lost = append(lost, p)
			}
		}
		if len(gained)+len(lost) > 0 {
			out = append(out, fmt.Sprintf("team %s:%s%s", name, marked(" +", gained), marked(" -", lost)))
		}
	}
	return out
}

// people lists whom the rules name; All stands for anybody else.
func (d *Document) people() []string {
	if d == nil {
		return []string{All}
	}
	return union([]string{All}, slices.Collect(maps.Keys(d.grants)))
}

func someone(person string) string {
	if person == All {
		return "anybody else"
	}
	return person
}

func marked(sign string, words []string) string {
	if len(words) == 0 {
		return ""
	}
	return sign + strings.Join(words, sign)
}

func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}
