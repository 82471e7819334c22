package watch

import (
	"fmt"
	"strings"
	"testing"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

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
	c := &cluster{logged: []*controlv1.LogsResponse{{
		Host: "web1", Event: "ApplicationStart",
		Data: []byte("hello\x1b[2J\n"),
	}}}
	v := &liveView{
		cluster: c, o: Options{Deployment: "01D"}, s: newProgress(false), width: 100, height: 40, plain: true,
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
	v.take(Update{Deployment: d})
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
	if got := strings.Join(c.acts, ","); got != "01D pause,01D abort-rollback" {
		t.Errorf("acts: %s", got)
	}
	if got, _ := press(t, v, 'l'); !strings.Contains(got.above, `hello\x1b[2J`) {
		t.Errorf("logs: %+v", got)
	}
	if _, err := press(t, v, 'q'); err != ErrDetached {
		t.Errorf("q: %v", err)
	}
	v.done = true
	if strings.Contains(picture(), "[q]") {
		t.Error("the last picture still offers keys")
	}
}

// A rollback that was asked for has done its work when hosts are back; one that
// could not go back has not.
func TestARollbackThatWorkedIsNoFailure(t *testing.T) {
	back := func(reverted, failed int32) *controlv1.Deployment {
		return state(9, "succeeded", func(d *controlv1.Deployment) {
			d.Inverse, d.Terminal, d.Cause, d.Broken = true, true, "rolled back to 4f2a91c, as asked by ann", failed
			d.Waves = []*controlv1.Wave{{Name: "rollback", Status: "reverted", Total: 2, Reverted: reverted, Failed: failed}}
		})
	}
	got := strings.Join(Picture(back(2, 0), 80, 24, true), "\n")
	if !strings.Contains(got, " ✔ rollback           2/2") || strings.Contains(got, "✘") || strings.Contains(got, "░") {
		t.Error(got)
	}
	if got := strings.Join(Picture(back(1, 1), 80, 24, true), "\n"); !strings.Contains(got, " ✘ rollback           1/2") {
		t.Error(got)
	}
	if got := SettledText(back(1, 0)); got != "succeeded, 1/2 hosts back" {
		t.Error(got)
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
