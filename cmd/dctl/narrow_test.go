package main

import (
	"io"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/creack/pty"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// past is a deployment as a real coordinator tells of it.
func past(status string, change ...func(*controlv1.Deployment)) *controlv1.Deployment {
	return state(4, status, append(change, func(d *controlv1.Deployment) {
		d.Id, d.App, d.Group = "01M7Z2G90XTT9H09T2HZ3X624H", "checkout", "prod"
		d.From, d.Revision = "v1.41.0", "v1.42.0"
		d.CreatedMs, d.ElapsedMs, d.Actor, d.Hosts = 1795775400000, 754_000, "marco", 12
	})...)
}

// What people look at most is as wide as a terminal of 80 columns at most, for
// names of an ordinary length; a reason that does not fit is cut, and whole
// where no terminal is.
func TestTablesFitATerminal(t *testing.T) {
	const reason = "as asked by ann: checkout answers 502 for one customer in five since 14:02, see the incident"
	asked := func(d *controlv1.Deployment) { d.Asked = strings.TrimPrefix(reason, "as asked ") }
	f := &fake{
		get: &controlv1.GetDeploymentResponse{Deployment: past("running")},
		past: []*controlv1.Deployment{
			past("succeeded", func(d *controlv1.Deployment) { d.Suspect = "probe smoke on web3" }),
			past("rolled_back", asked), past("succeeded", func(d *controlv1.Deployment) { d.Inverse, d.Asked = true, "by marco" }),
		},
		apps: []*controlv1.App{{Name: "checkout", Groups: []*controlv1.Group{{
			Name: "prod", Hosts: 12, Serving: 12, LastDeployment: "01M7Z2G90XTT9H09T2HZ3X624H", LastStatus: "rolled_back",
			Frozen: "by marco", Running: []*controlv1.RevisionCount{{Name: "v1.41.0", Hosts: 12}},
		}}}},
	}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	var all strings.Builder
	for _, args := range []string{"status", "status 01M7Z2G90XTT", "history", "apps list"} {
		shown := onTerminal(t, cl, 80, strings.Fields(args)...)
		all.WriteString("$ dctl " + args + "\n" + shown)
		for l := range strings.Lines(shown) {
			if n := ansi.StringWidth(strings.TrimRight(l, "\n")); n > 80 {
				t.Errorf("%s: %d columns: %s", args, n, l)
			}
		}
	}
	golden(t, "narrow.golden", all.String())
	if got := cl.call("history"); !strings.Contains(got.out, "\n  "+reason+"\n") {
		t.Errorf("in a file: %s", got.out)
	}
}

// onTerminal is what a command writes to a terminal of so many columns; it must
// fit in the terminal's own buffer of 4 KiB.
func onTerminal(t *testing.T, cl *cluster, columns int, args ...string) string {
	t.Helper()
	ours, tty, err := pty.Open()
	must(t, err)
	defer ours.Close()
	must(t, pty.Setsize(ours, &pty.Winsize{Cols: uint16(columns), Rows: 24}))
	got := cl.callWith(t.Context(), func(c *cli) { c.out = tty }, args...)
	must(t, tty.Close())
	if got.code != 0 {
		t.Fatalf("%v: %+v", args, got)
	}
	text, _ := io.ReadAll(ours) // EIO: the other side is closed
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

func TestBesides(t *testing.T) {
	for second, want := range map[string]string{
		"10.0.1.17:7102": ":7102", "10.0.1.18:7102": "10.0.1.18:7102", "": "", "c1": "c1",
	} {
		if got := besides("10.0.1.17:7100", second); got != want {
			t.Errorf("%q beside 10.0.1.17:7100 is %q, want %q", second, got, want)
		}
	}
}
