package e2e

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestTheCAIsReplacedUnderKills ends a coordinator within a moment of each step of
// a replacement, the leader as often as others, and starts it again: each ends with
// one CA, and with every host connected by a certificate of it.
func TestTheCAIsReplacedUnderKills(t *testing.T) {
	long(t)
	const rounds = 4
	r := rand.New(rand.NewPCG(1, 2))
	w := start(t, 3, 4)
	w.app(`{capacity: {minHealthy: 50%}, waves: [{name: all, select: remainder}]}`)
	w.push("v1")
	kill := func() {
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
		all := w.fleet.Coordinators()
		victim := all[r.IntN(len(all))]
		if leader, err := w.fleet.Leader(t.Context()); err == nil && r.IntN(2) == 0 {
			victim = leader
		}
		must(t, w.fleet.KillCoordinator(victim))
		time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
		must(t, w.fleet.RestartCoordinator(t.Context(), victim))
	}
	status := func() (s struct {
		Issues, Next string
		Behind       []string
	},
	) {
		out, code := w.dctl("cluster", "ca", "status", "-o", "json")
		if code != 0 || json.Unmarshal([]byte(out), &s) != nil {
			s.Next = "unknown"
		}
		return s
	}
	before := status().Issues
	for range rounds {
		w.must("cluster", "ca", "rotate", "-m", "drill")
		kill()
		w.until(time.Minute, "the new CA issues, and nobody is behind", func() bool {
			s := status()
			return s.Next == s.Issues && s.Issues != before && len(s.Behind) == 0
		})
		// hosts whose coordinator was killed may be on their way back, and are behind then
		w.until(time.Minute, "the old CA is retired", func() bool {
			out, code := w.dctl("cluster", "ca", "retire", "-y")
			return code == 0 || strings.Contains(out, "no CA but the issuing one")
		})
		kill()
		w.until(time.Minute, "one CA is trusted", func() bool { s := status(); return s.Next == "" && s.Issues != before })
		before = status().Issues
		must(t, w.fleet.Reconnect())
		// a leader that was just started learns from gossip who is there: that takes its time
		w.until(2*time.Minute, "every host is connected", func() bool {
			return w.fleet.WaitConnected(t.Context(), len(w.fleet.Hosts)) == nil
		})
	}
	w.must("deploy", "--app", "hello", "--rev", "v1")
	w.all("v1")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
