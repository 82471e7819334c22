package state

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/groundswell/groundswell/deploy"
)

// TestRestartsLeaveWindowsAsTheyAre: a replica that was restarted from a snapshot,
// wherever in the log that was, finds the windows that one finds which never was.
// Else a cluster would throw out whoever is restarted.
func TestRestartsLeaveWindowsAsTheyAre(t *testing.T) {
	compared := 0
	for level := 1; level <= deploy.RulesKnown; level++ {
		for _, g := range readGolden(t, fmt.Sprintf("testdata/rules%d.log.gz", level)) {
			const restarts = 12
			steady := New(deploy.RulesKnown)
			var restarted []*Store
			sums := map[uint64]uint64{}
			for i, data := range g.Entries {
				l := &raft.Log{Index: uint64(i + 1), Data: data}
				steady.Apply(l)
				for _, s := range restarted {
					s.Apply(l)
				}
				if i%max(1, len(g.Entries)/restarts) == 7 {
					s := New(deploy.RulesKnown)
					if err := s.Restore(io.NopCloser(bytes.NewReader(encode(t, steady)))); err != nil {
						t.Fatal(err)
					}
					restarted = append(restarted, s)
				}
				for _, w := range steady.Windows() {
					sums[w.Number] = w.Sum
				}
				for n, s := range restarted {
					for _, w := range s.Windows() {
						if sum, known := sums[w.Number]; known && sum != w.Sum {
							t.Fatalf("%s: window %d of the replica that was restarted as %d. is another one", g.Name,
								w.Number, n)
						} else if known {
							compared++
						}
					}
				}
			}
		}
	}
	if compared < 1000 {
		t.Errorf("only %d windows were compared", compared)
	}
}
