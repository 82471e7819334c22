package deploy_test

import (
	"encoding/json"
	"testing"

	"github.com/groundswell/groundswell/deploy"
)

// second is a build that knows a second level, made for this test: from there
// on a freeze without a reason is refused (a guard), and one with a reason holds
// the whole fleet whatever scope it names (a meaning).
func second(s *deploy.State, e deploy.Event) (bool, error) {
	f, ok := e.(deploy.FreezeSet)
	if !ok || s.Rules < 2 {
		return false, nil
	}
	if f.Request.Reason == "" {
		return true, &deploy.Refusal{Reason: deploy.Invalid, Text: "a freeze needs a reason"}
	}
	s.Freezes = append(s.Freezes, deploy.Freeze{Actor: f.Request.Actor, Reason: f.Request.Reason})
	return true, nil
}

// TestTwoLevelsOfRules: a replica of the newer build, one of the older build
// that is upgraded in the middle, and one that replays the whole log after its
// upgrade agree, on both sides of the entry that raises the level.
func TestTwoLevelsOfRules(t *testing.T) {
	freeze := func(id, app, reason string) deploy.Event {
		return deploy.FreezeSet{Request: deploy.Request{ID: id, Actor: "ann", Reason: reason}, App: app}
	}
	entries := []deploy.Event{
		freeze("1", "www", ""), freeze("2", "db", "incident"),
		deploy.RulesRaised{Level: 3}, // no step is left out
		deploy.RulesRaised{Level: 2},
		freeze("3", "www", ""), freeze("4", "db", "incident"),
		deploy.RulesRaised{Level: 2}, // a repetition
	}
	wants := []bool{true, true, false, true, false, true, false}
	newer, upgraded := deploy.NewState(), deploy.NewState()
	newer.Amend = second
	for i, e := range entries {
		entry := deploy.Entry{Rules: newer.Rules, Events: []deploy.Event{e}}
		if i == 3 { // the older replica is upgraded before the level is raised
			upgraded = restored(t, upgraded)
			upgraded.Amend = second
		}
		a, b := newer.ApplyEntry(uint64(i+1), entry)[0], upgraded.ApplyEntry(uint64(i+1), entry)[0]
		if (a == nil) != wants[i] || (a == nil) != (b == nil) {
			t.Errorf("%s: the newer build says %v, the upgraded one %v", deploy.Describe(e), a, b)
		}
	}
	replayed := deploy.NewState()
	replayed.Amend = second
	for i, e := range entries {
		replayed.ApplyEntry(uint64(i+1), deploy.Entry{Rules: 1, Events: []deploy.Event{e}})
	}
	want := text(t, newer)
	if got := text(t, upgraded); got != want {
		t.Errorf("the upgraded replica has\n%s\nnot\n%s", got, want)
	}
	if got := text(t, replayed); got != want {
		t.Errorf("the replica that replays has\n%s\nnot\n%s", got, want)
	}
	if len(newer.Freezes) != 3 || newer.Freezes[0].App != "www" || newer.Freezes[2].App != "" {
		t.Errorf("freezes are %+v: each by the rules of its time", newer.Freezes)
	}
}

func text(t *testing.T, s *deploy.State) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func restored(t *testing.T, s *deploy.State) *deploy.State {
	t.Helper()
	back := &deploy.State{}
	if err := json.Unmarshal([]byte(text(t, s)), back); err != nil {
		t.Fatal(err)
	}
	back.Rebuild()
	return back
}
