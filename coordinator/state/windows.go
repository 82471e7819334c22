package state

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"

	"github.com/groundswell/groundswell/deploy"
)

// Replicas that applied the same entries have the same state; windows find one that
// has not. A window is WindowEntries indexes of the log, and its sum is of the
// entries in it, what they were answered, and what each touched afterwards: hosts
// whole, of deployments and waves how they stand. So it costs what changed, and
// nothing that grows with the fleet. Sums are not chained: a replica has those of
// the windows that it applied from their beginning since it started, under the
// encoding of its own build.
const (
	// WindowEntries is how many indexes a window has.
	WindowEntries = 64
	windowsKept   = 64
	mostHosts     = 256 // of an entry; a millisecond
)

// Window is the sum of one window, by its number.
type Window struct{ Number, Sum uint64 }

// windows are made on the goroutine that applies, under the store's lock.
type windows struct {
	sum    hash.Hash
	number uint64 // of the one under way
	whole  bool   // it was applied from its beginning
	begun  bool   // something was applied before
	done   []Window
}

// restored forgets what is under way: the state jumped.
func (w *windows) restored() { w.begun, w.sum = false, nil }

// add counts an entry that was applied.
func (w *windows) add(index uint64, data []byte, e Entry, out Applied, s *deploy.State) {
	if n := index / WindowEntries; w.sum == nil || n != w.number {
		if w.sum != nil && w.whole {
			w.done = append(w.done, Window{w.number, binary.BigEndian.Uint64(w.sum.Sum(nil))})
			w.done = w.done[max(0, len(w.done)-windowsKept):]
		}
		w.whole, w.begun = w.begun, true
		w.number, w.sum = n, sha256.New()
	}
	fmt.Fprintf(w.sum, "%d %d %d\n", index, s.Now, s.Rules)
	w.sum.Write(data)
	for _, err := range out.Refusals {
		fmt.Fprintf(w.sum, "%v\n", err)
	}
	for _, id := range hostsOf(e, s) {
		text, err := json.Marshal(s.Hosts[id])
		fmt.Fprintf(w.sum, "%s %s %v\n", id, text, err)
	}
	for _, id := range s.TouchedDeployments() {
		d := s.Deployments[id]
		if d == nil {
			continue
		}
		fmt.Fprintf(w.sum, "%s %s %s %d %q\n", id, d.Status, d.Cause, d.Failures, d.Suspect)
		for i := range d.Waves {
			fmt.Fprintf(w.sum, "%s %s\n", d.Waves[i].Name, d.Waves[i].Status)
		}
	}
}

// hostsOf names the hosts that an entry touched, moved or heard of, some more than
// once: all of a few, and mostHosts of many, as the start of a wave touches all of
// it and must not delay the next entry.
func hostsOf(e Entry, s *deploy.State) []string {
	moved, _, _ := s.MovedSince(s.Index - 1)
	all := append(moved, s.TouchedHosts()...)
	for _, ev := range e.Events {
		if r, ok := ev.(deploy.TargetsReported); ok {
			for _, item := range r.Items {
				all = append(all, item.Host)
			}
		}
	}
	if len(all) <= mostHosts {
		return all
	}
	some := make([]string, mostHosts)
	for i := range some {
		some[i] = all[i*len(all)/mostHosts]
	}
	return some
}

// Windows returns the newest windows that are over, oldest first.
func (s *Store) Windows() []Window {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]Window(nil), s.windows.done...)
}

// Differs compares a replica's windows with those of the other voters. It returns
// the first window of which a majority of so many voters has another sum, all the
// same one; and whether there is a window that others have otherwise at all.
func Differs(mine []Window, others [][]Window, voters int) (number uint64, outvoted, otherwise bool) {
	for _, m := range mine {
		votes := map[uint64]int{}
		for _, o := range others {
			for _, w := range o {
				if w.Number == m.Number && w.Sum != m.Sum {
					votes[w.Sum]++
					otherwise = true
				}
			}
		}
		for _, n := range votes {
			if n > voters/2 {
				return m.Number, true, true
			}
		}
	}
	return 0, false, otherwise
}
