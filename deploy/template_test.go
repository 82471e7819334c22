package deploy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/groundswell/groundswell/deploy"
)

func TestExpand(t *testing.T) {
	f := deploy.Fields{
		App: "www", Group: "prod", Wave: "one-box", Zone: "a1", Host: `h"} or up{x="`, Revision: `v\2`, Base: "v'1",
		Hosts: []string{"web.1", `web"2`},
	}
	for in, want := range map[string]string{
		`up`:                   `up`,
		`up{zone="{{.Zone}}"}`: `up{zone="a1"}`,
		`up{zone="{{ .Zone }}",a='{{.App}}-{{.Group}}'}`: `up{zone="a1",a='www-prod'}`,
		`up{host="{{.Host}}"}`:                           `up{host="h\"} or up{x=\""}`,
		`up{rev="{{.Revision}}"}`:                        `up{rev="v\\2"}`,
		`up{rev!='{{.Base}}'}`:                           `up{rev!='v\'1'}`,
		`up{rev=~"{{.Revision}}-.*"}`:                    `up{rev=~"v\\\\2-.*"}`,
		`up{host=~"{{.Hosts}}:9100"}`:                    `up{host=~"(?:web\\.1|web\"2):9100"}`,
		`up{host!~ "{{.Hosts}}"}`:                        `up{host!~ "(?:web\\.1|web\"2)"}`,
		`up{a="\"",zone="{{.Zone}}"}`:                    `up{a="\"",zone="a1"}`,
		"up{a=`\\`,zone=\"{{.Zone}}\"}":                  "up{a=`\\`,zone=\"a1\"}",
		`count by (wave) (up) > 0 # "{{`:                 "", // not closed
		`up{host="{{.Host}}`:                             `up{host="h\"} or up{x=\"`,
		`up{zone={{.Zone}}}`:                             "",
		"up{zone=`{{.Zone}}`}":                           "",
		`up{host="{{.Hosts}}"}`:                          "",
		`up{host="{{range $x := .Hosts}}"}`:              "",
		`up{host="{{}}"}`:                                "",
		`up{host="{{.host}}"}`:                           "",
	} {
		got, err := deploy.Expand(in, f)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "write for instance") &&
				!strings.Contains(err.Error(), "known are") {
				t.Errorf("%s: %q, %v", in, got, err)
			}
		} else if got != want || err != nil {
			t.Errorf("%s: got  %s\nwant %s, %v", in, got, want, err)
		}
	}
}

func TestTemplateFields(t *testing.T) {
	got, err := deploy.TemplateFields(`a{h=~"{{.Hosts}}",z="{{.Zone}}"} / b{h=~"{{.Hosts}}"}`)
	if err != nil || !slices.Equal(got, []string{"Hosts", "Zone"}) {
		t.Errorf("%v, %v", got, err)
	}
}

// FuzzExpand: whatever a host is called, the query keeps its shape: the quotes
// that are open after the value are those that were open before.
func FuzzExpand(f *testing.F) {
	f.Add(`up{host="{{.Host}}"} + 1`, `"`)
	f.Add(`up{host=~"{{.Host}}|{{.Hosts}}"}`, `\`)
	f.Fuzz(func(t *testing.T, query, value string) {
		plain, err1 := deploy.Expand(query, deploy.Fields{Host: "x", Zone: "x", Hosts: []string{"x"}})
		wild, err2 := deploy.Expand(query, deploy.Fields{Host: value, Zone: value, Hosts: []string{value}})
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("%v, %v", err1, err2)
		}
		if err1 == nil && bare(plain) != bare(wild) {
			t.Errorf("%q breaks %q:\n%s\n%s", value, query, plain, wild)
		}
	})
}

// bare is what stands outside of quotes.
func bare(query string) string {
	var out strings.Builder
	quote := byte(0)
	for i := 0; i < len(query); i++ {
		switch c := query[i]; {
		case quote == 0 && strings.IndexByte("\"'`", c) >= 0:
			quote = c
		case quote == 0:
			out.WriteByte(c)
		case c == '\\' && quote != '`':
			i++
		case c == quote:
			quote = 0
		}
	}
	return out.String()
}
