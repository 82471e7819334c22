// Package membership decides who may be promoted to a voter and who may be
// removed, so that a cluster keeps its quorum. It is pure policy.
package membership

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Server is one coordinator of the raft cluster.
type Server struct {
	Name   string
	Voter  bool
	Alive  bool          // it answers now
	Silent time.Duration // since it answered last
}

// Quorum is how many of so many voters must be there.
func Quorum(voters int) int { return voters/2 + 1 }

// voters splits the voters into those that answer and those that do not.
func voters(servers []Server) (alive, missing []string) {
	for _, s := range servers {
		switch {
		case !s.Voter:
		case s.Alive:
			alive = append(alive, s.Name)
		default:
			missing = append(missing, s.Name)
		}
	}
	return alive, missing
}

// NoLeader says why there may be no leader: which voters are missing, and how
// many must be there.
func NoLeader(servers []Server) string {
	alive, missing := voters(servers)
	n := len(alive) + len(missing)
	switch {
	case n == 0:
		return "this coordinator knows no voter yet; it has not joined"
	case len(missing) == 0:
		return fmt.Sprintf("all %d voters answer, so one will lead soon", n)
	}
	text := fmt.Sprintf("of %d voters %s do not answer", n, strings.Join(missing, ", "))
	if len(missing) == 1 {
		text = fmt.Sprintf("of %d voters %s does not answer", n, missing[0])
	}
	if have, need := len(alive), Quorum(n); have < need {
		return fmt.Sprintf("%s; %d must be there and %d are (%s): start the missing ones",
			text, need, have, strings.Join(alive, ", "))
	}
	return fmt.Sprintf("%s, but %d suffice and are there, so one will lead soon", text, Quorum(n))
}

// CaughtUp reports whether a learner that has applied one index can vote in a
// log that is at another: it lacks no more than arrives in a moment.
func CaughtUp(applied, leader uint64) bool { return applied+moment >= leader }

// moment is how many entries a voter may lack: some tenth of a second of a busy
// log.
const moment = 100

// MayRemove says why a coordinator must not be removed: because those that stay
// and answer are no quorum. Who is no voter may always go.
func MayRemove(servers []Server, name string) error {
	i := slices.IndexFunc(servers, func(s Server) bool { return s.Name == name })
	if i < 0 || !servers[i].Voter {
		return nil
	}
	rest := slices.Delete(slices.Clone(servers), i, i+1)
	alive, missing := voters(rest)
	if n := len(alive) + len(missing); n == 0 {
		return fmt.Errorf("%s is the only voter: without it there is no cluster", name)
	} else if len(alive) < Quorum(n) {
		return fmt.Errorf("without %s there are %d voters, %d must answer and %d do (missing: %s): "+
			"nothing could be decided any more",
			name, n, Quorum(n), len(alive), strings.Join(missing, ", "))
	}
	return nil
}

// LongDead returns the voter that may be removed because it has been silent for
// so long that nobody waits for it: one at a time, only while all others
// answer, and never so that fewer than three voters stay.
func LongDead(servers []Server, after time.Duration) (name string, ok bool) {
	alive, missing := voters(servers)
	if after <= 0 || len(missing) != 1 || len(alive) < 3 {
		return "", false
	}
	i := slices.IndexFunc(servers, func(s Server) bool { return s.Name == missing[0] })
	return missing[0], servers[i].Silent >= after
}
