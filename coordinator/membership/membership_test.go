package membership

import (
	"strings"
	"testing"
	"time"
)

// servers reads "c1 c2! c3?": a voter, one that does not answer, a learner.
func servers(text string) []Server {
	var out []Server
	for f := range strings.FieldsSeq(text) {
		s := Server{
			Name: strings.TrimRight(f, "!?"), Voter: !strings.Contains(f, "?"),
			Alive: !strings.Contains(f, "!"),
		}
		if !s.Alive {
			s.Silent = time.Hour
		}
		out = append(out, s)
	}
	return out
}

func TestMayRemove(t *testing.T) {
	for _, c := range []struct{ servers, name, why string }{
		{"c1 c2 c3", "c3", ""},
		{"c1 c2 c3!", "c3", ""},
		{"c1 c2 c3!", "c2", "without c2 there are 2 voters, 2 must answer and 1 do (missing: c3)"},
		{"c1 c2", "c2", ""},
		{"c1 c2!", "c2", ""},
		{"c1 c2!", "c1", "without c1 there are 1 voters, 1 must answer and 0 do"},
		{"c1", "c1", "only voter"},
		{"c1 c2?", "c1", "only voter"},
		{"c1 c2 c3 c4! c5!", "c4", ""},
		{"c1 c2 c3 c4! c5!", "c1", "nothing could be decided"},
		{"c1 c2!? c3", "c2", ""},
		{"c1 c2", "c9", ""},
	} {
		err := MayRemove(servers(c.servers), c.name)
		if (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s without %s: %v, want %q", c.servers, c.name, err, c.why)
		}
	}
}

func TestNoLeader(t *testing.T) {
	for text, want := range map[string]string{
		"c1 c2! c3!": "of 3 voters c2, c3 do not answer; 2 must be there and 1 are (c1)",
		"c1 c2!":     "of 2 voters c2 does not answer; 2 must be there and 1 are (c1)",
		"c1 c2 c3!":  "2 suffice and are there",
		"c1 c2":      "all 2 voters answer",
		"c1?":        "has not joined",
	} {
		if got := NoLeader(servers(text)); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %q", text, got, want)
		}
	}
}

func TestLongDead(t *testing.T) {
	for text, want := range map[string]string{
		"c1 c2 c3 c4!": "c4", "c1 c2 c3!": "", "c1 c2 c3 c4! c5!": "", "c1 c2 c3 c4": "", "c1 c2 c3 c4!?": "",
	} {
		if got, ok := LongDead(servers(text), time.Hour); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v", text, got, ok)
		}
		if _, ok := LongDead(servers(text), time.Hour+1); ok {
			t.Errorf("%s: removed too early", text)
		}
		if _, ok := LongDead(servers(text), 0); ok {
			t.Errorf("%s: removed although that is off", text)
		}
	}
}

func TestCaughtUp(t *testing.T) {
	if !CaughtUp(900, 1000) || CaughtUp(899, 1000) || !CaughtUp(5, 3) {
		t.Error("a learner lacks at most 100 entries")
	}
}
