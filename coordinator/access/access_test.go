package access_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/internal/config"
)

const sample = `version: 1
teams:
  oncall: [ann, bob]
rules:
  - people: [root]
    role: admin
    applications: ["*"]
  - people: [ann]
    role: deployer
    applications: [www]
    groups: [staging]
  - teams: [oncall]
    role: approver
    applications: [www, api]
  - people: [fleetwood]
    role: operator
    applications: ["*"]
  - people: [half]
    role: operator
    applications: [www]
  - people: ["*"]
    role: viewer
    applications: [status-page]
  - people: [late]
    verbs: [force-bad]
    applications: ["*"]
    groups: [prod]
`

func parse(t *testing.T, source string) *access.Document {
	t.Helper()
	d, err := access.Parse([]byte(source), "access.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestMay(t *testing.T) {
	t.Parallel()
	d := parse(t, sample)
	for _, x := range []struct {
		person     string
		verb       access.Verb
		app, group string
		want       bool
	}{
		{"root", access.Access, "", "", true},
		{"root", access.Deploy, "nobody-named-it", "x", true},
		{"root", access.Deploy, "", "", true},
		{"ann", access.Deploy, "www", "staging", true},
		{"ann", access.Deploy, "www", "prod", false},
		{"ann", access.Deploy, "www", "", false}, // every group is more than one
		{"ann", access.Deploy, "", "staging", false},
		{"ann", access.Deploy, "", "", false},
		{"ann", access.Deploy, "www2", "staging", false}, // K2
		{"ann", access.Deploy, "ww", "staging", false},
		{"ann", access.Deploy, "WWW", "staging", false},
		{"ann", access.Deploy, "www/staging", "staging", false}, // K4
		{"ann", access.Deploy, "www,api", "staging", false},
		{"an", access.Deploy, "www", "staging", false},
		{"ann2", access.Deploy, "www", "staging", false},
		{"ann,root", access.Access, "", "", false},
		{"Ann", access.Deploy, "www", "staging", false},
		{"", access.Deploy, "www", "staging", false},
		{"", access.View, "status-page", "prod", true},
		{"ann", access.Approve, "www", "prod", true}, // by her team
		{"ann", access.Approve, "api", "", true},
		{"oncall", access.Approve, "www", "prod", false}, // a team is no person
		{"bob", access.Deploy, "www", "staging", false},
		{"ann", access.ForceBad, "www", "staging", false},
		{"ann", access.Cordon, "", "", false},
		{"fleetwood", access.Cordon, "", "", true},
		{"fleetwood", access.OperatorToken, "", "", false},
		{"fleetwood", access.LiftFreeze, "", "", false},
		{"half", access.Stop, "www", "prod", true},
		{"half", access.Cordon, "", "", false}, // a role on one application moves no host
		{"half", access.Cordon, "www", "", false},
		{"stranger", access.View, "status-page", "prod", true},
		{"stranger", access.View, "www", "prod", false},
		{"late", access.ForceBad, "any", "prod", true},
		{"late", access.ForceBad, "any", "staging", false},
		{"late", access.Deploy, "any", "prod", false},
		{"late", access.View, "any", "prod", true}, // of what one may do something to
		{"late", access.View, "any", "staging", false},
		{"root", "fly", "www", "prod", false},
		{"root", "", "www", "prod", false},
	} {
		if got := d.Of(x.person).May(x.verb, x.app, x.group); got != x.want {
			t.Errorf("%q may %s %s/%s: %t", x.person, x.verb, x.app, x.group, got)
		}
		e := d.Explain(x.person, access.Right{Verb: x.verb, App: x.app, Group: x.group})
		if e.Allowed != x.want && access.IsVerb(x.verb) {
			t.Errorf("%q and %s on %s/%s are explained as %t", x.person, x.verb, x.app, x.group, e.Allowed)
		}
		if !e.Allowed && (!strings.Contains(e.Refusal(), string(x.verb)) ||
			!strings.HasSuffix(e.Refusal(), "ask root")) {
			t.Errorf("the refusal says %q", e.Refusal())
		}
	}
	if !d.Of("ann").Some(access.Deploy, "www") || d.Of("ann").Some(access.Deploy, "api") ||
		!d.Of("late").Some(access.ForceBad, "any") {
		t.Error("Some is wrong")
	}
	if d.Of("ann").Fleet() || !d.Of("fleetwood").Fleet() || d.Of("half").Fleet() {
		t.Error("who sees all hosts is wrong")
	}
	if got := d.In("ann"); !slices.Equal(got, []string{"oncall"}) {
		t.Errorf("ann is in %v", got)
	}
	if got := d.Admins(); !slices.Equal(got, []string{"root"}) {
		t.Errorf("admins are %v", got)
	}
}

// TestNobodyButAdmins: what no rule names belongs to the admins, and the zero value
// to nobody.
func TestNobodyButAdmins(t *testing.T) {
	t.Parallel()
	d := parse(t, sample)
	for _, v := range access.Verbs() {
		for _, person := range []string{"ann", "bob", "half", "late", "stranger"} {
			if v != access.ForceBad && v != access.View && d.Of(person).May(v, "unnamed", "prod") {
				t.Errorf("%s may %s what no rule names", person, v)
			}
		}
		if (access.Rights{}).May(v, "", "") || (access.Rights{}).May(v, "www", "prod") {
			t.Errorf("the zero value may %s", v)
		}
		var none *access.Document
		if !none.Of("ann").May(v, "", "") || !access.Everything().May(v, "www", "prod") {
			t.Errorf("without a document, or by break-glass, %s is refused", v)
		}
		if access.Means(v) == "" {
			t.Errorf("%s has no meaning", v)
		}
	}
}

// TestRoles is the table of docs/access.md.
func TestRoles(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"viewer":   "view",
		"deployer": "view push define deploy stop freeze",
		"approver": "view approve stop",
		"operator": "view stop freeze cordon drain forget label split revoke-host agent-token",
	}
	for _, role := range access.Roles() {
		var got []string
		for _, v := range access.RoleVerbs(role) {
			got = append(got, string(v))
		}
		if w, ok := want[role]; ok && strings.Join(got, " ") != w {
			t.Errorf("%s may %v", role, got)
		}
	}
	if len(access.RoleVerbs("admin")) != len(access.Verbs()) {
		t.Error("an admin may not everything")
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	t.Parallel()
	admin := "version: 1\nrules:\n  - {people: [root], role: admin, applications: [\"*\"]}\n"
	rule := func(text string) string { return admin + "  - {" + text + "}" }
	for source, want := range map[string]string{
		"":                        "version",
		"version: 2\nrules: []":   "access.yaml:1:10: version: must be at most 1",
		"version: 1\nrules: []\n": "nobody could change this document",
		"version: 1\nrule: []\n":  `unknown key "rule"; did you mean "rules"?`,
		rule("people: [x]"):       `access.yaml:4:5: rules[1]: the key "applications" is missing`,
		rule("role: viewer, applications: [www]"):                                         "rules[1]: is for nobody",
		rule("people: [x], applications: [www]"):                                          "rules[1]: gives nothing",
		rule("people: [x], role: vieuwer, applications: [www]"):                           "rules[1].role",
		rule("people: [x], role: viewer, applications: []"):                               "rules[1].applications: names none",
		rule("people: [x], role: viewer, applications: [www], groups: []"):                "rules[1].groups: names none",
		rule("people: [x], role: viewer, applications: [www*]"):                           "rules[1].applications[0]",
		rule("people: [x], role: viewer, applications: [www, \"*\"]"):                     "stands alone",
		rule("people: [x], role: viewer, applications: [www, www]"):                       "rules[1].applications[1]: \"www\" is listed twice",
		rule("people: [\"x,root\"], role: viewer, applications: [www]"):                   "rules[1].people[0]",
		rule("people: [\"x/y\"], role: viewer, applications: [www]"):                      "rules[1].people[0]",
		rule("people: [\"\"], role: viewer, applications: [www]"):                         "rules[1].people[0]",
		rule("people: [\"x\\nroot\"], role: viewer, applications: [www]"):                 "rules[1].people[0]",
		rule("people: [x], role: viewer, applications: [current]"):                        "reserved word",
		rule("people: [x], role: viewer, applications: [..]"):                             "rules[1].applications[0]",
		rule("teams: [nobody], role: viewer, applications: [www]"):                        "rules[1].teams[0]: no team \"nobody\"",
		rule("people: [x], verbs: [deplo], applications: [www]"):                          `did you mean "deploy"?`,
		rule("people: [x], verbs: [cordon], applications: [www]"):                         "cordon concerns every application",
		rule("people: [x], verbs: [access], applications: [\"*\"], groups: [g]"):          "access concerns every application",
		admin + "teams: {oncall: []}":                                                     "teams.oncall: names nobody",
		admin + "teams: {oncall: [\"*\"]}":                                                "lists people by name",
		admin + "teams: {\"a b\": [x]}":                                                   "teams.a b",
		admin + "teams: {oncall: [x], oncall: [y]}":                                       "comes twice",
		"version: 1\nrules:\n  - {people: [x], role: admin, applications: [www]}\n":       "nobody could change this document",
		"version: 1\nrules:\n  - {people: [x], verbs: [deploy], applications: [\"*\"]}\n": "nobody could change this document",
		strings.Repeat("# x\n", access.MaxBytes):                                          "at most",
	} {
		_, err := access.Parse([]byte(source), "access.yaml")
		var wrong config.Errors
		if err == nil || !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.120q:\n%v\nlacks %q", source, err, want)
		}
	}
}

