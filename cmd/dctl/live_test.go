package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]")

// press types a key and waits for what comes of it.
func press(t *testing.T, v *liveView, key rune) (answer, error) {
	t.Helper()
	err := v.key(t.Context(), key)
	if v.said != "…" {
		return answer{}, err
	}
	a := <-v.answers
	v.said = a.said
	return a, err
}

func TestLiveView(t *testing.T) {
	f := &fake{logged: []*controlv1.LogsResponse{{
		Host: "web1", Event: "ApplicationStart",
		Data: []byte("hello\x1b[2J\n"),
	}}}
	cl := newCluster(t)
	cl.context(cl.serve(f))
	cli := newCLI(nil, &bytes.Buffer{}, &bytes.Buffer{})
	cli.getenv = func(name string) (string, bool) { return cl.path, name == "DCTL_CONFIG" }
	cli.flags.timeout = 1e9
	client, err := cli.connect()
	must(t, err)
	defer client.close()
	v := &liveView{
		cl: client, t: target{id: "01D"}, s: newStory(false), width: 100, height: 40, plain: true,
		answers: make(chan answer),
	}
	picture := func() string { return strings.Join(v.lines(), "\n") + "\n" }
	d := state(4, "running", func(d *controlv1.Deployment) {
		d.Waves = []*controlv1.Wave{
			{Name: "one-box", Status: "sealed", Total: 1, Settled: 1, BakeMs: 60_000},
			{Name: "zones/a1", Zone: "a1", Status: "deploying", Total: 4, Settled: 2, Granted: 1, Failed: 1},
			{Name: "zones/b1", Zone: "b1", Status: "pending", Total: 4},
		}
		for i := range 10 {
			d.Tasks = append(d.Tasks, &controlv1.Task{
				Name: fmt.Sprintf("web%d", i), Zone: "a1", Status: "granted",
				Event: "ValidateService", Script: "check.sh",
			})
		}
		d.Tasks[0].Status, d.Tasks[0].Failure = "failed", &controlv1.Failure{
			Event:  "ValidateService",
			Script: "check.sh", Exit: "exit status 1",
		}
	})
	v.take(update{deployment: d})
	golden(t, "live.golden", picture())
	if strings.Contains(picture(), "\x1b") {
		t.Errorf("colours although there should be none: %q", picture())
	}
	press(t, v, 'p')
	press(t, v, 'a')
	if !strings.Contains(picture(), "[r]ollback every host") {
		t.Error("does not ask before it aborts")
	}
	press(t, v, 'x')
	press(t, v, 'a')
	press(t, v, 'r')
	if got := strings.Join(f.acts, ","); got != "01D pause ,01D abort-rollback " {
		t.Errorf("acts: %s", got)
	}
	if got, _ := press(t, v, 'l'); !strings.Contains(got.above, `hello\x1b[2J`) {
		t.Errorf("logs: %+v", got)
	}
	if _, err := press(t, v, 'q'); err != errDetached {
		t.Errorf("q: %v", err)
	}
	v.done = true
	if strings.Contains(picture(), "[q]") {
		t.Error("the last picture still offers keys")
	}
}

// TestLiveProgram runs the view on something that is no terminal, to its end.
func TestLiveProgram(t *testing.T) {
	cl := newCluster(t)
	cl.context(cl.serve(&fake{watch: ends(state(9, "rolled_back"))}))
	got := cl.callWith(t.Context(), func(c *cli) { c.inTTY, c.outTTY = true, true }, "deploy", "--app", "www", "--rev",
		"9be01d7")
	if got.code != 5 || !strings.Contains(got.out, "FAILED and rolled back") ||
		strings.Contains(got.out, "\x1b[?1049h") {
		t.Errorf("exit %d: %q %q", got.code, got.out, got.err)
	}
}

func TestManyWavesFit(t *testing.T) {
	var waves []*controlv1.Wave
	for i := range 40 {
		status := "sealed"
		if i > 20 {
			status = "pending"
		}
		waves = append(waves, &controlv1.Wave{Name: fmt.Sprint(i), Status: status})
	}
	if from, to := window(waves, 14); from != 19 || to != 31 {
		t.Errorf("window %d to %d", from, to)
	}
	if from, to := window(waves[:3], 3); from != 0 || to != 3 {
		t.Errorf("window %d to %d", from, to)
	}
}