func TestExceeds(t *testing.T) {
	t.Parallel()
	d := parse(t, sample)
	for _, x := range []struct {
		made, maker string
		beyond      bool
	}{
		{"root", "ann", true},
		{"ann", "root", false},
		{"ann", "ann", false},
		{"fleetwood", "ann", true},
		{"stranger", "ann", false},
		{"ann", "bob", true},
		{"bob", "ann", false},
		{"late", "ann", true},
		{"late", "fleetwood", true},
		{"half", "fleetwood", false},
		{"fleetwood", "half", true},
	} {
		what, beyond := access.Exceeds(d.Of(x.made), d.Of(x.maker))
		if beyond != x.beyond {
			t.Errorf("%s exceeds %s: %t, by %+v", x.made, x.maker, beyond, what)
		}
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	before := parse(t, sample)
	if got := access.Diff(before, before); len(got) > 0 {
		t.Errorf("nothing changed: %q", got)
	}
	if got := access.Diff(before, parse(t, "# another word for it\n"+sample)); len(got) > 0 {
		t.Errorf("a comment changed %q", got)
	}
	after := parse(t, strings.NewReplacer("groups: [staging]", "groups: [staging, prod]", "oncall: [ann, bob]",
		"oncall: [bob, cat]").Replace(sample))
	want := []string{
		"ann on api/*: -view -stop -approve",
		"ann on www/*: -view -stop -approve",
		"ann on www/prod: +push +define +deploy +freeze -approve",
		"ann on www/staging: -approve",
		"cat on api/*: +view +stop +approve",
		"cat on www/*: +view +stop +approve",
		"team oncall: +cat -ann",
	}
	if got := access.Diff(before, after); !slices.Equal(got, want) {
		t.Errorf("the change is told as\n%s", strings.Join(got, "\n"))
	}
	first := access.Diff(nil, before)
	for _, line := range []string{
		"anybody else on */*: -everything", "anybody else on status-page/*: -push -define",
		"late on */prod: -push -define -deploy -stop -approve -freeze -lift-freeze -preempt", "team oncall: +ann +bob",
	} {
		if !slices.ContainsFunc(first, func(l string) bool { return strings.HasPrefix(l, line) }) {
			t.Errorf("the first document does not say %q:\n%s", line, strings.Join(first, "\n"))
		}
	}
}

// FuzzParse: no panic, and whatever is read leaves an admin.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("version: 1\nrules: [&a {people: [\"*\"], role: admin, applications: [\"*\"]}, *a]\n"))
	f.Fuzz(func(t *testing.T, source []byte) {
		d, err := access.Parse(source, "access.yaml")
		if err == nil && len(d.Admins()) == 0 {
			t.Errorf("%q leaves no admin", source)
		}
		if err == nil {
			access.Diff(nil, d)
		}
	})
}
